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
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", path.read_text()):
        assert target.startswith("https://") or (path.parent / target).exists(), target
