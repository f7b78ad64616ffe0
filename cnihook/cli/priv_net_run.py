# SPDX-License-Identifier: Apache-2.0
"""
The command `priv-net-run`: run a command in a network namespace of its own, on networks from CNI.

Three processes.  The one that was called attaches the networks, stands in for the command while that
runs, and takes the networks down after it.  The command's process is made first, before the one that was
called changes anything about itself, and waits in its network namespace.  The guardian sleeps, in a session
of its own, until the one that was called has ended without taking anything down, by SIGKILL; then it does.
"""

import _signal
import gc
import os
import sys

from cnihook.lean import command, signals
from cnihook.lean.job import Job
from cnihook.linux import libc, mounts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from cnihook.attach import Attachment, Container, Settings
    from cnihook.log import Log
    from cnihook.runtime.wants import Wants

HELP = """\
usage: priv-net-run [OPTION]... [--] COMMAND...

Run a command in a private network namespace, attached to networks from CNI.  It has the terminal, the
signals, the files and the environment that it would have without.  When it has ended, nothing of its
network is left.

  --network NAME[:IFNAME]   a network to attach, repeatable (default: all there are, as eth0, eth1, ...)
  --conf-dir DIR            network configurations (default: $NETCONFPATH, else /etc/cni/net.d)
  --cni-path DIR[:DIR]...   folders whose plugins go before the built-in ones (default: $CNI_PATH)
  --help, --version

Where no network is configured, a built-in one serves.  Exit status: the command's own; 128+n if signal n
ended it; 125 if it got no network, 126 if it cannot be executed, 127 if there is no such command.

  priv-net-run ip addr
  priv-net-run --network mynet --network storage:data0 sh
"""

# Those of oci.wants, which is imported while the command's process makes its namespace; and where to look.
_WITH_VALUE = (
    "--network", "--ip", "--ip6", "--mac-address", "--publish", "-p", "--bandwidth", "--dns", "--dns-search",
    "--dns-option", "--hostname", "--add-host", "--network-alias", "--route", "--conf-dir", "--cni-path",
)  # fmt: skip
_SWITCHES = ("--no-default-route",)
_FAILED = 125
_READY = b"."  # from the command's process: its network namespace is there
_GO = b"go"  # to it; then the texts of its resolv.conf and hosts, empty for the host's, and its host name
_SYSTEM_FOLDERS = "/usr/sbin:/sbin:/usr/bin:/bin"  # where plugins find iptables and the like


class Refused(Exception):
    """What was asked for cannot be done."""


def main() -> None:
    os._exit(run(sys.argv[1:]))  # nothing is buffered; to take down a whole interpreter costs 2 ms


def run(argv: "list[str]") -> int:
    """Returns the exit status."""
    gc.disable()  # what makes garbage is over when the command begins; until then it costs 1 ms
    try:
        signals.take_back_pythons()
        options = Options(argv)
        if options.answer:
            os.write(1, options.answer.encode())
            return 0
        return _run(options)
    except command.NotExecutable as error:
        _complain(str(error))
        return error.status
    except signals.Interrupted as error:
        _complain(str(error))
        return 128 + error.signum
    except Exception as error:
        from cnihook.lean.words import describe

        _complain(describe(error))
        return _FAILED


class Options:
    """The words of the command line.  Those from the first that is no option on are the command."""

    def __init__(self, argv: "list[str]") -> None:
        self.answer = ""  # to --help or --version
        self.wants: list[tuple[str, str]] = []  # option and value, understood later
        self.conf_folder = ""
        self.plugin_path: list[str] | None = None
        pending = list(argv)
        while pending and pending[0].startswith("-"):
            option, equals, value = pending.pop(0).partition("=")
            if option == "--":
                break
            if option in ("--help", "-h"):
                self.answer = HELP
                return
            if option == "--version":
                from cnihook import __version__

                self.answer = f"priv-net-run {__version__}\n"
                return
            if option not in _WITH_VALUE + _SWITCHES:
                raise Refused(f"unknown option {option!r}; see `priv-net-run --help`")
            if not equals and option in _WITH_VALUE:
                if not pending:
                    raise Refused(f"{option} needs a value; see `priv-net-run --help`")
                value = pending.pop(0)
            if option not in ("--conf-dir", "--cni-path"):
                self.wants.append((option, value))
            elif option == "--conf-dir":
                self.conf_folder = value
            else:
                self.plugin_path = value.split(":")
        self.command = pending
        if not self.command:
            raise Refused("no command given; see `priv-net-run --help`")


def _complain(text: str) -> None:
    from cnihook.lean.words import one_line

    try:
        os.write(2, f"priv-net-run: {one_line(text)}\n".encode(errors="replace"))
    except OSError:
        pass


def _run(options: Options) -> int:
    variables = command.environment()
    # First, so that a typing error costs nothing.
    program = command.find(options.command[0], variables.get("PATH", os.defpath))
    if os.geteuid():
        raise Refused("only root can make network namespaces and connect them; try `sudo priv-net-run ...`")
    process = _CommandProcess(program, options.command, variables)
    try:
        signals.raise_on_interrupts()
        status = _on_networks(options, process)
    finally:
        process.end()
    process.job.end_as_it_did()
    return status


class _CommandProcess:
    """The process that becomes the command: in its own network namespace at once, then waiting for run()."""

    def __init__(self, program: str, argv: "list[str]", variables: "dict[str, str]") -> None:
        closed = _fill_standard_streams()
        self._ready, ready = os.pipe()
        go, self._go = os.pipe()
        self.pid = os.fork()
        if not self.pid:
            os.close(self._go)  # or it would not see our end
            _become(program, argv, variables, ready, go, closed)
        os.close(ready)
        os.close(go)
        self.pidfd = os.pidfd_open(self.pid)
        self.job = Job(self.pid)
        self._ended = False

    def is_ready(self) -> bool:
        """Wait until its namespace is there.  False: it has ended instead, and has said why."""
        return bool(os.read(self._ready, 1))

    def run(self, *view: str) -> int:
        """Let it become the command, and stand in for it until it has ended.  Returns the exit status."""
        self.job.begin()
        try:
            data = b"\0".join([_GO, *map(os.fsencode, view)])
            while data:
                data = data[os.write(self._go, data) :]
        except BrokenPipeError:
            pass  # it has ended, as its status will tell
        os.close(self._go)
        # Who reads what the command writes, or the other way round, shall not have to wait for our end too.
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        os.dup2(null, 0)
        os.dup2(null, 1)
        status = self.job.wait()
        self._ended = True
        return status

    def end(self) -> None:
        """Kill it, unless it has ended."""
        if not self._ended:
            os.kill(self.pid, signals.SIGKILL)
            os.waitpid(self.pid, 0)
            self._ended = True


def _fill_standard_streams() -> "list[int]":
    """Put /dev/null where stdin, stdout or stderr is closed: a file of ours would be taken for it."""
    closed = []
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            closed.append(os.open(os.devnull, os.O_RDWR))  # the lowest number that is free: this one
    return closed


def _become(
    program: str, argv: "list[str]", variables: "dict[str, str]", ready: int, go: int, closed: "list[int]"
) -> "NoReturn":
    """All that the command's process does before it is the command."""
    status = _FAILED
    try:
        libc.unshare(libc.CLONE_NEWNET)
        os.write(ready, _READY)
        said = b""
        while chunk := os.read(go, 1 << 16):
            said += chunk
        if said.startswith(_GO):  # else whoever was to say it has ended
            # Not before: the host's mounts, which this copies, have the new namespace's name by now.
            mounts.make_private()
            mounts.renew_sys()
            _set_names(*map(os.fsdecode, said.split(b"\0")[1:]))
            for fd in closed:
                os.close(fd)
            command.become(program, argv, variables)
    except command.NotExecutable as error:
        _complain(str(error))
        status = error.status
    except OSError as error:
        on = f" on {error.filename}" if error.filename else ""
        _complain(f"no namespaces for the command: {error.strerror}{on}")
    finally:
        os._exit(status)


def _set_names(resolv_conf: str, hosts: str, hostname: str) -> None:
    for path, text in (("/etc/resolv.conf", resolv_conf), ("/etc/hosts", hosts)):
        if text:
            try:
                mounts.replace_file(path, text)
            except OSError as error:
                _complain(f"the networks' names cannot be used: {path}: {error.strerror}")
    if hostname:
        from _socket import sethostname

        libc.unshare(libc.CLONE_NEWUTS)
        sethostname(hostname)


def _on_networks(options: Options, process: _CommandProcess) -> int:
    """Attach the networks, run the command, take them down whatever happens.  Returns the exit status."""
    # Imported while the command's process makes its namespace.
    from cnihook import attach
    from cnihook.linux.netns import NetNS
    from cnihook.log import Log
    from cnihook.oci import resolv_conf, wants
    from cnihook.runtime.wants import Wants

    settings = _settings(options)
    os.umask(0o022)
    os.chdir("/")
    os.environ["PATH"] = f"{os.environ.get('PATH', '')}:{_SYSTEM_FOLDERS}".lstrip(":")
    wanted = Wants()
    for option, value in options.wants:
        word = wants.word_of(option)
        assert word
        word.add(wanted, value)
    chosen = attach.select(wanted, settings, _complain)
    if not process.is_ready():
        return _FAILED
    container = attach.Container(
        f"priv-{os.urandom(6).hex()}", NetNS.open(f"/proc/{process.pid}/ns/net"), os.getpid()
    )
    log = Log(container.id)
    guardian = _Guardian(container, settings, log, process.pidfd)
    try:
        attached = attach.up(container, chosen, settings, log)
        named = [attachment.result.dns for attachment in attached if attachment.result.dns]
        servers = resolv_conf.text(named, wanted.dns) or resolv_conf.instead_of_stub()
        status = process.run(servers, _hosts(container, wanted, attached, log), wanted.hostname)
    finally:
        signals.ignore_interrupts()
        problem = _take_down(container, settings, log)
        guardian.dismiss()
    if problem:  # else an error is on its way that tells more
        _complain(problem)
    return status


def _hosts(container: "Container", wanted: "Wants", attached: "list[Attachment]", log: "Log") -> str:
    """The text of the command's /etc/hosts; empty where the host's will do.

    It is not told of containers that come while it runs; they are told of it, if it has a name.
    """
    if not (wanted.hosts or wanted.hostname) and not any(
        wanted.aliases_on(one.network.name) or os.path.isdir(f"/run/cnihook/names/{one.network.name}")
        for one in attached
    ):
        return ""
    from cnihook.oci import names, resolv_conf

    results = [(one.record, one.result) for one in attached]
    try:
        lines = names.join(container.id, None, names.host_names(wanted.hostname), wanted, results, log)
    except OSError as error:
        _complain(f"the names on its networks are not known: {error}")
        return ""
    return resolv_conf.read("/etc/hosts") + lines if lines else ""


def _settings(options: Options) -> "Settings":
    from cnihook.attach import Settings

    settings = Settings.from_environment(os.environ)
    settings.conf_folder = os.path.abspath(options.conf_folder or settings.conf_folder)
    folders = options.plugin_path or settings.plugin_path
    settings.plugin_path = [os.path.abspath(folder) for folder in folders if folder] if folders else None
    return settings


def _take_down(container: "Container", settings: "Settings", log: "Log") -> str:
    """Detach from all networks, however far the attaching came.  Returns what went wrong, in words."""
    from cnihook import attach
    from cnihook.lean.words import describe
    from cnihook.linux import netns

    problem = ""
    try:
        attach.down(container.id, settings, log)
        # All that is left, maybe, of an attaching whose own undoing was interrupted.
        netns.unbind(container.id, container.netns.identity)
    except Exception as error:
        problem = describe(error)
    log.close()
    return problem


class _Guardian:
    """A process that takes down the networks, and the command, once this one has been killed."""

    def __init__(self, container: "Container", settings: "Settings", log: "Log", command: int) -> None:
        end, self._held = os.pipe()
        # Plugins that are executables hold it too: whoever kills us leaves them at work for a moment.
        os.set_inheritable(self._held, True)
        self._pid = os.fork()
        if self._pid:
            os.close(end)
            return
        try:
            signals.ignore_interrupts()
            os.close(self._held)
            _let_go_of_all_but(end, command, container.netns.fd)
            os.read(end, 1)  # nobody writes: this is the end of the last who could
            try:
                _signal.pidfd_send_signal(command, signals.SIGKILL)
            except ProcessLookupError:
                pass
            _take_down(container, settings, log)
        finally:
            os._exit(0)

    def dismiss(self) -> None:
        os.kill(self._pid, signals.SIGKILL)
        os.waitpid(self._pid, 0)


def _let_go_of_all_but(*kept: int) -> None:
    """Leave the caller's session and terminal, and close the files that it gave us."""
    os.setsid()
    null = os.open(os.devnull, os.O_RDWR)
    for fd in range(3):
        os.dup2(null, fd)
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2 and int(name) not in kept:
            try:
                os.close(int(name))
            except OSError:
                pass  # the one by which the list was read
