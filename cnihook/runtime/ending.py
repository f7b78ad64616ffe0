# SPDX-License-Identifier: Apache-2.0
"""
The end of containers' networks: the deletion of links, which the kernel makes its caller wait for.

The DELs of a container that has ended take its elements and leases, and silence its links.  Its runtime goes
on then.  A process in the background does the rest: it deletes the links of all such containers with one
wait, then bridges without a port, the names of the namespaces, and at last the records.

    /run/cnihook/ending/ID   what is left of one container: protocol.ending.Ending as JSON

If the process is killed, the file and the records stay, and the next such process or GC continues.  After a
reboot, files and links are gone, and GC finds the records.
"""

import os
import time

from cnihook.fast import fastjson, statefile
from cnihook.fast.errors_text import message_with_notes
from cnihook.linux import netns
from cnihook.linux.flock import Lock, LockBusyError
from cnihook.linux.netlink import netfilter_descriptors
from cnihook.linux.netns import NetNS
from cnihook.log import Log
from cnihook.process import signals
from cnihook.protocol import locks
from cnihook.protocol.call import ENDING
from cnihook.protocol.ending import Ending
from cnihook.runtime import netns_names, records
from cnihook.runtime.records import ENDINGS, Record
from cnihook.types.errors import CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import TypeAlias

    Failures: TypeAlias = dict[str, tuple[Ending, Exception]]


_PAUSES = (0.1, 0.5, 2.0)  # seconds before another try, if it fails in the background


def save(ending: Ending) -> None:
    """Write the file of a container, under its lock."""
    while True:
        try:
            fd = statefile.create(_path(ending.container_id))
            break
        except FileNotFoundError:  # the first end since the machine has started
            os.makedirs(ENDINGS, mode=0o700, exist_ok=True)
    with open(fd, "wb") as file:
        file.write(fastjson.dumps(ending.to_json()).encode())


def _path(container_id: str) -> str:
    return f"{ENDINGS}/{container_id[:255]}"


def waiting() -> "list[Ending]":
    """Return what is left of each container of this host.

    Those of a host in another namespace, such as a command in priv-net-run, cannot be finished from here.
    """
    try:
        names = os.listdir(ENDINGS)
    except FileNotFoundError:
        return []
    host = netns.inode_of_host()
    return [one for name in sorted(names) if (one := _read(name)) and one.host_id == host]


def _read(name: str) -> "Ending | None":
    """Return the content of a file; None if it is gone, or not whole: then GC finds the records."""
    content = statefile.read(_path(name))
    try:
        return Ending.from_json(fastjson.loads(content.decode())) if content else None
    except ValueError:
        return None


def of(attachments: "list[Record]") -> "list[Record]":
    """Return which of a container's records are kept only until its end is finished."""
    ending = _read(attachments[0].container_id)
    return [record for record in attachments if ending and _is_of(record, ending)]


def without(present: "list[Record]") -> "list[Record]":
    """Return the records of several containers but those that are kept only until an end is finished."""
    ends = {ending.container_id: ending for ending in waiting()}
    return [
        record
        for record in present
        if not ((ending := ends.get(record.container_id)) and _is_of(record, ending))
    ]


def start() -> None:
    """Finish what is left in the background, unless another process does that already.

    That process looks for new files after it has released the lock, so it misses none.
    """
    lock: Lock | None
    try:
        lock = locks.ending(netns.inode_of_host(), timeout=0).__enter__()
    except LockBusyError:
        lock = None
    kept = netfilter_descriptors()
    if not (lock or kept):
        return
    caller = os.getpid()
    try:
        is_child = lock.hand_over() if lock else os.fork() == 0
    except OSError:  # too many processes: the caller waits
        if lock:
            _finish_and_release(lock)
        return
    if is_child:
        try:
            from cnihook.process.daemonize import daemonize, outlive

            # runc reads the output of its hook to the end, so it would wait.  The last close of the socket
            # waits for the DELs' transactions, so it must not be that of the caller.
            daemonize(*kept, *([lock.fd] if lock else []))
            signals.ignore_interrupts()
            if lock:
                _finish_and_release(lock, _PAUSES)
            outlive(caller)
        finally:
            os._exit(0)


def _finish_and_release(lock: Lock, pauses: "tuple[float, ...]" = ()) -> None:
    failures: Failures = {}
    try:
        _finish_all(failures)
        for pause in pauses:
            if all(isinstance(error, LockBusyError) for _ending, error in failures.values()):
                break
            time.sleep(pause)
            failures.clear()
            _finish_all(failures)
        _log(failures)
    finally:
        lock.__exit__(None, None, None)
    while _unfinished(failures):
        try:
            with locks.ending(netns.inode_of_host(), timeout=0):
                _finish_all(failures)
        except LockBusyError:
            return  # that process began later, so it sees all files


def finish(patience: float = locks.PATIENCE) -> "Failures":
    """Finish what is left of all containers.  Returns what could not be finished, by the container's ID.

    `patience`: seconds to wait for another process that does it.  What cannot be finished stays, with an
    event in the container's log, unless it is only busy.
    """
    failures: Failures = {}
    if not waiting():
        return failures
    try:
        with locks.ending(netns.inode_of_host(), timeout=patience):
            _finish_all(failures)
    except LockBusyError as error:
        return {ending.container_id: (ending, error) for ending in waiting()}
    _log(failures)
    return failures


def _log(failures: "Failures") -> None:
    for ending, error in failures.values():
        if not isinstance(error, LockBusyError):  # the holder of the lock releases the container
            Log(ending.container_id).event(
                f"the end of its networks is delayed: {message_with_notes(error)}"
            )


def _unfinished(failures: "Failures") -> "list[Ending]":
    """Return what is left, except for what has failed before."""
    failed = [ending for ending, _error in failures.values()]
    return [ending for ending in waiting() if ending not in failed]


def _finish_all(failures: "Failures") -> None:
    """Finish all that is left, also what is added during that.  The caller holds the lock."""
    while todo := _unfinished(failures):
        for ending, error in _finish(todo):
            failures[ending.container_id] = ending, error


def _finish(todo: "list[Ending]") -> "Iterator[tuple[Ending, Exception]]":
    """Finish these.  Yields each that fails, with the reason."""
    from cnihook.links import host_bridge  # not at the top: the caller of start() does not need it

    host = NetNS.current()
    broken: dict[str, Exception] = {}
    try:
        for bridge in dict.fromkeys(name for ending in todo for name in ending.bridges):
            try:
                host_bridge.remove_unused(host.rtnl, bridge)  # with its last ports, in one wait
            except (CniError, OSError) as error:
                broken[bridge] = error
        try:
            host.rtnl.delete_group(ENDING, "links of containers that have ended")
        except OSError as error:
            yield from ((ending, error) for ending in todo)
            return
    finally:
        host.close()
    # The kernel removes the links of a namespace that nothing keeps, and waits once for many namespaces.
    held = netns.in_use({one.netns_id: netns.named(one.container_id) for one in todo if one.in_sandbox})
    for ending in todo:
        try:
            for bridge in filter(broken.get, ending.bridges):
                raise broken[bridge]
            _finish_container(ending, ending.netns_id in held)
        except (CniError, OSError) as error:
            yield ending, error


def _finish_container(ending: Ending, is_held: bool) -> None:
    container_id = ending.container_id
    with locks.container(container_id, "end", timeout=0):
        if _read(container_id) != ending:
            return  # another container has this ID now, or had it
        if is_held and (namespace := NetNS.find(netns.named(container_id))):
            try:
                if namespace.identity == ending.netns_id:
                    namespace.rtnl.delete_group(ENDING, f"links of container {container_id}")
            finally:
                namespace.close()
        present = records.of_container(container_id, ending.folder)
        ended = [record for record in present if _is_of(record, ending)]
        if ending.is_named and ended and len(ended) == len(present):
            netns_names.unbind_own(ended[0].netns, container_id, ending.netns_id)
        for record in ended:
            record.remove()
        os.unlink(_path(container_id))


def _is_of(record: Record, ending: Ending) -> bool:
    process = record.process
    return (
        (record.network, record.ifname) in ending.records
        and process is not None
        and process.netns_id == ending.netns_id
    )
