# SPDX-License-Identifier: Apache-2.0
"""The state of a container as an OCI runtime gives it to a hook on stdin (runtime-spec, "State")."""

from cnihook.lean import fastjson
from cnihook.spec.config import NetConf, json_name
from cnihook.spec.errors import DECODING_FAILURE, CniError
from cnihook.spec.names import check_container_id

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


# Of Kubernetes' engines, CRI-O and containerd.
_OF_POD = ("io.kubernetes.cri-o.ContainerType", "io.kubernetes.cri.container-type")


class State:
    """What a hook needs of it.

    `status` is not among that: at createRuntime runc says creating, crun created, and runc on a restore
    stopped. Nor is ociVersion, which crun gives as "1.0".
    """

    __slots__ = ("annotations", "bundle", "id", "pid")

    def __init__(self, container_id: str, pid: int, bundle: str, annotations: "dict[str, str]") -> None:
        self.id = container_id
        self.pid = pid  # 0 where there is none: after the container's end
        self.bundle = bundle  # not to be trusted: crun gives its own working folder
        self.annotations = annotations

    @property
    def is_of_pod(self) -> bool:
        """True for a container that CRI-O or containerd made for a pod of Kubernetes."""
        # Podman marks the containers of its own pods in the same way.
        is_podmans = self.annotations.get("io.container.manager") == "libpod"
        return not is_podmans and not self.annotations.keys().isdisjoint(_OF_POD)


def parse(text: bytes) -> State:
    """Raises CniError for anything but a container's state; what it has besides is passed over."""
    if not text.strip():
        raise _refuse(
            "it is empty", "an OCI runtime writes the container's state to the hook; see `cnihook --help`"
        )
    try:
        raw: Any = fastjson.loads(text.decode())
    except ValueError as error:
        raise _refuse(f"it is no JSON: {error}") from None
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
