# SPDX-License-Identifier: Apache-2.0
"""cnihook man: a page for each command, made from its --help."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from cnihook.cli import man
from cnihook.cli.main import COMMANDS, HOOK, load
from cnihook.cli.shared import roff
from tests.support.plugins.cni import CHECKOUT
from tests.support.skip import need

CNIHOOK = str(CHECKOUT / "scripts" / "cnihook")
OPTION = re.compile(r"(?<![\w-])--?[a-z][\w-]*")


def cnihook(*words: str, status: int = 0) -> subprocess.CompletedProcess[str]:
    result = subprocess.run([CNIHOOK, *words], capture_output=True, text=True)
    assert result.returncode == status, result.stderr
    return result


def read(text: str, columns: int) -> str:
    """Format `text` with groff for a terminal of `columns` columns; groff must print no warning."""
    argv = ["groff", "-Tutf8", "-man", "-ww", f"-rLL={columns}n", "-P-cbou"]
    result = subprocess.run(argv, input=text, text=True, capture_output=True, check=True)
    warnings = [line for line in result.stderr.splitlines() if not re.search("(break|adjust) line", line)]
    assert warnings == []  # both are about a long word in a narrow terminal, the second from groff 1.23
    return result.stdout


@pytest.mark.parametrize("name", man.PAGES)
def test_every_command_has_a_page_that_fits_the_terminal(name: str) -> None:
    """The page fits 80 and 40 columns and has every option that --help names."""
    need("groff")
    text = man.page(name)

    wide, narrow = read(text, 80), read(text, 40)
    title, section = man.file_name(name).rsplit(".", 1)
    assert wide.splitlines()[0].startswith(f"{title.upper()}({section})")
    assert f"{title} - " in wide
    assert "<!--" not in wide and "```" not in wide
    if section == "8":  # the guides contain output of commands
        assert set(OPTION.findall(man.source(name))) <= set(OPTION.findall(wide))
        assert [line for line in wide.splitlines() if len(line) > 80] == []
        assert [line for line in narrow.splitlines() if len(line) > 40] == []


@pytest.mark.parametrize("name", [*COMMANDS, "priv-net-run", "docker-run"])
def test_page_has_the_text_of_help(name: str) -> None:
    words = [name] if (CHECKOUT / "scripts" / name).exists() else ["cnihook", name]
    program = str(CHECKOUT / "scripts" / words[0])
    help_text = subprocess.run(
        [program, *words[1:], "--help"], capture_output=True, text=True, check=True
    ).stdout

    assert help_text.split() == man.source(name).split()


@pytest.mark.parametrize("command", [command for command in COMMANDS if command not in HOOK])
def test_every_argument_of_a_command_has_help(command: str) -> None:
    for action in load(command).parser()._actions:
        assert action.help, f"{command}: {action.dest}"


def test_text_is_escaped_for_the_formatter() -> None:
    text = "usage: x [OPTION]\n\n.so /etc/passwd\n'br \\fBbold\\fR \\n ^ ~ -\n\n  --x  .SH \\e\n"

    shown = read(roff.page("x", 8, "1", ".tricky", roff.from_help(text), "y"), 80)

    for line in ("x - .tricky", ".so /etc/passwd", "'br \\fBbold\\fR \\n ^ ~ -", ".SH \\e"):
        assert line in shown, shown


def test_pipe_gets_plain_text() -> None:
    """So grep can search it, as with man(1).  The source is in the files that --install writes."""
    need("man")
    shown = cnihook("man", "ps").stdout

    assert shown == cnihook("man", "cnihook-ps").stdout
    assert "SYNOPSIS\n" in shown and not re.search(r"\x08|\x1b|^\.", shown, re.MULTILINE)
    assert "CNIHOOK(8)" in cnihook("man").stdout


def test_wrong_page_or_several_actions_are_refused() -> None:
    assert "no page 'nosuch'; there are: cnihook, createRuntime" in cnihook("man", "nosuch", status=2).stderr
    assert "one at a time" in cnihook("man", "ps", "--install", "/x", status=2).stderr


@pytest.mark.parametrize("viewer", [True, False])
def test_terminal_gets_the_formatted_page(tmp_path: Path, viewer: bool) -> None:
    """man formats it.  Without man, the plain text is printed."""
    need("script", *(["man"] if viewer else []))
    path = os.environ["PATH"] if viewer else str(tmp_path)
    script = shutil.which("script")
    assert script
    result = subprocess.run(
        [script, "-qec", f"/usr/bin/python3 -IS {CNIHOOK} man ps", "/dev/null"],
        env=os.environ | {"PATH": path, "MANPAGER": "cat", "TERM": "dumb", "MANWIDTH": "80"},
        capture_output=True,
        text=True,
        check=True,
    )

    shown = re.sub(r".\x08|\x1b\[[0-9;]*m", "", result.stdout)  # the second from groff 1.23
    assert ("SYNOPSIS" in shown) is viewer and "cnihook ps [-h] [--network NAME]" in shown


def test_man_finds_installed_pages_until_they_are_removed(tmp_path: Path) -> None:
    need("man")
    cnihook("man", "--install", str(tmp_path))

    env = os.environ | {"MANPATH": str(tmp_path)}
    paths = [
        subprocess.run(["man", "--where", name], env=env, capture_output=True, text=True).stdout.strip()
        for name in ("cnihook", "cnihook-ps", "priv-net-run", "cnihook-cookbook")
    ]
    assert paths == [
        f"{tmp_path}/{name}"
        for name in ("man8/cnihook.8", "man8/cnihook-ps.8", "man8/priv-net-run.8", "man7/cnihook-cookbook.7")
    ]
    cnihook("man", "--remove", str(tmp_path))
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_page_of_another_program_stays(tmp_path: Path) -> None:
    foreign = tmp_path / "man8" / "docker-run.8"
    foreign.parent.mkdir()
    foreign.write_text("foreign")

    assert "was not written by cnihook" in cnihook("man", "--install", str(tmp_path), status=1).stderr
    cnihook("man", "--remove", str(tmp_path))
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [foreign]
