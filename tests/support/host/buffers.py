# SPDX-License-Identifier: Apache-2.0
"""Small socket buffers for linux.netlink, as for a process that may not exceed wmem_max."""

import _socket
from types import SimpleNamespace
from typing import Any

from cnihook.linux import netlink


def with_buffers_of(largest: int) -> SimpleNamespace:
    """Return the module _socket with sockets whose buffers have this many bytes and cannot be enlarged."""

    class Limited(_socket.socket):
        def __init__(self, *arguments: int) -> None:
            super().__init__(*arguments)
            for option in (_socket.SO_SNDBUF, _socket.SO_RCVBUF):
                super().setsockopt(_socket.SOL_SOCKET, option, largest // 2)  # the kernel doubles it

        def setsockopt(self, *arguments: Any) -> None:
            if arguments[1] not in (netlink._SO_SNDBUF, netlink._SO_SNDBUFFORCE):
                super().setsockopt(*arguments)

    return SimpleNamespace(**{**vars(_socket), "socket": Limited})
