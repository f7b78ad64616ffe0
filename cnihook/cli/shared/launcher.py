# SPDX-License-Identifier: Apache-2.0
"""Executables of a few lines that start a function of this installation, without any search for packages."""

import os

from cnihook import codecache
from cnihook.oci import inject

_TEXT = """\
#!{python} -IS
{mark}
import os
import sys
umask = os.umask(0o077)
os.umask(umask | 0o022)
cache = {folder!r} + "/cnihook/__pycache__"
if os.path.isdir(cache):
    status = os.stat(cache)
    if status.st_mode & 0o022 or status.st_uid not in (0, os.stat({folder!r}).st_uid):
        sys.pycache_prefix = os.devnull
sys.path.insert(0, {folder!r})
from cnihook import codecache
codecache.install_finder()
from cnihook.{module} import main
main({argument})
"""


def text(mark: str, module: str, argument: str = "") -> str:
    """Return an executable that calls `main` of a module of cnihook.

    `mark`: a comment by which its owner recognises the file.  `argument`: an expression; `umask` is the
    caller's umask.
    """
    folder = os.path.dirname(codecache.PACKAGE)
    return _TEXT.format(python=inject.python(), mark=mark, folder=folder, module=module, argument=argument)
