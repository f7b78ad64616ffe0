# SPDX-License-Identifier: Apache-2.0
"""A target of the fuzzer: a reader of any bytes, and the errors that it may raise."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cnihook.types.errors import CniError

SEEDS = Path(__file__).with_name("seeds")


class Broken(AssertionError):
    """The error that the value that was read differs from the one that was written."""


@dataclass(frozen=True)
class Target:
    """A reader.  `read` must return, or raise one of `refusals`: anything else is a fault.

    The seeds are `binary` and the files of seeds/NAME, including inputs that once revealed a fault.
    """

    name: str
    read: Callable[[bytes], None]
    refusals: tuple[type[Exception], ...] = (CniError,)
    binary: tuple[bytes, ...] = ()

    @property
    def seeds(self) -> tuple[bytes, ...]:
        files = sorted((SEEDS / self.name).glob("*"))
        return (*(file.read_bytes() for file in files), *self.binary)

    def check(self, data: bytes) -> None:
        """Call the reader.  Raises only exceptions that the reader must not raise."""
        try:
            self.read(data)
        except self.refusals:
            pass


def seed(target: str, name: str) -> bytes:
    return (SEEDS / target / name).read_bytes()


def same(one: object, other: object, what: str) -> None:
    if one != other:
        raise Broken(f"{what}: {one!r} became {other!r}")
