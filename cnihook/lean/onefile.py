# SPDX-License-Identifier: Apache-2.0
"""
What a container's start imports, from one file instead of from sixty.

Python makes a dozen system calls for each module and unpacks a file of its own, in a hook for fifty of them:
2.5 of its 20 ms.  So their code is kept together in __pycache__, beside Python's own files and under their
rule: what is not of the size and time of its source is not used.  Whoever imports what is not there yet adds
it for the next.  Line numbers are left out, which no start of a container needs; CNIHOOK_DEBUG, which wants
them to show, does without all this.
"""

import marshal
import os
import sys
from _frozen_importlib import ModuleSpec
from _frozen_importlib_external import MAGIC_NUMBER
from binascii import crc32

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import CodeType, ModuleType

    # Size and mtime (ns) of the source, whether it is a package; offset, length and CRC of its code.
    Entry = tuple[int, int, bool, int, int, int]

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_ROOT = os.path.dirname(_PACKAGE)
_FOLDER = f"{_PACKAGE}/__pycache__"
_PATH = f"{_FOLDER}/onefile.{sys.implementation.cache_tag}"
_MARK = b"ONE2" + MAGIC_NUMBER  # the form of the file, and that of the code in it
_HEAD = len(_MARK) + 8  # what the file begins with: the mark, then length and CRC of the index behind it
_NONE = (0, 0, False, 0, 0, 0)

_used: "_OneFile | None" = None


def use() -> None:
    """Import from it from now on what it has.  Where it is missing, Python's own way does all."""
    global _used
    if os.environ.get("CNIHOOK_DEBUG"):
        return
    _used = _OneFile()
    sys.meta_path.insert(0, _used)


def keep() -> None:
    """Add what this process had to import in Python's own way; the last thing that it does."""
    if not _used or not _used.missed or sys.dont_write_bytecode or not os.access(_FOLDER, os.W_OK):
        return
    from cnihook.lean import signals

    signals.ignore_interrupts()  # the work is done, and a file half written would stay
    data = _used.with_missed()
    if not data:
        return
    temporary = f"{_PATH}.{os.getpid()}"
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())  # after a crash of the machine it is the old one or the new one
        os.rename(temporary, _PATH)
    except OSError:
        try:
            os.unlink(temporary)
        except OSError:
            pass


class _OneFile:
    """Finds and loads modules, as importlib asks for it."""

    def __init__(self) -> None:
        self.missed: list[str] = []
        self._index: dict[str, Entry] = {}
        try:
            self._fd = os.open(_PATH, os.O_RDONLY | os.O_CLOEXEC)
            head = os.pread(self._fd, _HEAD, 0)
            size, crc = int.from_bytes(head[-8:-4], "little"), int.from_bytes(head[-4:], "little")
            if head.startswith(_MARK):
                self._begin = _HEAD
                index = self._read(0, size, crc)
                self._begin += size
                self._index = marshal.loads(index)
        except (OSError, ValueError, EOFError, TypeError, MemoryError):
            pass

    def find_spec(
        self, name: str, path: "Sequence[str] | None" = None, target: "ModuleType | None" = None
    ) -> "ModuleSpec | None":
        if not name.startswith("cnihook."):
            return None
        size, mtime, package, offset, length, crc = self._index.get(name, _NONE)
        source = _source(name, package)
        if length and (size, mtime) == _stamp(source):
            code = self._code(offset, length, crc)
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

    def with_missed(self) -> bytes:
        """The whole file, with what was missed and is there now; empty if that is nothing."""
        added: dict[str, tuple[tuple[int, int], bool, bytes]] = {}
        for name in self.missed:
            spec = getattr(sys.modules.get(name), "__spec__", None)
            if not spec:
                continue
            package = spec.submodule_search_locations is not None
            # Before the code is read: who writes meanwhile makes it stale.
            stamp = _stamp(_source(name, package))
            code = spec.loader.get_code(name)
            if stamp and code:
                added[name] = (stamp, package, marshal.dumps(_bare(code)))
        if not added:
            return b""
        kept = {
            name: ((size, mtime), package, data)
            for name, (size, mtime, package, offset, length, crc) in self._index.items()
            if (data := self._read(offset, length, crc))
        }
        modules = {**kept, **added}
        index: dict[str, Entry] = {}
        offset = 0
        for name, (stamp, package, code) in modules.items():
            index[name] = (*stamp, package, offset, len(code), crc32(code))
            offset += len(code)
        head = marshal.dumps(index)
        numbers = len(head).to_bytes(4, "little") + crc32(head).to_bytes(4, "little")
        return b"".join([_MARK, numbers, head, *(code for _, _, code in modules.values())])

    def _code(self, offset: int, length: int, crc: int) -> "CodeType | None":
        try:
            return marshal.loads(self._read(offset, length, crc))  # type: ignore[no-any-return]
        except (ValueError, EOFError, TypeError):
            return None

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
