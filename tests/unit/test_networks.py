# SPDX-License-Identifier: Apache-2.0
"""runtime.networks: the text of one file becomes a network, or an error that names the file."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cnihook.runtime import networks
from cnihook.types.errors import INVALID_CONFIG, CniError

MYNET = b"""{"cniVersion":"0.2.0","name":"mynet","type":"bridge","bridge":"cni0","isGateway":true,
"ipMasq":true,"ipam":{"type":"host-local","subnet":"10.22.0.0/16","routes":[{"dst":"0.0.0.0/0"}]}}"""
LOOPBACK = b'{"cniVersion":"0.2.0","type":"loopback"}'
PLUGIN = {"type": "bridge"}
SOURCE = "/etc/cni/net.d/10-a.conf"


def parse(value: Any, folder: str = "") -> networks.Network:
    text = value if isinstance(value, bytes) else json.dumps(value).encode()
    return networks.parse(text, SOURCE, folder)


def conflist(*plugins: Any, **keys: Any) -> dict[str, Any]:
    return {"cniVersion": "1.0.0", "name": "mynet", "plugins": list(plugins or (PLUGIN,)), **keys}


def single(**keys: Any) -> dict[str, Any]:
    return {"cniVersion": "1.0.0", "name": "mynet", "type": "bridge", **keys}


def refusal(value: Any, folder: str = "") -> str:
    with pytest.raises(CniError) as refused:
        parse(value, folder)
    assert refused.value.code == INVALID_CONFIG
    assert refused.value.msg.startswith(SOURCE + ":")
    assert "\n" not in str(refused.value)
    return refused.value.msg


def types(network: networks.Network) -> list[str]:
    return [plugin["type"] for plugin in network.plugins]


def test_single_bridge_configuration_is_read() -> None:
    mynet = parse(MYNET)

    assert (mynet.name, mynet.version, mynet.text) == ("mynet", "0.2.0", MYNET)
    assert mynet.plugins == [json.loads(MYNET)]
    assert not (mynet.is_loopback or mynet.disable_check or mynet.disable_gc)


def test_loopback_needs_no_name() -> None:
    network = parse(LOOPBACK)

    assert (network.name, network.version, network.is_loopback) == ("loopback", "0.2.0", True)


def test_loopback_may_have_a_name() -> None:
    assert parse(single(type="loopback", name="lo")).name == "lo"
    assert parse(conflist({"type": "loopback"})).is_loopback
    assert not parse(conflist({"type": "loopback"}, PLUGIN)).is_loopback


def test_list_of_plugins_is_read() -> None:
    network = parse(conflist(PLUGIN, {"type": "portmap", "capabilities": {"portMappings": True}}))

    assert (network.name, network.version, types(network)) == ("mynet", "1.0.0", ["bridge", "portmap"])


def test_built_in_default_is_read() -> None:
    default = networks.built_in()

    assert (default.name, types(default)) == ("cnihook", ["bridge", "portmap", "bandwidth", "firewall"])
    assert parse(default.text).plugins == default.plugins


def test_keys_of_a_list_itself_are_exact() -> None:
    """libcni decodes a list into a map; only a plugin's own keys are read in any case."""
    assert "name" in refusal({"Name": "mynet", "plugins": [PLUGIN]})


def test_keys_of_a_single_plugin_are_found_in_any_case() -> None:
    assert types(parse({"name": "mynet", "Type": "bridge"})) == ["bridge"]


def test_name_and_version_of_a_single_plugin_are_found_in_any_case() -> None:
    """libcni decodes a single plugin into a struct."""
    network = parse({"CNIVersion": "0.4.0", "Name": "mynet", "type": "bridge"})

    assert (network.name, network.version) == ("mynet", "0.4.0")


@pytest.mark.parametrize(
    "key",
    [
        "name",
        "ipam",
        "dns",
        "capabilities",
        "disableCheck",
        "cniVersion",
    ],
)
def test_null_counts_as_absent_in_a_single_plugin(key: str) -> None:
    assert parse({**single(type="loopback"), key: None}).is_loopback


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({}, "type"),
        ({"name": "mynet"}, "type"),
        ({"name": "mynet", "type": ""}, "type"),
        ({"name": "mynet", "type": 7}, "type"),
        ({"name": "mynet", "type": None}, "type"),
        ({"name": "mynet", "type": "../bridge"}, "plugin name"),
        ({"name": "mynet", "type": "/bin/sh"}, "plugin name"),
        (single(name=""), "name"),
        (single(name=7), '"name" must be a string, not an integer'),
        (single(name="../x"), "network name"),
        (single(name="a/b"), "network name"),
        (single(name="a b"), "network name"),
        (single(name="mynet\n"), "network name"),
        (single(name=".hidden"), "network name"),
        (single(name="x" * 256), "network name"),
        (single(cniVersion=1), "cniVersion"),
        (single(cniVersions=["x"]), "cniVersions[0]"),
        (single(capabilities=["portMappings"]), "capabilities"),
        (single(capabilities={"portMappings": "true"}), "portMappings"),
        (single(ipam="host-local"), "ipam"),
        (single(ipam=[]), "ipam"),
        (single(ipam={"type": 7}), "ipam"),
        (single(dns=[]), "dns"),
        (single(disableCheck=1), "disableCheck"),
        (conflist(name=None), "name"),
        (conflist(name=["mynet"]), "name"),
        (conflist(name=""), "name"),
        (conflist(name="../mynet"), "network name"),
        ({"cniVersion": "1.0.0", "plugins": [PLUGIN]}, "no name"),
        (conflist(cniVersion=1.0), "cniVersion"),
        (conflist(cniVersion=None), "cniVersion"),
        (conflist(cniVersions={}), "cniVersions"),
        (conflist(cniVersions=["1.0.0", "1.x"]), "cniVersions[1]"),
        (conflist(disableCheck="yes"), "disableCheck"),
        (conflist(disableCheck=0), "disableCheck"),
        (conflist(disableGC=[]), "disableGC"),
        (conflist(loadOnlyInlinedPlugins="1"), "loadOnlyInlinedPlugins"),
        (conflist() | {"plugins": []}, "no plugins"),
        (conflist() | {"plugins": {}}, "plugins"),
        (conflist() | {"plugins": "bridge"}, "plugins"),
        (conflist() | {"plugins": None}, "plugin"),
        ({"name": "mynet", "loadOnlyInlinedPlugins": True}, "plugins"),
        (conflist("bridge"), "plugins[0]"),
        (conflist(PLUGIN, None), "plugins[1]"),
        (conflist(PLUGIN, []), "plugins[1]"),
        (conflist(PLUGIN, {}), "plugins[1]"),
        (conflist(PLUGIN, {"type": ""}), "plugins[1]"),
        (conflist(PLUGIN, {"type": "a/b"}), "plugins[1]"),
        (conflist({"type": "x", "capabilities": {"a": 1}}), "plugins[0]"),
        (conflist({"type": "x", "ipam": 1}), "plugins[0]"),
        ([], "object"),
        ("bridge", "object"),
        (7, "object"),
        (None, "object"),
        (b"", "line 1 column 1"),
        (b"{", "line 1"),
        (b'{"name": "a",\n "type": "b"\n "x": 1}', "line 3"),
        (b'{"name":"a","type":"b"}{}', "column"),
        (b"\xef\xbb\xbf" + LOOPBACK, "BOM"),
        (b'{"name":"\xff"}', "utf-8"),
        (b'{"name":"a","type":"b","mtu":NaN}', "NaN"),
        (b"// comment\n" + LOOPBACK, "line 1"),
        (b"[" * 100_000, "deep"),
        (b'{"a":' * 100_000, "deep"),
        (b"\0" * 4096, "line 1"),
    ],
)
def test_error_is_reported_with_file_and_key(value: Any, words: str) -> None:
    assert words in refusal(value)


@pytest.mark.parametrize(
    ("value", "check", "gc"),
    [
        ({}, False, False),
        ({"disableCheck": True, "disableGC": "true"}, True, True),
        ({"disableCheck": "False", "disableGC": False}, False, False),
    ],
)
def test_switches_of_a_list_are_read(value: dict[str, Any], check: bool, gc: bool) -> None:
    network = parse(conflist(**value))

    assert (network.disable_check, network.disable_gc) == (check, gc)


def test_other_keys_of_a_plugin_are_kept() -> None:
    plugin = {"type": "x", "big": 2**70, "none": None, "Nested": [{"a": [1.5, "\u00fc"]}], "prevResult": {}}

    assert parse(conflist(plugin)).plugins == [plugin]


def test_place_of_a_plugin_is_described() -> None:
    assert parse(conflist(PLUGIN, {"type": "portmap"})).where(1) == f"{SOURCE}: plugins[1] (portmap)"
    assert parse(single()).where(0) == f"{SOURCE} (bridge)"


# Plugins that are not inlined: FOLDER/NAME/*.conf


def write(path: Path, value: Any) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(value if isinstance(value, bytes) else json.dumps(value).encode())


def test_plugins_beside_the_list_follow_the_inlined_ones(tmp_path: Path) -> None:
    for name, plugin in [("20-b.conf", "b"), ("10-a.conf", "a"), ("c.json", "c"), ("d.conflist", "d")]:
        write(tmp_path / "mynet" / name, {"type": plugin})

    network = parse(conflist(), str(tmp_path))

    assert types(network) == ["bridge", "a", "b"]


def test_text_of_a_network_includes_plugins_that_are_not_inlined(tmp_path: Path) -> None:
    """DEL has only the text on record; the files may be deleted or replaced before it."""
    write(tmp_path / "mynet" / "a.conf", {"type": "a"})
    network = parse(conflist(), str(tmp_path))
    write(tmp_path / "mynet" / "a.conf", {"type": "other"})

    for folder in ("", str(tmp_path)):
        assert networks.parse(network.text, "the record", folder).plugins == network.plugins


def test_load_only_inlined_plugins_ignores_the_folder(tmp_path: Path) -> None:
    write(tmp_path / "mynet" / "a.conf", b"broken")

    for value in (True, "true", "True"):
        assert types(parse(conflist(loadOnlyInlinedPlugins=value), str(tmp_path))) == ["bridge"]


@pytest.mark.parametrize("keys", [{"disableCheck": False}, {"cniVersions": ["1.0.0"]}, {"plugins": None}])
def test_list_may_be_without_inlined_plugins(tmp_path: Path, keys: dict[str, Any]) -> None:
    write(tmp_path / "mynet" / "a.conf", {"type": "a"})

    assert types(parse({"cniVersion": "1.0.0", "name": "mynet", **keys}, str(tmp_path))) == ["a"]
    assert "no plugin" in refusal({"cniVersion": "1.0.0", "name": "other", **keys}, str(tmp_path))


def test_list_may_consist_of_a_name_only(tmp_path: Path) -> None:
    """A configuration without a type is not a plugin."""
    write(tmp_path / "mynet" / "a.conf", {"type": "a"})

    assert types(parse({"cniVersion": "1.0.0", "name": "mynet"}, str(tmp_path))) == ["a"]


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff", {}, [], {"type": 7}, {"type": "a/b"}, b"[" * 100_000], ids=repr
)
def test_malformed_plugin_beside_the_list_is_named(tmp_path: Path, content: Any) -> None:
    write(tmp_path / "mynet" / "a.conf", {"type": "a"})
    write(tmp_path / "mynet" / "b.conf", content)

    with pytest.raises(CniError) as refused:
        parse(conflist(), str(tmp_path))
    assert refused.value.msg.startswith(f"{tmp_path}/mynet/b.conf: ")


def test_name_of_a_network_cannot_leave_the_folder(tmp_path: Path) -> None:
    write(tmp_path / "elsewhere" / "a.conf", {"type": "a"})
    folder = tmp_path / "net.d"
    folder.mkdir()

    for name in ("../elsewhere", "..", ".", "/etc", "x/../../elsewhere"):
        assert "network name" in refusal(conflist(name=name), str(folder))


# Any content of a file

NAMES = st.sampled_from(
    ["type", "name", "plugins", "cniVersion", "cniVersions", "capabilities", "ipam", "dns", "disableCheck",
     "disableGC", "loadOnlyInlinedPlugins", "prevResult", "Type", "NAME", "mtu"]
)  # fmt: skip
SCALARS = st.sampled_from([None, True, 0, 1.5, "", "bridge", "1.0.0", "x\ny", "\ud800", "../x", "true"])
CONFIGURATIONS = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=6),
    max_leaves=12,
)


def loads_or_says_why(text: bytes) -> None:
    try:
        network = networks.parse(text, "10-a.conf")
    except CniError as error:
        assert error.code == INVALID_CONFIG
        assert error.msg.startswith("10-a.conf: ")
        assert len(str(error).splitlines()) == 1
    else:
        assert network.plugins and all(isinstance(plugin["type"], str) for plugin in network.plugins)
        assert networks.parse(network.text, "record").plugins == network.plugins


@given(st.binary(max_size=60) | st.text(max_size=40).map(str.encode))
@example(b"")
@example(b"\xff\xfe{\0}\0")
def test_any_bytes_load_or_give_a_one_line_error(text: bytes) -> None:
    loads_or_says_why(text)


@given(st.dictionaries(NAMES, CONFIGURATIONS, max_size=8))
def test_any_object_loads_or_gives_a_one_line_error(value: dict[str, Any]) -> None:
    loads_or_says_why(json.dumps(value).encode())


def test_key_with_a_line_break_gives_a_one_line_error() -> None:
    refusal(single(capabilities={"a\nb": 1}))


@given(st.integers(0, len(MYNET) - 2))
def test_truncated_file_is_malformed(length: int) -> None:
    """An editor or a full disk may leave such a file."""
    assert "error parsing configuration" in refusal(MYNET[:length])
