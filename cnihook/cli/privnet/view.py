# SPDX-License-Identifier: Apache-2.0
"""
The files that the command of `priv-net-run` uses for names: its own /etc/resolv.conf and /etc/hosts, and
none of the sockets by which daemons of the host answer for the host's network.

These are mounts that only the command sees.  The kernel removes a mount, in every mount namespace, if
another process renames a file over its mount point, or removes the mount point.  Programs replace
resolv.conf so, and a daemon that restarts makes a new folder.  So the folders are watched while the command
runs, and a lost mount is made again: for a few milliseconds the command sees the host's file.

Rejected: a tmpfs of links over all of /etc loses what the command writes there; so does an overlay.  inotify
takes 8 ms to close and has 128 instances for each user; the kernel's older F_NOTIFY takes 0.01 ms.
"""

import fcntl
import os

from cnihook.linux import libc, mounts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Identity = tuple[int, int]  # device and inode

_KEPT = ("resolv.conf", "stub-resolv.conf")  # files of such a folder that other programs may read
_MOST = 1 << 16  # bytes of such a file
_MOST_LINKS = 8  # from resolv.conf to the file
_PATIENCE = 10_000  # ms for the command's process to become the command
_CHANGES = fcntl.DN_MULTISHOT | fcntl.DN_CREATE | fcntl.DN_DELETE | fcntl.DN_RENAME


class View:
    """The mounts.  `files`: path and text.  `folders`: those of sockets, which may be missing."""

    def __init__(self, files: "dict[str, str]", folders: "tuple[str, ...]") -> None:
        self.files = files
        self.folders = folders

    def put(self, complain: "Callable[[str], None]", lost: "dict[str, Identity] | None" = None) -> None:
        """Mount it for this process.  With `lost`, only where the host's file is visible: path, identity."""
        covered = set()
        for folder in self.folders:
            if os.path.isdir(folder):
                covered.add(os.path.realpath(folder))
                if _is_lost(folder, lost):
                    self._cover(folder)
        for path, text in self.files.items():
            # A file in a folder that is covered was written there.
            if os.path.dirname(os.path.realpath(path)) not in covered and _is_lost(path, lost):
                try:
                    mounts.replace_file(path, text)
                except OSError as error:
                    complain(f"the networks' names cannot be used: {path}: {error.strerror}")

    @property
    def kept(self) -> "list[str]":
        return [f"{folder}/{name}" for folder in self.folders for name in _KEPT]

    def renew_copies(self, texts: "dict[str, str]", host: "dict[str, Identity]") -> None:
        """Write the host's present files of the folders into their copies.  `texts`: path and text."""
        own = [os.path.realpath(path) for path in self.files]
        for path, text in texts.items():
            folder = os.path.dirname(path)
            # Only into the folder that covers the host's: it has another identity.
            if os.path.realpath(path) not in own and folder in host and not _is_lost(folder, host):
                # By a rename, because a program that reads at this moment would find an empty file.
                new = f"{folder}/.{os.path.basename(path)}.new"
                with open(new, "wb") as file:
                    file.write(os.fsencode(text))
                os.chmod(new, 0o644)
                os.rename(new, path)

    def _cover(self, folder: str) -> None:
        texts = {}
        for name in _KEPT:
            try:
                with open(f"{folder}/{name}", "rb") as file:
                    texts[name] = os.fsdecode(file.read(_MOST))
            except OSError:
                continue
        for path, text in self.files.items():
            target = os.path.realpath(path)
            if os.path.dirname(target) == os.path.realpath(folder):
                texts[os.path.basename(target)] = text
        mounts.cover_folder(folder, texts)


def _is_lost(path: str, lost: "dict[str, Identity] | None") -> bool:
    if lost is None:
        return True
    try:
        status = os.stat(path)
    except OSError:
        return False  # there is no mount point; a later change leads here again
    return lost.get(path) == (status.st_dev, status.st_ino)


class Watch:
    """A watch on the host's files while the command runs.  Each change of a folder sends SIGIO."""

    def __init__(self, view: View, command: int, ready: int, complain: "Callable[[str], None]") -> None:
        """Start to watch.  The other end of `ready` is closed once the command's process has its mounts."""
        self._view = view
        self._command = command
        self._ready = ready
        self._complain = complain
        # The root of the command's process, because this process may have folders of its own in /run.
        self._root = os.open(f"/proc/{command}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._folders: list[int] = []
        self._seen: dict[str, Identity] = {}
        self._look()

    def renew(self) -> None:
        """Mount again what the command has lost, if that caused the signal."""
        before = self._seen
        try:
            self._look()
            if self._seen == before:
                return
            child = os.fork()  # a process that enters a mount namespace cannot easily leave it
        except OSError as error:  # the command runs on
            self._complain(f"the host's files are not watched: {error.strerror}")
            return
        if child:
            os.waitpid(child, 0)
            return
        try:
            texts = self._texts()
            self._enter()
            self._view.put(self._complain, self._seen)
            self._view.renew_copies(texts, self._seen)
        except (ProcessLookupError, FileNotFoundError):
            pass  # the command has ended
        except OSError as error:
            self._complain(f"the command has the host's files where names are looked up: {error.strerror}")
        finally:
            os._exit(0)

    def _texts(self) -> "dict[str, str]":
        """Return the host's text of each file that is kept in a folder."""
        texts = {}
        for path in self._view.kept:
            try:
                fd = libc.openat2(self._root, path, os.O_RDONLY | os.O_NONBLOCK, libc.RESOLVE_IN_ROOT)
            except OSError:
                continue
            with open(fd, "rb") as file:
                texts[path] = os.fsdecode(file.read(_MOST))
        return texts

    def _enter(self) -> None:
        import select

        # Before that, it may be in the host's mount namespace, which must not be changed.
        waiting = select.poll()
        waiting.register(self._ready, select.POLLIN)
        if not waiting.poll(_PATIENCE) or os.read(self._ready, 1):
            raise ProcessLookupError
        namespace = os.open(f"/proc/{self._command}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        root = os.open(f"/proc/{self._command}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        libc.setns(namespace, libc.CLONE_NEWNS)
        os.fchdir(root)
        os.chroot(".")

    def _look(self) -> None:
        """Watch all folders that a path leads through, and note the identity of each file at an end."""
        for fd in self._folders:
            os.close(fd)
        self._folders = []
        self._seen = {}
        for path in (*self._view.files, *self._view.folders, *self._view.kept):
            for folder, name in self._steps(path):
                self._folders.append(folder)
                fcntl.fcntl(folder, fcntl.F_NOTIFY, _CHANGES)
                try:
                    status = os.stat(name, dir_fd=folder, follow_symlinks=False)
                except OSError:
                    continue
                self._seen[path] = status.st_dev, status.st_ino  # after the last step: of the file

    def _steps(self, path: str) -> "Iterator[tuple[int, str]]":
        """Yield (descriptor of the folder, name) of a path, and of each link that it leads to."""
        for _ in range(_MOST_LINKS):
            parent, name = os.path.split(path)
            try:
                folder = libc.openat2(self._root, parent, os.O_RDONLY | os.O_DIRECTORY, libc.RESOLVE_IN_ROOT)
            except OSError:
                return
            yield folder, name
            try:
                target = os.readlink(name, dir_fd=folder)
            except OSError:
                return
            path = os.path.normpath(os.path.join(os.readlink(f"/proc/self/fd/{folder}"), target))
