# SPDX-License-Identifier: Apache-2.0
"""
docker-run: `docker run` with networks from CNI, against any docker daemon of this machine.

With the runtime cni-runc in the daemon, docker runs the container alone (see docker_runtime).  Without it, a
pause container holds a network namespace, the networks are attached to it, and the requested container
shares it.  A keeper process removes all of that when the requested container has ended (see watcher).
"""

import os
import signal
import sys

from cnihook import __version__
from cnihook.cli.docker import runtime as cni_runtime
from cnihook.cli.docker.options import UsageError
from cnihook.cli.docker.pause import Docker, DockerError, Pause
from cnihook.cli.docker.plan import Plan
from cnihook.cli.docker.watcher import Watcher
from cnihook.container import attach
from cnihook.container.attach import Container
from cnihook.fast.errors_text import message, message_with_notes, one_line
from cnihook.linux import libc
from cnihook.linux.netns import NetNS
from cnihook.log import Log
from cnihook.names import container_dns, resolv_conf
from cnihook.names.rootfs_file import File
from cnihook.oci.engines import PAUSE_LABEL, PAUSE_NAME
from cnihook.process import command, signals, stdio
from cnihook.process.jobcontrol import Job
from cnihook.request import options as request_options
from cnihook.request.request import ContainerRequest
from cnihook.request.resolve import ResolvedNetwork
from cnihook.runtime import networks
from cnihook.runtime.addition import Attachment
from cnihook.runtime.settings import Settings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

_FAILED = 125  # docker run's code for a container that was not started
_SYSTEM_FOLDERS = "/usr/local/sbin:/usr/sbin:/sbin"  # for plugins, which call programs in these folders


def main(umask: "int | None" = None) -> None:
    """Run the command, then exit.  `umask`: the caller's, if it has been changed."""
    command.restrict_umask(umask)
    code = _FAILED
    try:
        signals.take_back_pythons()
        stdio.open_missing()
        code = _main(sys.argv[1:])
    except signals.Interrupted as error:
        code = 128 + error.signum
    except Exception as error:
        if os.environ.get("CNIHOOK_DEBUG"):
            raise
        _complain(message_with_notes(error))
    sys.exit(code)


def _complain(text: str) -> None:
    try:
        os.write(2, f"docker-run: {one_line(text)}\n".encode(errors="replace"))
    except OSError:
        pass


def _main(argv: list[str]) -> int:
    if argv == ["--version"]:
        os.write(1, f"docker-run {__version__}\n".encode())
        return 0
    plan = Plan(argv)
    if plan.help:
        from cnihook.cli.docker import help

        os.write(1, help.text().encode())
        return 0
    docker = Docker()
    settings = Settings.from_environment(os.environ)
    if plan.is_dockers or plan.bridge and not _is_there(plan.bridge, settings):
        _become(docker, ["docker", "run", *argv])
    request = ContainerRequest()
    for word, value in plan.options:
        request_options.OPTIONS[word].add(request, value)
    runtime = _runtime(docker, plan, settings)
    # Here too, although the hook does it again: then an error is one line of docker-run.
    chosen = attach.select(request, settings, _complain)
    if runtime:
        _become(docker, cni_runtime.command(runtime, plan))
    if plan.restart.partition(":")[0] in ("always", "unless-stopped"):
        raise UsageError(
            f"--restart {plan.restart} needs cni-runc: docker starts no pause container after a reboot",
            "register the runtime cni-runc with the daemon, or use on-failure; see `docker-run --help`",
        )
    return _run(docker, plan, request, chosen, settings)


def _is_there(network: str, settings: Settings) -> bool:
    return network in [known.name for known in networks.load_folder(settings.conf_dir)[0]]


def _runtime(docker: Docker, plan: Plan, settings: Settings) -> str:
    """Return the daemon's name of cni-runc; empty if a pause container is used, which requires root."""
    runtime = ""
    # The hook has the daemon's environment, not that of docker-run.
    if settings.conf_dir == networks.DEFAULT_FOLDER and not settings.plugin_dirs:
        try:
            runtime = cni_runtime.find(docker, plan.runtime)
        except DockerError:
            if os.geteuid() == 0:
                raise
    if not runtime and os.geteuid() != 0:
        raise UsageError("networks need root", "try `sudo docker-run ...`")
    return runtime


def _become(docker: Docker, words: list[str]) -> "NoReturn":
    command.restore_umask()
    os.execve(docker.program, words, command.environment())


# With a pause container


def _run(
    docker: Docker, plan: Plan, request: ContainerRequest, chosen: list[ResolvedNetwork], settings: Settings
) -> int:
    client = _Client()
    os.environ["PATH"] = f"{os.environ.get('PATH', '')}:{_SYSTEM_FOLDERS}".lstrip(":")
    signals.raise_on_interrupts()
    options = [*plan.naming, *plan.userns]
    keeper = Watcher(docker, f"{PAUSE_NAME}{os.urandom(6).hex()}", options, settings)
    try:
        pause = keeper.pause()
        _attach(pause, request, chosen, settings, net_admin=_adds_net_admin(plan.run))
        # Before the other options, so that none of them can take one of these as its value.
        own = [f"--network=container:{pause.id}", "--label", f"{PAUSE_LABEL}={pause.name}"]
        status = client.run(docker.program, ["docker", "run", *own, *plan.run, *plan.rest])
    except Exception as error:
        _complain(message_with_notes(error))
        status = _FAILED
    finally:
        signals.ignore_interrupts()
        keeper.release()
        client.restore_signals()
        complaints = keeper.complaints()
        for complaint in complaints:
            _complain(complaint)
    client.exit_like_child()
    return status or (_FAILED if complaints else 0)


class _Client:
    """`docker run` itself, with the signals, umask and environment that this process was given."""

    def __init__(self) -> None:
        self._environment = command.environment()
        os.umask(0o022)
        self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        self._defaults = [
            signum
            for signum in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGPIPE)
            if signal.getsignal(signum) != signal.SIG_IGN
        ]
        self._job: Job | None = None

    def restore_signals(self) -> None:
        for signum in self._defaults:
            signal.signal(signum, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)

    def run(self, program: str, argv: list[str]) -> int:
        """Run it, and return its exit status.  Signals stay blocked until restore_signals().

        If this process is killed, so is the client; the container runs on, as it does without docker-run.
        """
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            try:
                libc.set_parent_death_signal(signals.SIGKILL)
                if os.getppid() == parent:
                    self.restore_signals()
                    command.restore_umask()
                    os.execve(program, argv, self._environment)
            except OSError as error:
                _complain(f"{program}: {error.strerror}")
            finally:
                os._exit(_FAILED)
        self._job = Job(pid)
        self._job.begin()
        return self._job.wait()

    def exit_like_child(self) -> None:
        if self._job:
            self._job.exit_like_child()


def _adds_net_admin(options: list[str]) -> bool:
    """Return True if the options give CAP_NET_ADMIN, which docker does not give by default."""
    values = [word.upper().removeprefix("--CAP-ADD=").removeprefix("CAP_") for word in options]
    return any(value in ("--PRIVILEGED", "--PRIVILEGED=TRUE", "NET_ADMIN", "ALL") for value in values)


def _attach(
    pause: Pause,
    request: ContainerRequest,
    chosen: list[ResolvedNetwork],
    settings: Settings,
    *,
    net_admin: bool,
) -> None:
    namespace = NetNS.open(f"/proc/{pause.pid}/ns/net")
    log = Log(pause.id)
    try:
        container = Container(pause.id, namespace, pause.pid, pause.hostname)
        container.net_admin = net_admin
        attach.up(
            container, chosen, settings, log, lambda attached: _set_names(pause, request, attached, log)
        )
    finally:
        namespace.close()


def _set_names(pause: Pause, request: ContainerRequest, attached: list[Attachment], log: Log) -> None:
    dns = [one.result.dns for one in attached]
    dns_settings = resolv_conf.requested(pause.id, request.dns, [one.record for one in attached])
    hostnames = container_dns.host_names(
        f"{pause.hostname}.{pause.domain}" if pause.domain else pause.hostname
    )

    def set_servers() -> None:
        text = container_dns.set_resolv_conf(File.at(pause.resolv_conf), dns, dns_settings, log)
        container_dns.report_unreachable(text, pause.pid, attached, log)

    for give in (
        set_servers,
        lambda: container_dns.register(pause.id, File.at(pause.hosts), hostnames, request, attached, log),
    ):
        try:
            give()
        except OSError as error:
            _complain(f"names of the container: {message(error)}")
