# SPDX-License-Identifier: Apache-2.0
"""README.md and the pages: size, features with their tests, links."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from cnihook.cli import man

CHECKOUT = Path(__file__).resolve().parents[2]
README = (CHECKOUT / "README.md").read_text()
PAGES = CHECKOUT / "cnihook" / "pages"


def features() -> Iterator[tuple[str, str, str]]:
    """Yield feature, state in cnihook and test of each line of the table."""
    for line in (PAGES / "peers.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("|") and cells[1] in ("yes", "part", "–"):
            yield cells[0], cells[1], cells[-1].strip("`")


def test_readme_is_read_in_one_sitting() -> None:
    assert len(README.splitlines()) <= 200
    assert len(README.split()) <= 1500


def test_readme_and_man_list_every_page() -> None:
    names = {path.stem for path in PAGES.glob("*.md")}
    assert names == set(re.findall(r"\(cnihook/pages/([\w-]+)\.md\)", README))
    assert names == set(man._GUIDES)


def is_test(name: str) -> bool:
    file, _, function = name.partition("::")
    path = CHECKOUT / "tests" / file
    if not path.is_file() or not path.name.startswith("test_"):
        return False
    functions = [node.name for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)]
    return function in functions if function else any(each.startswith("test_") for each in functions)


def test_table_of_features_is_read() -> None:
    assert len(list(features())) > 40


@pytest.mark.parametrize(("feature", "have", "test"), list(features()))
def test_feature_that_is_claimed_has_a_test(feature: str, have: str, test: str) -> None:
    assert is_test(test) if have != "–" else not test


@pytest.mark.parametrize(
    "test", ["", "e2e/test_nothing.py", "e2e/test_hook.py::test_nothing", "support/plugins/cni.py"]
)
def test_missing_test_is_recognized(test: str) -> None:
    """This checks the reader itself, on which the rule above depends."""
    assert not is_test(test)


@pytest.mark.parametrize(
    "path", [CHECKOUT / "README.md", *sorted(PAGES.glob("*.md"))], ids=lambda path: path.name
)
def test_links_have_a_target(path: Path) -> None:
    assert dead_links(path.read_text(), path) == []


def dead_links(text: str, path: Path) -> list[str]:
    """Return the links of a page whose file does not exist, or whose file has no such heading."""
    dead = []
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(text)):
        name, _, anchor = link.partition("#")
        target = path.parent / name if name else path
        if not link.startswith("https://") and not (
            target.exists() and (not anchor or anchor in anchors(text if not name else target.read_text()))
        ):
            dead.append(link)
    return dead


def prose(text: str) -> str:
    """Return a page without its blocks of code, in which `#` is a prompt and `](` belongs to a program."""
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def anchors(text: str) -> set[str]:
    """Return the names that code hosts and myst-parser give the headings: lower case, with hyphens.

    A second heading with the same text has `-1` at its end.
    """
    names: list[str] = []
    for heading in re.findall(r"^#+ (.+)$", prose(text), flags=re.MULTILINE):
        name = re.sub(r"[^\w -]", "", heading.strip().lower()).replace(" ", "-")
        count = sum(re.fullmatch(rf"{re.escape(name)}(-\d+)?", each) is not None for each in names)
        names.append(f"{name}-{count}" if count else name)
    return set(names)


def test_dead_links_are_found() -> None:
    """This checks the reader itself, on which the rule above depends."""
    text = "# A `title`, v1.2\n## Same\n## Same\n```console\n# no heading\n[x](no-link.md)\n```\n"
    good = "[1](#a-title-v12) [2](#same) [3](#same-1) [4](security.md#names) [5](https://example.com/#x)"
    bad = ["#no-heading", "#same-2", "nothing.md", "security.md#nothing"]

    assert dead_links(text + good, PAGES / "options.md") == []
    assert dead_links(text + " ".join(f"[x]({link})" for link in bad), PAGES / "options.md") == bad
