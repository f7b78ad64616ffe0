# SPDX-License-Identifier: Apache-2.0
"""Packages that only some commands need, and import when they run."""

import importlib
import sys

from cnihook.types.errors import PLUGIN_NOT_AVAILABLE, CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def package(name: str, debian: str) -> "Any":
    """Return a module of another package.  Raises CniError with a hint if it is not installed."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
    if sys.flags.no_site:
        # The launcher of a checkout leaves out site-packages, which would delay each start of a hook.
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
