# SPDX-License-Identifier: Apache-2.0
"""The page of all options of the plugins, and the part of it that `cnihook man` shows."""

import re

import pytest

from cnihook.cli.shared import plugin_options
from cnihook.protocol import invoke
from tests.support.generated_pages import END
from tests.support.pages import PAGES

PAGE = (PAGES / "plugin-options.md").read_text().partition(END)[0]


@pytest.mark.parametrize("plugin_type", invoke.built_in_types())
def test_each_plugin_has_a_part_with_each_of_its_keys(plugin_type: str) -> None:
    """`cnihook man` shows the same text."""
    (part,) = re.findall(rf"^### {plugin_type}\n(.*?)(?=^##|\Z)", PAGE, re.S | re.M)

    assert plugin_options.page_of(plugin_type).split("\n", 1)[1].strip() == part.strip()
    for field in invoke.fields(plugin_type):
        assert f"| `{field.name}` |" in part and field.doc in part
    for name in {field.name for field in (*invoke.traits(plugin_type).capabilities,)}:
        assert f"| `{name}` |" in part
