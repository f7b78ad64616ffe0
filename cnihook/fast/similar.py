# SPDX-License-Identifier: Apache-2.0
"""Names like one that does not exist, for error messages.  It is imported only where one is made."""

import difflib
from collections.abc import Iterable

from cnihook.fast.errors_text import listed

_ALIKE = 0.7  # of 1.0; difflib's own 0.6 finds names that only share letters
_SHOWN = 10


def hint(name: str, known: "Iterable[str]") -> str:
    """Return "did you mean …?" for a misspelled name; else some names that there are; empty for none."""
    names = list(known)
    alike = difflib.get_close_matches(name, names, 3, _ALIKE)
    if alike:
        return f"did you mean {' or '.join(alike)}?"
    return f"there are: {listed(names, _SHOWN)}" if names else ""


def ended(text: str) -> str:
    """Return a part of a message with the sign that separates it from the next part."""
    return text if text.endswith("?") else f"{text};"
