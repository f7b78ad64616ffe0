# SPDX-License-Identifier: Apache-2.0
"""The tables of cnihook/pages/differences.md, made from the marks in the tests."""

import contextlib
import io
from collections.abc import Iterable, Mapping, Sequence

import pytest

from tests.support.difference import CNIHOOK, EITHER, Difference
from tests.support.plugins.cni import CHECKOUT

FOLDERS = ("tests/netns", "tests/vm")
SEVERAL = "several plugins"
_SHOWN = 3  # files of a mark
_PLUGINS = sorted(
    (path.stem.replace("_", "-") for path in (CHECKOUT / "cnihook/plugins").glob("[a-z]*.py")),
    key=len,
    reverse=True,
)
Found = Mapping[Difference, Sequence[str]]  # with the test files, below tests/


class Marks:
    """A plugin of pytest that reads the marks of all tests that it collects."""

    def __init__(self) -> None:
        self.found: dict[Difference, list[str]] = {}

    def pytest_collection_modifyitems(self, items: Iterable[pytest.Item]) -> None:
        for item in items:
            file = item.path.relative_to(CHECKOUT / "tests").as_posix()
            for mark in item.iter_markers("known_difference"):
                files = self.found.setdefault(Difference(*mark.args, **mark.kwargs), [])
                if file not in files:
                    files.append(file)


def read_marks() -> Found:
    """Collect the tests and return their marks.  A process can do this only once."""
    marks = Marks()
    with contextlib.redirect_stdout(io.StringIO()) as output:
        folders = [str(CHECKOUT / folder) for folder in FOLDERS]
        status = pytest.main(
            ["--collect-only", "-qq", "-p", "no:cacheprovider", f"--rootdir={CHECKOUT}", *folders],
            plugins=[marks],
        )
    if status != pytest.ExitCode.OK:
        raise SystemExit(f"pages: pytest cannot collect the tests: {output.getvalue()}")
    return marks.found


def plugin_of(file: str) -> str:
    """Return the plugin that a test file is named after, or SEVERAL."""
    name = file.rpartition("/")[2].removeprefix("test_").removesuffix(".py").replace("_", "-")
    return next((one for one in _PLUGINS if name == one or name.startswith(f"{one}-")), SEVERAL)


def tables(found: Found) -> str:
    remaining = {one: files for one, files in found.items() if not one.fixed_in}
    fixed = {one: files for one, files in found.items() if one.fixed_in}
    return (
        f"## In every version of the reference\n\n{_sections(remaining, '###')}"
        f"## Fixed in a newer version of the reference\n\n{_table(fixed, fixed_in=True)}"
    )


def _sections(found: Found, level: str) -> str:
    sections: dict[str, dict[Difference, Sequence[str]]] = {}
    for one, files in found.items():
        plugins = {plugin_of(file) for file in files}
        sections.setdefault(plugins.pop() if len(plugins) == 1 else SEVERAL, {})[one] = files
    order = sorted(sections, key=lambda plugin: (plugin != SEVERAL, plugin))
    return "".join(f"{level} {plugin}\n\n{_table(sections[plugin])}\n" for plugin in order)


def _table(found: Found, *, fixed_in: bool = False) -> str:
    columns = ["the reference", "cnihook", "fixed in" if fixed_in else "right", "tests"]
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for one in sorted(found, key=lambda one: (found[one][0], one.reason)):
        files = ", ".join([f"`{file}`" for file in sorted(found[one])[:_SHOWN]])
        if len(found[one]) > _SHOWN:
            files += f" and {len(found[one]) - _SHOWN} more"
        cells = [one.reason, one.here, one.fixed_in if fixed_in else one.right, files]
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(lines) + "\n"


def incomplete(found: Found) -> list[str]:
    """Return the marks that lack a field of the tables, each with its file."""
    return [
        f"{files[0]}: known_difference({one.reason!r}) lacks here= or right= (tests/support/difference.py)"
        for one, files in found.items()
        if not one.here or not (one.right in (CNIHOOK, EITHER) or one.right.startswith("SPEC.md, "))
    ]


def tables_of_marks() -> str:
    """Return the tables of all tests.  Ends the process if a mark lacks a field."""
    marks = read_marks()
    if problems := incomplete(marks):
        raise SystemExit("\n".join(problems))
    return tables(marks)
