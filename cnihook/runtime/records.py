# SPDX-License-Identifier: Apache-2.0
"""
The records of attachments, in libcni's result cache: libcni and cnihook can detach each other's attachments.

/var/lib/cni/results/NETWORK-CONTAINER-IFNAME holds one attachment.  It is written without a result before
the first plugin runs, and again with the result.  The key `cnihook` is an addition that libcni ignores.  It
holds the process identity (boot, process, namespace), which shows later whether the container is gone, and
what update.py adds.
"""

import binascii
import os

from cnihook.fast import fastjson, statefile
from cnihook.runtime.identity import ProcessIdentity
from cnihook.types.config import LenientConf
from cnihook.types.errors import INVALID_CONFIG, IO_FAILURE, CniError
from cnihook.types.names import check_container_id, check_ifname, check_network_name, is_text, record_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

FOLDER = "/var/lib/cni/results"
ENDINGS = "/run/cnihook/ending"  # a file for each container whose end is not finished: see ending.py
KIND = "cniCacheV1"
_OWN_KEYS = frozenset((*ProcessIdentity.KEYS, "sequence", "pluginPath"))
_LONGEST = 64 << 20  # bytes; a record of 10,000 published ports has 1 MB


class Record:
    """One attachment."""

    __slots__ = (
        "capability_args", "cni_args", "config", "container_id", "extra", "folder", "ifname", "netns",
        "network", "plugin_dirs", "process", "result", "sequence",
    )  # fmt: skip

    def __init__(
        self,
        network: str,
        container_id: str,
        ifname: str,
        *,
        config: bytes,
        netns: str = "",
        cni_args: "dict[str, str] | None" = None,
        capability_args: "dict[str, Any] | None" = None,
        result: "dict[str, Any] | None" = None,
        process: "ProcessIdentity | None" = None,
        sequence: int = 0,
        plugin_dirs: "list[str] | None" = None,
        extra: "dict[str, Any] | None" = None,
        folder: str = "",
    ) -> None:
        self.folder = folder or FOLDER
        self.network = network
        self.container_id = container_id
        self.ifname = ifname
        self.config = config  # the text of the network's configuration
        self.netns = netns
        self.cni_args = cni_args or {}
        self.capability_args = capability_args or {}
        self.result = result
        self.process = process  # None if libcni wrote the record
        self.plugin_dirs = plugin_dirs  # folders that were searched before the built-in plugins
        self.sequence = sequence  # number of the attachment in the order of the container's ADDs
        self.extra = extra or {}  # further keys of `cnihook`, such as those of update.py

    def __repr__(self) -> str:
        """Return the names only, because the configuration and the arguments may contain secrets."""
        return f"Record({self.network!r}, {self.container_id!r}, {self.ifname!r})"

    @property
    def identity(self) -> "tuple[str, str, str]":
        return self.network, self.container_id, self.ifname

    @property
    def has_open_change(self) -> bool:
        """True if update.settle() may have work: a change was interrupted, or lasts for a time only."""
        return "pending" in self.extra or "until" in self.extra

    @property
    def path(self) -> str:
        return f"{self.folder}/{record_name(self.network, self.container_id, self.ifname)}"

    def write(self) -> None:
        """Store the record whole or not at all: the content is on the disk before the file gets its name."""
        fields: dict[str, Any] = {"kind": KIND}
        if self.process is not None:
            # First, so that it survives if the file is cut short: it says whose record this is.
            own = {"sequence": self.sequence, "pluginPath": self.plugin_dirs, **self.process.to_json()}
            fields["cnihook"] = {**own, **self.extra, **own}
        fields |= {
            "containerId": self.container_id,
            "config": binascii.b2a_base64(self.config, newline=False).decode(),
            "ifName": self.ifname,
            "networkName": self.network,
        }
        if self.netns:
            fields["netns"] = self.netns
        if self.cni_args:
            fields["cniArgs"] = list(map(list, self.cni_args.items()))
        if self.capability_args:
            fields["capabilityArgs"] = self.capability_args
        if self.result is not None:
            fields["result"] = self.result
        path = self.path
        self.refuse_another()
        os.makedirs(self.folder, mode=0o700, exist_ok=True)
        temporary = _temporary(self.container_id, self.folder)
        try:
            try:
                fd = statefile.create(temporary)
            except OSError:  # a FIFO, a link or a folder there is the rest of no record
                discard_partial(self.container_id, self.folder)
                fd = statefile.create(temporary)
            with open(fd, "wb") as file:
                file.write(fastjson.dumps(fields).encode())
                file.flush()
                os.fsync(fd)
            # The folder is not synced: that would take 0.6 to 1.4 ms, at times 80, of an ADD of 30.  If a
            # power cut loses the record, it also loses what a plugin wrote to the same disk later.  A lease
            # from before a power cut is released.
            os.rename(temporary, path)
        except BaseException as error:
            discard_partial(self.container_id, self.folder)
            if isinstance(error, OSError) and not error.filename:  # write() does not name it on a full disk
                raise OSError(error.errno, error.strerror, path) from None
            raise

    def refuse_another(self) -> None:
        """Raise CniError if the file is the record of another attachment."""
        path = self.path
        try:
            other = read(path)
        except DamagedRecordError as error:
            other = error.record if error.is_misnamed else None  # else the same record, which is replaced
        if other and other.identity != self.identity:
            holder = f"container {other.container_id} on network {other.network}"
            raise CniError(
                INVALID_CONFIG,
                f"container {self.container_id} on network {self.network}: its record would have the file"
                f" name of the record of {holder}: {path}",
                "use another container ID or network name for one of them",
            )

    def remove(self) -> None:
        try:
            os.unlink(self.path)
        except FileNotFoundError:
            pass


def _temporary(container_id: str, folder: str) -> str:
    """Return the path of a record before it gets its name.  The writer holds the container's lock."""
    return f"{folder}/.{container_id[:200]}.new"


def discard_partial(container_id: str, folder: str = "") -> None:
    """Remove a partial file, whose writer was killed.  The caller must hold the container's lock."""
    statefile.discard(_temporary(container_id, folder or FOLDER))


def partial(folder: str = "") -> "list[str]":
    """Return the IDs of the containers that have a partial file."""
    return [
        name[1:-4] for name in _names(folder or FOLDER) if name.startswith(".") and name.endswith(".new")
    ]


class DamagedRecordError(CniError):
    """A file that has the path of a record but is not one: cut short, overwritten, or not a regular file.

    `record` is what can still be read: the names in the content if they agree with the file name, and the
    configuration and the process.  None: only the file name is known.  `is_foreign`: the rest of the content
    shows that another runtime wrote it.
    """

    def __init__(
        self, path: str, problem: str, record: "Record | None" = None, *, is_foreign: bool = False
    ) -> None:
        super().__init__(IO_FAILURE, f"the record {path} {problem}")
        self.path = path
        self.record = record
        self.is_foreign = is_foreign

    @property
    def is_misnamed(self) -> bool:
        """True if the file is a whole record of another attachment, such as a copy."""
        return self.record is not None and self.record.path != self.path

    def identities(self) -> "list[tuple[str, str, str]]":
        """Return each (network, container ID, ifname) with this file name, or only the one that is known.

        A file name does not show where the network's name ends: a-b-c-eth0 is a-b/c as well as a/b-c.
        """
        if self.record and not self.is_misnamed:
            return [self.record.identity]
        return _splits(os.path.basename(self.path))

    def container_ids(self) -> "list[str]":
        return list(dict.fromkeys(identity[1] for identity in self.identities()))


def _splits(name: str) -> "list[tuple[str, str, str]]":
    parts = name.split("-")
    splits = [
        ("-".join(parts[:i]), "-".join(parts[i:j]), "-".join(parts[j:]))
        for i in range(1, len(parts) - 1)
        for j in range(i + 1, len(parts))
    ]
    return [names for names in splits if are_names(*names)]


def are_names(network: str, container_id: str, ifname: str) -> bool:
    """Return True if these may be the names of an attachment."""
    try:
        check_network_name(network)
        check_container_id(container_id)
        check_ifname(ifname)
    except CniError:
        return False
    return True


def read(path: str) -> "Record | None":
    """Return the record in a file; None if the file does not exist, or libcni before 0.8 wrote it.

    Raises DamagedRecordError if the file is not a record.  Raises OSError if it cannot be read: it may still
    be one.
    """
    try:
        content = statefile.content(path, longest=_LONGEST)
    except statefile.UnusableFileError as error:
        raise DamagedRecordError(path, str(error)) from None
    if content is None:
        return None
    is_foreign = b'"kind"' in content and b'"cnihook"' not in content

    def damaged(problem: str, record: "Record | None" = None) -> DamagedRecordError:
        return DamagedRecordError(path, problem, record, is_foreign=is_foreign)

    try:
        raw = fastjson.loads(content.decode())
    except ValueError:
        raise damaged("is not JSON" if content else "is empty") from None
    if not isinstance(raw, dict):
        raise damaged("is not an object")
    if raw.get("kind") != KIND:
        if "cnihook" not in raw and "cniVersion" in raw:
            return None  # a result alone
        raise damaged(f'is not of kind "{KIND}"')
    names = [raw.get(key) for key in ("networkName", "containerId", "ifName")]
    network, container_id, ifname = (name if isinstance(name, str) else "" for name in names)
    if not are_names(network, container_id, ifname):
        raise damaged("does not name its network, container or interface")

    def an_object(key: str) -> "dict[str, Any]":
        value = raw.get(key)
        return value if isinstance(value, dict) else {}

    problem = ""
    try:
        config = binascii.a2b_base64(raw.get("config") or "")
    except (ValueError, TypeError):
        config, problem = b"", "has a configuration that is not base64"
    own = an_object("cnihook")
    process = None
    if "cnihook" in raw:
        try:
            process = ProcessIdentity.from_json(own)
        except ValueError as error:
            problem = f"does not identify its process: {error}"
    netns, plugin_dirs, sequence = raw.get("netns"), own.get("pluginPath"), own.get("sequence")
    if netns is None and "cnihook" not in raw:  # libcni before 1.2 has it in the result only
        interfaces = LenientConf(an_object("result")).objects("interfaces")
        netns = "".join(one.string("sandbox") for one in interfaces if one.string("name") == ifname)
    record = Record(
        network,
        container_id,
        ifname,
        config=config,
        netns=netns if isinstance(netns, str) and is_text(netns) else "",
        cni_args=_pairs(raw.get("cniArgs")),
        capability_args=an_object("capabilityArgs"),
        result=raw["result"] if isinstance(raw.get("result"), dict) else None,
        process=process,
        sequence=sequence if isinstance(sequence, int) else 0,
        plugin_dirs=list(map(str, plugin_dirs)) if isinstance(plugin_dirs, list) else None,
        extra={key: value for key, value in own.items() if key not in _OWN_KEYS},
        folder=os.path.dirname(path),
    )
    if record.path != path:
        problem = f"has the content of another record, of {network} {container_id} {ifname}"
    if problem:
        raise damaged(problem, record)
    return record


def _pairs(pairs: object) -> "dict[str, str]":
    try:
        return {str(key): str(value) for key, value in pairs or ()}  # type: ignore[attr-defined]
    except (ValueError, TypeError):
        return {}


def find(network: str, container_id: str, ifname: str, folder: str = "") -> "Record | None":
    """Return the record of one attachment, or None.  Raises DamagedRecordError or OSError.

    A file of this name may be the record of another attachment: a-b/c and a/b-c share one name.
    """
    try:
        record = read(f"{folder or FOLDER}/{record_name(network, container_id, ifname)}")
    except DamagedRecordError as error:
        if (network, container_id, ifname) in error.identities():
            raise
        return None
    return record if record and record.identity == (network, container_id, ifname) else None


def of_container(
    container_id: str, folder: str = "", damaged: "list[DamagedRecordError] | None" = None
) -> "list[Record]":
    """Return the records of one container, in the order of its ADDs.

    Damaged files that may be records of this container are added to `damaged`.  Raises OSError if a file
    cannot be read.
    """
    seen: list[DamagedRecordError] = []
    records = _read_all(f"-{container_id}-", folder or FOLDER, seen)
    if damaged is not None:
        damaged += [one for one in seen if any(names[1] == container_id for names in one.identities())]
    return [record for record in records if record.container_id == container_id]


def all_records(
    folder: str = "",
    damaged: "list[DamagedRecordError] | None" = None,
    unreadable: "list[OSError] | None" = None,
) -> "list[Record]":
    """Return all records.  Damaged files are added to `damaged`.

    Raises OSError if a file cannot be read, or adds the error to `unreadable` if the caller passes a list.
    """
    return _read_all("", folder or FOLDER, damaged if damaged is not None else [], unreadable)


def damaged(folder: str = "") -> "list[DamagedRecordError]":
    """Return the damaged files, for example those that a crash of the machine has left."""
    seen: list[DamagedRecordError] = []
    _read_all("", folder or FOLDER, seen)
    return seen


def identities_on_file(folder: str = "") -> "set[tuple[str, str, str]]":
    """Return each (network, container ID, ifname) that the name of a file may stand for.

    The content of the files is not read.
    """
    names = _names(folder or FOLDER)
    return {identity for name in names if not name.startswith(".") for identity in _splits(name)}


def names_of(container_id: str, folder: str = "") -> "list[str]":
    """Return the names of the files that may be records of one container."""
    return _names(folder or FOLDER, f"-{container_id}-")


def _names(folder: str, part: str = "") -> "list[str]":
    try:
        return sorted(name for name in os.listdir(folder) if part in name)
    except FileNotFoundError:
        return []


def _read_all(
    part: str, folder: str, damaged: "list[DamagedRecordError]", unreadable: "list[OSError] | None" = None
) -> "list[Record]":
    records = []
    for name in _names(folder, part):
        if not name.startswith("."):
            try:
                if record := read(f"{folder}/{name}"):
                    records.append(record)
            except DamagedRecordError as error:
                # A copy next to its original is not an attachment, and does no harm.
                if not (error.record and error.is_misnamed and os.path.exists(error.record.path)):
                    damaged.append(error)
            except OSError as error:
                if unreadable is None:
                    raise
                unreadable.append(error)
    return sorted(records, key=lambda record: record.sequence)
