# SPDX-License-Identifier: Apache-2.0
"""
The OCI hook: a container's state on stdin, its networks up (createRuntime) or down (poststop).

Which of the two is told by the argument, since runtimes disagree on what `status` is at that time.  Every
container's start waits for this process, so it imports what is cheap and starts no other.
"""

import os

from cnihook import detach
from cnihook.detach import LivesAlready
from cnihook.lean import signals
from cnihook.lean.words import explain
from cnihook.linux.netns import NetNS, NotANamespace
from cnihook.log import Log, complain
from cnihook.oci import state
from cnihook.oci.state import State
from cnihook.sdk.undo import Undo
from cnihook.settings import Settings
from cnihook.spec.errors import INTERNAL, INVALID_NETNS, CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from cnihook.runtime.bounds import Bounds
    from cnihook.runtime.wants import Wants

_SYSTEM_FOLDERS = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")
_STATE_MAX = 16 << 20  # bytes of stdin that are worth reading

HELP = """\
usage: cnihook createRuntime|poststop [OPTION]... < STATE

The OCI hook.  Register both events in config.json, then `runc run` gives the container its networks:

  "hooks": {
    "createRuntime": [{"path": "/usr/bin/python3", "timeout": 60,
                       "args": ["python3", "-IS", "/PATH/TO/scripts/cnihook", "createRuntime"]}],
    "poststop":      [{"path": "/usr/bin/python3", "timeout": 60,
                       "args": ["python3", "-IS", "/PATH/TO/scripts/cnihook", "poststop"]}]
  }

  --network NAME[:IFNAME]   a network to attach, repeatable; else the annotation cnihook.networks
                            (such as mynet,storage:eth1); else all there are
  --publish, --ip, --mac-address, --bandwidth, --dns, --add-host, ...
                            what else it wants, as annotations cnihook.publish, ... say it, too;
                            `cnihook attach --help` has them all
  --allow NAME[,NAME]...    the annotations that may be used, such as networks,publish (default: all);
  --ports PORT[-PORT][,...] the ports of the host that they may publish; for both see `cnihook man security`
  --trust-images            also obey annotations that podman before 4.6 may have copied from an image
  --conf-dir DIR            network configurations (default: $NETCONFPATH, else /etc/cni/net.d)
  --cni-path DIR[:DIR]...   folders whose plugins go before the built-in ones (default: $CNI_PATH)
"""


class UsageError(Exception):
    """The words of the command are off."""


class Options:
    """The arguments behind the event."""

    def __init__(self, arguments: "list[str]") -> None:
        self.settings = Settings.from_environment(os.environ)
        self.wants: "Wants | None" = None  # by flags; what they say goes before the annotations
        self.bounds: Bounds | None = None  # on the annotations
        pending = list(arguments)
        if not pending:
            return
        from cnihook.oci import wants  # what a hook without words need not load
        from cnihook.runtime.wants import Wants

        self.wants = Wants()
        while pending:
            option, equals, value = pending.pop(0).partition("=")
            if option == "--trust-images" and not equals:
                self._bound(option, "")
                continue
            word = wants.word_of(option)
            if not word and option not in ("--conf-dir", "--cni-path", "--allow", "--ports"):
                raise UsageError(f"unknown argument {option!r}; see `cnihook --help`")
            if not equals and not (word and not word.value):
                if not pending:
                    raise UsageError(f"{option} needs a value")
                value = pending.pop(0)
            if word:
                word.add(self.wants, value)
            elif option in ("--allow", "--ports"):
                self._bound(option, value)
            elif option == "--conf-dir":
                if not value:
                    raise UsageError(f"{option} needs a value")
                self.settings.conf_folder = os.path.abspath(value)
            else:
                self.settings.plugin_path = [
                    os.path.abspath(folder) for folder in value.split(":") if folder
                ]

    def _bound(self, option: str, value: str) -> None:
        from cnihook.oci import bounds_file

        self.bounds = bounds_file.set_flag(self.bounds, option, value)


def main(event: str, arguments: "list[str]") -> int:
    """Serve one event.  Returns the exit code: 0, 1 failed, 2 usage."""
    if "--help" in arguments or "-h" in arguments:
        os.write(1, HELP.encode())
        return 0
    what = event
    log: Log | None = None
    try:
        options = Options(arguments)  # first, for its paths may be relative to where we were called
        _settle_in()
        found = state.parse(_read_stdin())
        what = f"{event} of container {found.id}"
        log = Log(found.id, quiet=True)
        if event == "createRuntime":
            _create(found, options, log)
        else:
            _poststop(found, options, log)
        return 0
    except UsageError as error:
        complain(f"{event}: {error}")
        return 2
    except (Exception, signals.Interrupted) as error:
        signals.ignore_interrupts()
        if log:
            log.failure(event, error)
        if os.environ.get("CNIHOOK_DEBUG"):
            raise
        complain(f"{what}: {explain(error)}")
        return 1


def _settle_in() -> None:
    """Undo what runtimes do to a hook.

    crun blocks all signals and leaves umask 0, podman gives an empty environment, and the working folder is
    whoever's called the runtime.
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
            "a hook gets the container's state there from its runtime; see `cnihook --help`",
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


def _create(found: State, options: Options, log: Log) -> None:
    # Not above: together they are a tenth of what a poststop would have to load.
    from cnihook import attach
    from cnihook.oci import bundle
    from cnihook.runtime.wants import Wants

    runtime = os.getppid()
    config = bundle.load(found)
    timeout = config.hook_timeout("createRuntime")
    if timeout:
        # The runtime kills without a word when its time is over; ours ends sooner, with time left to undo.
        signals.set_deadline(max(timeout * 0.6, timeout - 5))

    whose = config.network_namespace
    if whose == bundle.JOINED:
        log.event(
            "left alone: it joins a network namespace by path, which is configured by whoever made that"
        )
        return
    if whose == bundle.HOST:
        return _leave_in_host(found, config.path, log)
    namespace = _open_namespace(found)
    try:
        host = NetNS.current()
        shared = host.identity == namespace.identity
        host.close()
        if shared:
            return _leave_in_host(found, config.path, log)

        wanted = options.wants or Wants()
        if found.annotations:
            from cnihook.oci import requests

            wanted = wanted.over(requests.of(found.annotations, runtime, options.bounds))
        chosen = attach.select(wanted, options.settings, _both(log))
        container = attach.Container(found.id, namespace, found.pid, wanted.hostname or config.hostname)
        attached = attach.up(container, chosen, options.settings, log)
        with Undo() as undo:
            undo.push(detach.down, found.id, options.settings, log)
            if config.path:
                from cnihook.oci import names

                results = [(one.record, one.result) for one in attached]
                names.give(found.id, found.pid, config, wanted, results, log)
            elif wanted.dns or wanted.hosts or wanted.hostname:
                log.event("it gets no names and no name servers: its config.json is not to be found")
            if os.getppid() != runtime:
                raise CniError(
                    INTERNAL, "the container runtime ended before its hook did; all was taken down again"
                )
    finally:
        namespace.close()


def _both(log: Log) -> "Callable[[str], None]":
    def say(text: str) -> None:
        complain(text)
        log.event(text)

    return say


def _open_namespace(found: State) -> NetNS:
    if not found.pid:
        raise CniError(
            INVALID_NETNS,
            'container state on stdin: "pid" is missing or 0',
            "register the hook under createRuntime: before that a container has no process",
        )
    if found.pid == 1:
        # As the container sees it.  Where the host's /proc is still there, 1 is in the host's namespace and
        # we are in the container's: all would be done the wrong way round.
        raise CniError(
            INVALID_NETNS,
            "process 1 is no container's: the hook runs inside of it",
            "register the hook under createRuntime, which runs outside",
        )
    try:
        return NetNS.open(f"/proc/{found.pid}/ns/net")
    except (OSError, NotANamespace) as error:
        raise CniError(
            INVALID_NETNS, f"no network namespace of process {found.pid}: {error.strerror}"
        ) from None


def _leave_in_host(found: State, path: str, log: Log) -> None:
    """Raise CniError for a container in the host's network namespace, unless it is of a pod.

    A pod with hostNetwork may have annotations of networks, which Multus ignores too.
    """
    if found.is_of_pod:
        log.event("left alone: it is of a pod in the host's network namespace")
        return
    raise CniError(
        INVALID_NETNS,
        f"container {found.id} shares the host's network namespace, which is never configured",
        f'add {{"type": "network"}} to linux.namespaces in {path or "its config.json"}',
    )


def _poststop(found: State, options: Options, log: Log) -> None:
    """The record alone counts here: the bundle and net.d may be gone, and the PID may be somebody else's."""
    try:
        if detach.down(found.id, options.settings, log, ended=found.pid):
            log.event("all networks released")
    except LivesAlready as error:  # this one was refused for it
        _both(log)(f"nothing is released: {error.msg}")
        return
    log.close()
