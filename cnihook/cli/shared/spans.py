# SPDX-License-Identifier: Apache-2.0
"""Spans of time as users write them: 90s, 10m, 1h30m, 2d."""

import re

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_PART = r"(\d{1,9})([smhd])"


def seconds(text: str) -> "int | None":
    """Return the seconds of a span; None if the text is not one."""
    if not re.fullmatch(f"(?:{_PART})+", text):
        return None
    return sum(int(number) * _UNITS[unit] for number, unit in re.findall(_PART, text))
