# SPDX-License-Identifier: Apache-2.0
"""The process of the command that `priv-net-run` runs: a fork, until it executes the command."""

import os

from cnihook.cli.privnet.options import UsageError
from cnihook.linux import libc, mounts
from cnihook.process import command, signals, stdio
from cnihook.process.jobcontrol import Job

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn, Protocol

    from cnihook.cli.privnet.view import View
    from cnihook.linux.netns import NetNS
    from cnihook.process.jobcontrol import Deadline

    class User(Protocol):
        """The user of the command; see user and rootless."""

        def become(self) -> None: ...


_FAILED = 125
# Folders of the sockets by which programs ask nscd, systemd-resolved and Avahi for names.  Those of sssd,
# winbind and nslcd are not among them: they mainly answer for users.
_RESOLVERS = ("/run/nscd", "/run/systemd/resolve", "/run/avahi-daemon")
_READY = b"."  # from the command's process: it is in its network namespace
_GO = b"go"  # to it; then the texts of resolv.conf and hosts (empty: the host's file), and its host name


# Variables of systemd that name the process that they are for (sd_listen_fds(3), sd_watchdog_enabled(3)).
_FOR_PROCESS = ("LISTEN_PID", "WATCHDOG_PID", "SYSTEMD_EXEC_PID")


class CommandProcess:
    """The process that becomes the command.  It enters its network namespace at once, then waits for run().

    The namespace is a new one, or an existing one.  The command's user is the caller's, or another.
    """

    def __init__(
        self,
        program: str,
        argv: "list[str]",
        variables: "dict[str, str]",
        complain: "Callable[[str], None]",
        *,
        user: "User | None" = None,
        namespace: "NetNS | None" = None,
    ) -> None:
        self._program = program
        self._argv = argv
        self._variables = variables
        self._complain = complain
        self._user = user
        self._namespace = namespace
        closed = stdio.open_missing()
        self._ready, ready = os.pipe()
        go, self._go = os.pipe()
        self.pid = os.fork()
        if not self.pid:
            os.close(self._go)  # otherwise it would not notice the end of this process
            self._become(ready, go, closed)
        os.close(ready)
        os.close(go)
        self.pidfd = os.pidfd_open(self.pid)
        self.job = Job(self.pid)
        self._ended = False

    def is_ready(self) -> bool:
        """Wait until it is in its namespace.  Returns False if it has ended instead, with a message."""
        try:
            return bool(os.read(self._ready, 1))
        except OSError as error:
            raise OSError(error.errno, error.strerror, "pipe of the command's process") from None

    def run(
        self, resolv_conf: str = "", hosts: str = "", hostname: str = "", deadline: "Deadline | None" = None
    ) -> int:
        """Let it become the command, stand in for it until it has ended, and return the exit status."""
        self.job.begin()
        if view := _view(resolv_conf, hosts, f"/proc/{self.pid}/root"):
            self._watch(view)
        try:
            data = b"\0".join([_GO, *map(os.fsencode, (resolv_conf, hosts, hostname))])
            while data:
                data = data[os.write(self._go, data) :]
        except BrokenPipeError:
            pass  # it has ended; wait() returns its status
        os.close(self._go)
        # At the other end of its pipes, a program must not have to wait for the end of this process, too.
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        os.dup2(null, 0)
        os.dup2(null, 1)
        status = self.job.wait(deadline)
        self._ended = True
        return status

    def _watch(self, view: "View") -> None:
        from cnihook.cli.privnet.view import Watch

        try:
            self.job.on_change = Watch(view, self.pid, self._ready, self._complain).renew
        except OSError:
            pass  # no F_NOTIFY or no descriptors: the files are right until the host replaces one

    def end(self) -> None:
        """Kill it, unless it has ended."""
        if not self._ended:
            os.kill(self.pid, signals.SIGKILL)
            os.waitpid(self.pid, 0)
            self._ended = True

    def _become(self, ready: int, go: int, closed: "list[int]") -> "NoReturn":
        """Do all that the command's process has to do, and become the command."""
        status = _FAILED
        try:
            _take_over_variables(self._variables)
            if self._namespace:
                libc.setns(self._namespace.fd, libc.CLONE_NEWNET)
            else:
                libc.unshare(libc.CLONE_NEWNET)
            os.write(ready, _READY)
            message = b""
            while chunk := os.read(go, 1 << 16):
                message += chunk
            if message.startswith(_GO):  # otherwise the parent has ended
                # Not earlier: the host's mounts, which this copies, only now include the namespace's name.
                mounts.make_private()
                mounts.renew_sys()
                self._set_names(*map(os.fsdecode, message.split(b"\0")[1:]))
                if self._user:
                    if not self._namespace:
                        _let_everybody_ping()
                    self._user.become()
                for fd in closed:
                    os.close(fd)
                command.execute(self._program, self._argv, self._variables)
        except command.NotExecutableError as error:
            self._complain(str(error))
            status = error.status
        except UsageError as error:
            self._complain(str(error))
        except OSError as error:
            on = f" on {error.filename}" if error.filename else ""
            self._complain(f"no namespaces for the command: {error.strerror}{on}")
        finally:
            os._exit(status)

    def _set_names(self, resolv_conf: str = "", hosts: str = "", hostname: str = "") -> None:
        if view := _view(resolv_conf, hosts):
            view.put(self._complain)
        if hostname:
            from _socket import sethostname

            libc.unshare(libc.CLONE_NEWUTS)
            sethostname(hostname)


def _take_over_variables(variables: "dict[str, str]") -> None:
    """Make variables that name the wrapper, which stands in for this process, name this process."""
    wrapper = str(os.getppid())
    if variables.get("LISTEN_PID") == wrapper:
        variables.pop("LISTEN_PIDFDID", "")  # the same in another form; libsystemd works without it
    for name in _FOR_PROCESS:
        if variables.get(name) == wrapper:
            variables[name] = str(os.getpid())


def _view(resolv_conf: str, hosts: str, root: str = "") -> "View | None":
    """Return the view; None if none is needed: no text, no daemon.  `root`: the path of the host's root."""
    texts = {"/etc/resolv.conf": resolv_conf, "/etc/hosts": hosts}
    files = {path: text for path, text in texts.items() if text}
    if not files and not any(os.path.isdir(f"{root}{folder}") for folder in _RESOLVERS):
        return None
    from cnihook.cli.privnet.view import View  # not needed by a plain run

    return View(files, _RESOLVERS)


def _let_everybody_ping() -> None:
    """Permit the socket of ping(8) without root: new namespaces permit it to no group, most hosts to all."""
    for groups in ("0 2147483647", "0 0"):  # all groups; the only one of an ordinary user's namespace
        try:
            with open("/proc/sys/net/ipv4/ping_group_range", "w") as file:
                file.write(groups)
            return
        except OSError:
            pass  # then ping needs its file capability, as it does without this
