# SPDX-License-Identifier: Apache-2.0
"""scripts/pages: write the generated parts of cnihook/pages.

In a page, the text outside BEGIN and END is written by hand.
"""

import argparse
import re
import sys
from collections.abc import Callable
from functools import partial

from cnihook.cli.shared import plugin_options
from tests.support import differences_page, options_page
from tests.support.pages import PAGES
from tests.support.plugins.cni import CHECKOUT

BEGIN = "<!-- `scripts/pages` writes what follows -->\n"
END = "<!-- the end of what it writes -->\n"


def contents(name: str) -> str:
    """Return a list of the sections of a page, with links."""
    lines = []
    for title in re.findall(r"^## (.+)$", (PAGES / f"{name}.md").read_text(), flags=re.MULTILINE):
        anchor = re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")
        lines.append(f"- [{title}](#{anchor})")
    return "\n".join(lines)


MAKERS: dict[str, Callable[[], str]] = {
    "cookbook": partial(contents, "cookbook"),
    "troubleshooting": partial(contents, "troubleshooting"),
    "live": partial(contents, "live"),
    "differences": differences_page.tables_of_marks,
    "kubernetes": options_page.table_of_pods,
    "options": options_page.tables,
    "plugin-options": plugin_options.sections,
}


def written(page: str, text: str) -> str:
    """Return the page with this text instead of the generated one."""
    before, begin, rest = page.partition(BEGIN)
    _old, end, after = rest.partition(END)
    if not (begin and end):
        raise SystemExit(f"pages: a generated page needs the lines {BEGIN}{END}")
    return f"{before}{BEGIN}\n{text.strip()}\n\n{END}{after}"


def main() -> int:
    parser = argparse.ArgumentParser("scripts/pages", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a page is old")
    parser.add_argument("names", metavar="NAME", nargs="*", help=f"{', '.join(MAKERS)} (default: all)")
    options = parser.parse_args()
    if unknown := set(options.names) - set(MAKERS):
        parser.error(f"no generated page {unknown.pop()!r}; there are: {', '.join(MAKERS)}")
    status = 0
    for name in options.names or MAKERS:
        path = PAGES / f"{name}.md"
        page = path.read_text()
        text = written(page, MAKERS[name]())
        if text == page:
            continue
        if options.check:
            print(f"{path.relative_to(CHECKOUT)} is old: run scripts/pages {name}")
            status = 1
        else:
            path.write_text(text)
    return status


if __name__ == "__main__":
    sys.exit(main())
