# SPDX-License-Identifier: Apache-2.0
"""
The containers of docker, podman, CRI-O and containerd: their names, and the state folders of their runtimes.

    DATA/containers/ID/config.v2.json            docker: "Name"
    STORE/DRIVER-containers/containers.json      podman, CRI-O: "names" of each "id"
    ROOT/ID/state.json, ROOT/ID/status           the states of runc and crun; of containerd's containers with
                                                 the annotations of nerdctl and of the CRI

DATA, STORE and docker's ROOT are in the files by which the engines are configured.  No engine is asked: its
daemon may hang, and a client takes 50 ms.  If a file cannot be read, its containers have no name.  A caller
that needs what is in a file passes `complain`, which is called with the reason.
"""

import json
import os
from collections.abc import Iterator

from cnihook.fast import statefile
from cnihook.fast.errors_text import message
from cnihook.types import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Complain = Callable[[str], None]

PAUSE_LABEL = "cnihook.pause"  # on a container of docker-run: the name of its pause container
PAUSE_NAME = "cnihook-pause-"  # and a random number: an image, which can have labels, cannot know the name

DOCKER_SETTINGS = "/etc/docker/daemon.json"
_DOCKER_FOLDERS = {"data-root": "/var/lib/docker", "exec-root": "/run/docker"}
_STORAGE_CONFS = ("/etc/containers/storage.conf", "/usr/share/containers/storage.conf")
_RUNC_OF_CONTAINERD = (
    "/run/containerd/runc"  # with a folder for each namespace; wherever its other files are
)
# A file in the folder of a container: its runtime, and its keys of the process and of the time of its start.
_STATES = {
    "state.json": ("runc", "init_process_pid", "init_process_start"),
    "status": ("crun", "pid", "process-start-time"),
}


class EngineContainer(Value):
    """A container of an engine.  `network_of`: the ID of the container whose network it uses, or its own."""

    __slots__ = ("id", "name", "network_of")

    def __init__(self, container_id: str, name: str = "", network_of: str = "") -> None:
        self.id = container_id
        self.name = name  # empty for none
        self.network_of = network_of or container_id


def containers() -> "list[EngineContainer]":
    """Return the containers that engines know on this host, including those that have ended."""
    return [*_of_docker(), *_of_storage(), *_of_containerd()]


def places(root: str = "") -> "dict[str, list[tuple[str, str]]]":
    """Return {container ID: [(runtime, its --root)]} of what runc and crun have a state of.

    `root`: look only there.
    """
    by_id: dict[str, list[tuple[str, str]]] = {}
    for folder in [root] if root else _roots():
        for container_id in _names(folder):
            for file, (runtime, *_) in _STATES.items():
                if os.path.isfile(f"{folder}/{container_id}/{file}"):
                    by_id.setdefault(container_id, []).append((runtime, folder))
    return by_id


def processes(container_id: str) -> "Iterator[tuple[int, int]]":
    """Yield (PID, start in clock ticks) of a container's process, from the states of runc and crun."""
    for folder in _roots():
        for file, (_, *keys) in _STATES.items():
            raw = read_json(f"{folder}/{container_id}/{file}")
            pid, start = (_object(raw, key) for key in keys)
            if type(pid) is int and pid > 0 and type(start) is int:
                yield pid, start


def _roots() -> "Iterator[str]":
    """Yield the folders in which engines, and users, let runc and crun keep states."""
    yield from ("/run/runc", "/run/crun")
    yield from (f"{_RUNC_OF_CONTAINERD}/{namespace}" for namespace in _names(_RUNC_OF_CONTAINERD))
    exec_root = docker_folder("exec-root")
    for name in _names(exec_root):
        if name.startswith("runtime-"):
            yield from (f"{exec_root}/{name}/{space}" for space in _names(f"{exec_root}/{name}"))


# Docker


def docker_folder(key: str, complain: "Complain | None" = None) -> str:
    """Return docker's folder `data-root` or `exec-root`."""
    return _text(read_json(DOCKER_SETTINGS, complain), key) or _DOCKER_FOLDERS[key]


def _of_docker() -> "list[EngineContainer]":
    folder = f"{docker_folder('data-root')}/containers"
    by_name: dict[str, EngineContainer] = {}
    pauses: dict[str, str] = {}
    for container_id in _names(folder):
        raw = read_json(f"{folder}/{container_id}/config.v2.json")
        name = _text(raw, "Name").removeprefix("/")
        if name:
            by_name[name] = EngineContainer(container_id, name)
            pauses[name] = _text(_object(_object(raw, "Config"), "Labels"), PAUSE_LABEL)
    for name, pause in pauses.items():
        if pause.startswith(PAUSE_NAME) and pause in by_name:
            by_name[name].network_of = by_name[pause].id
            by_name[pause].name = name  # docker-run chose the name of the pause container
    return list(by_name.values())


# Podman and CRI-O


def _of_storage() -> "Iterator[EngineContainer]":
    for store in _stores():
        for folder in _names(store):
            if not folder.endswith("-containers"):
                continue
            for file in ("containers.json", "volatile-containers.json"):
                listed = read_json(f"{store}/{folder}/{file}")
                for one in listed if isinstance(listed, list) else ():
                    container_id, names = _text(one, "id"), one.get("names") if isinstance(one, dict) else ()
                    for name in names if container_id and isinstance(names, list) else ():
                        if isinstance(name, str):
                            yield EngineContainer(container_id, name)


def _stores() -> "list[str]":
    """Return the graph root and the run root of containers/storage."""
    stores = {"graphroot": "/var/lib/containers/storage", "runroot": "/run/containers/storage"}
    for path in _STORAGE_CONFS:
        if not os.path.lexists(path):
            continue
        import tomllib  # few hosts have podman

        try:
            storage = tomllib.loads(read(path).decode()).get("storage")
        except ValueError:
            break
        stores |= {key: value for key in stores if (value := _text(storage, key))}
        break  # the first file replaces the second
    return list(stores.values())


# Containerd


def _of_containerd() -> "Iterator[EngineContainer]":
    for namespace in _names(_RUNC_OF_CONTAINERD):
        for container_id in _names(f"{_RUNC_OF_CONTAINERD}/{namespace}"):
            annotations = _annotations(f"{_RUNC_OF_CONTAINERD}/{namespace}/{container_id}")
            if name := annotations.get("nerdctl/name"):
                yield EngineContainer(container_id, name)
            elif sandbox := annotations.get("io.kubernetes.cri.sandbox-id"):
                keys = ("io.kubernetes.cri.sandbox-namespace", "io.kubernetes.cri.sandbox-name")
                pod = "/".join(filter(None, map(annotations.get, keys)))
                yield EngineContainer(container_id, pod if sandbox == container_id else "", sandbox)


def _annotations(folder: str) -> "dict[str, str]":
    """Return the annotations of a container, from the state of its runtime."""
    labels = _object(_object(read_json(f"{folder}/state.json"), "config"), "labels")
    if isinstance(labels, list):
        pairs = (label.partition("=") for label in labels if isinstance(label, str))
        return {key: value for key, _, value in pairs}
    bundle = _text(read_json(f"{folder}/status"), "bundle")
    annotations = _object(read_json(f"{bundle}/config.json") if bundle else None, "annotations")
    return {key: str(value) for key, value in annotations.items()} if isinstance(annotations, dict) else {}


# Reading


def _names(folder: str) -> "list[str]":
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []


def read(path: str, complain: "Complain | None" = None) -> bytes:
    """Return the content of a file; nothing if it does not exist or cannot be used."""
    try:
        return statefile.content(path, follow=True) or b""
    except statefile.UnusableFileError as error:
        problem = f"{path}: {error}"
    except OSError as error:
        problem = message(error)
    if complain:
        complain(problem)
    return b""


def read_json(path: str, complain: "Complain | None" = None) -> "Any":
    """Return the value in a file; None if there is no value that can be used."""
    content = read(path, complain)
    try:
        return json.loads(content) if content else None
    except (ValueError, RecursionError) as error:
        if complain:
            complain(f"{path}: {error}")
        return None


def _object(value: "Any", key: str) -> "Any":
    return value.get(key) if isinstance(value, dict) else None


def _text(value: "Any", key: str) -> str:
    text = _object(value, key)
    return text if isinstance(text, str) else ""
