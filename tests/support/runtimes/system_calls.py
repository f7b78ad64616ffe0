# SPDX-License-Identifier: Apache-2.0
"""The system calls of one run of a program, counted.  A busy machine does not change the numbers."""

import re
from collections import Counter

from tests.support.host.host import Host
from tests.support.skip import need

_LOG = "/run/.host/system-calls"
_CALL = re.compile(r"\d+ +(\w+)\((?:\d+<([^>]*)>)?.* = (-?\d+)")
# How much memory the C library asks for depends on the length of strings.
_OF_MEMORY = {"brk", "madvise", "mmap", "mremap", "munmap"}
_PAUSE = "clock_nanosleep"


class Calls:
    """`counts`: by name, and for a folder that is listed, by its path.  `received`: bytes from netlink."""

    def __init__(self, log: str) -> None:
        calls = [
            (call[1], call[2] or "", int(call[3])) for call in map(_CALL.match, log.splitlines()) if call
        ]
        self.counts: Counter[str] = Counter()
        self.received = 0
        repeated = 0  # calls that look once more, after a pause, if the kernel has activated a link
        for name, file, value in calls:
            if name == _PAUSE:
                repeated = 2
            elif repeated:
                repeated -= 1
            elif name not in _OF_MEMORY:
                self.counts[f"{name} {file}" if name == "getdents64" else name] += 1
                self.received += value if name == "recvfrom" and file.startswith("NETLINK") else 0


def count(host: Host, *argv: str, input: str) -> Calls:
    """Run a program to its end, which must be a success."""
    need("strace")
    host.run("strace", "-f", "-qq", "-yy", "-s", "0", f"--output={_LOG}", *argv, input=input)
    return Calls(host.read(_LOG))
