# SPDX-License-Identifier: Apache-2.0
"""
The OCI hook: a container's state on stdin, its networks up (createRuntime) or down (poststop).

The argument chooses the event, because runtimes disagree on what `status` is at that time.  Every
container's start waits for this process, so it imports only what is cheap, and starts no other process.
The end of a container starts one, for which no caller waits (runtime.ending).
"""

import os

from cnihook.container import detach
from cnihook.fast.errors_text import message_with_hint
from cnihook.fast.undo import Undo
from cnihook.linux.netns import NetNS, NotANamespaceError
from cnihook.log import Log, measure_steps, step, warn
from cnihook.oci import state
from cnihook.oci.state import State
from cnihook.process import signals
from cnihook.runtime.engine import ContainerIdInUseError
from cnihook.runtime.settings import Settings
from cnihook.types.errors import INTERNAL, INVALID_NETNS, CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from cnihook.request.bounds import Bounds
    from cnihook.request.request import ContainerRequest
    from cnihook.runtime.addition import Attachment

_SYSTEM_FOLDERS = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")
_STATE_MAX = 16 << 20  # bytes of stdin that are worth reading


class UsageError(Exception):
    """An option or argument of the command is wrong."""


class Options:
    """The arguments after the event."""

    def __init__(self, arguments: "list[str]") -> None:
        self.settings = Settings.from_environment(os.environ)
        self.request: "ContainerRequest | None" = (
            None  # from options, which take precedence over annotations
        )
        self.bounds: Bounds | None = None  # on the annotations
        pending = list(arguments)
        if not pending:
            return
        from cnihook.request import options as request_options  # not loaded by a hook without options
        from cnihook.request.request import ContainerRequest

        self.request = ContainerRequest()
        while pending:
            option, equals, value = pending.pop(0).partition("=")
            if option == "--trust-images" and not equals:
                self._bound(option, "")
                continue
            if option == "--wait" and not equals:
                self.settings.waits = True
                continue
            word = request_options.option_for(option)
            if not word and option not in ("--conf-dir", "--cni-path", "--allow", "--ports"):
                raise UsageError(f"unknown argument {option!r}; see `cnihook --help`")
            if not equals and not (word and word.is_switch):
                if not pending:
                    raise UsageError(f"{option} needs a value")
                value = pending.pop(0)
            if word:
                word.add(self.request, value)
            elif option in ("--allow", "--ports"):
                self._bound(option, value)
            elif option == "--conf-dir":
                if not value:
                    raise UsageError(f"{option} needs a value")
                self.settings.conf_dir = os.path.abspath(value)
            else:
                self.settings.plugin_dirs = [
                    os.path.abspath(folder) for folder in value.split(":") if folder
                ]

    def _bound(self, option: str, value: str) -> None:
        from cnihook.request import bounds_file

        self.bounds = bounds_file.set_flag(self.bounds, option, value)


def main(event: str, arguments: "list[str]", began: float) -> int:
    """Serve one event.  `began`: time.monotonic() when the command was known.

    Returns the exit code: 0, 1 failed, 2 usage.
    """
    if os.environ.get("CNIHOOK_TIMING"):
        measure_steps(began)
    what = event
    log: Log | None = None
    try:
        options = Options(arguments)  # first: its paths may be relative to the caller's folder
        _settle_in()
        oci_state = state.parse(_read_stdin())
        what = f"{event} of container {oci_state.id}"
        log = Log(oci_state.id, quiet=True)
        step("state")
        if event == "createRuntime":
            _create(oci_state, options, log)
            log.add_steps(event)
        else:
            _poststop(oci_state, options, log)
        return 0
    except UsageError as error:
        warn(f"{event}: {error}")
        return 2
    except (Exception, signals.Interrupted) as error:
        signals.ignore_interrupts()
        if log:
            log.failure(event, error)
            log.add_steps(event)
        if os.environ.get("CNIHOOK_DEBUG"):
            raise
        warn(f"{what}: {message_with_hint(error)}")
        return 1


def _settle_in() -> None:
    """Undo what runtimes do to a hook.

    crun blocks all signals and leaves umask 0, podman gives an empty environment, and the working folder is
    that of the runtime's caller.
    """
    signals.reset()
    os.umask(0o022)
    os.chdir("/")
    folders = [folder for folder in os.environ.get("PATH", "").split(":") if os.path.isabs(folder)]
    os.environ["PATH"] = ":".join(
        [*folders, *(folder for folder in _SYSTEM_FOLDERS if folder not in folders)]
    )


def _read_stdin() -> bytes:
    if os.isatty(0):
        raise CniError(
            INTERNAL,
            "stdin is a terminal",
            "a runtime passes the container's state to its hook there; see `cnihook --help`",
        )
    chunks = []
    size = 0
    try:
        while chunk := os.read(0, 1 << 16):
            chunks.append(chunk)
            size += len(chunk)
            if size > _STATE_MAX:
                raise CniError(
                    INTERNAL, f"container state on stdin: it is longer than {_STATE_MAX >> 20} MiB"
                )
    except OSError as error:
        raise CniError(INTERNAL, f"container state on stdin: {error.strerror}") from None
    return b"".join(chunks)


def _create(oci_state: State, options: Options, log: Log) -> None:
    # Not at the top: together they would be a tenth of what a poststop has to load.
    from cnihook.container import attach
    from cnihook.oci import bundle
    from cnihook.request.request import ContainerRequest

    runtime = os.getppid()
    config = bundle.load(oci_state)
    timeout = config.hook_timeout("createRuntime")
    if timeout:
        # The runtime kills the hook when its time is over.  This deadline leaves time for an undo.
        signals.set_deadline(max(timeout * 0.6, timeout - 5))

    whose = config.network_namespace
    if whose == bundle.JOINED and not _has_request(oci_state, options):
        log.event("left alone: it joins a network namespace by path, and requests no network of its own")
        return
    if whose == bundle.HOST:
        return _leave_in_host(oci_state, config.path, log)
    namespace = _open_namespace(oci_state)
    try:
        host = NetNS.current()
        shared = host.identity == namespace.identity
        host.close()
        if shared:
            return _leave_in_host(oci_state, config.path, log)

        request = options.request or ContainerRequest()
        if oci_state.annotations:
            from cnihook.request import trusted_annotations

            requested = trusted_annotations.of(oci_state.annotations, runtime, options.bounds)
            request = request.merged_with(requested)
        step("request")
        chosen = attach.select(request, options.settings, _both(log))
        step("networks")
        container = attach.Container(
            oci_state.id, namespace, oci_state.pid, request.hostname or config.hostname
        )
        container.net_admin = config.grants("CAP_NET_ADMIN")

        def set_names(attached: "list[Attachment]") -> None:
            if config.path:
                from cnihook.names import container_dns

                container_dns.configure(oci_state.id, oci_state.pid, config, request, attached, log)
            elif request.dns or request.hosts or request.hostname:
                log.event("it gets no names and no name servers: there is no config.json for it")

        attach.up(container, chosen, options.settings, log, set_names)
        step("names")
        with Undo() as undo:
            undo.push(detach.down, oci_state.id, options.settings, log)
            if os.getppid() != runtime:
                raise CniError(
                    INTERNAL, "the container runtime ended before its hook; its networks are detached again"
                )
    finally:
        namespace.close()


def _has_request(oci_state: State, options: Options) -> bool:
    """Return True if a container that joins a namespace by path requests networks in addition.

    Not a container of a pod: there Multus serves the annotations.  The arguments of the hook are not a
    request of one container if they come from an engine's hooks.d.
    """
    from cnihook.request import options as request_options

    if oci_state.is_of_pod:
        return False
    if request_options.has_requests(oci_state.annotations):
        return True
    return bool(options.request and options.request.networks) and not oci_state.is_of_engine


def _both(log: Log) -> "Callable[[str], None]":
    def say(text: str) -> None:
        warn(text)
        log.event(text)

    return say


def _open_namespace(oci_state: State) -> NetNS:
    if not oci_state.pid:
        raise CniError(
            INVALID_NETNS,
            'container state on stdin: "pid" is missing or 0',
            "register the hook under createRuntime: before that a container has no process",
        )
    if oci_state.pid == 1:
        # This is the PID in the container.  If the host's /proc is still mounted there, PID 1 is in the
        # host's namespace and this process in the container's, so the two would be exchanged.
        raise CniError(
            INVALID_NETNS,
            "the container's PID is 1: the hook runs inside the container",
            "register the hook under createRuntime, which runs outside",
        )
    try:
        return NetNS.open(f"/proc/{oci_state.pid}/ns/net")
    except (OSError, NotANamespaceError) as error:
        raise CniError(
            INVALID_NETNS, f"no network namespace of process {oci_state.pid}: {error.strerror}"
        ) from None


def _leave_in_host(oci_state: State, path: str, log: Log) -> None:
    """Raise CniError for a container in the host's network namespace, unless it belongs to a pod.

    A pod with hostNetwork may have annotations of networks.  Multus ignores them, too.
    """
    if oci_state.is_of_pod:
        log.event("left alone: it belongs to a pod in the host's network namespace")
        return
    raise CniError(
        INVALID_NETNS,
        f"container {oci_state.id} shares the host's network namespace, which is never configured",
        f'add {{"type": "network"}} to linux.namespaces in {path or "its config.json"}',
    )


def _poststop(oci_state: State, options: Options, log: Log) -> None:
    """Detach the container, from its records alone: bundle and net.d may be gone, and the PID reused."""
    try:
        if detach.down(oci_state.id, options.settings, log, ended=oci_state.pid):
            log.event("all networks released")
    except ContainerIdInUseError as error:  # this container was refused because of that one
        _both(log)(f"nothing is released: {error.msg}")
        return
    log.add_steps("poststop")
    log.close()
