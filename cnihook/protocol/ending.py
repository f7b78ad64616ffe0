# SPDX-License-Identifier: Apache-2.0
"""The rest of the DELs of a container that has ended: what the kernel would make them wait for."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Ending:
    """The end of a container's networks: what is silent, but not deleted yet.

    The links are not listed: Call.remove_link() puts them into a group of the kernel.
    """

    __slots__ = (
        "bridges", "container_id", "folder", "host_id", "in_sandbox", "is_named", "netns_id", "on_host",
        "records",
    )  # fmt: skip

    def __init__(
        self, container_id: str, netns_id: "tuple[int, int]", folder: str, host_id: int, *, is_named: bool
    ) -> None:
        self.container_id = container_id
        self.host_id = host_id  # inode of the host's namespace: priv-net-run may run in that of another
        self.netns_id = netns_id  # device and inode of the container's namespace
        self.folder = folder  # of its records
        self.is_named = is_named  # the name of the namespace has to be removed, too
        self.records: list[
            tuple[str, str]
        ] = []  # network and interface of each record that is kept until then
        self.bridges: list[str] = []  # that may be unused once the links are deleted
        self.on_host = self.in_sandbox = False  # where there are links to delete

    @property
    def is_empty(self) -> bool:
        return not (self.bridges or self.on_host or self.in_sandbox)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Ending) and self.to_json() == other.to_json()

    def to_json(self) -> "dict[str, Any]":
        return {name: getattr(self, name) for name in self.__slots__}

    @classmethod
    def from_json(cls, raw: "Any") -> "Ending":
        """Return the ending in a file.  Raises ValueError."""
        try:
            device, inode = raw["netns_id"]
            ending = cls(
                str(raw["container_id"]),
                (int(device), int(inode)),
                str(raw["folder"]),
                int(raw["host_id"]),
                is_named=bool(raw["is_named"]),
            )
            ending.records = [(str(network), str(ifname)) for network, ifname in raw["records"]]
            ending.bridges = [str(name) for name in raw["bridges"]]
            ending.on_host, ending.in_sandbox = bool(raw["on_host"]), bool(raw["in_sandbox"])
        except (KeyError, TypeError) as error:
            raise ValueError(f"not an ending: {error!r}") from None
        return ending
