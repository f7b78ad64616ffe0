# SPDX-License-Identifier: Apache-2.0
"""The option --since of commands that read what was denied."""

import argparse

from cnihook.cli.shared import spans
from cnihook.cli.shared.arguments import Parser
from cnihook.policy.rules import DENIED_TIMEOUT


def add(parser: Parser, example: str) -> None:
    parser.add_argument(
        "--since",
        metavar="TIME",
        type=_seconds,
        default=DENIED_TIMEOUT,
        help=f"only what was seen in this time, such as {example} (default: 24h)",
    )


def _seconds(text: str) -> int:
    seconds = spans.seconds(text)
    if seconds is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time such as 90s, 10m or 1h30m")
    return seconds
