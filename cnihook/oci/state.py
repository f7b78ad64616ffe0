# SPDX-License-Identifier: Apache-2.0
"""The state of a container, which an OCI runtime passes to a hook on stdin (runtime-spec, "State")."""

from cnihook.fast import fastjson
from cnihook.types.config import NetConf, json_name
from cnihook.types.errors import DECODING_FAILURE, CniError
from cnihook.types.names import check_container_id

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any


# Annotations of the engines of Kubernetes, CRI-O and containerd.
_OF_POD = ("io.kubernetes.cri-o.ContainerType", "io.kubernetes.cri.container-type")
_MANAGER = "io.container.manager"  # by podman and CRI-O


class State:
    """The part of the state that a hook needs.

    `status` is not part of it: at createRuntime it is "creating" with runc, "created" with crun, and
    "stopped" with runc on a restore.  `ociVersion` is not part of it either: with crun it is "1.0".
    """

    __slots__ = ("annotations", "bundle", "id", "pid")

    def __init__(self, container_id: str, pid: int, bundle: str, annotations: "dict[str, str]") -> None:
        self.id = container_id
        self.pid = pid  # 0 after the end of the container
        self.bundle = bundle  # may be wrong: crun reports its own working folder
        self.annotations = annotations

    @property
    def is_of_pod(self) -> bool:
        """True for a container that CRI-O or containerd made for a pod of Kubernetes."""
        return is_of_pod(self.annotations)

    @property
    def is_of_engine(self) -> bool:
        """True if podman or CRI-O made it: the arguments of their hook are the same for all containers."""
        return _MANAGER in self.annotations


def is_of_pod(annotations: "Mapping[str, Any]") -> bool:
    """Return True if CRI-O or containerd wrote these annotations, for a pod of Kubernetes."""
    # Podman marks the containers of its own pods in the same way.
    return annotations.get(_MANAGER) != "libpod" and not annotations.keys().isdisjoint(_OF_POD)


def parse(text: bytes) -> State:
    """Return the state in a text.  Unknown keys are ignored.  Raises CniError if it is not a state."""
    if not text.strip():
        raise _refuse(
            "it is empty", "an OCI runtime writes the container's state to the hook; see `cnihook --help`"
        )
    try:
        raw: Any = fastjson.loads(text.decode())
    except ValueError as error:
        raise _refuse(f"it is not JSON: {error}") from None
    if not isinstance(raw, dict):
        raise _refuse(f"it must be an object, not {json_name(raw)}")
    conf = NetConf(raw)
    try:
        container_id = conf.string("id")
        pid = conf.integer("pid", default=0, low=0, high=1 << 31)
        bundle = conf.string("bundle")
        annotations = conf.object("annotations").raw
    except CniError as error:
        raise _refuse(error.msg) from None
    try:
        check_container_id(container_id)
    except CniError as error:
        raise _refuse(f'"id": {error.msg}', error.details) from None
    return State(container_id, pid, bundle, {key: str(value) for key, value in annotations.items()})


def _refuse(why: str, details: str = "") -> CniError:
    return CniError(DECODING_FAILURE, f"container state on stdin: {why}", details)
