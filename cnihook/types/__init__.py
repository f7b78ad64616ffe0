# SPDX-License-Identifier: Apache-2.0
"""
The CNI specification as types: configurations, results, errors, versions, names; and what plugins
declare.

They use no file and no kernel.
"""


class Value:
    """Fields in __slots__: two values are equal if they are of one class and all fields are equal."""

    __slots__: "tuple[str, ...]" = ()
    _ZERO: "tuple[str, ...]" = ()  # fields that 0 sets

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in self.__slots__)

    __hash__ = None  # type: ignore[assignment]  # the fields can change

    def __repr__(self) -> str:
        """Return the fields that are set, as arguments of the class."""
        fields = ((name, getattr(self, name)) for name in self.__slots__)
        shown = (
            f"{name}={value!r}" for name, value in fields if value or (value == 0 and name in self._ZERO)
        )
        return f"{type(self).__name__}({', '.join(shown)})"
