# SPDX-License-Identifier: Apache-2.0
"""
The end of temporary changes: one process in the background for all of a host, while there are any.

A record has the time in its key `until`: see update.py.  The process sleeps until the first of these times.
A command that makes a temporary change wakes it by a byte in a FIFO, or starts it:

    /run/cnihook/temporary-INODE   the FIFO of the host with this network namespace

The process can be killed.  Then the next operation on the container, GC and repair end the change.
"""

import errno
import os
import select
import time

from cnihook.fast.errors_text import message_with_notes
from cnihook.linux import netns
from cnihook.linux.flock import Lock, LockBusyError
from cnihook.linux.netlink import netfilter_descriptors
from cnihook.log import Log
from cnihook.process import signals
from cnihook.process.daemonize import daemonize
from cnihook.protocol import locks
from cnihook.runtime import records, update
from cnihook.runtime.engine import Engine
from cnihook.runtime.records import Record
from cnihook.types.errors import CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    EngineOf = Callable[[Log], Engine]

_FOLDER = "/run/cnihook"
_LONGEST = 60.0  # seconds of one sleep, because the clock may be set
_PAUSE = 30.0  # seconds until another try, if a change could not be ended


def start(engine_of: "EngineOf") -> None:
    """Wake the process that ends temporary changes, or start it.  The caller holds no lock.

    `engine_of` returns the engine with the log of a container.
    """
    if wake():
        return
    try:
        lock = locks.temporary(netns.inode_of_host(), timeout=0).__enter__()
    except LockBusyError:
        return  # it is about to read the records
    if lock.hand_over():
        try:
            daemonize(lock.fd, *netfilter_descriptors())
            signals.reset()  # SIGTERM interrupts it, and what it is doing is undone
            _keep(lock, engine_of)
        finally:
            os._exit(0)


def _path() -> str:
    return f"{_FOLDER}/temporary-{netns.inode_of_host()}"


def wake() -> bool:
    """Have the process read the records again.  Returns False if there is none."""
    try:
        fd = os.open(_path(), os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENXIO):  # ENXIO: no process reads it
            return False
        raise
    try:
        os.write(fd, b"\n")
    except BlockingIOError:
        pass  # it has enough to read
    finally:
        os.close(fd)
    return True


def _keep(lock: Lock, engine_of: "EngineOf") -> None:
    path = _path()
    while True:
        try:
            try:
                os.mkfifo(path, 0o600)
            except FileExistsError:
                pass
            fd = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
            _wait_and_end(fd, engine_of)
            os.unlink(path)
            os.close(fd)
        finally:
            lock.__exit__(None, None, None)
        # A command may have found the FIFO still open, so its byte was not read.
        if not _temporary():
            return
        try:
            lock = locks.temporary(netns.inode_of_host(), timeout=0).__enter__()
        except LockBusyError:
            return


def _temporary() -> "list[tuple[float, Record]]":
    """Return the attachments with a temporary change, each with its end; those of ended containers not."""
    open_changes = [
        (end, record)
        for record in records.all_records(unreadable=[])
        if (end := update.end_of(record)) is not None and not _is_gone(record)
    ]
    return sorted(open_changes, key=lambda each: each[0])


def _is_gone(record: Record) -> bool:
    try:
        update.refuse_unchangeable(record)
    except CniError:
        return True
    except OSError:
        return False  # not certain
    return False


def _wait_and_end(fd: int, engine_of: "EngineOf") -> None:
    """End each temporary change at its time, until there is none left."""
    retries: dict[str, float] = {}
    while present := _temporary():
        next_end = min(max(end, retries.get(record.path, 0.0)) for end, record in present)
        sleep = min(max(next_end - time.time(), 0.0), _LONGEST)
        if select.select([fd], [], [], sleep)[0]:
            os.read(fd, 4096)
        for _end, record in present:
            if update.is_overdue(record) and retries.get(record.path, 0.0) <= time.time():
                if not _end_one(record, engine_of):
                    retries[record.path] = time.time() + _PAUSE


def _end_one(record: Record, engine_of: "EngineOf") -> bool:
    """Settle one container's attachment.  Returns False if that failed, which is an event in its log."""
    log = Log(record.container_id, quiet=True)
    try:
        with log, locks.container(record.container_id, "end of a temporary change"):
            again = records.find(*record.identity, record.folder)
            if again:
                for text in update.settle(engine_of(log), again):
                    log.event(f"{again.network} {again.ifname}: {text}")
        return True
    except (CniError, OSError) as error:
        log.event(f"{record.network} {record.ifname}: {message_with_notes(error)}")
        return False
