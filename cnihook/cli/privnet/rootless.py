# SPDX-License-Identifier: Apache-2.0
"""
`priv-net-run` for an ordinary user: it is root in namespaces of its own, and pasta or slirp4netns replaces
the uplink, which needs privilege.

The networks are attached in there as root attaches them on the host, so that every plugin works.  What they
make is removed with the last process.  The outer namespaces:

    user       the caller is root, and there is no other user
    network    plays the host: bridges, rules; a tap device is the uplink
    mount      for the command, the host's; for this process, with writable folders for state
"""

import os
import time

from cnihook.cli.privnet.options import Options, UsageError
from cnihook.fast.errors_text import one_line
from cnihook.linux import libc
from cnihook.process import command, signals
from cnihook.process.daemonize import daemonize

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cnihook.cli.privnet.forwarding import Forward

TUN = "/dev/net/tun"
_NAMESPACES = libc.CLONE_NEWUSER | libc.CLONE_NEWNS | libc.CLONE_NEWNET
_PATIENCE = 10.0  # seconds
_STATE = ("/run", "/var/lib/cni")
_SOCKET = "slirp4netns"  # of its requests for ports, in a folder of its own
_FOR_RESOLVERS = "systemd"  # in /run: has the name servers behind systemd-resolved's own

# Settings of an administrator: the path, the forbidding value, an allowing value.
_SWITCHES = (("kernel/unprivileged_userns_clone", "0", "1"), ("user/max_user_namespaces", "0", "10000"))
_APPARMOR = ("kernel/apparmor_restrict_unprivileged_userns", "1", "0")  # programs with a profile are exempt


class Caller:
    """The command's default user: the caller with their own UID, without root's rights in here."""

    def __init__(self) -> None:
        self._uid, self._gid = os.geteuid(), os.getegid()

    def become(self) -> None:
        libc.unshare(libc.CLONE_NEWUSER)
        _map(self._uid, 0, self._gid, 0)


class Outside:
    """The process that connects this one, until end() or until this process ends in any way."""

    def __init__(self, forwards: "list[Forward]") -> None:
        """Become root of an ordinary user's namespaces, and connect the network namespace, after check().

        `forwards`: ports of the host that lead into that namespace.
        """
        self._folder = ""
        tool = _tool(forwards)
        if forwards and tool[0] != "pasta":
            from cnihook.cli.privnet import forwarding

            forwarding.refuse_for_slirp(forwards)
            self._folder = forwarding.socket_folder()
            tool += ["--api-socket", f"{self._folder}/{_SOCKET}"]
        self._messages = os.memfd_create("messages")  # not a pipe: once full, it would stop the process
        alive, self._alive = os.pipe()
        self._pid = os.fork()
        if not self._pid:
            try:
                daemonize(alive, self._messages)
                _keep_connected(tool, alive, self._messages)
            finally:
                os._exit(0)
        os.close(alive)
        uid, gid = os.geteuid(), os.getegid()
        try:
            libc.unshare(_NAMESPACES)
            _map(0, uid, 0, gid)
            # Mounts of the host appear in here; mounts made in here appear nowhere else.
            libc.mount("none", "/", flags=libc.MS_SLAVE | libc.MS_REC)
        except OSError as error:
            self.end()
            hint = _if_forbidden(_APPARMOR)
            raise _refusal([f"user namespaces ({error.strerror}{hint and '; ' + hint})"]) from None
        os.write(self._alive, b".")
        self._wait(tool[0])
        if forwards:
            self._forward(forwards)

    def _forward(self, forwards: "list[Forward]") -> None:
        from cnihook.cli.privnet import forwarding

        try:
            if self._folder:
                forwarding.add_to_slirp(f"{self._folder}/{_SOCKET}", forwards)
                self._remove_folder()
            else:
                forwarding.make_ready(forwards)
        except BaseException:
            self.end()
            raise

    def _remove_folder(self) -> None:
        if self._folder:
            try:
                os.unlink(f"{self._folder}/{_SOCKET}")
            except FileNotFoundError:
                pass
            os.rmdir(self._folder)
            self._folder = ""

    def _wait(self, name: str) -> None:
        deadline = time.monotonic() + _PATIENCE
        while not has_default_route():
            ended, _ = os.waitpid(self._pid, os.WNOHANG)
            if ended:
                self._pid = 0
            if ended or time.monotonic() > deadline:
                output = os.pread(self._messages, 1 << 16, 0).decode(errors="replace").strip()
                self.end()
                what = "has ended" if ended else f"is not ready after {_PATIENCE:g} s"
                raise UsageError(one_line(f"no way out: {name} {what}: {output or 'it does not say why'}"))
            time.sleep(0.002)

    def hide_state(self) -> None:
        """Mount folders for state.  Call it after the command's process is made, which keeps the host's."""
        libc.unshare(libc.CLONE_NEWNS)
        run = os.open("/run", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        for folder in _STATE:
            if not os.path.isdir(folder):
                # It cannot be made in root's folder, so that folder is covered for this process.
                _cover(os.path.dirname(folder))
                os.mkdir(folder)
            _cover(folder)
        if os.path.isdir(f"/proc/self/fd/{run}/{_FOR_RESOLVERS}"):
            os.mkdir(f"/run/{_FOR_RESOLVERS}")
            source = f"/proc/self/fd/{run}/{_FOR_RESOLVERS}"
            libc.mount(source, f"/run/{_FOR_RESOLVERS}", flags=libc.MS_BIND | libc.MS_REC)
        os.close(run)

    def end(self) -> None:
        self._remove_folder()
        os.close(self._alive)
        os.close(self._messages)
        if self._pid:
            os.waitpid(self._pid, 0)


def check(options: Options) -> None:
    """Raise UsageError if it is not possible, with all that is missing, and how to get it."""
    requested = {option for option, _value in options.requested}
    for option, is_used in (
        ("--user", options.user),
        ("--netns", options.netns),
        ("--name", options.name),
        ("--sticky", "--sticky" in requested),
        ("--mdns", "--mdns" in requested),  # the LAN is not the one behind pasta
    ):
        if is_used:
            raise UsageError(f"{option} needs root; try `sudo priv-net-run ...`")
    missing = []
    for switch in _SWITCHES:
        if hint := _if_forbidden(switch):
            missing.append(f"user namespaces ({hint})")
    try:
        # Checked first, because pasta would wait for ever if it cannot open it.
        os.close(os.open(TUN, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        remedy = "modprobe tun" if isinstance(error, FileNotFoundError) else f"chmod 666 {TUN}"
        missing.append(f"{TUN} ({error.strerror}; `{remedy}`)")
    tool = _tool()
    if not tool:
        missing.append("pasta (package passt) or slirp4netns (package slirp4netns)")
    elif tool[0] == "pasta" and not has_default_route():
        missing.append("slirp4netns (package slirp4netns; pasta would need a default route)")
    if missing:
        raise _refusal(missing)


def _refusal(missing: "list[str]") -> UsageError:
    return UsageError(f"without root, this needs {' and '.join(missing)}; or try `sudo priv-net-run ...`")


def _if_forbidden(switch: "tuple[str, str, str]") -> str:
    """Return the command that allows it; empty if this setting does not forbid it."""
    path, forbidding, allowing = switch
    if _read(f"/proc/sys/{path}") != forbidding:
        return ""
    return f"`sysctl {path.replace('/', '.')}={allowing}`"


def _tool(forwards: "list[Forward] | None" = None) -> "list[str]":
    """Return the program that connects a namespace: name, file, arguments.  Empty if there is none."""
    own_namespaces = f"/proc/{os.getpid()}/ns"
    pasta = ["--config-net", "--foreground", "--quiet", *"-T none -U none".split()]
    if forwards:
        from cnihook.cli.privnet import forwarding

        pasta += forwarding.pasta_arguments(forwards)
    else:
        pasta += "-t none -u none".split()
    # Neither may lead to the host's loopback: a private network does not reach it either.
    pasta += ["--no-map-gw", "--netns", f"{own_namespaces}/net", "--userns", f"{own_namespaces}/user"]
    slirp = ["--configure", "--mtu=65520", "--disable-host-loopback", "--netns-type=path"]
    slirp += [f"--userns-path={own_namespaces}/user", f"{own_namespaces}/net", "tap0"]
    tool = []
    for name, arguments in (("pasta", pasta), ("slirp4netns", slirp)):
        try:
            program = command.find(name, f"{os.environ.get('PATH', os.defpath)}:/usr/bin:/usr/local/bin")
        except command.NotExecutableError:
            continue
        # pasta copies the host's address and route, IPv6 too; without a default route it does not start.
        if name == "slirp4netns" or has_default_route():
            return [name, program, *arguments]
        tool = [name]
    return tool


def _keep_connected(tool: "list[str]", alive: int, messages: int) -> None:
    """Run it from the first byte on `alive` until the other end of `alive` is closed."""
    if not os.read(alive, 1):
        return
    name, program, *arguments = tool
    pid = os.fork()
    if not pid:
        try:
            os.dup2(messages, 1)
            os.dup2(messages, 2)
            signals.take_back_pythons()
            os.execv(program, [name, *arguments])
        finally:
            os._exit(127)
    import select

    pidfd = os.pidfd_open(pid)
    waiting = select.poll()
    waiting.register(alive, 0)
    waiting.register(pidfd, select.POLLIN)
    waiting.poll()
    os.kill(pid, signals.SIGKILL)  # pasta ignores other signals while it starts; it has no state
    os.waitpid(pid, 0)


def has_default_route() -> bool:
    """Return True if this network namespace has a default route."""
    with open("/proc/thread-self/net/route") as file:
        for line in file:
            fields = line.split()
            if fields[1] == fields[7] == "00000000":  # destination, and its mask
                return True
    routes = _read("/proc/thread-self/net/ipv6_route").splitlines()
    return any(line.startswith(f"{'0' * 32} 00 ") and not line.endswith(" lo") for line in routes)


def _map(uid: int, outer_uid: int, gid: int, outer_gid: int) -> None:
    """Map the one user and the one group of this process's new user namespace."""
    for name, text in (
        ("setgroups", "deny"),  # the kernel requires it for gid_map
        ("gid_map", f"{gid} {outer_gid} 1"),
        ("uid_map", f"{uid} {outer_uid} 1"),
    ):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)


def _cover(folder: str) -> None:
    libc.mount("tmpfs", folder, "tmpfs", libc.MS_NOSUID | libc.MS_NODEV, "mode=755")


def _read(path: str) -> str:
    try:
        with open(path) as file:
            return file.read().strip()
    except OSError:
        return ""
