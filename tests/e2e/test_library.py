# SPDX-License-Identifier: Apache-2.0
"""pages/library.md: its program runs as it stands, and its tables are complete."""

import re

import pytest

import cnihook
from cnihook import CNI, Attachment
from tests.support.host.host import Host
from tests.support.pages import PAGES
from tests.support.plugins.cni import CHECKOUT
from tests.support.runtimes.oci import LEAVES, NET_D

PAGE = (PAGES / "library.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, flags=re.M | re.S)


def section(title: str) -> str:
    return PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def first_cells(title: str, pattern: str) -> list[str]:
    """Return what the pattern finds in the first cell of each line of the tables of a section."""
    cells = re.findall(r"^\| ([^|]*) \|", section(title), flags=re.M)
    return [name for cell in cells for name in re.findall(pattern, cell)]


@pytest.mark.root
@pytest.mark.needs("ip")
def test_program_prints_what_the_page_shows(host: Host) -> None:
    """The blocks are one program.  The comment behind each print() is its output."""
    (network,) = blocks("json")
    program = "".join(blocks("python"))
    host.write(f"{NET_D}/10-mynet.conflist", network)
    host.leaves(*LEAVES, f"file {NET_D}/*")
    host.run("ip", "netns", "add", "c1")

    environment = {"PYTHONPATH": str(CHECKOUT), "PATH": "/usr/sbin:/usr/bin"}
    outcome = host.run("/usr/bin/python3", "-", input=program, env=environment)

    expected = re.findall(r"\bprint\(.*\)  # (.*)$", program, flags=re.M)
    assert outcome.stdout.splitlines() == expected
    assert len(expected) == program.count("print(")
    host.run("ip", "netns", "delete", "c1")


def test_table_has_every_method() -> None:
    public = {name for name in vars(CNI) if not name.startswith("_")}
    assert set(first_cells("Methods", r"^`(\w+)(?:\(|` \(a property)")) == public


def test_table_has_every_member_of_an_attachment() -> None:
    public = {name for name in vars(Attachment) if not name.startswith("_")}
    assert set(first_cells("Attachments", r"^`(\w+)(?:\(\))?`$")) == public


def test_table_has_every_class_of_error() -> None:
    errors = {name for name in cnihook.__all__ if issubclass(getattr(cnihook, name), Exception)}
    assert set(first_cells("Errors", r"^`(\w+)`")) == errors
