# SPDX-License-Identifier: Apache-2.0
"""cni-runc: the container and the config.json, read from the arguments of runc and of crun."""

from pathlib import Path

import pytest

from cnihook.cli import cni_runc
from cnihook.cli.cni_runc import Arguments


@pytest.mark.parametrize(
    ("line", "command", "config", "container_id"),
    [
        ("create c1", "create", "config.json", "c1"),
        ("create -b /b c1", "create", "/b/config.json", "c1"),
        ("create --bundle /b c1", "create", "/b/config.json", "c1"),
        ("create -b=/b c1", "create", "/b/config.json", "c1"),
        ("run --bundle=/b c1", "run", "/b/config.json", "c1"),
        ("run -bundle /b c1", "run", "/b/config.json", "c1"),
        ("run c1 --bundle /b", "run", "/b/config.json", "c1"),
        ("restore --image-path /i --bundle /b -d c1", "restore", "/b/config.json", "c1"),
        ("create --pid-file -b --bundle /b c1", "create", "/b/config.json", "c1"),
        ("create --pid-file /p -- c1", "create", "config.json", "c1"),
        ("create -f /x.json --bundle /b c1", "create", "/x.json", "c1"),
        ("--root create --log run state c1", "state", "config.json", ""),
        ("--root=/r --systemd-cgroup create --no-pivot -b /b c1", "create", "/b/config.json", "c1"),
        ("--rootless true --debug create c1", "create", "config.json", "c1"),
        ("exec c1 create --bundle /b", "exec", "config.json", ""),
        ("delete --force c1", "delete", "config.json", ""),
        ("--version", "", "config.json", ""),
        ("", "", "config.json", ""),
        ("create --bundle", "create", "config.json", ""),
        ("--root", "", "config.json", ""),
    ],
)
def test_arguments_are_read_as_the_runtimes_read_them(
    line: str, command: str, config: str, container_id: str
) -> None:
    words = Arguments(line.split())

    assert (words.command, words.config_path, words.container_id) == (command, config, container_id)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("--log /l --log-format json create c1", ("/l", "json")),
        ("--log=/l create c1", ("/l", "")),
        ("-log /l -log-format=text state c1", ("/l", "text")),
        ("create --log /l c1", ("", "")),
    ],
)
def test_log_of_the_engine_is_read(line: str, expected: tuple[str, str]) -> None:
    words = Arguments(line.split())

    assert (words.log, words.log_format) == expected


def test_runtime_is_found_and_never_cni_runc_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path / "cni-runc"
    for folder, name in (("a", "runc"), ("b", "runc"), ("b", "crun")):
        program = tmp_path / folder / name
        program.parent.mkdir(exist_ok=True)
        if folder == "a":
            program.symlink_to(own)
        else:
            program.touch(0o755)
    own.touch(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/a:{tmp_path}/b")

    for name in ("runc", "whatever"):
        assert cni_runc.find(name, str(own)) == f"{tmp_path}/b/runc"
    assert cni_runc.find("crun", str(own)) == f"{tmp_path}/b/crun"


def test_missing_runtime_is_reported_with_the_searched_folders(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(cni_runc, "_FOLDERS", "/neither")

    with pytest.raises(FileNotFoundError, match="no runc and no crun in /nowhere:/neither"):
        cni_runc.find("", "/x")
