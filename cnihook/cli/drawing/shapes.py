# SPDX-License-Identifier: Apache-2.0
"""Text in an SVG, and the sizes that all its boxes have."""

from html import escape

from cnihook.cli.shared.terminal import printable

CARD, DENSE_CARD = 208, 138  # widths
LINE, PAD, GAP = 15, 9, 10
LETTER, BOLD_LETTER = 6.7, 8.3  # approximate widths


def safe(text: str) -> str:
    return escape(printable(text))


def at(x: int, y: int, text: str, style: str = "", room: int = 0) -> str:
    """Return a text element.  A text of more than `room` pixels is cut, and shown in full on hover.

    It is cut in the middle, because names of a series differ at the end.
    """
    shown = printable(text)
    whole = ""
    letter = BOLD_LETTER if style == "name" else LETTER
    if room and len(shown) * letter > room:
        whole = f"<title>{safe(text)}</title>"
        left = max(int(room / letter) - 1, 2)
        shown = f"{shown[: left - left // 2]}…{shown[-(left // 2) :]}"
    attributes = f' class="{style}"' if style else ""
    return f'<text{attributes} x="{x}" y="{y}" xml:space="preserve">{whole}{escape(shown)}</text>'
