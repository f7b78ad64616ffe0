# SPDX-License-Identifier: Apache-2.0
"""
The modules that a container's start imports, in one file instead of sixty.

Python makes a dozen system calls for each module and unpacks a file for it.  For the sixty of a hook that is
4 of its 20 ms.  So each kind of process (a hook's event, a command, a plugin) keeps the code of all its
modules together in __pycache__, beside Python's own files and under their rule: code is not used if size or
time of its source differ.  A process that imports a module that is not in the file adds it for the next one.

The file consists of pieces that are unpacked whole.  The names and constants that modules share are then
made once, which is a third of the work.  An import that is not at the head of a module, such as that of a
plugin, begins a piece, with all that is imported for it.  So no process unpacks a plugin that it does not
use.

The modules that a module imports are loaded before it, and without importlib, whose work for a module takes
longer than that of most modules.  What only people and type checkers read is left out: line numbers,
docstrings of functions, annotations.  CNIHOOK_DEBUG needs them, so with it this file is not used.
"""

import marshal
import os
import sys
from _frozen_importlib import ModuleSpec
from _frozen_importlib_external import MAGIC_NUMBER

import cnihook

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import CodeType, ModuleType

    # Size and mtime (ns) of the source, whether it is a package, which piece has its code, and which modules
    # it imported when it was loaded.
    Entry = tuple[int, int, bool, int, tuple[str, ...]]
    # For each piece: offset behind the index, length.
    Pieces = list[tuple[int, int]]

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_ROOT = os.path.dirname(_PACKAGE)
_FOLDER = f"{_PACKAGE}/__pycache__"
_MARK = b"ONE4" + MAGIC_NUMBER  # the format of the file, and that of the code in it
_HEAD = len(_MARK) + 4 + 8  # the mark, the length of the index behind it, and the number of this file
_NONE: "Entry" = (0, 0, False, -1, ())

_Module = type(sys)

_used: "CodeCache | None" = None


def install_finder(kind: str) -> None:
    """Import from now on what the file for this kind of process has; Python's own import does the rest.

    Only the first call in a process counts.
    """
    global _used
    if _used or os.environ.get("CNIHOOK_DEBUG") or not cnihook.caches_are_safe:
        return
    _used = CodeCache(f"{_FOLDER}/codecache.{kind}.{sys.implementation.cache_tag}")
    sys.meta_path.insert(0, _used)


def save() -> None:
    """Add to the file what this process imported in Python's own way.  This is its last action.

    Compiled code that other users could have written is removed, and the next process compiles it again.
    """
    if not cnihook.caches_are_safe:
        from cnihook.fast import bytecode

        for folder in cnihook.unsafe_caches():
            bytecode.discard(folder)
        return
    if not _used or not _used.missed or sys.dont_write_bytecode or not os.access(_FOLDER, os.W_OK):
        return
    from cnihook.process import signals

    signals.ignore_interrupts()  # the work is done, and an interrupt would leave a file half written
    data = _used.with_missed()
    if not data:
        return
    temporary = f"{_used.path}.{os.getpid()}"
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())  # after a crash of the machine, it is the old file or the new one
        os.rename(temporary, _used.path)
    except OSError:
        try:
            os.unlink(temporary)
        except OSError:
            pass


class CodeCache:
    """A finder and loader of modules for importlib."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.missed: list[str] = []
        self._asked: list[str] = []  # all, in the order in which they are imported
        self._loading: list[str] = []  # each was imported by the one before it, while that was loaded
        self._imported: dict[str, list[str]] = {}  # what each of _asked imported
        self._late: set[str] = set()  # imported while no other was loaded
        self._index: dict[str, Entry] = {}
        self._pieces: Pieces = []
        self._unpacked: dict[int, dict[str, CodeType]] = {}
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            status = os.fstat(self._fd)
            if status.st_mode & 0o022 or status.st_uid not in (0, os.stat(_PACKAGE).st_uid):
                return  # others can write it, or wrote it
            head = os.pread(self._fd, _HEAD, 0)
            size, self._number = int.from_bytes(head[-12:-8], "little"), head[-8:]
            if head.startswith(_MARK):
                self._begin = _HEAD
                index = self._read(0, size)
                self._begin += size
                self._index, self._pieces = marshal.loads(index)
        except (OSError, ValueError, EOFError, TypeError, MemoryError):
            pass

    def find_spec(
        self, name: str, path: "Sequence[str] | None" = None, target: "ModuleType | None" = None
    ) -> "ModuleSpec | None":
        if not name.startswith("cnihook."):
            return None
        self._note(name)
        spec = self._spec(name)
        if not spec:
            self.missed.append(name)
            return None
        for imported in self._index[name][4]:
            self._load(imported)
        return spec

    def _note(self, name: str) -> None:
        loading = self._loading
        while loading and not getattr(
            getattr(sys.modules.get(loading[-1]), "__spec__", None), "_initializing", False
        ):
            loading.pop()
        if loading:
            self._imported[loading[-1]].append(name)
        else:
            self._late.add(name)
        loading.append(name)
        self._asked.append(name)
        self._imported[name] = []

    def _spec(self, name: str) -> "ModuleSpec | None":
        size, mtime, package, piece, _ = self._index.get(name, _NONE)
        source = _source(name, package)
        code = self._codes(piece).get(name) if piece >= 0 and (size, mtime) == _stamp(source) else None
        if not code:
            return None
        # importlib needs two methods of a loader, not its base class, which is slow to import.
        spec = ModuleSpec(name, self, origin=source, loader_state=code)  # type: ignore[arg-type]
        if package:
            spec.submodule_search_locations = [os.path.dirname(source)]
        return spec

    def _load(self, name: str) -> None:
        """Load a module as importlib would.  If that fails, importlib tries again and reports the error."""
        outer, _, inner = name.rpartition(".")
        modules = sys.modules
        if name in modules or outer not in modules:
            return
        spec = self._spec(name)
        if not spec:
            return
        self._asked.append(name)
        self._imported[name] = []
        for imported in self._index[name][4]:
            self._load(imported)
        module = _Module(name)
        module.__spec__, module.__loader__ = spec, self  # type: ignore[assignment]
        module.__package__ = outer
        if spec.submodule_search_locations:
            module.__package__ = name
            module.__path__ = spec.submodule_search_locations
        modules[name] = module
        spec._initializing = True  # type: ignore[attr-defined]  # an import of it now is a circular one
        self._loading.append(name)
        try:
            self.exec_module(module)
            setattr(modules[outer], inner, module)
        except BaseException as error:
            del modules[name]
            if not isinstance(error, Exception):
                raise
        finally:
            spec._initializing = False  # type: ignore[attr-defined]
            self._loading.pop()

    def create_module(self, spec: ModuleSpec) -> None:
        """Return None, so that importlib makes an ordinary module."""

    def exec_module(self, module: "ModuleType") -> None:
        spec = module.__spec__
        assert spec and spec.origin
        module.__file__ = spec.origin
        exec(spec.loader_state, module.__dict__)

    def get_code(self, name: str) -> "CodeType":
        """Return the code of a module that this object loaded."""
        spec = sys.modules[name].__spec__
        assert spec
        return spec.loader_state  # type: ignore[no-any-return]

    def with_missed(self) -> bytes:
        """Return the whole file, with the modules that were missed and exist now; empty if there are none.

        If a module was in the file for another version of its source, the whole file is made again.
        """
        renewed = any(name in self._index for name in self.missed)
        index = {} if renewed else dict(self._index)
        data = [] if renewed else [self._read(*piece)[:-8] for piece in self._pieces]
        codes: dict[str, CodeType] = {}
        for name in self._asked if renewed else self.missed:
            spec = getattr(sys.modules.get(name), "__spec__", None)
            if not spec:
                continue
            package = spec.submodule_search_locations is not None
            # The stamp of the code in use, or one from before the source is read.  So a source that is
            # written at this time makes the code stale.
            stamp: tuple[int, int] | None = (
                self._index[name][:2] if spec.loader is self else _stamp(_source(name, package))
            )
            code = self.get_code(name) if spec.loader is self else _code(_source(name, package))
            if stamp and code:
                if codes and name in self._late:
                    data.append(marshal.dumps(codes))
                    codes = {}
                index[name] = (*stamp, package, len(data), tuple(self._imports(name)))
                codes[name] = code
        if not codes:
            return b""
        data.append(marshal.dumps(codes))
        number = os.urandom(8)
        pieces: Pieces = []
        offset = 0
        for one in data:
            pieces.append((offset, len(one) + len(number)))
            offset += len(one) + len(number)
        head = marshal.dumps((index, pieces)) + number
        return b"".join(
            [_MARK, len(head).to_bytes(4, "little"), number, head, *(one + number for one in data)]
        )

    def _imports(self, name: str) -> "Sequence[str]":
        """Return what the module imported, in an earlier process or in this one.

        In this one, _load() has loaded most of it before the module could import it.
        """
        return list(dict.fromkeys([*self._index.get(name, _NONE)[4], *self._imported.get(name, ())]))

    def _codes(self, piece: int) -> "dict[str, CodeType]":
        """Return the modules of one piece; none if it cannot be read."""
        if piece not in self._unpacked:
            try:
                self._unpacked[piece] = marshal.loads(self._read(*self._pieces[piece]))
            except (ValueError, EOFError, TypeError):
                self._unpacked[piece] = {}
        return self._unpacked[piece]

    def _read(self, offset: int, length: int) -> bytes:
        """Return a part of the file; empty if it does not end as it was written.

        On a network file system, the index may be from the old file and this part from the new one.  So each
        part ends with the file's number.  A checksum would cost 0.25 ms; Python's own files have none.
        """
        try:
            data = os.pread(self._fd, length, self._begin + offset)
        except OSError:
            return b""
        return data if data.endswith(self._number) else b""


def _source(name: str, package: bool) -> str:
    return f"{_ROOT}/{name.replace('.', '/')}" + ("/__init__.py" if package else ".py")


def _stamp(source: str) -> "tuple[int, int] | None":
    try:
        status = os.stat(source)
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


def _code(source: str) -> "CodeType | None":
    from cnihook.fast import bytecode  # only a process that writes the file needs it

    try:
        return bytecode.compile_stripped(source)
    except (OSError, ValueError, SyntaxError, RecursionError, MemoryError):
        return None
