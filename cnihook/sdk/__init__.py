# SPDX-License-Identifier: Apache-2.0
"""
The names that a plugin is written with.

A plugin is a module with the functions `add(call) -> Result` and `delete(call)`; `check(call)`, `gc(call)`
and `status(call)` are optional.  Each receives a Call, and raises CniError or OSError.  The same module is
an executable for any other CNI runtime through cnihook.protocol.executable.main().  A module that does not
support every version of the specification lists its versions in VERSIONS.

A built-in plugin that isolates containers follows the interface plugin, which raises the link.  It may have
guards(conf) and prepare(call, first) to act before that; see runtime/chain.py.
"""

from cnihook.fast.address import Address, IPNet
from cnihook.fast.undo import Undo, try_each
from cnihook.protocol.call import Call
from cnihook.types.config import NetConf
from cnihook.types.errors import CniError, invalid_config
from cnihook.types.result import DNS, IP, Interface, Result, Route

__all__ = [
    "DNS", "IP", "Address", "Call", "CniError", "IPNet", "Interface", "NetConf", "Result", "Route", "Undo",
    "invalid_config", "try_each",
]  # fmt: skip
