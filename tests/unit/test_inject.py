# SPDX-License-Identifier: Apache-2.0
"""oci.inject: our hook into a config.json and out of it, which is otherwise left as it was."""

import json
import os
import stat
import sys
from pathlib import Path
from typing import Any

import pytest

from cnihook.lean.splice import Document
from cnihook.oci import inject
from cnihook.spec.errors import CniError

FILES = {"/etc/hosts": "cnihook/hosts", "/etc/resolv.conf": "cnihook/resolv.conf"}
PREFIX = "cnihook."
FOREIGN = {"path": "/usr/bin/other", "args": ["other", "createRuntime"]}
BY_HAND = {"path": "/opt/cnihook/scripts/cnihook", "args": ["cnihook", "createRuntime", "--network", "a"]}


def prepared(config: Document, **annotations: str) -> Document:
    inject.add_hooks(config, {}, renew=True)
    inject.add_namespace(config)
    inject.add_annotations(config, {f"{PREFIX}{name}": text for name, text in annotations.items()})
    inject.add_mounts(config, FILES)
    return config


def document(value: Any, **layout: Any) -> Document:
    return Document(json.dumps(value, **layout))


CONFIGS: dict[str, Any] = {
    "empty": {},
    "nothing": {"hooks": None, "linux": None, "mounts": None, "annotations": None},
    "empties": {"hooks": {"createRuntime": [], "poststop": None}, "linux": {"namespaces": []}, "mounts": []},
    "others": {
        "hooks": {"createRuntime": [FOREIGN], "poststart": [FOREIGN]},
        "linux": {"namespaces": [{"type": "pid"}, {"type": "network"}], "unknown": 1.10},
        "mounts": [{"destination": "/etc/hosts", "source": "/srv/hosts", "type": "bind"}],
        "annotations": {"org.example": "x", "cnihook.networks": "theirs"},
    },
    "by hand": {"hooks": {"createRuntime": [BY_HAND]}, "annotations": {"cnihook.ip": "10.0.0.1"}},
}


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("layout", [{"indent": "\t"}, {"separators": (",", ":")}], ids=["go", "compact"])
def test_twice_is_once_and_taken_out_is_as_before(name: str, layout: dict[str, Any]) -> None:
    before = json.dumps(CONFIGS[name], **layout)
    config = prepared(Document(before), networks="mynet", publish="80:80")

    assert config.get("annotations", "cnihook.networks") == "mynet"
    assert {"type": "network"} in config.get("linux", "namespaces")
    once = config.text
    assert prepared(config, networks="mynet").text == once

    inject.remove(config, Document(before), FILES, PREFIX)
    assert config.text == before


def test_our_hooks_come_last_and_say_all_that_they_need() -> None:
    """The environment is written out: podman gives a hook none at poststop, others all of the engine's."""
    config = document(CONFIGS["others"])
    inject.add_hooks(config, {"NETCONFPATH": "/srv/net.d", "CNI_PATH": ":/a::/b", "SECRET": "x"})

    first, last = config.get("hooks", "createRuntime")
    assert first == FOREIGN
    assert last["env"] == [f"PATH={inject._PATH}", "NETCONFPATH=/srv/net.d", "CNI_PATH=/a:/b"]
    assert last["args"][:2] == ["python3", "-IS"] and last["args"][-1] == "createRuntime"
    assert os.path.realpath(last["path"]) == os.path.realpath(sys.executable)
    assert Path(last["args"][2]).is_file() and last["timeout"] > 0
    assert config.get("hooks", "poststop", 0, "args", 3) == "poststop"


def test_a_hook_registered_by_hand_is_not_doubled_and_keeps_its_arguments() -> None:
    own_environment = inject.hook("poststop", {}) | {"env": ["NETCONFPATH=/own"]}
    config = document({"hooks": {"createRuntime": [BY_HAND], "poststop": [own_environment]}})
    inject.add_hooks(config, {}, renew=True)

    assert config.get("hooks") == {"createRuntime": [BY_HAND], "poststop": [own_environment]}


def test_a_hook_of_another_installation_is_replaced() -> None:
    """One that moved would leave a hook behind that nobody can start, and no container either."""
    moved = {"path": "/usr/bin/python3", "args": ["python3", "-IS", "/old/scripts/cnihook", "poststop"]}
    made = inject.hook("poststop", {"NETCONFPATH": "/there"})
    config = document({"hooks": {"poststop": [made | moved]}})
    inject.add_hooks(config, {})
    assert config.get("hooks", "poststop") == [made | moved], "cni-runc takes what there is"

    inject.add_hooks(config, {}, renew=True)
    assert config.get("hooks", "poststop") == [inject.hook("poststop", {})]


def test_a_mount_that_is_there_stays_however_it_is_written() -> None:
    mount = {"destination": "/etc//hosts/", "type": "bind", "source": "/x"}
    config = document({"mounts": [mount]})
    inject.add_mounts(config, FILES)

    assert [m["destination"] for m in config.get("mounts")] == ["/etc//hosts/", "/etc/resolv.conf"]


def test_what_changed_since_is_kept_when_ours_is_taken_out() -> None:
    original = document({"hostname": "a", "annotations": {"cnihook.ip": "10.0.0.1"}}, indent=2)
    config = prepared(Document(original.text), ip="10.0.0.2", networks="x")
    config.set("b", "hostname")
    config.append(FOREIGN, "hooks", "createRuntime")

    inject.remove(config, original, FILES, PREFIX)

    assert config.get() == {
        "hostname": "b",
        "annotations": {"cnihook.ip": "10.0.0.1"},
        "hooks": {"createRuntime": [FOREIGN]},
    }


def test_a_host_name_needs_a_namespace_for_it() -> None:
    """Else it would be the machine's own, and runc refuses that."""
    for namespaces, expected in (
        ([], None),
        ([{"type": "uts", "path": "/x"}], None),
        ([{"type": "uts"}], "a"),
    ):
        config = document({"linux": {"namespaces": namespaces}})
        inject.set_hostname(config, "a")
        assert config.get("hostname") == expected


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"hooks": []}, "hooks must be an object"),
        ({"hooks": {"createRuntime": {}}}, "hooks.createRuntime must be a list"),
        ({"linux": {"namespaces": "all"}}, "linux.namespaces must be a list"),
        ({"linux": {"namespaces": [{"type": "network", "path": "/x"}]}}, "by path"),
        ({"annotations": ["a"]}, "annotations must be an object"),
        ({"mounts": {}}, "mounts must be a list"),
    ],
)
def test_what_makes_no_sense_is_told(config: Any, told: str) -> None:
    with pytest.raises(CniError, match=told):
        prepared(document(config), ip="10.0.0.1")


def test_a_file_is_replaced_whole_with_its_mode_and_owner(tmp_path: Path) -> None:
    """Through a link, too: what it leads to is the file that somebody means."""
    real = tmp_path / "real.json"
    real.write_text("{}")
    real.chmod(0o640)
    os.chown(real, os.getuid(), os.getgid())
    link = tmp_path / "config.json"
    link.symlink_to(real)
    held = real.open()

    inject.write(str(link), '{"a": 1}', durable=True)

    assert held.read() == "{}", "who has it open sees the old one"
    assert link.is_symlink() and real.read_text() == '{"a": 1}'
    assert stat.S_IMODE(real.stat().st_mode) == 0o640
    assert sorted(os.listdir(tmp_path)) == ["config.json", "real.json"]


def test_a_file_that_cannot_be_written_stays_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "config.json"
    path.write_text("{}")

    def full(*_arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError):
        inject.write(str(path), '{"a": 1}', durable=True)

    assert path.read_text() == "{}" and os.listdir(tmp_path) == ["config.json"]


def test_a_file_that_is_no_json_is_named(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(b"\xff{}")
    with pytest.raises(CniError, match="config.json"):
        inject.read(str(path))
