# SPDX-License-Identifier: Apache-2.0
"""
All that a plugin is written with.  `__all__` is the promise: these names and their meaning stay.

A plugin is a module with the functions `add(call) -> Result` and `delete(call)`; `check(call)`, `gc(call)`
and `status(call)` are optional.  Each receives a Call, and raises CniError or OSError.  The same module is
an executable for any other CNI runtime through main().  A module that does not support every version of the
specification lists its versions in VERSIONS.

A built-in plugin may have `update(call, before) -> Result | None`, for a container that runs: `before` has
the input of its ADD, or of the last update, and `call` the new one.  It works from what is there, because an
update may have been interrupted.  It returns the new result of the chain, None if that is unchanged.

FIELDS lists the options that a plugin reads, and TRAITS its properties; see cnihook.types.fields.

A built-in plugin that isolates containers follows the interface plugin, which raises the link.  It may have
guards(conf) and prepare(call, first) to act before that; see runtime/chain.py.
"""

from cnihook.fast.address import Address, IPNet
from cnihook.fast.undo import Undo, try_each
from cnihook.protocol.call import Call
from cnihook.types.config import NetConf
from cnihook.types.errors import (
    DECODING_FAILURE,
    INCOMPATIBLE_VERSION,
    INTERNAL,
    INVALID_CONFIG,
    INVALID_ENVIRONMENT,
    INVALID_NETNS,
    IO_FAILURE,
    LIMITED_CONNECTIVITY,
    PLUGIN_NOT_AVAILABLE,
    TRY_AGAIN_LATER,
    UNKNOWN_CONTAINER,
    UNSUPPORTED_FIELD,
    CniError,
    invalid_config,
)
from cnihook.types.fields import Field, Traits, read
from cnihook.types.result import DNS, IP, Interface, Result, Route

__all__ = [
    "DECODING_FAILURE", "DNS", "INCOMPATIBLE_VERSION", "INTERNAL", "INVALID_CONFIG", "INVALID_ENVIRONMENT",
    "INVALID_NETNS", "IO_FAILURE", "IP", "LIMITED_CONNECTIVITY", "PLUGIN_NOT_AVAILABLE", "TRY_AGAIN_LATER",
    "UNKNOWN_CONTAINER", "UNSUPPORTED_FIELD", "Address", "Call", "CniError", "Field", "IPNet", "Interface",
    "NetConf", "Result", "Route", "Traits", "Undo", "invalid_config", "main", "read", "try_each",
]  # fmt: skip

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cnihook.protocol.executable import main
else:  # a type checker has to find a misspelled name

    def __getattr__(name: str) -> object:
        """Import main() at its first use (PEP 562): a plugin inside its runtime does not need it."""
        if name != "main":
            raise AttributeError(f"module 'cnihook.sdk' has no attribute {name!r}")
        from cnihook.protocol import executable

        return executable.main
