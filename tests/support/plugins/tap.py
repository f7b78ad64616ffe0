# SPDX-License-Identifier: Apache-2.0
"""The other end of a tap: a program, which here is the test itself."""

import fcntl
import os
import select
import struct
from collections.abc import Callable

from tests.support.host.host import Container
from tests.support.wait import patience

TUNSETIFF = 0x400454CA
IFF_TAP, IFF_MULTI_QUEUE, IFF_NO_PI = 0x2, 0x100, 0x1000


def attach(container: Container, flags: int = IFF_TAP | IFF_NO_PI) -> int:
    """Return the other end, as a program gets it; the caller closes it."""

    def work() -> int:
        tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH22x", b"eth0", flags))
        except OSError:
            os.close(tun)
            raise
        return tun

    return container.inside(work)


def arrives(tun: int, wanted: Callable[[bytes], bool]) -> bool:
    """Return True if such a frame is read from the tap; the kernel sends others of its own."""
    while select.select([tun], [], [], patience())[0]:
        if wanted(os.read(tun, 65536)):
            return True
    return False
