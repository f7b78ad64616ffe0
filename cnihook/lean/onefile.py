# SPDX-License-Identifier: Apache-2.0
"""
What a container's start imports, from one file instead of from sixty.

Python makes a dozen system calls for each module and unpacks a file of its own, in a hook for sixty of them:
4 of its 20 ms.  So each kind of process - a hook's event, a command, a plugin - keeps the code of all that
it imports together in __pycache__, beside Python's own files and under their rule: what is not of the size
and time of its source is not used.  A process that imports what is not there yet adds that for the next, in
pieces that are unpacked whole: the names and constants that modules share are made once then, which is a
third of the work.  Each plugin begins a piece, with all that is imported for it first, so that nobody has
one in vain.  Line numbers are left out, which no start of a container needs; CNIHOOK_DEBUG, which wants them
to show, does without all this.
"""

import marshal
import os
import sys
from _frozen_importlib import ModuleSpec
from _frozen_importlib_external import MAGIC_NUMBER
from binascii import crc32

import cnihook

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import CodeType, ModuleType

    # Size and mtime (ns) of the source, whether it is a package, and which piece has its code.
    Entry = tuple[int, int, bool, int]
    # Of each piece: offset behind the index, length, CRC.
    Pieces = list[tuple[int, int, int]]

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_ROOT = os.path.dirname(_PACKAGE)
_FOLDER = f"{_PACKAGE}/__pycache__"
_MARK = b"ONE3" + MAGIC_NUMBER  # the form of the file, and that of the code in it
_HEAD = len(_MARK) + 8  # what the file begins with: the mark, then length and CRC of the index behind it
_NONE = (0, 0, False, -1)
_PLUGINS = "cnihook.plugins."

_used: "_OneFile | None" = None


def use(kind: str) -> None:
    """Import from now on what the file for this kind of process has.  Python's own way does the rest.

    Whoever calls it first decides.
    """
    global _used
    if _used or os.environ.get("CNIHOOK_DEBUG") or not cnihook.caches_are_safe:
        return
    _used = _OneFile(f"{_FOLDER}/onefile.{kind}.{sys.implementation.cache_tag}")
    sys.meta_path.insert(0, _used)


def keep() -> None:
    """Add what this process had to import in Python's own way; the last thing that it does.

    Compiled code that other users could have written is removed, for the next process to make it again.
    """
    if not cnihook.caches_are_safe:
        from cnihook.lean import bytecode

        for folder in cnihook.unsafe_caches():
            bytecode.discard(folder)
        return
    if not _used or not _used.missed or sys.dont_write_bytecode or not os.access(_FOLDER, os.W_OK):
        return
    from cnihook.lean import signals

    signals.ignore_interrupts()  # the work is done, and a file half written would stay
    data = _used.with_missed()
    if not data:
        return
    temporary = f"{_used.path}.{os.getpid()}"
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())  # after a crash of the machine it is the old one or the new one
        os.rename(temporary, _used.path)
    except OSError:
        try:
            os.unlink(temporary)
        except OSError:
            pass


class _OneFile:
    """Finds and loads modules, as importlib asks for it."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.missed: list[str] = []
        self._asked: list[str] = []  # all, in the order in which they are imported
        self._index: dict[str, Entry] = {}
        self._pieces: Pieces = []
        self._unpacked: dict[int, dict[str, CodeType]] = {}
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            status = os.fstat(self._fd)
            if status.st_mode & 0o022 or status.st_uid not in (0, os.stat(_PACKAGE).st_uid):
                return  # others can write it, or wrote it
            head = os.pread(self._fd, _HEAD, 0)
            size, crc = int.from_bytes(head[-8:-4], "little"), int.from_bytes(head[-4:], "little")
            if head.startswith(_MARK):
                self._begin = _HEAD
                index = self._read(0, size, crc)
                self._begin += size
                self._index, self._pieces = marshal.loads(index)
        except (OSError, ValueError, EOFError, TypeError, MemoryError):
            pass

    def find_spec(
        self, name: str, path: "Sequence[str] | None" = None, target: "ModuleType | None" = None
    ) -> "ModuleSpec | None":
        if not name.startswith("cnihook."):
            return None
        self._asked.append(name)
        size, mtime, package, piece = self._index.get(name, _NONE)
        source = _source(name, package)
        if piece >= 0 and (size, mtime) == _stamp(source):
            code = self._codes(piece).get(name)
            if code:
                # importlib asks for a loader's two methods, not for its base class, which is not cheap.
                spec = ModuleSpec(name, self, origin=source, loader_state=code)  # type: ignore[arg-type]
                if package:
                    spec.submodule_search_locations = [os.path.dirname(source)]
                return spec
        self.missed.append(name)
        return None

    def create_module(self, spec: ModuleSpec) -> None:
        """An ordinary one."""

    def exec_module(self, module: "ModuleType") -> None:
        spec = module.__spec__
        assert spec and spec.origin
        module.__file__ = spec.origin
        exec(spec.loader_state, module.__dict__)

    def get_code(self, name: str) -> "CodeType":
        """That of a module that came from here."""
        spec = sys.modules[name].__spec__
        assert spec
        return spec.loader_state  # type: ignore[no-any-return]

    def with_missed(self) -> bytes:
        """The whole file, with what was missed and is there now; empty if that is nothing.

        Where something of it was there, for a source that is no more, all is made anew.
        """
        anew = any(name in self._index for name in self.missed)
        index = {} if anew else dict(self._index)
        data = [] if anew else [self._read(*piece) for piece in self._pieces]
        codes: dict[str, CodeType] = {}
        for name in self._asked if anew else self.missed:
            spec = getattr(sys.modules.get(name), "__spec__", None)
            if not spec:
                continue
            package = spec.submodule_search_locations is not None
            # Of the code that is here, or taken before it is read: who writes meanwhile makes it stale.
            stamp = self._index[name][:2] if spec.loader is self else _stamp(_source(name, package))
            code = spec.loader.get_code(name)
            if stamp and code:
                if codes and name.startswith(_PLUGINS):
                    data.append(marshal.dumps(codes))
                    codes = {}
                index[name] = (*stamp, package, len(data))
                codes[name] = _bare(code)
        if not codes:
            return b""
        data.append(marshal.dumps(codes))
        pieces: Pieces = []
        offset = 0
        for one in data:
            pieces.append((offset, len(one), crc32(one)))
            offset += len(one)
        head = marshal.dumps((index, pieces))
        numbers = len(head).to_bytes(4, "little") + crc32(head).to_bytes(4, "little")
        return b"".join([_MARK, numbers, head, *data])

    def _codes(self, piece: int) -> "dict[str, CodeType]":
        """The modules of one piece; none if it cannot be read."""
        if piece not in self._unpacked:
            try:
                self._unpacked[piece] = marshal.loads(self._read(*self._pieces[piece]))
            except (ValueError, EOFError, TypeError):
                self._unpacked[piece] = {}
        return self._unpacked[piece]

    def _read(self, offset: int, length: int, crc: int) -> bytes:
        """Empty if it is not what was written.

        Where a network lies between, the index may be of the file that was, and this of the one that is.
        """
        try:
            data = os.pread(self._fd, length, self._begin + offset)
        except OSError:
            return b""
        return data if crc32(data) == crc else b""


def _source(name: str, package: bool) -> str:
    return f"{_ROOT}/{name.replace('.', '/')}" + ("/__init__.py" if package else ".py")


def _stamp(source: str) -> "tuple[int, int] | None":
    try:
        status = os.stat(source)
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


def _bare(code: "CodeType") -> "CodeType":
    """Code without what only people read."""
    constants = [
        _bare(constant) if hasattr(constant, "co_consts") else constant for constant in code.co_consts
    ]
    return code.replace(co_linetable=b"", co_consts=tuple(constants))
