# SPDX-License-Identifier: Apache-2.0
"""The order of names in which numbers have their value."""

import re


def natural(text: str) -> "list[tuple[int, str]]":
    """Return a sort key by which app-2 comes before app-10: of two numbers, the longer one is greater."""
    parts = re.split(r"([0-9]+)", text)  # every second one is a number
    return [(len(part.lstrip("0")) * (place % 2), part) for place, part in enumerate(parts)]
