# SPDX-License-Identifier: Apache-2.0
"""oci.bundle and oci.state: the state and the config.json of a container, and the errors in them."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnihook.oci import bundle, state
from cnihook.oci.bundle import HOST, JOINED, OWN, UNKNOWN
from cnihook.oci.state import State
from cnihook.types.errors import CniError

STATE = {
    "ociVersion": "1.0.2",
    "id": "c1",
    "status": "creating",
    "pid": 4711,
    "bundle": "/bundle",
    "annotations": {"cnihook.networks": "mynet"},
}


def read(value: Any) -> State:
    return state.parse(value if isinstance(value, bytes) else json.dumps(value).encode())


def test_state_of_each_runtime_is_read() -> None:
    """runc says "creating"; crun says "created" and a version that does not exist; both are accepted."""
    for change in ({}, {"status": "created", "ociVersion": "1.0"}, {"status": "stopped"}, {"new": [1]}):
        parsed = read({**STATE, **change})
        assert (parsed.id, parsed.pid, parsed.bundle) == ("c1", 4711, "/bundle")
        assert parsed.annotations == {"cnihook.networks": "mynet"}


def test_state_of_an_ended_container_is_read() -> None:
    for change in ({"pid": 0}, {"pid": None}, {"annotations": None}, {"bundle": None}):
        assert read({**STATE, **change}).id == "c1"
    assert read({"id": "c1"}).pid == 0


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (b"", "empty"),
        (b" \n", "empty"),
        (b"{", "not JSON"),
        (json.dumps(STATE).encode()[:-5], "not JSON"),
        (b"\xff", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        ([], "object"),
        (["c1"], "object"),
        ("c1", "object"),
        (None, "object"),
        ({}, "id"),
        ({**STATE, "id": ""}, "id"),
        ({**STATE, "id": 7}, "id"),
        ({**STATE, "id": "../../etc/x"}, "id"),
        ({**STATE, "id": "x" * 300}, "id"),
        ({**STATE, "id": "c1\n"}, "id"),
        ({**STATE, "pid": "4711"}, "pid"),
        ({**STATE, "pid": -1}, "pid"),
        ({**STATE, "pid": 1.5}, "pid"),
        ({**STATE, "pid": 2**40}, "pid"),
        ({**STATE, "pid": True}, "pid"),
        ({**STATE, "bundle": 7}, "bundle"),
        ({**STATE, "annotations": []}, "annotations"),
    ],
)
def test_state_that_is_wrong_is_refused_in_one_line(value: Any, words: str) -> None:
    with pytest.raises(CniError) as refused:
        read(value)

    assert refused.value.msg.startswith("container state on stdin: ") and words in refused.value.msg
    assert len(str(refused.value).splitlines()) == 1 and len(str(refused.value)) < 400


@given(st.binary(max_size=40))
def test_any_bytes_are_a_state_or_an_error(text: bytes) -> None:
    with pytest.raises(CniError):
        read(text)


# config.json


def config(folder: Path, value: Any) -> bundle.Bundle:
    text = value if isinstance(value, bytes) else json.dumps(value).encode()
    (folder / "config.json").write_bytes(text)
    return bundle.load(State("no-such-container", 1, str(folder), {}))


def namespaces(*entries: Any) -> dict[str, Any]:
    return {"linux": {"namespaces": list(entries)}}


@pytest.mark.parametrize(
    ("value", "whose"),
    [
        (namespaces({"type": "mount"}, {"type": "network"}), OWN),
        (namespaces({"type": "network", "path": ""}), OWN),
        (namespaces({"type": "network", "path": "/proc/1/ns/net"}), JOINED),
        (namespaces({"type": "mount"}), HOST),
        (namespaces(), HOST),
        ({"linux": {}}, HOST),
        ({}, HOST),
        ({"linux": []}, HOST),
        ({"linux": {"namespaces": {}}}, HOST),
        (namespaces("network", None, 7, {"type": "network"}), OWN),
        (b"", UNKNOWN),
        (b"{", UNKNOWN),
        (b"[]", UNKNOWN),
        (b"\xff", UNKNOWN),
        (b"[" * 100_000, UNKNOWN),
    ],
)
def test_kind_of_network_namespace_is_recognized(tmp_path: Path, value: Any, whose: str) -> None:
    assert config(tmp_path, value).network_namespace == whose


def test_missing_bundle_has_no_values(tmp_path: Path) -> None:
    """At poststop the bundle may be removed; crun then names its own working folder."""
    for path in (str(tmp_path), "/no/such/bundle", "", "relative"):
        loaded = bundle.load(State("no-such-container", 1, path, {}))
        assert (loaded.network_namespace, loaded.path, loaded.hook_timeout("poststop")) == (UNKNOWN, "", 0)


def test_copy_of_crun_is_used_if_the_bundle_has_no_config(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    kept = tmp_path / "crun" / "no-such-container"
    kept.mkdir(parents=True)
    (kept / "config.json").write_text(json.dumps(namespaces({"type": "network"})))

    loaded = bundle.load(State("no-such-container", 1, "/", {}))

    assert (loaded.network_namespace, loaded.path) == (OWN, str(kept / "config.json"))


def test_uts_namespace_and_host_name_are_read(tmp_path: Path) -> None:
    value = namespaces({"type": "uts"}, {"type": "network", "path": "/x"}) | {"hostname": "web"}

    loaded = config(tmp_path, value)
    assert (loaded.uts_namespace, loaded.network_namespace, loaded.hostname) == (OWN, JOINED, "web")
    assert config(tmp_path, {"hostname": 7}).hostname == config(tmp_path, {}).hostname == ""
    assert config(tmp_path, {}).uts_namespace == HOST


def test_domain_name_is_read_from_its_key_or_from_a_sysctl(tmp_path: Path) -> None:
    with_domain: list[Any] = [{"domainname": "lan"}, {"linux": {"sysctl": {"kernel.domainname": "lan"}}}]
    without_domain: list[Any] = [{}, {"domainname": 7}, {"linux": []}, {"linux": {"sysctl": None}}]

    assert [config(tmp_path, value).domainname for value in with_domain] == ["lan", "lan"]
    assert [config(tmp_path, value).domainname for value in without_domain] == [""] * 4


def test_mounts(tmp_path: Path) -> None:
    """A relative source is relative to the bundle; the runtime, not the hook, rejects malformed mounts."""
    mounts = [
        {"destination": "/etc/hosts", "source": "/x/hosts", "type": "bind"},
        {"destination": "/data/../etc/", "source": "etc"},
        {"destination": "/proc"},
        {"destination": 7, "source": "/x"},
        {"destination": "/a", "source": "/x\0y"},
        "x",
    ]

    assert config(tmp_path, {"mounts": mounts}).mounts == [
        ("/etc/hosts", "/x/hosts", False),
        ("/etc", f"{tmp_path}/etc", False),
    ]
    assert config(tmp_path, {"mounts": {}}).mounts == config(tmp_path, {}).mounts == []


def test_config_without_end_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(b"{")
    os.truncate(path, 1 << 40)
    with pytest.raises(CniError, match="config.json: is longer than 16 MiB"):
        bundle.load(read({**STATE, "bundle": str(tmp_path)}))

    path.unlink()
    os.mkfifo(path)
    with pytest.raises(CniError, match="config.json: is not a regular file"):
        bundle.load(read({**STATE, "bundle": str(tmp_path)}))


def hook(event: str = "createRuntime", **keys: Any) -> dict[str, Any]:
    return {"path": "/usr/bin/python3", "args": ["python3", "-IS", "/x/cnihook", event], **keys}


@pytest.mark.parametrize(
    ("hooks", "seconds"),
    [
        ({"createRuntime": [hook(timeout=60)]}, 60),
        ({"createRuntime": [hook()]}, 0),
        ({"createRuntime": [{"path": "/other", "timeout": 1}, hook(timeout=60)]}, 60),
        ({"createRuntime": [hook(timeout=60), hook(timeout=30)]}, 30),
        ({"prestart": [hook(timeout=20)]}, 20),
        ({"poststop": [hook("poststop", timeout=5)]}, 0),
        ({"createRuntime": [hook(timeout="60")]}, 0),
        ({"createRuntime": {}}, 0),
        ({"createRuntime": ["x", None, {"args": {}}]}, 0),
        ([], 0),
        (None, 0),
    ],
)
def test_timeout_of_the_runtime_is_read(tmp_path: Path, hooks: Any, seconds: int) -> None:
    assert config(tmp_path, {"hooks": hooks}).hook_timeout("createRuntime") == seconds
