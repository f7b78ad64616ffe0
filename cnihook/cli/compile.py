# SPDX-License-Identifier: Apache-2.0
"""cnihook compile: store the compiled code of cnihook in one file, from which containers start faster."""

import os

from cnihook import codecache
from cnihook.cli.shared import arguments
from cnihook.cli.shared.arguments import Parser
from cnihook.types.errors import IO_FAILURE, CniError

DESCRIPTION = """\
Store the compiled code of cnihook in one file of its folder __pycache__.  A hook, priv-net-run and a plugin
then start 5 ms faster.  Run it after each update: code whose source has changed is not used.  `cnihook
install` and the Debian package do this.  No other command writes or needs the file.

If pip installed cnihook, the file is added to pip's list of files, so that `pip uninstall` removes it.
"""


def parser() -> Parser:
    parser = Parser("compile", DESCRIPTION)
    parser.add_argument("--remove", action="store_true", help="remove the file")
    return parser


def main(argv: list[str]) -> int:
    options = parser().parse_args(argv)
    return arguments.work("compile", remove if options.remove else write)


def may_write() -> bool:
    return os.geteuid() in (0, os.stat(codecache.PACKAGE).st_uid)


def write() -> None:
    """Write the file.  Raises CniError for a user whose file would not be used, or OSError."""
    from cnihook.cli.shared import pip_record
    from cnihook.fast import codecache_file

    if not may_write():
        owner = os.stat(codecache.PACKAGE).st_uid
        raise CniError(
            IO_FAILURE,
            f"{codecache.PACKAGE} belongs to user {owner}, and code that others wrote is not used",
            "run the command as root or as that user",
        )
    pip_record.add(codecache.PATH)
    codecache_file.write()


def remove() -> None:
    """Remove the file.  Raises OSError."""
    from cnihook.cli.shared import pip_record
    from cnihook.fast import codecache_file

    codecache_file.remove()
    pip_record.remove(codecache.PATH)
