# SPDX-License-Identifier: Apache-2.0
"""
The modules that a container's start imports, from one file instead of sixty.

Python makes a dozen system calls for each module and unpacks a file for it.  For the sixty of a hook that is
4 of its 20 ms.  `cnihook compile` writes the code of all these modules to one file in __pycache__, beside
Python's own files and under their rule: code is not used if size or time of its source differ.  Without the
file, or for a module that is not in it, Python's own import does the work.  No other program writes it.

The file consists of segments that are unpacked whole: the modules that the same programs need.  So no
process unpacks a plugin that it does not use, and the names and constants that modules share are made once,
which is a third of the work.

The modules that a module imports are loaded before it, and without importlib, whose work for a module takes
longer than that of most modules.  CNIHOOK_DEBUG needs line numbers, so with it this file is not used.
"""

import marshal
import os
import sys
from _frozen_importlib import ModuleSpec
from _frozen_importlib_external import MAGIC_NUMBER, ExtensionFileLoader
from _imp import extension_suffixes

import cnihook

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import CodeType, ModuleType

    # Size and mtime (ns) of the source, whether it is a package, which modules are loaded before it, in this
    # order (all that it needs if it is a root, else only its imports), and its code.
    Entry = tuple[int, int, bool, tuple[str, ...], CodeType]
    Segment = dict[str, Entry]
    # For each segment: offset behind the index, length.
    Places = list[tuple[int, int]]

PACKAGE = os.path.dirname(os.path.abspath(__file__))
_ROOT = os.path.dirname(PACKAGE)
PATH = f"{PACKAGE}/__pycache__/modules.{sys.implementation.cache_tag}"
MARK = b"ONE7" + MAGIC_NUMBER  # the format of the file, and that of the code in it
# The mark, the length of the index behind it, and the number of this file.
HEAD = len(MARK) + 4 + 8
# Modules of Python in files of their own.  Its search lists four folders first: 0.2 ms for both.
_EXTENSIONS = {"_json", "_ctypes"}.difference(sys.builtin_module_names)

_Module = type(sys)


def install_finder() -> None:
    """Import from now on what the file has from there.  Only the first call in a process counts."""
    if isinstance(sys.meta_path[0], CodeCache) or os.environ.get("CNIHOOK_DEBUG"):
        return
    if cnihook.caches_are_safe:
        sys.meta_path.insert(0, CodeCache(PATH))


def _extension(name: str) -> "ModuleSpec | None":
    """Return the spec of a module in the usual folder, the last one of sys.path; None: search for it."""
    path = f"{sys.path[-1]}/{name}{extension_suffixes()[0]}"
    if not os.path.exists(path):
        return None
    spec = ModuleSpec(name, ExtensionFileLoader(name, path), origin=path)
    spec.has_location = True
    return spec


class CodeCache:
    """A finder and loader of modules for importlib."""

    def __init__(self, path: str) -> None:
        self._index: dict[str, int] = {}  # the segment of each module
        self._places: Places = []
        self._roots: frozenset[str] = frozenset()
        self._unpacked: dict[int, Segment] = {}
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
            status = os.fstat(self._fd)
            if status.st_mode & 0o022 or status.st_uid not in (0, os.stat(PACKAGE).st_uid):
                return  # others can write it, or wrote it
            head = os.pread(self._fd, HEAD, 0)
            size, self._number = int.from_bytes(head[-12:-8], "little"), head[-8:]
            if head.startswith(MARK):
                self._begin = HEAD
                index = self._read(0, size)
                self._begin += size
                self._index, self._places, self._roots = marshal.loads(index)
        except (OSError, ValueError, EOFError, TypeError, MemoryError):
            pass

    def find_spec(
        self, name: str, path: "Sequence[str] | None" = None, target: "ModuleType | None" = None
    ) -> "ModuleSpec | None":
        if name in _EXTENSIONS:
            return _extension(name)
        spec = self._spec(name) if name.startswith("cnihook.") else None
        if spec:
            load = self._load if name in self._roots else self._load_after_imports
            for imported in self._imports(name):
                if imported not in sys.modules:
                    load(imported)
        return spec

    def _load_after_imports(self, name: str) -> None:
        for imported in self._imports(name):
            if imported not in sys.modules:
                self._load_after_imports(imported)
        self._load(name)

    def _imports(self, name: str) -> "tuple[str, ...]":
        entry = self._entry(name)
        return entry[3] if entry else ()

    def _entry(self, name: str) -> "Entry | None":
        number = self._index.get(name, -1)
        return (self._unpacked.get(number) or self._segment(number)).get(name)

    def _spec(self, name: str) -> "ModuleSpec | None":
        entry = self._entry(name)
        if not entry:
            return None
        size, mtime, package, _imports, code = entry
        source = source_of(name, package)
        if stamp(source) != (size, mtime):
            return None
        # importlib needs two methods of a loader, not its base class, which is slow to import.
        spec = ModuleSpec(name, self, origin=source, loader_state=code)  # type: ignore[arg-type]
        if package:
            spec.submodule_search_locations = [source.removesuffix("/__init__.py")]
        return spec

    def _load(self, name: str) -> None:
        """Load a module as importlib would.  If that fails, importlib tries again and reports the error."""
        outer, _, inner = name.rpartition(".")
        modules = sys.modules
        spec = self._spec(name) if outer in modules else None
        if not spec:
            return
        module = _Module(name)
        values = module.__dict__
        values["__spec__"], values["__loader__"], values["__file__"] = spec, self, spec.origin
        if locations := spec.submodule_search_locations:
            values["__package__"], values["__path__"] = name, locations
        else:
            values["__package__"] = outer
        modules[name] = module
        spec._initializing = True  # type: ignore[attr-defined]  # an import of it now is a circular one
        try:
            exec(spec.loader_state, values)
            setattr(modules[outer], inner, module)
        except BaseException as error:
            del modules[name]
            if not isinstance(error, Exception):
                raise
        finally:
            spec._initializing = False  # type: ignore[attr-defined]

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

    def _segment(self, number: int) -> "Segment":
        """Return the modules of one segment; none if it does not exist or cannot be read."""
        if number not in self._unpacked:
            self._unpacked[number] = {}
            if number >= 0:
                try:
                    self._unpacked[number] = marshal.loads(self._read(*self._places[number]))
                except (ValueError, EOFError, TypeError):
                    pass
        return self._unpacked[number]

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


def source_of(name: str, package: bool) -> str:
    """Return the path of a module's source."""
    return f"{_ROOT}/{name.replace('.', '/')}" + ("/__init__.py" if package else ".py")


def stamp(source: str) -> "tuple[int, int] | None":
    """Return size and mtime (ns) of a source; None if it does not exist."""
    try:
        status = os.stat(source)
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns
