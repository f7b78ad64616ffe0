# SPDX-License-Identifier: Apache-2.0
"""
cni-runc: runc, with cnihook's hook in each container that requests CNI networks.

For engines that support other runtimes, but not hooks: docker, containerd, nerdctl.  It changes config.json
when a container is about to be created.  Then it becomes runc (as cni-crun: crun) by execve, so that
process, descriptors, signals and exit code are the runtime's own.  All other containers, and all other
commands, reach the runtime unchanged.

Docker 26 and later writes /etc/hosts between `create` and `start`, after the hook.  So `start` writes the
names of such a container again if they are missing, before its program runs.

A container requests networks by annotations `cnihook.*`.  Docker before 24 has no --annotation.  There the
annotation cnihook.NAME is `--sysctl net.cnihook.NAME=...`, which an image cannot set.  Other runtimes reject
this sysctl.

Podman before 4.6 copies an image's annotations into the container.  There these sysctls are the only way,
unless /etc/cnihook/config.json trusts images.
"""

import os
import sys

from cnihook.process import command, signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from cnihook.oci.json_edit import JsonDocument

_MAKES = ("create", "run", "restore")  # the commands that create a container, and read its config.json
_RUNTIMES = ("runc", "crun")
_NAMES = "/run/cnihook/names"  # of names.entries, which is not imported just to look for a file
# Not an environment variable, because that may come from the image.  A seal on it would help little: `docker
# exec` and health checks show it, and images made of the container contain it.
SYSCTL = "net.cnihook."
_FOLDERS = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# Options of runc and crun that take the next argument as their value.  Without hyphens: Go takes one or two.
_GLOBAL_VALUES = frozenset("log log-format log-level root rootless criu cgroup-manager".split())
_VALUES = frozenset(
    "b bundle f config console-socket pid-file pidfd-socket preserve-fds image-path work-path parent-path"
    " manage-cgroups-mode empty-ns lsm-profile lsm-mount-context status-fd page-server".split()
)


def main(umask: "int | None" = None) -> "NoReturn":
    """Prepare the container, then become the runtime.  `umask`: the caller's, if it has been changed."""
    command.restrict_umask(umask)
    words = Arguments(sys.argv[1:])
    failure = 1
    try:
        program = find(os.path.basename(sys.argv[0]).removeprefix("cni-"), os.path.realpath(sys.argv[0]))
        if words.command in _MAKES:
            _prepare(words)
        elif words.command == "start":
            _renew_names(words.container_id)
        signals.take_back_pythons()
        command.restore_umask()
        failure = 126
        os.execve(program, [program, *sys.argv[1:]], command.environment())
    except Exception as error:
        from cnihook.fast.errors_text import message_with_notes

        text = f"cni-runc: {message_with_notes(error)}"
        report(words, "error", text)
        try:
            os.write(2, f"{text}\n".encode(errors="replace"))
        except OSError:
            pass
        os._exit(failure)


class Arguments:
    """The arguments of a runtime, as far as they name the command, the container and its bundle."""

    def __init__(self, argv: "list[str]") -> None:
        self.log = self.log_format = ""
        self.command = ""
        self.bundle = ""
        self.config = ""
        self.container_id = ""
        pending = argv[::-1]
        while pending and not self.command:
            name, value = _option(pending, _GLOBAL_VALUES)
            if name == "log":
                self.log = value
            elif name == "log-format":
                self.log_format = value
            elif not name:
                self.command = value
        if self.command not in (*_MAKES, "start"):
            return
        while pending:
            name, value = _option(pending, _VALUES)
            if name in ("b", "bundle"):
                self.bundle = value
            elif name in ("f", "config"):  # of crun: this file instead of the one in the bundle
                self.config = value
            elif not name:
                self.container_id = value
                if value == "--" and pending:
                    self.container_id = pending[0]
                    return

    @property
    def config_path(self) -> str:
        return self.config or os.path.join(self.bundle, "config.json")


def _option(pending: "list[str]", with_value: "frozenset[str]") -> "tuple[str, str]":
    """Take the next option and its value from the end of `pending`.  An operand has an empty name."""
    word = pending.pop()
    if not word.startswith("-") or word in ("-", "--"):
        return "", word
    name, equals, value = word.lstrip("-").partition("=")
    if not equals and name in with_value and pending:
        value = pending.pop()
    return name, value


def find(name: str, own: str) -> str:
    """Return the path of the runtime of this name, or else of any known one; never of this program."""
    runtimes = (name,) if name in _RUNTIMES else _RUNTIMES
    folders = [folder for folder in os.environ.get("PATH", "").split(":") if folder]
    folders += [folder for folder in _FOLDERS.split(":") if folder not in folders]
    for runtime in runtimes:
        for folder in folders:
            path = f"{folder}/{runtime}"
            if os.access(path, os.X_OK) and not os.path.isdir(path) and os.path.realpath(path) != own:
                return path
    raise FileNotFoundError(2, f"there is no {' and no '.join(runtimes)} in {':'.join(folders)}")


def _prepare(words: Arguments) -> None:
    """Add the hook to the config.json of a container that requests networks.

    A malformed config.json is left for the runtime to report.  A failure of cnihook is an error, because
    such a container must not run without its networks.
    """
    from cnihook.oci import inject, podman
    from cnihook.oci.state import is_of_pod
    from cnihook.request import trusted_annotations
    from cnihook.types.errors import CniError

    path = words.config_path
    try:
        config = inject.read(path)
    except (OSError, CniError):
        return
    before = config.text
    own = _annotations(config)
    annotations = _take_sysctls(config)
    # Pods join a namespace, or use the host's; the hook would leave them alone.
    if not annotations and (not own or is_of_pod(config.get("annotations"))):
        return
    arguments = []
    if podman.maker(os.getppid()):
        if own:
            trusted_annotations.check_author(own, os.getppid())
        arguments = ["--trust-images"]  # the hook cannot see the origin of an annotation
    inject.add_annotations(config, annotations)
    inject.add_hooks(config, os.environ, arguments)
    if config.text != before:
        inject.write(path, config.text)


def _renew_names(container_id: str) -> None:
    """Write a container's names into its hosts file again, if its engine has replaced them.

    A failure is an event in the container's log, and the container starts without its names.
    """
    try:
        networks = os.listdir(_NAMES)
    except OSError:
        return
    if "/" in container_id or not any(
        os.path.isfile(f"{_NAMES}/{network}/{container_id}") for network in networks
    ):
        return
    from cnihook.names import hosts

    hosts.renew_with_event(container_id)


def _annotations(config: "JsonDocument") -> "dict[str, str]":
    """Return the annotations that request something."""
    from cnihook.request import options

    annotations = config.get("annotations")
    if not isinstance(annotations, dict):
        return {}
    return {name: text for name, text in annotations.items() if options.has_requests([name])}


def _take_sysctls(config: "JsonDocument") -> "dict[str, str]":
    """Remove the sysctls that stand for annotations, which no kernel has, and return the annotations."""
    sysctls = config.get("linux", "sysctl")
    annotations: dict[str, str] = {}
    for name in list(sysctls) if isinstance(sysctls, dict) else ():
        if name.startswith(SYSCTL):
            annotations[name.removeprefix("net.")] = str(sysctls[name])
            config.remove("linux", "sysctl", name)
    return annotations


def report(words: Arguments, level: str, text: str) -> None:
    """Append a message to the log file that the engine chose for the runtime, in the chosen format."""
    import time

    from cnihook.fast import fastjson

    if not words.log:
        return
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    if words.log_format == "json":
        line = fastjson.dumps({"level": level, "msg": text, "time": now})
    else:
        line = f"time={fastjson.dumps(now)} level={level} msg={fastjson.dumps(text)}"
    try:
        fd = os.open(words.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError:
        return  # the message is on stderr, too
    with open(fd, "w") as file:
        file.write(f"{line}\n")
