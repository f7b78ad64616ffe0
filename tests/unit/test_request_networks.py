# SPDX-License-Identifier: Apache-2.0
"""request.options and attach.select: the networks of a container and their interface names."""

import json
from pathlib import Path

import pytest

from cnihook.container.attach import _name_interfaces, select
from cnihook.request import options
from cnihook.request.request import ContainerRequest, NetworkRequest
from cnihook.request.resolve import ResolvedNetwork
from cnihook.runtime.networks import DEFAULT_FOLDER
from cnihook.runtime.settings import Settings
from cnihook.types.errors import CniError
from tests.unit.standins import network
from tests.unit.test_networks import LOOPBACK, MYNET, single


def pairs(request: ContainerRequest) -> list[tuple[str, str]] | None:
    if request.networks is None:
        return None
    return [(want.network, want.ifname) for want in request.networks]


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("mynet", [("mynet", "")]),
        ("mynet,storage:eth1", [("mynet", ""), ("storage", "eth1")]),
        (" mynet , storage:eth1 ", [("mynet", ""), ("storage", "eth1")]),
        ("mynet,,", [("mynet", "")]),
        ("", []),
        (" ", []),
        ("a:x@y", [("a", "x@y")]),
    ],
)
def test_annotation_lists_networks_and_interface_names(text: str, meant: list[tuple[str, str]]) -> None:
    """An empty annotation is a request as well: no network."""
    assert pairs(options.from_annotations({"cnihook.networks": text, "other": "x"})) == meant


def test_container_without_an_annotation_has_no_request() -> None:
    assert pairs(options.from_annotations({})) is None
    assert pairs(options.from_annotations({"other.network": "mynet"})) is None


def test_misspelled_annotation_is_an_error() -> None:
    with pytest.raises(
        CniError, match="annotation cnihook.network='mynet': unknown annotation: there are cnihook.n"
    ):
        options.from_annotations({"cnihook.network": "mynet"})


@pytest.mark.parametrize(
    "text",
    [
        "../x",
        "a b",
        "mynet:",
        "mynet:a/b",
        "mynet:eth0:1",
        ":eth0",
        "mynet:" + "x" * 16,
        "a;b",
        "\u00fc",
        "a\nb",
    ],
)
def test_malformed_annotation_is_refused_with_its_name(text: str) -> None:
    with pytest.raises(CniError) as refused:
        options.from_annotations({"cnihook.networks": text})

    assert "annotation cnihook.networks=" in refused.value.msg
    assert len(str(refused.value).splitlines()) == 1


# Selection from the configured networks


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    net_d = tmp_path / "net.d"
    net_d.mkdir()
    return net_d


def chosen(folder: Path, wanted: "list[NetworkRequest] | None") -> tuple[list[tuple[str, str]], list[str]]:
    """Return network and ifname of each selected network, and the complaints."""
    complaints: list[str] = []
    attachments = select(ContainerRequest(wanted), Settings(str(folder)), complaints.append)
    return [(served.network.name, served.ifname) for served in attachments], complaints


def test_all_networks_are_selected_by_default(folder: Path) -> None:
    (folder / "10-mynet.conf").write_bytes(MYNET)
    (folder / "99-loopback.conf").write_bytes(LOOPBACK)

    assert chosen(folder, None) == ([("mynet", ""), ("loopback", "")], [])
    assert chosen(folder, []) == ([], [])


def test_requested_networks_are_selected_in_the_order_of_the_request(folder: Path) -> None:
    (folder / "10-mynet.conf").write_bytes(MYNET)
    (folder / "99-loopback.conf").write_bytes(LOOPBACK)

    assert chosen(folder, [NetworkRequest("loopback"), NetworkRequest("mynet", "net0")])[0] == [
        ("loopback", ""),
        ("mynet", "net0"),
    ]


def test_default_network_is_used_if_none_is_configured(folder: Path) -> None:
    found, (complaint,) = chosen(folder, None)

    assert found == [("cnihook", "")]
    assert str(folder) in complaint and "cnihook" in complaint


def test_default_network_can_be_requested_by_name_if_it_is_the_only_one(folder: Path) -> None:
    assert chosen(folder, [NetworkRequest("cnihook")])[0] == [("cnihook", "")]
    for text in (MYNET, b"{"):  # a malformed file is intended as a network
        (folder / "10-mynet.conf").write_bytes(text)
        with pytest.raises(CniError, match="no network 'cnihook'"):
            chosen(folder, [NetworkRequest("cnihook")])

    (folder / "20-own.conf").write_text(json.dumps(single(name="cnihook", type="own")))
    attachments = select(ContainerRequest([NetworkRequest("cnihook")]), Settings(str(folder)), print)
    assert [plugin["type"] for served in attachments for plugin in served.network.plugins] == ["own"]


def test_malformed_file_is_reported_and_hides_no_other(folder: Path) -> None:
    (folder / "00-bad.conf").write_text("{")
    (folder / "10-mynet.conf").write_bytes(MYNET)

    found, (complaint,) = chosen(folder, None)
    assert found == [("mynet", "")] and complaint.startswith(f"{folder}/00-bad.conf: ")


def test_default_network_is_not_used_if_all_files_are_malformed(folder: Path) -> None:
    """The user has configured a network, so another one is not used instead."""
    (folder / "00-bad.conf").write_text("{")

    with pytest.raises(CniError, match="no usable network configuration") as refused:
        chosen(folder, None)
    assert "00-bad.conf" in str(refused.value)


def test_missing_network_is_reported_with_the_existing_ones(folder: Path) -> None:
    (folder / "10-mynet.conf").write_bytes(MYNET)

    with pytest.raises(CniError) as refused:
        chosen(folder, [NetworkRequest("mynet"), NetworkRequest("other")])
    assert "'other'" in refused.value.msg and str(folder) in refused.value.msg
    assert refused.value.details == "there are: mynet"


def test_folders_are_read_from_the_environment() -> None:
    settings = Settings.from_environment({"NETCONFPATH": "/a", "CNI_PATH": "/b::/c:"})
    assert (settings.conf_dir, settings.plugin_dirs) == ("/a", ["/b", "/c"])
    for environment in ({}, {"NETCONFPATH": "", "CNI_PATH": ""}, {"CNI_PATH": ":"}):
        settings = Settings.from_environment(environment)
        assert (settings.conf_dir, settings.plugin_dirs) == (DEFAULT_FOLDER, None)


# Interface names


def names(*wanted: tuple[str, str], taken: "set[str] | None" = None) -> list[str]:
    """Return the interface names of networks given as (type, ifname)."""
    attachments = [ResolvedNetwork(network(kind), ifname) for kind, ifname in wanted]
    return _name_interfaces(attachments, taken or {"lo"})


def test_names_count_from_eth0_without_loopback() -> None:
    assert names(("loopback", ""), ("a", ""), ("b", "")) == ["lo", "eth0", "eth1"]
    assert names(("a", ""), ("loopback", ""), ("b", "")) == ["eth0", "lo", "eth1"]


def test_requested_and_existing_names_are_skipped() -> None:
    assert names(("a", ""), ("b", "eth0"), ("c", "")) == ["eth1", "eth0", "eth2"]
    assert names(("a", ""), ("b", ""), taken={"lo", "eth0", "eth2"}) == ["eth1", "eth3"]
    assert names(("a", "net0"), ("b", "")) == ["net0", "eth0"]


def test_name_requested_twice_is_refused() -> None:
    with pytest.raises(CniError, match="eth5 is asked for twice"):
        names(("a", "eth5"), ("b", ""), ("c", "eth5"))


@pytest.mark.parametrize("ifname", ["a/b", "x" * 16, "..", "a b"])
def test_malformed_interface_name_is_refused(ifname: str) -> None:
    with pytest.raises(CniError, match="interface name"):
        names(("a", ifname))


def test_loopback_is_not_named_twice() -> None:
    """The specification forbids two attachments with the same container and interface name."""
    with pytest.raises(CniError, match="lo is"):
        names(("loopback", ""), ("loopback", ""))
    with pytest.raises(CniError, match="lo is"):
        names(("loopback", ""), ("a", "lo"))
