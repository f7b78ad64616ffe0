# SPDX-License-Identifier: Apache-2.0
"""All checks of plugins, in the order in which they are shown."""

# Each module adds its checks as it is imported, so the order is not the alphabet's.
# ruff: noqa: I001
from cnihook.conformance import protocol_checks
from cnihook.conformance import result_checks
from cnihook.conformance import del_checks
from cnihook.conformance import prev_result_checks
from cnihook.conformance import sharing_checks
from cnihook.conformance import delegation_checks
from cnihook.conformance import gc_checks
from cnihook.conformance.check import plugin_check as checks

__all__ = [
    "checks",
    "del_checks",
    "delegation_checks",
    "gc_checks",
    "prev_result_checks",
    "protocol_checks",
    "result_checks",
    "sharing_checks",
]
