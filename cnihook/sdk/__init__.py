# SPDX-License-Identifier: Apache-2.0
"""
The names that a plugin is written with.

A plugin is a module with the functions `add(call) -> Result` and `delete(call)`; `check(call)`, `gc(call)`
and `status(call)` are optional.  Each receives a Call, and raises CniError or OSError.  The same module is
an executable for any other CNI runtime through cnihook.sdk.executable.main().  A module that does not
support every version of the specification lists its versions in VERSIONS.

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
