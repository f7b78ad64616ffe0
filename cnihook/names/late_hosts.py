# SPDX-License-Identifier: Apache-2.0
"""
Support for an engine that writes /etc/hosts after the hook: podman, since version 5.

    podman    mounts an empty file    runtime create    writes the file    runtime start
    hook                              names             names again

No part of cnihook is called between the last two steps.  So a process waits until the engine has closed the
file, one minute at most, and writes the names again.  That takes 2 ms, and the runtime takes 20 ms to start.
On a machine under load, the container's program may start first.  cni-runc is called at `start`, so with it
the names are always written before the program starts.
"""

import os
import select
import time

from cnihook.linux import inotify
from cnihook.names import hosts
from cnihook.names.rootfs_file import File
from cnihook.oci.bundle import Bundle
from cnihook.process.daemonize import daemonize

_PATIENCE = 60.0  # seconds
_GLANCE = 500  # ms between two checks that the container still exists


def is_expected(config: Bundle) -> bool:
    """Return True if the engine has mounted an empty file that it will write after the hook."""
    if all(destination != "/etc/hosts" for destination, _source, _ in config.mounts):
        return False
    from cnihook.oci import podman

    return podman.maker(os.getppid()) != ""


def renew_when_written(container_id: str, pid: int, file: File) -> None:
    """Start a process that writes a container's names again after the engine has written `file`.

    `pid`: a process of the container.  Raises OSError if the file cannot be watched.
    """
    watch = inotify.watch(str(file), inotify.IN_CLOSE_WRITE)
    try:
        if not os.fork():
            try:
                daemonize(watch)
                try:
                    os.nice(-20)  # run before the runtime if all processors are busy
                except OSError:
                    pass  # only root may do this
                _wait(container_id, pid, watch)
            finally:
                os._exit(0)
    finally:
        os.close(watch)


def _wait(container_id: str, pid: int, watch: int) -> None:
    deadline = time.monotonic() + _PATIENCE
    written = select.poll()
    written.register(watch, select.POLLIN)
    while time.monotonic() < deadline and os.path.exists(f"/proc/{pid}"):
        # Another container may have written to the file: then no names are missing.
        if written.poll(_GLANCE) and os.read(watch, 4096) and hosts.renew_with_event(container_id):
            return
