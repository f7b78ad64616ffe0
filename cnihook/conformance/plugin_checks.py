# SPDX-License-Identifier: Apache-2.0
"""All checks of plugins, in the order in which they are shown."""

# Each module adds its checks as it is imported, so the order is not the alphabet's.
# ruff: noqa: I001
from cnihook.conformance import protocol_checks
from cnihook.conformance import result_checks
from cnihook.conformance import lifecycle_checks
from cnihook.conformance import delegation_checks
from cnihook.conformance import gc_checks
from cnihook.conformance.check import plugin_check as checks

__all__ = [
    "checks",
    "delegation_checks",
    "gc_checks",
    "lifecycle_checks",
    "protocol_checks",
    "result_checks",
]
