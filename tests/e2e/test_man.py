# SPDX-License-Identifier: Apache-2.0
"""cnihook man: a page for each command, from the text of its --help."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from cnihook.cli import man, roff
from cnihook.cli.main import COMMANDS, HOOK, load
from tests.support.cni import CHECKOUT
from tests.support.skip import need

CNIHOOK = str(CHECKOUT / "scripts" / "cnihook")
OPTION = re.compile(r"(?<![\w-])--?[a-z][\w-]*")


def cnihook(*words: str, status: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([CNIHOOK, *words], capture_output=True, text=True)
    assert done.returncode == status, done.stderr
    return done


def read(text: str, columns: int) -> str:
    """What a reader sees, in a terminal of so many columns; groff has nothing to warn of."""
    argv = ["groff", "-Tutf8", "-man", "-ww", f"-rLL={columns}n", "-P-cbou"]
    done = subprocess.run(argv, input=text, text=True, capture_output=True, check=True)
    warnings = [line for line in done.stderr.splitlines() if not re.search("(break|adjust) line", line)]
    assert warnings == []  # both are of a long word in a narrow terminal, the second by groff 1.23
    return done.stdout


@pytest.mark.parametrize("name", man.PAGES)
def test_every_command_has_a_page_that_reads_well(name: str) -> None:
    """At any width; it has every option that --help names."""
    need("groff")
    text = man.page(name)

    wide, narrow = read(text, 80), read(text, 40)
    title, section = man.file_name(name).rsplit(".", 1)
    assert wide.splitlines()[0].startswith(f"{title.upper()}({section})")
    assert f"{title} - " in wide
    assert "<!--" not in wide and "```" not in wide
    if section == "8":  # the guides have output of commands in them
        assert set(OPTION.findall(man.source(name))) <= set(OPTION.findall(wide))
        assert [line for line in wide.splitlines() if len(line) > 80] == []
        assert [line for line in narrow.splitlines() if len(line) > 40] == []


@pytest.mark.parametrize("name", [*COMMANDS, "priv-net-run", "docker-run"])
def test_page_is_made_of_what_help_says(name: str) -> None:
    words = [name] if (CHECKOUT / "scripts" / name).exists() else ["cnihook", name]
    program = str(CHECKOUT / "scripts" / words[0])
    told = subprocess.run([program, *words[1:], "--help"], capture_output=True, text=True, check=True).stdout

    assert told.split() == man.source(name).split()


@pytest.mark.parametrize("command", [command for command in COMMANDS if command not in HOOK])
def test_every_word_of_a_command_is_explained(command: str) -> None:
    for action in load(command).parser()._actions:
        assert action.help, f"{command}: {action.dest}"


def test_words_of_the_text_are_no_commands_to_the_formatter() -> None:
    text = "usage: x [OPTION]\n\n.so /etc/passwd\n'br \\fBbold\\fR \\n ^ ~ -\n\n  --x  .SH \\e\n"

    shown = read(roff.page("x", 8, "1", ".tricky", roff.from_help(text), "y"), 80)

    for line in ("x - .tricky", ".so /etc/passwd", "'br \\fBbold\\fR \\n ^ ~ -", ".SH \\e"):
        assert line in shown, shown


def test_a_pipe_gets_the_source_of_the_page_asked_for() -> None:
    assert cnihook("man", "ps").stdout == cnihook("man", "cnihook-ps").stdout == man.page("ps")
    assert cnihook("man").stdout == man.page("cnihook")
    assert "no page 'nosuch'; there are: cnihook, createRuntime" in cnihook("man", "nosuch", status=2).stderr
    assert "one at a time" in cnihook("man", "ps", "--install", "/x", status=2).stderr


@pytest.mark.parametrize("viewer", [True, False])
def test_a_terminal_gets_it_to_read(tmp_path: Path, viewer: bool) -> None:
    """By man; where that is missing, at least the text."""
    need("script", *(["man"] if viewer else []))
    path = os.environ["PATH"] if viewer else str(tmp_path)
    script = shutil.which("script")
    assert script
    done = subprocess.run(
        [script, "-qec", f"/usr/bin/python3 -IS {CNIHOOK} man ps", "/dev/null"],
        env=os.environ | {"PATH": path, "MANPAGER": "cat", "TERM": "dumb", "MANWIDTH": "80"},
        capture_output=True,
        text=True,
        check=True,
    )

    shown = re.sub(r".\x08|\x1b\[[0-9;]*m", "", done.stdout)  # the second by groff 1.23
    assert ("SYNOPSIS" in shown) is viewer and "cnihook ps [-h] [--network NAME]" in shown


def test_installed_pages_are_found_by_man_and_go_again(tmp_path: Path) -> None:
    need("man")
    cnihook("man", "--install", str(tmp_path))

    env = os.environ | {"MANPATH": str(tmp_path)}
    found = [
        subprocess.run(["man", "--where", name], env=env, capture_output=True, text=True).stdout.strip()
        for name in ("cnihook", "cnihook-ps", "priv-net-run", "cnihook-cookbook")
    ]
    assert found == [
        f"{tmp_path}/{name}"
        for name in ("man8/cnihook.8", "man8/cnihook-ps.8", "man8/priv-net-run.8", "man7/cnihook-cookbook.7")
    ]
    cnihook("man", "--remove", str(tmp_path))
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_somebody_elses_page_stays(tmp_path: Path) -> None:
    theirs = tmp_path / "man8" / "docker-run.8"
    theirs.parent.mkdir()
    theirs.write_text("theirs")

    assert "was not written by cnihook" in cnihook("man", "--install", str(tmp_path), status=1).stderr
    cnihook("man", "--remove", str(tmp_path))
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [theirs]
