# SPDX-License-Identifier: Apache-2.0
"""Notifications that the links, addresses or routes of a namespace have changed, by rtnetlink."""

import _socket
import errno

# <linux/rtnetlink.h>: RTMGRP_LINK, and those of both IP versions for addresses and routes
_GROUPS = 0x1 | 0x10 | 0x40 | 0x100 | 0x400
_MOST = 1 << 16  # bytes of a notification


def watch() -> _socket.socket:
    """Return a socket that is readable after a change in the current namespace."""
    kind = _socket.SOCK_RAW | _socket.SOCK_CLOEXEC | _socket.SOCK_NONBLOCK
    watched = _socket.socket(_socket.AF_NETLINK, kind, _socket.NETLINK_ROUTE)
    try:
        watched.bind((0, _GROUPS))
    except OSError:
        watched.close()
        raise
    return watched


def drain(watched: _socket.socket) -> None:
    """Receive what has come, without a look at it."""
    while True:
        try:
            watched.recv(_MOST)
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno != errno.ENOBUFS:  # more has come than the kernel keeps
                raise
