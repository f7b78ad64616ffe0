# SPDX-License-Identifier: Apache-2.0
"""oci.inject: the hook is added to a config.json and removed again; the rest of the text is kept."""

import json
import os
import stat
import sys
from pathlib import Path
from typing import Any

import pytest

from cnihook.oci import inject
from cnihook.oci.json_edit import JsonDocument
from cnihook.protocol.call import PLUGIN_TIMEOUT
from cnihook.types.errors import CniError

FILES = {"/etc/hosts": "cnihook/hosts", "/etc/resolv.conf": "cnihook/resolv.conf"}
PREFIX = "cnihook."
FOREIGN = {"path": "/usr/bin/other", "args": ["other", "createRuntime"]}
BY_HAND = {"path": "/opt/cnihook/scripts/cnihook", "args": ["cnihook", "createRuntime", "--network", "a"]}


def prepared(config: JsonDocument, **annotations: str) -> JsonDocument:
    inject.add_hooks(config, {}, renew=True)
    inject.add_namespace(config, has_request=False)
    inject.add_annotations(config, {f"{PREFIX}{name}": text for name, text in annotations.items()})
    inject.add_mounts(config, FILES)
    return config


def document(value: Any, **layout: Any) -> JsonDocument:
    return JsonDocument(json.dumps(value, **layout))


CONFIGS: dict[str, Any] = {
    "empty": {},
    "nothing": {"hooks": None, "linux": None, "mounts": None, "annotations": None},
    "empties": {"hooks": {"createRuntime": [], "poststop": None}, "linux": {"namespaces": []}, "mounts": []},
    "others": {
        "hooks": {"createRuntime": [FOREIGN], "poststart": [FOREIGN]},
        "linux": {"namespaces": [{"type": "pid"}, {"type": "network"}], "unknown": 1.10},
        "mounts": [{"destination": "/etc/hosts", "source": "/srv/hosts", "type": "bind"}],
        "annotations": {"org.example": "x", "cnihook.networks": "other"},
    },
    "by hand": {"hooks": {"createRuntime": [BY_HAND]}, "annotations": {"cnihook.ip": "10.0.0.1"}},
}


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("layout", [{"indent": "\t"}, {"separators": (",", ":")}], ids=["go", "compact"])
def test_injection_is_idempotent_and_removal_restores_the_text(name: str, layout: dict[str, Any]) -> None:
    before = json.dumps(CONFIGS[name], **layout)
    config = prepared(JsonDocument(before), networks="mynet", publish="80:80")

    assert config.get("annotations", "cnihook.networks") == "mynet"
    assert {"type": "network"} in config.get("linux", "namespaces")
    once = config.text
    assert prepared(config, networks="mynet").text == once

    inject.remove(config, JsonDocument(before), FILES, PREFIX)
    assert config.text == before


def test_hooks_are_last_and_complete() -> None:
    """The environment is explicit: podman gives a hook none at poststop, others all of the engine's."""
    config = document(CONFIGS["others"])
    inject.add_hooks(config, {"NETCONFPATH": "/srv/net.d", "CNI_PATH": ":/a::/b", "SECRET": "x"})

    first, last = config.get("hooks", "createRuntime")
    assert first == FOREIGN
    assert last["env"] == [f"PATH={inject._PATH}", "NETCONFPATH=/srv/net.d", "CNI_PATH=/a:/b"]
    assert last["args"][:2] == [last["path"], "-IS"] and last["args"][-1] == "createRuntime"
    assert os.path.realpath(last["path"]) == os.path.realpath(sys.executable)
    assert Path(last["args"][2]).is_file() and last["timeout"] >= PLUGIN_TIMEOUT
    assert config.get("hooks", "poststop", 0, "args", 3) == "poststop"


def test_hook_registered_by_hand_is_kept_and_not_added_again() -> None:
    own_environment = inject.hook("poststop", {}) | {"env": ["NETCONFPATH=/own"]}
    config = document({"hooks": {"createRuntime": [BY_HAND], "poststop": [own_environment]}})
    inject.add_hooks(config, {}, renew=True)

    assert config.get("hooks") == {"createRuntime": [BY_HAND], "poststop": [own_environment]}


def test_hook_of_another_installation_is_replaced() -> None:
    """An installation that moved leaves a hook that cannot be started, so no container could start."""
    moved = {"path": "/usr/bin/python3", "args": ["python3", "-IS", "/old/scripts/cnihook", "poststop"]}
    own = inject.hook("poststop", {"NETCONFPATH": "/there"})
    config = document({"hooks": {"poststop": [own | moved]}})
    inject.add_hooks(config, {})
    assert config.get("hooks", "poststop") == [own | moved], "cni-runc keeps the hook that is there"

    inject.add_hooks(config, {}, renew=True)
    assert config.get("hooks", "poststop") == [inject.hook("poststop", {})]


def test_existing_mount_is_kept_in_any_spelling() -> None:
    mount = {"destination": "/etc//hosts/", "type": "bind", "source": "/x"}
    config = document({"mounts": [mount]})
    inject.add_mounts(config, FILES)

    assert [m["destination"] for m in config.get("mounts")] == ["/etc//hosts/", "/etc/resolv.conf"]


def test_later_changes_are_kept_at_removal() -> None:
    original = document({"hostname": "a", "annotations": {"cnihook.ip": "10.0.0.1"}}, indent=2)
    config = prepared(JsonDocument(original.text), ip="10.0.0.2", networks="x")
    config.set("b", "hostname")
    config.append(FOREIGN, "hooks", "createRuntime")

    inject.remove(config, original, FILES, PREFIX)

    assert config.get() == {
        "hostname": "b",
        "annotations": {"cnihook.ip": "10.0.0.1"},
        "hooks": {"createRuntime": [FOREIGN]},
    }


def test_host_name_is_set_only_in_a_namespace_of_its_own() -> None:
    """Otherwise the host name would be the machine's, and runc rejects that."""
    for namespaces, expected in (
        ([], None),
        ([{"type": "uts", "path": "/x"}], None),
        ([{"type": "uts"}], "a"),
    ):
        config = document({"linux": {"namespaces": namespaces}})
        inject.set_hostname(config, "a")
        assert config.get("hostname") == expected


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"hooks": []}, "hooks must be an object"),
        ({"hooks": {"createRuntime": {}}}, "hooks.createRuntime must be a list"),
        ({"linux": {"namespaces": "all"}}, "linux.namespaces must be a list"),
        ({"linux": {"namespaces": [{"type": "network", "path": "/x"}]}}, "by path"),
        ({"annotations": ["a"]}, "annotations must be an object"),
        ({"mounts": {}}, "mounts must be a list"),
    ],
)
def test_malformed_config_is_reported(config: Any, message: str) -> None:
    with pytest.raises(CniError, match=message):
        prepared(document(config), ip="10.0.0.1")


def test_joined_namespace_stays_if_networks_are_requested() -> None:
    """The hook attaches such a container in addition to what the namespace has."""
    before = {"linux": {"namespaces": [{"type": "network", "path": "/x"}]}}
    config = document(before)
    inject.add_namespace(config, has_request=True)

    assert config.get("linux") == before["linux"]


def test_file_is_replaced_whole_with_its_mode_and_owner(tmp_path: Path) -> None:
    """A link is followed: its target is the file to replace."""
    real = tmp_path / "real.json"
    real.write_text("{}")
    real.chmod(0o640)
    os.chown(real, os.getuid(), os.getgid())
    link = tmp_path / "config.json"
    link.symlink_to(real)
    held = real.open()

    inject.write(str(link), '{"a": 1}', durable=True)

    assert held.read() == "{}", "an open descriptor reads the old file"
    assert link.is_symlink() and real.read_text() == '{"a": 1}'
    assert stat.S_IMODE(real.stat().st_mode) == 0o640
    assert sorted(os.listdir(tmp_path)) == ["config.json", "real.json"]


def test_file_that_cannot_be_written_is_not_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "config.json"
    path.write_text("{}")

    def full(*_arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError):
        inject.write(str(path), '{"a": 1}', durable=True)

    assert path.read_text() == "{}" and os.listdir(tmp_path) == ["config.json"]


def test_file_that_is_not_json_is_named(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(b"\xff{}")
    with pytest.raises(CniError, match="config.json"):
        inject.read(str(path))
