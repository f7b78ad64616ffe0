# SPDX-License-Identifier: Apache-2.0
"""The start of a keeper: its socket, and its way into the background."""

import errno
import os
import signal
import socket
import stat

from cnihook.process.daemonize import daemonize
from cnihook.protocol import locks


def listen(path: str) -> "socket.socket | None":
    """Return a socket at `path` that only root may use; None if another keeper has it already."""
    os.umask(0o022)
    os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    with locks.keeper(path):
        try:
            with socket.socket(socket.AF_UNIX) as probe:
                probe.connect(path)
            listener.close()
            return None
        except FileNotFoundError:
            pass
        except ConnectionRefusedError:
            if not stat.S_ISSOCK(os.lstat(path).st_mode):
                raise FileExistsError(errno.EEXIST, "is not a socket", path) from None
            os.unlink(path)  # of a keeper that was killed
        os.umask(0o177)
        listener.bind(path)
        os.umask(0o077)
        listener.listen(128)
    return listener


def adopt() -> "socket.socket | None":
    """Return the socket that systemd has opened for this process (sd_listen_fds(3)), if any."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()) or os.environ.get("LISTEN_FDS") != "1":
        return None
    os.umask(0o077)
    os.set_inheritable(3, False)
    return socket.socket(fileno=3)


def into_background(listener: socket.socket) -> bool:
    """Go on in a new process that has no parent.  Returns False in the old one, which may end now.

    Some runtimes wait until all their files are closed, so none of them stays open.
    """
    if os.fork():
        return False
    if os.fork():
        os._exit(0)
    os.chdir("/")
    daemonize(listener.fileno())
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    return True
