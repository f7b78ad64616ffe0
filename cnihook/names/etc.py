# SPDX-License-Identifier: Apache-2.0
"""The files /etc/hosts, resolv.conf and hostname of a container, if possible by a path on the host."""

import os

from cnihook.names.rootfs_file import LINK, File
from cnihook.oci.bundle import Bundle

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


_MOST_FOLDERS = 8  # that are created for the target of a link


class ContainerEtc:
    """The files of one container, as it sees them now or will.  Raises OSError if their place is not known.

    A container that `runs` may have mounted anything over the mounts of its runtime.
    """

    def __init__(self, container_id: str, pid: int, config: Bundle, *, runs: bool = False) -> None:
        self._container_id = container_id
        self.pid = pid
        self._config = config
        self._rootfs = os.path.realpath(config.root) if config.root else ""
        # The container's mounts exist already, but its root may be the host's until pivot_root.
        self._root = f"/proc/{pid}/root"
        self._above = ""  # the path above its root file system
        self.is_begun = runs or not os.path.samestat(os.stat(self._root), os.stat("/"))
        if not self.is_begun:
            if not self._rootfs:
                raise FileNotFoundError(2, "the container's root file system is not known")
            self._above = f"{self._rootfs}/"[1:]

    def file(self, name: str) -> File:
        """Return a file, by its path on the host if it is visible there.

        The path on the host is valid after the process has ended, and may be writable where the container's
        path is not.  Mounts that the container makes later, such as a file system that never answers, do not
        affect it.  Raises OSError if the file is mounted read-only.
        """
        path = f"/etc/{name}"
        here = File(self._root, f"{self._above}{path[1:]}")
        if self.is_begun:
            from cnihook.names.inside import ContainerFile

            here = ContainerFile(self.pid, path[1:])
        self._refuse_read_only(path)
        try:
            place = here.place()
        except TimeoutError:
            raise
        except OSError as error:
            # Without another file, the next method call raises the reason.
            return (self._behind_links(path, here) if error.errno == LINK else None) or here
        return _same(self._candidates(path), place) or here

    def _behind_links(self, path: str, here: File) -> "File | None":
        """Return the file that the container reads if `path` leads through links, as systemd-resolved's.

        It is the file that an engine has mounted there, or one of the container's own root file system,
        which is created with its folders if it is missing.  Links of an image lead to no other place.
        """
        if self.is_begun:
            from cnihook.names.inside import ContainerFile

            inside: File = ContainerFile(self.pid, here.without_links())
            return _same(self._mounted(path), inside.place())
        own = File(self._rootfs, File(self._rootfs, path[1:]).without_links())
        inside = File(self._root, f"{self._above}{own.name}")
        if own.nearest_folder() == inside.nearest_folder():  # otherwise something is mounted in between
            own.make_folders(_MOST_FOLDERS)
        on_host = File("/", f"{self._rootfs}/{own.name}"[1:])
        return _same([*self._mounted(path), on_host], inside.place())

    def is_on_host(self, file: File) -> bool:
        return file.base != self._root

    def _refuse_read_only(self, path: str) -> None:
        for destination, source, is_read_only in reversed(self._config.mounts):
            if _is_below(path, destination):
                # For a read-only container, engines mount their own files for it read-only, too.
                is_engines = self._config.root_is_readonly and self._container_id in source.split("/")
                if is_read_only and not is_engines:
                    raise OSError(30, f"{destination} is mounted read-only")
                return

    def _candidates(self, path: str) -> "Iterator[File]":
        yield from self._mounted(path)
        if self._rootfs:
            yield File("/", f"{self._rootfs}{path}"[1:])

    def _mounted(self, path: str) -> "Iterator[File]":
        for destination, source, _ in reversed(self._config.mounts):
            if _is_below(path, destination):
                if not (self.is_begun and self._may_exchange(source)):
                    source = os.path.realpath(source)
                yield File("/", f"{source}{path[len(destination.rstrip('/')) :]}"[1:])

    def _may_exchange(self, source: str) -> bool:
        """Return True if the container has a folder above `source`: it may put links into that path."""
        folders = (self._rootfs, *(folder for _, folder, _ in self._config.mounts))
        held = {_identity(folder) for folder in folders} - {None}
        while source != "/":
            source = os.path.dirname(source)
            if _identity(source) in held:
                return True
        return False


def _same(candidates: "Iterable[File]", place: "tuple[int, int, bool]") -> "File | None":
    """Return the candidate at this place."""
    for candidate in candidates:
        try:
            if candidate.place() == place:
                return candidate
        except OSError:
            continue
    return None


def _identity(folder: str) -> "tuple[int, int] | None":
    try:
        status = os.stat(folder)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _is_below(path: str, folder: str) -> bool:
    return f"{path}/".startswith(f"{folder.rstrip('/')}/")
