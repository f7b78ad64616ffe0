# SPDX-License-Identifier: Apache-2.0
"""
The name servers of the host in containers that run: those are new when the host moves to another network.

`cnihook repair` and the unit cnihook-resolv-conf.path write them, so no process waits for the change.  The
text of the file shows whether its servers are of the host (names.resolv_conf).
"""

import errno

from cnihook.linux.netns import NetNS
from cnihook.names import resolv_conf
from cnihook.names.etc import ContainerEtc
from cnihook.names.inside import ContainerFile
from cnihook.names.rootfs_file import File
from cnihook.oci import bundle, engines, runtimes
from cnihook.runtime.records import Record
from cnihook.types.errors import CniError


def process_of(record: Record) -> int:
    """Return the process of a container; 0 if it has none in its namespace, as a command of priv-net-run."""
    process = record.process
    namespace = NetNS.find(f"/proc/{process.pid}/ns/net") if process and process.pid else None
    if not (process and namespace):
        return 0
    try:
        return process.pid if process.netns_id == namespace.identity else 0
    finally:
        namespace.close()


def read(pid: int) -> "tuple[str | None, bool]":
    """Return the text of a container's file, None if it cannot be read, and True if a link leads to it."""
    file = ContainerFile(pid, "etc/resolv.conf")
    try:
        return file.read() or "", False
    except OSError:
        pass  # it may be a link
    try:
        target = file.without_links()
    except OSError as error:  # a circle of links, or a link into a file system of the kernel
        return None, error.errno in (errno.ELOOP, errno.EINVAL)
    if target == file.name:
        return None, False
    try:
        return ContainerFile(pid, target).read() or "", True
    except OSError:
        return None, True


def missing(record: Record) -> "list[str]":
    """Return the servers of the host that renew() would write."""
    pid = process_of(record)
    text = read(pid)[0] if pid else None
    return [] if text is None else resolv_conf.servers_of(resolv_conf.renewed(text))


def renew(record: Record) -> "list[str]":
    """Write the servers of the host into a container's file, if they have changed.  Returns them.

    Raises OSError if the file cannot be written.
    """
    if not missing(record):
        return []
    file = file_of(record.container_id, process_of(record))
    text = resolv_conf.renewed(file.read() or "")
    if text:
        file.write(text)
    return resolv_conf.servers_of(text)


def file_of(container_id: str, pid: int) -> File:
    """Return the file, if possible by a path on the host, where a read-only mount does not count."""
    if places := engines.places().get(container_id):
        try:
            state = runtimes.find(container_id, places)
            return ContainerEtc(container_id, state.pid, bundle.load(state), runs=True).file("resolv.conf")
        except CniError:
            pass  # its runtime does not answer, or keeps it elsewhere
    return ContainerFile(pid, "etc/resolv.conf")
