# SPDX-License-Identifier: Apache-2.0
"""The tables of cnihook/pages/options.md, made from the option table.

`python3 -m tests.support.options_page` writes them.
"""

from cnihook.request.option_table import TABLE, Entry
from tests.support.plugins.cni import CHECKOUT

PAGE = CHECKOUT / "cnihook" / "pages" / "options.md"
# The text outside these lines is written by hand.
BEGIN = "<!-- python3 -m tests.support.options_page writes what follows -->\n"
END = "<!-- the end of what it writes -->\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _option(entry: Entry) -> str:
    form = f"`--{entry.name} {entry.metavar}`" if entry.metavar else f"`--{entry.name}`"
    return f"{form}, `{entry.short}`" if entry.short else form


def tables() -> str:
    lines = ["", "| annotation | option | effect | values |", "|---|---|---|---|"]
    lines += [
        f"| `{entry.annotation}` | {_cell(_option(entry))} | {_cell(entry.help)} | {_cell(entry.examples)} |"
        for entry in TABLE
        if entry.annotation
    ]
    lines += ["", "Options that are not requests:", "", "| option | effect | of |", "|---|---|---|"]
    lines += [
        f"| {_cell(_option(entry))} | {_cell(entry.help)} | {', '.join(entry.programs)} |"
        for entry in TABLE
        if not entry.annotation
    ]
    return "\n".join([*lines, "", ""])


def written(page: str) -> str:
    """Return the page with its tables made again."""
    before, _, rest = page.partition(BEGIN)
    _old, _, after = rest.partition(END)
    return f"{before}{BEGIN}{tables()}{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text()))
