# SPDX-License-Identifier: Apache-2.0
"""
`python3 -m cnihook`; and for the hooks of an installed cnihook, `python3 -IS .../cnihook/__main__.py`.

The second form does not use the environment in which cnihook was installed, and costs a container's start 8
ms less than pip's own script.
"""

import os
import sys

os.umask(os.umask(0o077) | 0o022)  # before Python makes a folder for compiled code that others could write
root = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
cache = f"{root}/cnihook/__pycache__"
if os.path.isdir(cache):
    status = os.stat(cache)
    if status.st_mode & 0o022 or status.st_uid not in (0, os.stat(root).st_uid):
        sys.pycache_prefix = os.devnull  # the package checks the rest, with code that is safe
sys.path.insert(0, root)
from cnihook.cli.main import main  # noqa: E402

main()
