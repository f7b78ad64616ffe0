# SPDX-License-Identifier: Apache-2.0
"""
The identity of an attached process, as its record stores it.  It distinguishes the process from all others.

Container IDs, process IDs and the inodes of namespaces are reused.  The key `cnihook` of a record has:

    "boot": random ID of the boot      "pid", "start": the process and the time of its start
    "netns": [device, inode]           "pidNamespace": the inode of the namespace in which "pid" is valid
"""

import os
import time

from cnihook.fast import descriptor
from cnihook.linux.netns import NetNS
from cnihook.types import Value
from cnihook.types.errors import INVALID_ENVIRONMENT, CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_TICK = 10_000_000  # nanoseconds of a clock tick in /proc: USER_HZ is 100 except on Alpha
_BOOT_ID = "/proc/sys/kernel/random/boot_id"
_TIME_NAMESPACES = ("time", "time_for_children")
_INITIAL_PID_NAMESPACE = 0xEFFFFFFC  # <linux/proc_ns.h> PROC_PID_INIT_INO


class UncertainProcessError(CniError):
    """An error: it cannot be determined whether a process runs.  The process counts as running."""

    def __init__(self, msg: str, details: str = "") -> None:
        super().__init__(INVALID_ENVIRONMENT, msg, details)


class ProcessIdentity(Value):
    """A process and its network namespace.  `pid` is 0 if only the namespace is known."""

    KEYS = ("boot", "pid", "start", "netns", "pidNamespace")  # of to_json()
    __slots__ = ("boot", "netns_id", "pid", "pid_namespace", "start")

    def __init__(
        self, boot: str, pid: int, start: int, netns_id: "tuple[int, int]", pid_namespace: int = 0
    ) -> None:
        self.boot = boot
        self.pid = pid
        self.start = start  # clock ticks since boot, in the initial time namespace
        self.netns_id = netns_id  # device and inode
        self.pid_namespace = pid_namespace  # 0 if an old version, which did not store it, wrote the record

    @classmethod
    def capture(cls, pid: int, namespace: NetNS) -> "ProcessIdentity":
        """Return the identity of a process that runs.

        Raises CniError if the process has ended, and UncertainProcessError or OSError if /proc does not show
        it.
        """
        start = process_start(pid) if pid else 0
        if start is None:
            raise CniError(INVALID_ENVIRONMENT, f"process {pid} has ended: it cannot be attached")
        return cls(boot_id(), pid, start, namespace.identity, _pid_namespace())

    @classmethod
    def from_json(cls, raw: "dict[str, Any]") -> "ProcessIdentity":
        """Return the identity in the key `cnihook` of a record.

        Raises ValueError if a value is missing or has the wrong type.
        """
        netns_id = raw.get("netns")
        if not isinstance(netns_id, list) or len(netns_id) != 2:
            raise ValueError('"netns" must be a device and an inode')
        boot, pid_namespace = raw.get("boot"), raw.get("pidNamespace", 0)
        numbers = [raw.get("pid"), raw.get("start"), *netns_id, pid_namespace]
        if not isinstance(boot, str) or not all(type(number) is int and number >= 0 for number in numbers):
            raise ValueError('"boot", "pid" or "start" is missing or wrong')
        return cls(boot, raw["pid"], raw["start"], (netns_id[0], netns_id[1]), pid_namespace)

    def to_json(self) -> "dict[str, Any]":
        return {
            "boot": self.boot,
            "pid": self.pid,
            "start": self.start,
            "netns": list(self.netns_id),
            "pidNamespace": self.pid_namespace,
        }

    def is_alive(self, *, patience: float = 0.0) -> bool:
        """Return True while the process runs.  Raises UncertainProcessError or OSError if that is unknown.

        `patience`: seconds to wait for the end of a process that was just killed.
        """
        if not self.is_of_this_boot() or not self.pid:
            return False
        if self.pid_namespace not in (0, _pid_namespace()):
            return self._is_seen_from_elsewhere()
        end = time.monotonic() + patience
        while self._runs():
            if time.monotonic() >= end:
                return True
            time.sleep(0.01)
        return False

    def _runs(self) -> bool:
        start = process_start(self.pid)
        # If the offset of a time namespace is not a whole number of ticks, the start moves by up to one
        # tick.  No PID is reused within one tick.
        return start is not None and (not self.start or abs(start - self.start) <= 1)

    def _is_seen_from_elsewhere(self) -> bool:
        """Return True if any process is in the network namespace, because the PID is not valid here."""
        from cnihook.linux import netns

        if netns.processes(self.netns_id):
            return True
        if _pid_namespace() == _INITIAL_PID_NAMESPACE:
            return False  # every process is visible from there
        raise UncertainProcessError(
            f"process {self.pid} was attached from another PID namespace, pid:[{self.pid_namespace}]",
            "run cnihook in that PID namespace, or in the initial one",
        )

    def is_of_this_boot(self) -> bool:
        return self.boot == boot_id()

    def owns(self, namespace: NetNS) -> bool:
        """Return True if the process was attached in this network namespace."""
        return self.netns_id == namespace.identity and self.is_of_this_boot()

    def shares_netns(self, other: "ProcessIdentity") -> bool:
        """Return True if both processes were attached in the same network namespace."""
        return (self.netns_id, self.boot) == (other.netns_id, other.boot)


def boot_id() -> str:
    return descriptor.content(_BOOT_ID).decode().strip()


def process_start(pid: int) -> "int | None":
    """Return the start of a process (proc_pid_stat(5), field 22), or None if it has ended or is a zombie.

    The unit is clock ticks since boot in the initial time namespace; /proc shows the time in the namespace
    of its reader.  Raises UncertainProcessError if the process exists but /proc hides it, and OSError if
    /proc cannot be read.
    """
    path = f"/proc/{pid}/stat"
    try:
        fields = descriptor.content(path).rpartition(b")")[2].split()  # the name may hold any character
    except (FileNotFoundError, ProcessLookupError):
        if _exists(pid) and not os.path.exists(path) and _exists(pid):  # twice: it may start or end meantime
            raise UncertainProcessError(
                f"{path} does not exist, but process {pid} does",
                "mount /proc without hidepid, and for this PID namespace",
            ) from None
        return None
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from None  # read(2) does not know the path
    if len(fields) < 20:
        raise UncertainProcessError(f"{path} holds no start time")
    if fields[0] in (b"Z", b"X"):
        return None
    return int(fields[19]) - _time_namespace_offset()


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _time_namespace_offset() -> int:
    """Return the ticks that /proc adds to each start time (time_namespaces(7))."""
    try:
        lines = descriptor.content("/proc/self/timens_offsets").splitlines()
    except FileNotFoundError:
        return 0  # a kernel without time namespaces
    for line in lines:
        name, seconds, nanoseconds = line.split()
        if name in (b"boottime", b"7") and (seconds, nanoseconds) != (b"0", b"0"):  # CLOCK_BOOTTIME
            own, of_children = (os.stat(f"/proc/self/ns/{kind}").st_ino for kind in _TIME_NAMESPACES)
            if own != of_children:  # the file shows the offsets of the children's namespace
                raise UncertainProcessError(
                    "this process is between two time namespaces", "use `unshare --fork`"
                )
            return (int(seconds) * 1_000_000_000 + int(nanoseconds)) // _TICK
    return 0


def _pid_namespace() -> int:
    return os.stat("/proc/self/ns/pid").st_ino
