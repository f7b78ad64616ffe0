# SPDX-License-Identifier: Apache-2.0
"""
The command `priv-net-run`: run a command in a network namespace of its own, on CNI networks.

There are three processes.  The main process attaches the networks, stands in for the command while that
runs, and takes the networks down after it.  The command's process is made first, before the main process
changes anything about itself, and waits in its network namespace.  The guardian sleeps in its own session.
If SIGKILL ends the main process, the guardian takes the networks down.

What a plain run does not use is in modules that are imported only if needed: user, features, rootless.
"""

import _signal
import os
import sys

import cnihook
from cnihook.cli.privnet.command import CommandProcess
from cnihook.cli.privnet.options import Options, UsageError
from cnihook.process import command, signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cnihook.cli.privnet.command import User
    from cnihook.cli.privnet.features import Features
    from cnihook.cli.privnet.forwarding import Forward
    from cnihook.container.attach import Container
    from cnihook.log import Log
    from cnihook.request.request import ContainerRequest
    from cnihook.runtime.addition import Attachment
    from cnihook.runtime.settings import Settings

_FAILED = 125
_SYSTEM_FOLDERS = "/usr/sbin:/sbin:/usr/bin:/bin"  # where plugins find iptables and the like


def main(umask: "int | None" = None) -> None:
    """Run the program, then exit.  `umask`: the caller's, if it has been changed."""
    command.restrict_umask(umask)
    status = run(sys.argv[1:])
    cnihook.discard_unsafe_caches()
    os._exit(status)  # nothing is buffered; a regular exit of the interpreter costs 2 ms


def run(argv: "list[str]") -> int:
    """Run the program, and return the exit status."""
    try:
        signals.take_back_pythons()
        options = Options(argv)
        if options.answer:
            os.write(1, options.answer.encode())
            return 0
        return _delete(options) if options.delete else _run(options)
    except command.NotExecutableError as error:
        _complain(str(error))
        return error.status
    except signals.Interrupted as error:
        _complain(str(error))
        return 128 + error.signum
    except Exception as error:
        if os.environ.get("CNIHOOK_DEBUG"):
            raise
        from cnihook.fast.errors_text import message_with_notes

        _complain(message_with_notes(error))
        return _FAILED


def _complain(text: str) -> None:
    from cnihook.fast.errors_text import one_line

    try:
        os.write(2, f"priv-net-run: {one_line(text)}\n".encode(errors="replace"))
    except OSError:
        pass


def _run(options: Options) -> int:
    variables = command.environment()
    user = _user(options, variables)
    variables.update(options.variables)
    # First, so that a misspelled command costs nothing.
    program = command.find(options.command[0], variables.get("PATH", os.defpath))
    outside = None
    if os.geteuid():
        from cnihook.cli.privnet import rootless

        rootless.check(options)
    extras = _extras(options, variables)  # before Outside(), because the caller's user has to open its files
    if os.geteuid():
        user = None if options.root else rootless.Caller()
        outside = rootless.Outside(_forwards(options))
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
    process.job.exit_like_child()
    return status


def _forwards(options: Options) -> "list[Forward]":
    """Return the ports of the host that an ordinary user publishes."""
    if not any(option in ("--publish", "-p") for option, _value in options.requested):
        return []
    from cnihook.cli.privnet import forwarding

    return forwarding.take(options, _settings(options), _complain)


def _user(options: Options, variables: "dict[str, str]") -> "User | None":
    """Return the command's user, if it is not that of this process, and set the user's `variables`."""
    if options.root or os.geteuid() or not (options.user or "SUDO_UID" in variables):
        return None
    from cnihook.cli.privnet import user as command_user

    user = command_user.parse(options.user) if options.user else command_user.who_called_sudo(variables)
    if user:
        variables.update(user.variables)
    return user


def _extras(options: Options, variables: "dict[str, str]") -> "Features | None":
    if not (options.name or options.netns or options.timeout or options.pcap or options.json):
        return None
    from cnihook.cli.privnet.features import Features

    return Features(options, variables)


def _on_networks(options: Options, process: CommandProcess, extras: "Features | None") -> int:
    """Attach the networks, run the command, take them down whatever happens.  Returns the exit status."""
    # Imported while the command's process makes its namespace.
    from cnihook.container import attach
    from cnihook.linux import netns
    from cnihook.linux.netns import NetNS
    from cnihook.log import Log
    from cnihook.names import resolv_conf
    from cnihook.request import options as request_options
    from cnihook.request.request import ContainerRequest

    netns.status_if_lost = _FAILED
    settings = _settings(options)
    os.umask(0o022)
    os.chdir("/")
    os.environ["PATH"] = f"{os.environ.get('PATH', '')}:{_SYSTEM_FOLDERS}".lstrip(":")
    request = ContainerRequest()
    for option, value in options.requested:
        word = request_options.option_for(option)
        assert word
        word.add(request, value)
    if extras and extras.joined and request.networks is None:
        request.networks = []  # only the networks that are there
    chosen = attach.select(request, settings, _complain)
    if not process.is_ready():
        return _FAILED
    kept = extras.kept if extras else ""
    container = attach.Container(
        kept or options.name or f"priv-{os.urandom(6).hex()}",
        NetNS.open(f"/proc/{process.pid}/ns/net"),
        0 if kept else os.getpid(),  # a kept namespace does not end with a process
        request.hostname,
    )
    if extras:
        extras.begin(container)
    log = Log(container.id)
    # A joined namespace is left as it is, including its lo.
    joined = extras is not None and extras.joined is not None
    guardian = _Guardian(container, settings, log, process.pidfd, joined)
    stays = False
    status = None
    try:
        hosts = ""

        def set_names(attached: "list[Attachment]") -> None:
            nonlocal hosts
            hosts = _hosts(container, request, attached, log)

        attached: list[Attachment] = []
        if chosen or not joined:
            attached = attach.up(container, chosen, settings, log, set_names)
        else:
            set_names(attached)
        named = [attachment.result.dns for attachment in attached if attachment.result.dns]
        deadline = None
        if extras:
            named += extras.servers()
            deadline = extras.start(container, process.pid, attached)
        if kept:
            stays = True
            guardian.dismiss()
        dns_settings = resolv_conf.requested(container.id, request.dns, [one.record for one in attached])
        settings_of_dns, servers = resolv_conf.of_command(named, dns_settings)
        results = [one.result for one in attached]
        if attached and not joined and resolv_conf.are_unreachable(servers, dns_settings, results):
            from cnihook.names import dns_reach  # not needed by a plain run

            if not dns_reach.has_route(servers, container.netns):
                _complain(
                    f"the command cannot resolve names: its networks do not lead to {', '.join(servers)} of"
                    " /etc/resolv.conf; --dns ADDRESS sets another server"
                )
        status = process.run(settings_of_dns, hosts, request.hostname, deadline=deadline)
        if extras:
            status = extras.status(status)
    finally:
        signals.ignore_interrupts()
        problem = extras.end(status) if extras else ""
        if not stays:
            problem = _take_down(container, settings, log, joined) or problem
            guardian.dismiss()
            # Python lets a terminal be line-buffered; to ask the kernel again would take a system call.
            if sys.stdout and sys.stdout.line_buffering and not joined:
                from cnihook.cli.privnet import survivors

                survivors.warn(container.netns.identity, _complain)
    if not problem:
        return status
    _complain(problem)
    return status or _FAILED  # never 0 over what is left undone


def _delete(options: Options) -> int:
    if os.geteuid():
        raise UsageError("only root can do that; try `sudo priv-net-run ...`")
    from cnihook.cli.privnet import netns

    signals.raise_on_interrupts()
    settings = _settings(options)
    os.environ["PATH"] = f"{os.environ.get('PATH', '')}:{_SYSTEM_FOLDERS}".lstrip(":")
    netns.delete(options.netns, settings)
    return 0


def _hosts(
    container: "Container", request: "ContainerRequest", attached: "list[Attachment]", log: "Log"
) -> str:
    """Return the text of the command's /etc/hosts; empty if the host's will do.

    Containers that start while the command runs are not added to it.  They get its name, if it has one.
    """
    if not (request.hosts or request.hostname) and not any(
        request.aliases_on(one.network.name) or os.path.isdir(f"/run/cnihook/names/{one.network.name}")
        for one in attached
    ):
        return ""
    from cnihook.names import container_dns, loopback_names
    from cnihook.request import host_file

    hostnames = container_dns.host_names(request.hostname)
    try:
        lines = container_dns.register(container.id, None, hostnames, request, attached, log)
    except OSError as error:
        _complain(f"the names on its networks are not known: {error}")
        return ""
    old = host_file.read("/etc/hosts")
    if any(one.result.ips for one in attached):
        own = [*hostnames, *(alias for one in attached for alias in request.aliases_on(one.network.name))]
        old = loopback_names.hide(old, own, container.id)
    return old + lines if lines else ""


def _settings(options: Options) -> "Settings":
    from cnihook.runtime.settings import Settings

    settings = Settings.from_environment(os.environ)
    settings.conf_dir = os.path.abspath(options.conf_dir or settings.conf_dir)
    folders = options.plugin_dirs or settings.plugin_dirs
    settings.plugin_dirs = [os.path.abspath(folder) for folder in folders if folder] if folders else None
    settings.waits = options.wait
    return settings


def _take_down(container: "Container", settings: "Settings", log: "Log", joined: bool) -> str:
    """Detach from all networks, also after an incomplete attach.  Returns what went wrong, as text.

    `joined`: the namespace lives on, so the caller waits for the end of its links.
    """
    from cnihook.container import detach
    from cnihook.fast.errors_text import message_with_notes
    from cnihook.runtime import netns_names, records

    problem = ""
    try:
        detach.down(container.id, settings, log, ended=None if joined else container.pid)
        if not records.of_container(container.id, damaged=[]):
            # It may be all that is left of an attach whose rollback was interrupted.
            netns_names.unbind(container.id, container.netns.identity)
    except Exception as error:
        problem = message_with_notes(error)
    log.discard()
    return problem


class _Guardian:
    """A process that kills the command and takes the networks down if this process is killed."""

    def __init__(
        self, container: "Container", settings: "Settings", log: "Log", command: int, joined: bool
    ) -> None:
        end, self._held = os.pipe()
        # Plugins that are executables hold it, too: if this process is killed, they run on for a moment.
        os.set_inheritable(self._held, True)
        self._pid = os.fork()
        if self._pid:
            os.close(end)
            return
        try:
            signals.ignore_interrupts()
            os.close(self._held)
            from cnihook.process.daemonize import daemonize  # the parent goes on at the same time

            daemonize(end, command, container.netns.fd)
            os.read(end, 1)  # no process writes to it: this is the end of the last one that could
            try:
                _signal.pidfd_send_signal(command, signals.SIGKILL)
            except ProcessLookupError:
                pass
            _take_down(container, settings, log, joined)
        finally:
            os._exit(0)

    def dismiss(self) -> None:
        os.kill(self._pid, signals.SIGKILL)
        os.waitpid(self._pid, 0)
