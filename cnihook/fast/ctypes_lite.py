# SPDX-License-Identifier: Apache-2.0
"""
C functions without `import ctypes`: 0.4 ms instead of 3.7.

The C half of ctypes, `_ctypes`, does the work.  Its Python half defines types for every size and platform,
of which six are enough here.  The class attributes below are the protocol of the C half.  It is documented
only by its use, and is the same since Python 2.5.
"""

import os
from _ctypes import FUNCFLAG_CDECL, FUNCFLAG_USE_ERRNO, CFuncPtr, _SimpleCData, dlopen, get_errno

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


class Int(_SimpleCData):  # type: ignore[type-arg]
    _type_ = "i"


class ULong(_SimpleCData):  # type: ignore[type-arg]
    _type_ = "L"


class Pointer(_SimpleCData):  # type: ignore[type-arg]
    _type_ = "P"


class CString(_SimpleCData):  # type: ignore[type-arg]
    _type_ = "z"


class _IntFunction(CFuncPtr):
    _flags_ = FUNCFLAG_CDECL | FUNCFLAG_USE_ERRNO
    _restype_ = Int


class _PointerFunction(CFuncPtr):
    _flags_ = FUNCFLAG_CDECL | FUNCFLAG_USE_ERRNO
    _restype_ = Pointer


class _StringFunction(CFuncPtr):
    _flags_ = FUNCFLAG_CDECL | FUNCFLAG_USE_ERRNO
    _restype_ = CString


_FUNCTIONS: "dict[type, Any]" = {Int: _IntFunction, Pointer: _PointerFunction, CString: _StringFunction}


class Library:
    """A shared library; None is the process itself, and so libc.

    Raises OSError if it is not installed.
    """

    def __init__(self, name: "str | None") -> None:
        self._handle = dlopen(name, os.RTLD_NOW)  # type: ignore[arg-type]  # None is accepted, too

    def function(self, name: str, returns: type, *arguments: type) -> "Callable[..., Any]":
        function: Callable[..., Any] = _FUNCTIONS[returns]((name, self))
        function.argtypes = arguments  # type: ignore[attr-defined]
        return function


def raise_errno(*objects: object) -> None:
    """Raise OSError for the errno of the last call; `objects` are the file names in it."""
    errno = get_errno()
    raise OSError(errno, os.strerror(errno), *objects)
