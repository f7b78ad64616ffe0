# SPDX-License-Identifier: Apache-2.0
"""
Who was attached, as the record has it: enough to tell that container from any other, ever.

IDs are given again, process IDs too, and the numbers of namespaces begin anew with each boot.  So: the boot,
the process with its start time, and the namespace's device and inode.
"""

import time

from cnihook.linux.netns import NetNS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    Holder = dict[str, Any]


def of(pid: int, namespace: NetNS) -> "Holder":
    return {
        "boot": boot_id(),
        "pid": pid,
        "start": process_start(pid),
        "netns": list(namespace.identity),
    }


def lives(holder: "Mapping[str, Any]", *, patience: float = 0.0) -> bool:
    """Whether its process is still that process.

    `patience`: seconds for it to end, if somebody has killed it just now.
    """
    if holder.get("boot") != boot_id():
        return False
    pid = holder.get("pid")
    if not isinstance(pid, int) or pid <= 0:
        return False
    end = time.monotonic() + patience
    while process_start(pid) == holder.get("start") != 0:
        if time.monotonic() >= end:
            return True
        time.sleep(0.01)
    return False


def is_in(holder: "Mapping[str, Any]", namespace: NetNS) -> bool:
    """Whether this is the namespace that it had."""
    return holder.get("boot") == boot_id() and holder.get("netns") == list(namespace.identity)


def namespace_identity(holder: "Mapping[str, Any]") -> "tuple[int, int]":
    """(device, inode) of its namespace; of an earlier boot's, which nothing can be any more, (0, 0)."""
    identity = holder.get("netns")
    if holder.get("boot") != boot_id() or not isinstance(identity, list) or len(identity) != 2:
        return 0, 0
    return identity[0], identity[1]


def boot_id() -> str:
    with open("/proc/sys/kernel/random/boot_id") as file:
        return file.read().strip()


def process_start(pid: int) -> int:
    """When it began, in clock ticks since boot (proc_pid_stat(5), field 22); 0 if it is gone or a zombie."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()  # the name before it may hold anything
    except OSError:
        return 0
    return 0 if fields[0] in (b"Z", b"X") else int(fields[19])
