# SPDX-License-Identifier: Apache-2.0
"""scripts/docs: a site from the README and the pages.  A dead link fails the build."""

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.skip import skip_or_fail

pytestmark = pytest.mark.long

CHECKOUT = Path(__file__).resolve().parents[2]
PAGES = "cnihook/pages"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Copy what the site is made of.  The copy uses the environment of this process."""
    if importlib.util.find_spec("myst_parser") is None:
        skip_or_fail("not installed: myst-parser; scripts/test installs it in .venv")
    copy = tmp_path / "checkout"
    shutil.copytree(CHECKOUT / PAGES, copy / PAGES)
    (copy / "scripts").mkdir()
    shutil.copy(CHECKOUT / "scripts" / "docs", copy / "scripts")
    shutil.copy(CHECKOUT / "README.md", copy)
    (copy / ".venv").symlink_to(sys.prefix)
    return copy


def build(checkout: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [checkout / "scripts" / "docs", "site"], cwd=checkout, capture_output=True, text=True
    )


def test_site_has_every_page_a_search_and_contents(checkout: Path) -> None:
    result = build(checkout)
    site = checkout / "site"

    assert (result.returncode, result.stdout, result.stderr) == (0, f"{site}/index.html\n", "")
    for page in (checkout / PAGES).glob("*.md"):
        assert (site / f"{page.stem}.html").exists()
    assert "cookbook" in (site / "searchindex.js").read_text()
    contents = {path.stem for path in site.glob("*.html") if '<nav class="contents' in path.read_text()}
    assert {"index", "security"} <= contents and "changes" not in contents


def test_dead_link_or_heading_fails_the_build(checkout: Path) -> None:
    with (checkout / PAGES / "options.md").open("a") as page:
        page.write("\n[file](nothing.md) [heading](security.md#nothing) [own](#nothing)\n")

    result = build(checkout)
    lines = [line for line in result.stderr.splitlines() if "options.md" in line]
    assert result.returncode == 1 and len(lines) == 3 and all("nothing" in line for line in lines)
