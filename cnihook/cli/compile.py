# SPDX-License-Identifier: Apache-2.0
"""cnihook compile: store the compiled code of cnihook in one file, from which containers start faster."""

import os

from cnihook import codecache
from cnihook.cli.shared import arguments
from cnihook.cli.shared.arguments import Parser
from cnihook.types.errors import IO_FAILURE, CniError

DESCRIPTION = """\
Store the compiled code of cnihook in one file of its folder __pycache__.  A hook, priv-net-run and a plugin
then start 5 ms faster.  Run it after the installation and after each update: code whose source has changed
is not used.  No other command writes or needs the file.
"""


def parser() -> Parser:
    parser = Parser("compile", DESCRIPTION)
    parser.add_argument("--remove", action="store_true", help="remove the file")
    return parser


def main(argv: list[str]) -> int:
    options = parser().parse_args(argv)

    def work() -> None:
        from cnihook.fast import codecache_file

        if options.remove:
            return codecache_file.remove()
        owner = os.stat(codecache.PACKAGE).st_uid
        if os.geteuid() not in (0, owner):
            raise CniError(
                IO_FAILURE,
                f"{codecache.PACKAGE} belongs to user {owner}, and code that others wrote is not used",
                "run the command as root or as that user",
            )
        codecache_file.write()

    return arguments.work("compile", work)
