# SPDX-License-Identifier: Apache-2.0
"""cnihook.sdk is all that a plugin's author imports, and each of its names is documented."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from cnihook import sdk
from cnihook.types import errors
from tests.support.plugins.cni import CHECKOUT
from tests.unit.test_house import imports

PAGE = (CHECKOUT / "cnihook" / "pages" / "plugin-authors.md").read_text()
EXAMPLES = [
    CHECKOUT / "cnihook" / "sdk" / "template" / "myplugin.py",
    CHECKOUT / "oci-examples" / "own-plugin" / "announce.py",
]


def rows() -> dict[str, list[str]]:
    """Return the cells of each row in the page's tables, by the names in its first cell."""
    cells = [line.strip("| ").split(" | ") for line in PAGE.splitlines() if line.startswith("| `")]
    return {name: row for row in cells for name in re.findall(r"`(\w+)`", row[0])}


def test_page_documents_each_name_and_no_other() -> None:
    assert sorted(rows()) == sorted(sdk.__all__)


def test_each_name_exists() -> None:
    for name in sdk.__all__:
        assert getattr(sdk, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = sdk.nothing  # type: ignore[attr-defined]


def test_codes_are_complete_and_as_documented() -> None:
    codes = {name: value for name, value in vars(errors).items() if name.isupper() and type(value) is int}

    assert {name: getattr(sdk, name) for name in sdk.__all__ if name in codes} == codes
    assert {name: int(rows()[name][1]) for name in codes} == codes


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_example_imports_nothing_else_of_cnihook(path: Path) -> None:
    modules = {module for _line, module in imports(path) if module.startswith("cnihook")}

    assert modules == {"cnihook.sdk"}


def test_plugin_that_runs_inside_its_runtime_does_not_load_main() -> None:
    """Each start of a container would pay for it."""
    program = (
        f"import sys; sys.path.insert(0, {str(CHECKOUT)!r}); import cnihook.sdk\n"
        "assert 'cnihook.protocol.executable' not in sys.modules\n"
        "from cnihook.sdk import main\n"
        "assert main.__module__ == 'cnihook.protocol.executable'\n"
    )

    subprocess.run([sys.executable, "-IS", "-c", program], check=True)
