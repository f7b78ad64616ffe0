# SPDX-License-Identifier: Apache-2.0
"""Packages that some commands need and the rest does without: imported by those, when they run."""

import importlib
import sys

from cnihook.spec.errors import PLUGIN_NOT_AVAILABLE, CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def package(name: str, debian: str) -> "Any":
    """A module that is no part of Python.  CniError that says how to get it, if it is not installed."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
    if sys.flags.no_site:
        # The launcher of a checkout keeps site-packages out, which cost each start of a hook.
        import site

        site.main()
        importlib.invalidate_caches()
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name != name:
                raise
    raise CniError(
        PLUGIN_NOT_AVAILABLE,
        f"the Python package {name} is not installed",
        f"`apt-get install {debian}`, or `pip install {name}`",
    )
