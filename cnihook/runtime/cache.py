# SPDX-License-Identifier: Apache-2.0
"""
The record of what is attached: libcni's own files, so that either can detach what the other attached.

/var/lib/cni/results/NETWORK-CONTAINER-IFNAME holds one attachment.  It is written before the first plugin
runs, without a result, and again with it.  The key `cnihook` is ours, and passed over by libcni: who the
container was (boot, process, namespace), without which nobody could tell later that it is gone.
"""

import binascii
import os

from cnihook.lean import fastjson
from cnihook.spec.errors import INVALID_CONFIG, CniError
from cnihook.spec.names import is_text, record_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

FOLDER = "/var/lib/cni/results"
KIND = "cniCacheV1"


class Record:
    """One attachment."""

    __slots__ = (
        "capability_args", "cni_args", "config", "container_id", "folder", "holder", "ifname", "netns",
        "network", "plugin_path", "result", "sequence",
    )  # fmt: skip

    def __init__(
        self,
        network: str,
        container_id: str,
        ifname: str,
        *,
        config: bytes,
        netns: str = "",
        cni_args: str = "",
        capability_args: "dict[str, Any] | None" = None,
        result: "dict[str, Any] | None" = None,
        holder: "dict[str, Any] | None" = None,
        sequence: int = 0,
        plugin_path: "list[str] | None" = None,
        folder: str = "",
    ) -> None:
        self.folder = folder or FOLDER
        self.network = network
        self.container_id = container_id
        self.ifname = ifname
        self.config = config  # the text of the network's configuration
        self.netns = netns
        self.cni_args = cni_args
        self.capability_args = capability_args or {}
        self.result = result
        self.holder = holder  # see runtime.holder; None where libcni wrote the record
        self.plugin_path = plugin_path  # folders that went before the built-in plugins, and must again
        self.sequence = sequence  # in which order the container's attachments were made

    @property
    def identity(self) -> "tuple[str, str, str]":
        return self.network, self.container_id, self.ifname

    @property
    def path(self) -> str:
        return f"{self.folder}/{record_name(self.network, self.container_id, self.ifname)}"

    def write(self) -> None:
        """Whole or not at all, and on the disk before this returns."""
        fields: dict[str, Any] = {
            "kind": KIND,
            "containerId": self.container_id,
            "config": binascii.b2a_base64(self.config, newline=False).decode(),
            "ifName": self.ifname,
            "networkName": self.network,
        }
        if self.netns:
            fields["netns"] = self.netns
        if self.cni_args:
            fields["cniArgs"] = [pair.split("=", 1) for pair in self.cni_args.split(";") if "=" in pair]
        if self.capability_args:
            fields["capabilityArgs"] = self.capability_args
        if self.result is not None:
            fields["result"] = self.result
        if self.holder is not None:
            fields["cnihook"] = {**self.holder, "sequence": self.sequence, "pluginPath": self.plugin_path}
        path = self.path
        other = read(path)
        if other and other.identity != self.identity:
            theirs = f"container {other.container_id} on network {other.network}"
            raise CniError(
                INVALID_CONFIG,
                f"container {self.container_id} on network {self.network}: its record would have the name of"
                f" another's, {theirs}: {path}",
                "one of them needs another name",
            )
        os.makedirs(self.folder, mode=0o700, exist_ok=True)
        temporary = _temporary(self.container_id, self.folder)
        try:
            fd = os.open(
                temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
            )
            with open(fd, "wb") as file:
                file.write(fastjson.dumps(fields).encode())
                file.flush()
                os.fsync(fd)
            os.rename(temporary, path)
        except BaseException as error:
            discard_unfinished(self.container_id, self.folder)
            if (
                isinstance(error, OSError) and not error.filename
            ):  # a full disk is met by write(), which names no file
                raise OSError(error.errno, error.strerror, path) from None
            raise

    def remove(self) -> None:
        try:
            os.unlink(self.path)
        except FileNotFoundError:
            pass


def _temporary(container_id: str, folder: str) -> str:
    """Where a record is written before it gets its name; whoever writes holds the container's lock."""
    return f"{folder}/.{container_id[:200]}.new"


def discard_unfinished(container_id: str, folder: str = "") -> None:
    """Remove a record whose writer was killed before it was whole.  Under the container's lock only."""
    try:
        os.unlink(_temporary(container_id, folder or FOLDER))
    except OSError:
        pass


def unfinished(folder: str = "") -> "list[str]":
    """The containers of which there is such a one."""
    return [
        name[1:-4] for name in _names(folder or FOLDER) if name.startswith(".") and name.endswith(".new")
    ]


def read(path: str) -> "Record | None":
    """The record in a file; None if there is none, or it is damaged or of another kind."""
    try:
        with open(path, "rb") as file:
            raw = fastjson.loads(file.read().decode())
    except (OSError, ValueError):
        return None
    if not isinstance(raw, dict) or raw.get("kind") != KIND:
        return None
    names = [raw.get(key) for key in ("networkName", "containerId", "ifName")]
    network, container_id, ifname = (name if isinstance(name, str) else "" for name in names)
    if not (network and container_id and ifname and is_text(f"{network}{container_id}{ifname}")):
        return None
    try:
        config = binascii.a2b_base64(raw.get("config") or "")
        pairs = [f"{key}={value}" for key, value in raw.get("cniArgs") or ()]
    except (ValueError, TypeError):
        return None

    def an_object(key: str) -> "dict[str, Any] | None":
        value = raw.get(key)
        return value if isinstance(value, dict) else None

    holder = an_object("cnihook")
    sequence = holder.pop("sequence", 0) if holder else 0
    plugin_path = holder.pop("pluginPath", None) if holder else None
    if holder and not isinstance(holder.get("pid"), int):
        holder["pid"] = 0
    netns = raw.get("netns")
    return Record(
        network,
        container_id,
        ifname,
        config=config,
        netns=netns if isinstance(netns, str) and is_text(netns) else "",
        cni_args=";".join(pairs),
        capability_args=an_object("capabilityArgs"),
        result=an_object("result"),
        holder=holder,
        sequence=sequence if isinstance(sequence, int) else 0,
        plugin_path=list(map(str, plugin_path)) if isinstance(plugin_path, list) else None,
        folder=os.path.dirname(path),
    )


def find(network: str, container_id: str, ifname: str, folder: str = "") -> "Record | None":
    """The record of one attachment.

    Its identity is looked at: a-b/c and a/b-c have one file name between them.
    """
    found = read(f"{folder or FOLDER}/{record_name(network, container_id, ifname)}")
    if found and found.identity == (network, container_id, ifname):
        return found
    return None


def of_container(container_id: str, folder: str = "") -> "list[Record]":
    """All attachments of one container, in the order in which they were made."""
    found = _read_all(f"-{container_id}-", folder or FOLDER)
    return [record for record in found if record.container_id == container_id]


def of_network(network: str, folder: str = "") -> "list[Record]":
    """All attachments to one network."""
    found = _read_all(f"{network}-", folder or FOLDER)
    return [record for record in found if record.network == network]


def all_records(folder: str = "") -> "list[Record]":
    return _read_all("", folder or FOLDER)


def damaged(folder: str = "") -> "list[str]":
    """Paths of files that are no records, such as a crash of the machine leaves."""
    paths = [f"{folder or FOLDER}/{name}" for name in _names(folder or FOLDER) if not name.startswith(".")]
    return [path for path in paths if not read(path)]


def _names(folder: str) -> "list[str]":
    try:
        return sorted(os.listdir(folder))
    except FileNotFoundError:
        return []


def _read_all(part: str, folder: str) -> "list[Record]":
    found = []
    for name in _names(folder):
        if part in name and not name.startswith("."):
            record = read(f"{folder}/{name}")
            # The name must be the one that the content gives: a copy beside it is no second attachment.
            if record and record.path == f"{folder}/{name}":
                found.append(record)
    return sorted(found, key=lambda record: record.sequence)
