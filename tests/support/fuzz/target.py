# SPDX-License-Identifier: Apache-2.0
"""A reader that takes any bytes, and what it may do with them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cnihook.spec.errors import CniError

SEEDS = Path(__file__).with_name("seeds")


class Broken(AssertionError):
    """The value that was read is not what was written."""


@dataclass(frozen=True)
class Target:
    """`read` returns, or raises one of `refusals`: anything else is a fault.

    Its seeds are the files of seeds/NAME, also those that were a fault once, and `binary`.
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
        """Raises what the reader must not."""
        try:
            self.read(data)
        except self.refusals:
            pass


def seed(target: str, name: str) -> bytes:
    return (SEEDS / target / name).read_bytes()


def same(one: object, other: object, what: str) -> None:
    if one != other:
        raise Broken(f"{what}: {one!r} became {other!r}")
