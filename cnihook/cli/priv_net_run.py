# SPDX-License-Identifier: Apache-2.0
"""
The command `priv-net-run`: run a command in a network namespace of its own, on networks from CNI.

Three processes.  The one that was called attaches the networks, stands in for the command while that
runs, and takes the networks down after it.  The command's process is made first, before the one that was
called changes anything about itself, and waits in its network namespace.  The guardian sleeps, in a session
of its own, until the one that was called has ended without taking anything down, by SIGKILL; then it does.

What a plain run has no use for is in modules of its own, imported only where it is asked for: priv_user,
priv_extras, rootless.
"""

import _signal
import gc
import os
import sys

from cnihook.cli.priv_command import CommandProcess
from cnihook.cli.priv_options import Options, Refused
from cnihook.lean import command, onefile, signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cnihook.attach import Attachment, Container
    from cnihook.cli.priv_command import User
    from cnihook.cli.priv_extras import Extras
    from cnihook.log import Log
    from cnihook.runtime.wants import Wants
    from cnihook.settings import Settings

_FAILED = 125
_SYSTEM_FOLDERS = "/usr/sbin:/sbin:/usr/bin:/bin"  # where plugins find iptables and the like


def main(umask: "int | None" = None) -> None:
    """`umask`: that of the caller, where it has been changed already."""
    command.restrict_umask(umask)
    status = run(sys.argv[1:])
    onefile.keep()
    os._exit(status)  # nothing is buffered; to take down a whole interpreter costs 2 ms


def run(argv: "list[str]") -> int:
    """Returns the exit status."""
    gc.disable()  # what makes garbage is over when the command begins; until then it costs 1 ms
    onefile.use("priv-net-run")
    try:
        signals.take_back_pythons()
        options = Options(argv)
        if options.answer:
            os.write(1, options.answer.encode())
            return 0
        return _delete(options) if options.delete else _run(options)
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


def _complain(text: str) -> None:
    from cnihook.lean.words import one_line

    try:
        os.write(2, f"priv-net-run: {one_line(text)}\n".encode(errors="replace"))
    except OSError:
        pass


def _run(options: Options) -> int:
    variables = command.environment()
    user = _user(options, variables)
    variables.update(options.variables)
    # First, so that a typing error costs nothing.
    program = command.find(options.command[0], variables.get("PATH", os.defpath))
    outside = None
    if os.geteuid():
        from cnihook.cli import rootless

        rootless.check(options)
    extras = _extras(options, variables)  # in between, for its files are the caller's to open
    if os.geteuid():
        user = None if options.root else rootless.Caller()
        outside = rootless.Outside()
    joined = extras.joined if extras else None
    process = CommandProcess(program, options.command, variables, _complain, user=user, namespace=joined)
    try:
        if outside:
            outside.hide_state()
        signals.raise_on_interrupts()
        status = _on_networks(options, process, extras)
    finally:
        process.end()
        if outside:
            outside.end()
    process.job.end_as_it_did()
    return status


def _user(options: Options, variables: "dict[str, str]") -> "User | None":
    """Whom the command runs as, if not as this process; `variables` get to know him."""
    if options.root or os.geteuid() or not (options.user or "SUDO_UID" in variables):
        return None
    from cnihook.cli import priv_user

    user = priv_user.parse(options.user) if options.user else priv_user.who_called_sudo(variables)
    if user:
        variables.update(user.variables)
    return user


def _extras(options: Options, variables: "dict[str, str]") -> "Extras | None":
    if not (options.netns or options.timeout or options.pcap or options.json):
        return None
    from cnihook.cli.priv_extras import Extras

    return Extras(options, variables)


def _on_networks(options: Options, process: CommandProcess, extras: "Extras | None") -> int:
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
    if extras and extras.joined and wanted.networks is None:
        wanted.networks = []  # those that are there
    chosen = attach.select(wanted, settings, _complain)
    if not process.is_ready():
        return _FAILED
    kept = extras.kept if extras else ""
    container = attach.Container(
        kept or f"priv-{os.urandom(6).hex()}",
        NetNS.open(f"/proc/{process.pid}/ns/net"),
        0 if kept else os.getpid(),  # what is kept has no process whose end would be its own
        wanted.hostname,
    )
    if extras:
        extras.begin(container)
    log = Log(container.id)
    guardian = _Guardian(container, settings, log, process.pidfd)
    stays = False
    status = None
    try:
        # A namespace that somebody else has made is left as it is, down to its lo.
        joined = extras is not None and extras.joined
        attached = attach.up(container, chosen, settings, log) if chosen or not joined else []
        named = [attachment.result.dns for attachment in attached if attachment.result.dns]
        limit = None
        if extras:
            named += extras.servers()
            limit = extras.start(container, process.pid, attached)
        if kept:
            stays = True
            guardian.dismiss()
        servers = resolv_conf.text(named, wanted.dns) or resolv_conf.instead_of_stub()
        hosts = _hosts(container, wanted, attached, log)
        status = process.run(servers, hosts, wanted.hostname, limit=limit)
        if extras:
            status = extras.status(status)
    finally:
        signals.ignore_interrupts()
        problem = extras.end(status) if extras else ""
        if not stays:
            problem = _take_down(container, settings, log) or problem
            guardian.dismiss()
    if problem:  # else an error is on its way that tells more
        _complain(problem)
    return status


def _delete(options: Options) -> int:
    if os.geteuid():
        raise Refused("only root can do that; try `sudo priv-net-run ...`")
    from cnihook.cli import priv_netns

    signals.raise_on_interrupts()
    settings = _settings(options)
    os.environ["PATH"] = f"{os.environ.get('PATH', '')}:{_SYSTEM_FOLDERS}".lstrip(":")
    priv_netns.delete(options.netns, settings)
    return 0


def _hosts(container: "Container", wanted: "Wants", attached: "list[Attachment]", log: "Log") -> str:
    """The text of the command's /etc/hosts; empty where the host's will do.

    It is not told of containers that come while it runs; they are told of it, if it has a name.
    """
    if not (wanted.hosts or wanted.hostname) and not any(
        wanted.aliases_on(one.network.name) or os.path.isdir(f"/run/cnihook/names/{one.network.name}")
        for one in attached
    ):
        return ""
    from cnihook.oci import loopback_names, names, resolv_conf

    called = names.host_names(wanted.hostname)
    results = [(one.record, one.result) for one in attached]
    try:
        lines = names.join(container.id, None, called, wanted, results, log)
    except OSError as error:
        _complain(f"the names on its networks are not known: {error}")
        return ""
    old = resolv_conf.read("/etc/hosts")
    if any(one.result.ips for one in attached):
        own = [*called, *(alias for one in attached for alias in wanted.aliases_on(one.network.name))]
        old = loopback_names.hide(old, own, container.id)
    return old + lines if lines else ""


def _settings(options: Options) -> "Settings":
    from cnihook.settings import Settings

    settings = Settings.from_environment(os.environ)
    settings.conf_folder = os.path.abspath(options.conf_folder or settings.conf_folder)
    folders = options.plugin_path or settings.plugin_path
    settings.plugin_path = [os.path.abspath(folder) for folder in folders if folder] if folders else None
    return settings


def _take_down(container: "Container", settings: "Settings", log: "Log") -> str:
    """Detach from all networks, however far the attaching came.  Returns what went wrong, in words."""
    from cnihook import detach
    from cnihook.lean.words import describe
    from cnihook.runtime import netns_names

    problem = ""
    try:
        detach.down(container.id, settings, log)
        # All that is left, maybe, of an attaching whose own undoing was interrupted.
        netns_names.unbind(container.id, container.netns.identity)
    except Exception as error:
        problem = describe(error)
    log.discard()
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
            from cnihook.lean import apart  # the caller goes on meanwhile

            apart.leave_caller(end, command, container.netns.fd)
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
