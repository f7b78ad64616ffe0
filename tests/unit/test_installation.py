# SPDX-License-Identifier: Apache-2.0
"""`cnihook install` and `uninstall`: the order of files, files of other programs, and interruptions."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from cnihook.cli import hooks_d, install, uninstall
from cnihook.cli.installation import docker_daemon, part_names, parts
from cnihook.cli.shared import files
from cnihook.fast import codecache_file
from cnihook.types.errors import CniError

ALL = list(part_names.PARTS)
CREATE, POSTSTOP = "90-cnihook-createRuntime.json", "90-cnihook-poststop.json"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Yield a folder that has all places of an installation; PREFIX is its folder usr."""
    for module, name, path in (
        (hooks_d, "DEFAULT", "hooks.d"),
        (parts, "PLUGINS", "plugins"),
        (docker_daemon, "PATH", "docker/daemon.json"),
    ):
        monkeypatch.setattr(module, name, str(tmp_path / path))
    monkeypatch.setattr(hooks_d, "check_podman", lambda: None)  # that of this machine may be too old
    monkeypatch.setattr(codecache_file, "is_current", lambda: True)
    monkeypatch.setattr(uninstall, "_disable", lambda units: None)
    # Other files of a prefix that is not /usr/local would be in /etc.
    monkeypatch.setattr(parts, "_SYSTEM", (str(tmp_path / "usr"),))
    yield tmp_path


def do_install(place: Path, names: list[str] = ALL) -> "install._Plan":
    plan = install._Plan(str(place / "usr"), names)
    plan.carry_out()
    return plan


def do_uninstall(place: Path) -> None:
    uninstall._Removal(str(place / "usr")).carry_out()


def everything(place: Path) -> list[str]:
    return sorted(str(path.relative_to(place)) for path in place.rglob("*"))


def test_uninstall_removes_exactly_what_install_wrote(place: Path) -> None:
    (place / "usr/share/man/man8").mkdir(parents=True)
    (place / "usr/share/man/man8/other.8").write_text("")
    (place / "docker").mkdir()
    (place / "docker/daemon.json").write_text('{"debug":true,\n\t"runtimes": { }}')
    before = everything(place)

    do_install(place, [part_names.COMMANDS, part_names.MAN])
    do_install(place)
    assert install._Plan(str(place / "usr"), ALL).steps() == []
    daemon = json.loads((place / "docker/daemon.json").read_text())
    assert daemon == {"debug": True, "runtimes": {"cni": {"path": str(place / "usr/bin/cni-runc")}}}
    do_uninstall(place)

    assert everything(place) == before
    assert (place / "docker/daemon.json").read_text() == '{"debug":true,\n\t"runtimes": { }}'


def test_programs_that_others_start_are_written_last_and_removed_first(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No engine may start a hook, a runtime or a plugin that is not there yet, or no longer."""
    seen: list[str] = []

    def watch(module: object, function: str) -> None:
        original = getattr(module, function)

        def watched(path: str, *arguments: object, **options: object) -> None:
            original(path, *arguments, **options)
            seen.append(os.path.basename(path))

        monkeypatch.setattr(module, function, watched)

    watch(files, "write")
    do_install(place)
    written = [name for name in seen if name != "installed.json"]
    assert written[-2:] == [POSTSTOP, CREATE]
    assert written.index("cni-runc") < written.index("daemon.json") < written.index("bridge")
    assert seen[0] == seen[-1] == "installed.json", "what is to be removed is on record at each moment"

    seen.clear()
    watch(os, "unlink")
    do_uninstall(place)
    assert seen[:3] == [CREATE, POSTSTOP, "daemon.json"]
    assert seen.index("bridge") < seen.index("cnihook") < seen.index("installed.json")


@pytest.mark.parametrize("number", [1, 3, 30])
def test_interrupted_installation_can_be_removed_and_completed(
    place: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    before = everything(place)
    original, count = files.write, 0

    def failing(*arguments: object, **options: object) -> None:
        nonlocal count
        count += 1
        if count > number:
            raise OSError(28, "No space left on device")
        original(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(files, "write", failing)
    with pytest.raises(OSError):
        do_install(place)
    monkeypatch.setattr(files, "write", original)
    do_uninstall(place)
    assert everything(place) == before

    count = 0
    monkeypatch.setattr(files, "write", failing)
    with pytest.raises(OSError):
        do_install(place)
    monkeypatch.setattr(files, "write", original)
    do_install(place)
    do_uninstall(place)
    assert everything(place) == before


def test_file_of_another_program_stops_the_installation(place: Path) -> None:
    for path in ("plugins/bridge", "usr/bin/cnihook", "hooks.d/" + CREATE):
        (place / path).parent.mkdir(parents=True)
        (place / path).write_text("another program")
        before = everything(place)

        with pytest.raises(CniError, match=f"{place / path}: not written by cnihook; nothing is installed"):
            do_install(place)
        assert everything(place) == before
        (place / path).unlink()


def test_changed_file_is_reported_and_left(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    do_install(place, [part_names.COMMANDS, part_names.SYSTEMD])
    unit = place / "usr/lib/systemd/system/cnihook-gc.timer"
    unit.write_text(unit.read_text() + "# changed\n")

    with pytest.raises(CniError, match="not written by cnihook"):
        do_install(place)
    with pytest.raises(CniError, match="1 changed files are left"):
        do_uninstall(place)

    assert f"{unit} was changed since the installation" in capfd.readouterr().err
    assert [path for path in place.rglob("*") if path.is_file()] == [unit]


def test_file_of_an_older_version_is_replaced_or_removed(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = parts.files

    def older(part: str, prefix: str) -> list[parts.File]:
        ours = [file._replace(text=f"{file.text}# older\n") for file in real(part, prefix)]
        return [*ours, parts.File(f"{prefix}/bin/cnihook-old", "")] if part == part_names.COMMANDS else ours

    monkeypatch.setattr(parts, "files", older)
    do_install(place, [part_names.COMMANDS, part_names.COMPLETION])
    monkeypatch.setattr(parts, "files", real)
    plan = do_install(place, [part_names.COMMANDS])

    assert f"remove {place}/usr/bin/cnihook-old" in plan.steps()
    assert not (place / "usr/bin/cnihook-old").exists()
    assert "older" not in (place / "usr/share/bash-completion/completions/cnihook").read_text()


def test_runtime_of_docker_that_is_needed_stops_the_removal(place: Path) -> None:
    do_install(place)
    path = place / "docker/daemon.json"
    value = json.loads(path.read_text())
    path.write_text(json.dumps(value | {"default-runtime": "cni"}))
    with pytest.raises(CniError, match="default-runtime is cni"):
        do_uninstall(place)

    path.write_text(json.dumps(value | {"debug": True}))
    do_uninstall(place)
    assert json.loads(path.read_text()) == {"runtimes": {}, "debug": True}


@pytest.mark.parametrize("text", ["", "[]", '{"files": {}}', '{"files": {"../x": []}, "parts": []}', "\0"])
def test_damaged_manifest_is_reported(place: Path, text: str) -> None:
    path = place / "usr/share/cnihook/installed.json"
    path.parent.mkdir(parents=True)
    path.write_text(text)

    with pytest.raises(CniError, match=f"{path} is damaged"):
        do_install(place)
    with pytest.raises(CniError, match=f"{path} is damaged"):
        do_uninstall(place)
