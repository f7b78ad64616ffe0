# SPDX-License-Identifier: Apache-2.0
"""The program priv-net-run: its modules come from one file, except for the few that open that file."""

import gc

from cnihook import codecache


def main(umask: "int | None" = None) -> None:
    """Run the program, then exit.  `umask`: the caller's, if it has been changed."""
    gc.disable()  # there is no garbage after the command has begun; until then collections cost 1 ms
    codecache.install_finder()
    from cnihook.cli.privnet import run

    run.main(umask)
