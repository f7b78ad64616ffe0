# SPDX-License-Identifier: Apache-2.0
"""
CNI errors and their codes (SPEC.md, "Error"; 8 and 999 are the reference implementation's).

    CniError
        KeyRefusedError          a key of a configuration has a wrong value
            KeyRepeatedError
        ResourceTakenError       another container has it; after its release, ADD may succeed
            PoolExhaustedError, PortTakenError, MacTakenError
        AddFailedError           the ADD of a network

Where a caller has to recognize another error, the module that raises it has a class for it.
"""

from cnihook.fast import fastjson
from cnihook.fast.errors_text import with_object

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

INCOMPATIBLE_VERSION = 1
UNSUPPORTED_FIELD = 2
UNKNOWN_CONTAINER = 3
INVALID_ENVIRONMENT = 4
IO_FAILURE = 5
DECODING_FAILURE = 6
INVALID_CONFIG = 7
INVALID_NETNS = 8
TRY_AGAIN_LATER = 11
PLUGIN_NOT_AVAILABLE = 50
LIMITED_CONNECTIVITY = 51
INTERNAL = 999


class CniError(Exception):
    """`msg`: what was tried, on what, why.  `details`: what the reader can do about it.  One line each."""

    def __init__(self, code: int, msg: str, details: str = "") -> None:
        super().__init__(msg)
        self.code = code
        self.msg = msg
        self.details = details

    def __str__(self) -> str:
        return f"{self.msg}; {self.details}" if self.details else self.msg

    def wrapped(self, context: str) -> "CniError":
        """Return the same error with the same code, and with the place where it happened in front."""
        return CniError(self.code, f"{context}: {self.msg}", self.details)

    def to_json(self, version: str) -> str:
        """Return the error as a plugin prints it on stdout."""
        fields: dict[str, Any] = {"cniVersion": version, "code": self.code, "msg": self.msg}
        if self.details:
            fields["details"] = self.details
        return fastjson.dumps(fields, indent=4)

    @classmethod
    def from_json(cls, value: "dict[str, Any]") -> "CniError":
        """Return the error that a plugin printed.  Missing fields, and those of another type, are empty."""
        code, msg, details = value.get("code"), value.get("msg"), value.get("details")
        return cls(
            code if type(code) is int else 0,
            msg if isinstance(msg, str) else "",
            details if isinstance(details, str) else "",
        )


class KeyRefusedError(CniError):
    """A key of a configuration has a wrong value: `key` of the JSON object `raw`."""

    def __init__(self, msg: str, details: str, raw: "dict[str, Any]", key: str) -> None:
        super().__init__(INVALID_CONFIG, msg, details)
        self.raw = raw
        self.key = key


class KeyRepeatedError(KeyRefusedError):
    """A JSON object has the key more than once."""


class ResourceTakenError(CniError):
    """Another container has what this one needs.

    If that container is gone, ADD may succeed once its attachment is released.
    """


class PoolExhaustedError(ResourceTakenError):
    """All addresses of a range are leased."""


class PortTakenError(ResourceTakenError):
    """A port of the host is published by another container."""


class MacTakenError(ResourceTakenError):
    """Another container on the same bridge has the MAC address."""


class AddFailedError(CniError):
    """The ADD of a network failed, with `cause`, after its plugins had begun.

    `undone` is False if some of their work may be left; then a DEL has to try again.
    """

    def __init__(self, cause: CniError, *, undone: bool) -> None:
        super().__init__(cause.code, cause.msg, cause.details)
        self.cause = cause
        self.undone = undone


def invalid_config(msg: str, details: str = "") -> CniError:
    return CniError(INVALID_CONFIG, msg, details)


def as_cni_error(error: BaseException) -> CniError:
    """Return any error as the CniError that a plugin reports."""
    if isinstance(error, CniError):
        return error
    return CniError(INTERNAL, with_object(error))
