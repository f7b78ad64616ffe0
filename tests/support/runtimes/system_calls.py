# SPDX-License-Identifier: Apache-2.0
"""The system calls of one run of a program, counted.  A busy machine does not change the numbers."""

import re
import socket
from collections import Counter

from tests.support.host.host import Host
from tests.support.plugins.cni import CHECKOUT
from tests.support.skip import need

_LOG = "/run/.host/system-calls"
_CALL = re.compile(r"(\d+) +(\w+)\((?:\d+<([^>]*)>)?.* = (-?\d+)")
# How much memory the C library asks for depends on the length of strings.
_OF_MEMORY = {"brk", "madvise", "mmap", "mprotect", "mremap", "munmap"}
# Another test may compile the modules at the same time.
_OF_MODULES = (str(CHECKOUT), "/usr/lib/python3")
_PAUSE = "clock_nanosleep"


class Calls:
    """`counts`: by name, and for a folder that is listed, by its path.  `received`: bytes from netlink."""

    def __init__(self, log: str) -> None:
        self.counts: Counter[str] = Counter()
        self.received = 0
        repeated: Counter[str] = Counter()  # by PID: calls that look at a link once more, after a pause
        lines = [line for line in log.splitlines() if not any(path in line for path in _OF_MODULES)]
        for call in filter(None, map(_CALL.match, lines)):
            pid, name, file, value = call[1], call[2], call[3] or "", int(call[4])
            if name == _PAUSE:
                repeated[pid] = 2
            elif repeated[pid]:
                repeated[pid] -= 1
            elif name not in _OF_MEMORY:
                self.counts[f"{name} {file}" if name == "getdents64" else name] += 1
                self.received += value if name == "recvfrom" and file.startswith("NETLINK") else 0


def count(host: Host, *argv: str, input: str) -> Calls:
    """Run a program to its end, which must be a success.

    If the host masquerades, it tracks a flow: otherwise a DEL would look for flows at times only.
    """
    need("strace")
    with host.socket(socket.SOCK_DGRAM) as sender:
        sender.sendto(b"", ("127.0.0.1", 9))
    host.run("strace", "-f", "-qq", "-yy", "-s", "0", f"--output={_LOG}", *argv, input=input)
    return Calls(host.read(_LOG))
