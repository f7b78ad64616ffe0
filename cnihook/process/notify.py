# SPDX-License-Identifier: Apache-2.0
"""Messages to systemd about this service: sd_notify(3)."""

import os
import socket

READY = "READY=1"
STOPPING = "STOPPING=1"


def notify(*lines: str) -> None:
    """Send lines such as READY; without an error if systemd did not start this program."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if path[:1] not in ("/", "@"):
        return
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as messages:
            messages.sendto("\n".join(lines).encode(), "\0" + path[1:] if path[0] == "@" else path)
    except OSError:
        pass
