# SPDX-License-Identifier: Apache-2.0
"""
What a plugin is written with.

A plugin is a module with `add(call) -> Result`, `delete(call)`, and as it sees fit `check(call)`, `gc(call,
keep)` and `status(call)`.  It gets a Call, and raises CniError or OSError.  The same module is an executable
for any other CNI runtime through cnihook.sdk.executable.main().  One that does not speak every version of
the specification lists those that it does in VERSIONS.

A built-in plugin that isolates containers follows the interface plugin, which raises the link.  It may have
guards(conf) and prepare(call, first) to act before that; see runtime/chain.py.
"""

from cnihook.lean.address import Address, IPNet
from cnihook.sdk.call import Call
from cnihook.sdk.undo import Undo, try_each
from cnihook.spec.config import NetConf
from cnihook.spec.errors import CniError, invalid_config
from cnihook.spec.result import DNS, IP, Interface, Result, Route

__all__ = [
    "DNS", "IP", "Address", "Call", "CniError", "IPNet", "Interface", "NetConf", "Result", "Route", "Undo",
    "invalid_config", "try_each",
]  # fmt: skip
