# SPDX-License-Identifier: Apache-2.0
"""process.command: a command is found and started as a shell would."""

import os
from pathlib import Path

import pytest

from cnihook.process import command
from cnihook.process.command import NotExecutableError
from tests.unit import child


def script(path: Path, text: str = "#!/bin/sh\necho ran\n", mode: int = 0o755) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    return path


def test_first_executable_file_is_used(tmp_path: Path) -> None:
    """Files that cannot be executed and folders are skipped."""
    script(tmp_path / "a" / "tool", mode=0o644)
    (tmp_path / "b" / "tool").mkdir(parents=True)
    tool = script(tmp_path / "c" / "tool")
    script(tmp_path / "d" / "tool")

    path = ":".join(str(tmp_path / folder) for folder in ("none", "a", "b", "c", "d"))
    assert command.find("tool", path) == str(tool)


def test_path_with_a_slash_is_not_searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = script(tmp_path / "a" / "tool")
    monkeypatch.chdir(tmp_path)

    assert command.find(str(tool), "/nowhere") == str(tool)
    assert command.find("a/tool", "/nowhere") == "a/tool"
    assert command.find("./a/tool", "") == "./a/tool"


def test_empty_part_of_the_path_is_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script(tmp_path / "tool")
    monkeypatch.chdir(tmp_path)

    assert os.path.samefile(command.find("tool", "/nowhere::/other"), tmp_path / "tool")


@pytest.mark.parametrize("name", ["none", "", "/no/such/tool", "a b\nc"])
def test_missing_command_is_status_127(name: str) -> None:
    with pytest.raises(NotExecutableError) as refused:
        command.find(name, "/bin:/usr/bin")
    assert refused.value.status == 127
    assert (name or "''") in str(refused.value)


def test_file_that_cannot_be_executed_is_status_126(tmp_path: Path) -> None:
    script(tmp_path / "a" / "tool", mode=0o644)
    (tmp_path / "b").mkdir()

    for name, words in [("tool", "not marked as executable"), (str(tmp_path / "b"), "a folder")]:
        with pytest.raises(NotExecutableError, match=words) as refused:
            command.find(name, str(tmp_path / "a"))
        assert refused.value.status == 126


BECOME = """\
from cnihook.process import command
try:
    command.execute(sys.argv[2], sys.argv[2:], {"A": "1"})
except command.NotExecutableError as error:
    print(error.status, error)
"""


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ('#!/bin/sh\necho "$A $1 ${HOME-none}"\n', "1 x y none\n"),
        ('echo "$A $1"\n', "1 x y\n"),  # a script without #!, which every shell runs itself
        ("", ""),
    ],
)
def test_process_becomes_the_command(state: Path, text: str, printed: str) -> None:
    tool = script(state / "tool", text)

    assert child.finish(child.start(state, BECOME, str(tool), "x y")) == printed


def test_command_that_cannot_be_started_gives_its_status(state: Path) -> None:
    lost = script(state / "lost", "#!/no/such/shell\n")
    (state / "folder").mkdir()

    assert child.finish(child.start(state, BECOME, str(lost))).startswith(f"127 {lost}: ")
    assert child.finish(child.start(state, BECOME, str(state / "folder"))).startswith("126 ")


def test_environment_is_the_callers(state: Path) -> None:
    """Variables that Python or cnihook added are absent; a value may be other than UTF-8."""
    code = """\
from cnihook.process import command
os.environ["ADDED"] = "1"
found = command.environment()
print(sorted(found.items()) == [("A", "x=y"), ("B", "\\udcff")])
"""
    assert child.finish(child.start(state, code, env={b"A": b"x=y", b"B": b"\xff"})) == "True\n"
