# SPDX-License-Identifier: Apache-2.0
"""
cni-runc: runc, with cnihook's hook in each container that asks for networks of CNI.

For engines that know runtimes and no hooks: docker, containerd, nerdctl.  It changes config.json where a
container is about to be made, and becomes runc (as cni-crun: crun) by execve, so that process, descriptors,
signals and exit code are the runtime's own.  All other containers, and all other commands, reach the
runtime as they are.

Docker from 26 on writes /etc/hosts between `create` and `start`, after the hook.  So `start` writes the
names of such a container again if they are missing, before its program runs.

A container asks by annotations `cnihook.*`.  Docker before 24 has no --annotation; to it the annotation
cnihook.NAME is `--sysctl net.cnihook.NAME=...`, which an image cannot set.  Other runtimes refuse it.

Podman before 4.6 copies an image's annotations into the container.  There these sysctls are the only way,
unless /etc/cnihook/config.json trusts images.
"""

import os
import sys

from cnihook.lean import command, signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from cnihook.lean.splice import Document

_MAKES = ("create", "run", "restore")  # the commands that make a container, and read its config.json
_RUNTIMES = ("runc", "crun")
_NAMES = "/run/cnihook/names"  # oci.entries, which need not be imported to look for a file
# Not a variable of the environment, which may be the image's; and a seal on one helps little, for
# `docker exec` and health checks show it, and images made of the container have it.
SYSCTL = "net.cnihook."
_FOLDERS = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# Options that take the next word for their value, of runc and crun alike; without their hyphens, of which Go
# takes one or two.
_GLOBAL_VALUES = frozenset("log log-format log-level root rootless criu cgroup-manager".split())
_VALUES = frozenset(
    "b bundle f config console-socket pid-file pidfd-socket preserve-fds image-path work-path parent-path"
    " manage-cgroups-mode empty-ns lsm-profile lsm-mount-context status-fd page-server".split()
)


def main(umask: "int | None" = None) -> "NoReturn":
    """`umask`: that of the caller, where it has been changed already."""
    command.restrict_umask(umask)
    words = Words(sys.argv[1:])
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
        from cnihook.lean.words import describe

        text = f"cni-runc: {describe(error)}"
        report(words, "error", text)
        try:
            os.write(2, f"{text}\n".encode(errors="replace"))
        except OSError:
            pass
        os._exit(failure)


class Words:
    """The arguments of a runtime, as far as they say which container is to be made of what."""

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
            elif name in ("f", "config"):  # crun's: instead of the one in the bundle
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
    """Take the next option, and its value if it has one, from the end; no name for what is no option."""
    word = pending.pop()
    if not word.startswith("-") or word in ("-", "--"):
        return "", word
    name, equals, value = word.lstrip("-").partition("=")
    if not equals and name in with_value and pending:
        value = pending.pop()
    return name, value


def find(name: str, own: str) -> str:
    """The runtime of this name, or else any that is known; never this program itself."""
    wanted = (name,) if name in _RUNTIMES else _RUNTIMES
    folders = [folder for folder in os.environ.get("PATH", "").split(":") if folder]
    folders += [folder for folder in _FOLDERS.split(":") if folder not in folders]
    for runtime in wanted:
        for folder in folders:
            path = f"{folder}/{runtime}"
            if os.access(path, os.X_OK) and not os.path.isdir(path) and os.path.realpath(path) != own:
                return path
    raise FileNotFoundError(2, f"there is no {' and no '.join(wanted)} in {':'.join(folders)}")


def _prepare(words: Words) -> None:
    """Add the hook to the config.json of a container that asks for networks.

    What makes no sense there is the runtime's to say; a failure of ours is an error, for such a container
    shall not run without its networks.
    """
    from cnihook.oci import inject, podman, requests
    from cnihook.oci.bundle import OWN, Bundle
    from cnihook.spec.errors import CniError

    path = words.config_path
    try:
        config = inject.read(path)
    except (OSError, CniError):
        return
    if Bundle(config.get(), path).network_namespace != OWN:
        return
    before = config.text
    own = _annotations(config)
    annotations = _take_sysctls(config)
    if not annotations and not own:
        return
    arguments = []
    if podman.maker(os.getppid()):
        if own:
            requests.check_author(own, os.getppid())
        arguments = ["--trust-images"]  # the hook cannot see where an annotation comes from
    inject.add_annotations(config, annotations)
    inject.add_hooks(config, os.environ, arguments)
    if config.text != before:
        inject.write(path, config.text)


def _renew_names(container_id: str) -> None:
    """Write a container's names into its hosts file again, if its engine has replaced them.

    A container starts without its names rather than not at all: what prevents it is an event in its log.
    """
    try:
        networks = os.listdir(_NAMES)
    except OSError:
        return
    if "/" in container_id or not any(
        os.path.isfile(f"{_NAMES}/{network}/{container_id}") for network in networks
    ):
        return
    from cnihook.oci import hosts

    hosts.renew_with_event(container_id)


def _annotations(config: "Document") -> "dict[str, str]":
    """The annotations that request something."""
    from cnihook.oci import wants

    annotations = config.get("annotations")
    if not isinstance(annotations, dict):
        return {}
    return {name: text for name, text in annotations.items() if wants.is_asking([name])}


def _take_sysctls(config: "Document") -> "dict[str, str]":
    """The annotations that came as sysctls.  There are none such, so the runtime does not see them."""
    sysctls = config.get("linux", "sysctl")
    found: dict[str, str] = {}
    for name in list(sysctls) if isinstance(sysctls, dict) else ():
        if name.startswith(SYSCTL):
            found[name.removeprefix("net.")] = str(sysctls[name])
            config.remove("linux", "sysctl", name)
    return found


def report(words: Words, level: str, text: str) -> None:
    """To the file that the engine reads the runtime's messages from, in the form that it asked for."""
    import time

    from cnihook.lean import fastjson

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
        return  # and it is on stderr
    with open(fd, "w") as file:
        file.write(f"{line}\n")
