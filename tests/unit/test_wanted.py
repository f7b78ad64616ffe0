# SPDX-License-Identifier: Apache-2.0
"""oci.wants and attach.select: which networks a container gets, and under which interface names."""

import json
from pathlib import Path

import pytest

from cnihook.attach import _name_interfaces, select
from cnihook.oci import wants
from cnihook.runtime.networks import DEFAULT_FOLDER
from cnihook.runtime.wants import Served, Want, Wants
from cnihook.settings import Settings
from cnihook.spec.errors import CniError
from tests.unit.standins import network
from tests.unit.test_networks import LOOPBACK, MYNET, single


def pairs(found: Wants) -> list[tuple[str, str]] | None:
    if found.networks is None:
        return None
    return [(want.network, want.ifname) for want in found.networks]


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
def test_words_of_an_annotation(text: str, meant: list[tuple[str, str]]) -> None:
    """An empty one is a wish, too: for no network."""
    assert pairs(wants.from_annotations({"cnihook.networks": text, "other": "x"})) == meant


def test_a_container_that_says_nothing() -> None:
    assert pairs(wants.from_annotations({})) is None
    assert pairs(wants.from_annotations({"other.network": "mynet"})) is None


def test_an_annotation_that_is_misspelled_is_not_passed_over() -> None:
    with pytest.raises(
        CniError, match="annotation cnihook.network='mynet': unknown annotation: there are cnihook.n"
    ):
        wants.from_annotations({"cnihook.network": "mynet"})


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
def test_words_that_are_wrong_are_refused_by_the_annotations_name(text: str) -> None:
    with pytest.raises(CniError) as refused:
        wants.from_annotations({"cnihook.networks": text})

    assert "annotation cnihook.networks=" in refused.value.msg
    assert len(str(refused.value).splitlines()) == 1


# Among what there is


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "net.d"
    made.mkdir()
    return made


def chosen(folder: Path, wanted: "list[Want] | None") -> tuple[list[tuple[str, str]], list[str]]:
    """Network and ifname of each, and the complaints."""
    complaints: list[str] = []
    found = select(Wants(wanted), Settings(str(folder)), complaints.append)
    return [(served.network.name, served.ifname) for served in found], complaints


def test_all_there_are_unless_told(folder: Path) -> None:
    (folder / "10-mynet.conf").write_bytes(MYNET)
    (folder / "99-loopback.conf").write_bytes(LOOPBACK)

    assert chosen(folder, None) == ([("mynet", ""), ("loopback", "")], [])
    assert chosen(folder, []) == ([], [])


def test_those_that_are_wanted_in_the_order_of_the_wish(folder: Path) -> None:
    (folder / "10-mynet.conf").write_bytes(MYNET)
    (folder / "99-loopback.conf").write_bytes(LOOPBACK)

    assert chosen(folder, [Want("loopback"), Want("mynet", "net0")])[0] == [
        ("loopback", ""),
        ("mynet", "net0"),
    ]


def test_the_default_serves_where_nothing_is_configured(folder: Path) -> None:
    found, (complaint,) = chosen(folder, None)

    assert found == [("cnihook", "")]
    assert str(folder) in complaint and "cnihook" in complaint


def test_the_default_can_be_wanted_by_name_where_there_is_no_other(folder: Path) -> None:
    assert chosen(folder, [Want("cnihook")])[0] == [("cnihook", "")]
    for text in (MYNET, b"{"):  # a malformed file is meant to be a network
        (folder / "10-mynet.conf").write_bytes(text)
        with pytest.raises(CniError, match="no network 'cnihook'"):
            chosen(folder, [Want("cnihook")])

    (folder / "20-own.conf").write_text(json.dumps(single(name="cnihook", type="own")))
    found = select(Wants([Want("cnihook")]), Settings(str(folder)), print)
    assert [plugin["type"] for served in found for plugin in served.network.plugins] == ["own"]


def test_a_malformed_file_is_complained_of_and_hides_no_other(folder: Path) -> None:
    (folder / "00-bad.conf").write_text("{")
    (folder / "10-mynet.conf").write_bytes(MYNET)

    found, (complaint,) = chosen(folder, None)
    assert found == [("mynet", "")] and complaint.startswith(f"{folder}/00-bad.conf: ")


def test_nothing_but_malformed_files_is_an_error_and_no_default(folder: Path) -> None:
    """Who has configured a network does not want another one."""
    (folder / "00-bad.conf").write_text("{")

    with pytest.raises(CniError, match="no usable network configuration") as refused:
        chosen(folder, None)
    assert "00-bad.conf" in str(refused.value)


def test_a_network_that_is_not_there_is_named_with_those_that_are(folder: Path) -> None:
    (folder / "10-mynet.conf").write_bytes(MYNET)

    with pytest.raises(CniError) as refused:
        chosen(folder, [Want("mynet"), Want("other")])
    assert "'other'" in refused.value.msg and str(folder) in refused.value.msg
    assert refused.value.details == "there are: mynet"


def test_folders_from_the_environment() -> None:
    settings = Settings.from_environment({"NETCONFPATH": "/a", "CNI_PATH": "/b::/c:"})
    assert (settings.conf_folder, settings.plugin_path) == ("/a", ["/b", "/c"])
    for environment in ({}, {"NETCONFPATH": "", "CNI_PATH": ""}, {"CNI_PATH": ":"}):
        settings = Settings.from_environment(environment)
        assert (settings.conf_folder, settings.plugin_path) == (DEFAULT_FOLDER, None)


# Interface names


def names(*wanted: tuple[str, str], taken: "set[str] | None" = None) -> list[str]:
    """Of networks given as (type, ifname)."""
    asked = [Served(network(kind), ifname) for kind, ifname in wanted]
    return _name_interfaces(asked, taken or {"lo"})


def test_networks_count_from_eth0_and_loopback_does_not_count() -> None:
    assert names(("loopback", ""), ("a", ""), ("b", "")) == ["lo", "eth0", "eth1"]
    assert names(("a", ""), ("loopback", ""), ("b", "")) == ["eth0", "lo", "eth1"]


def test_what_is_asked_for_or_there_is_stepped_over() -> None:
    assert names(("a", ""), ("b", "eth0"), ("c", "")) == ["eth1", "eth0", "eth2"]
    assert names(("a", ""), ("b", ""), taken={"lo", "eth0", "eth2"}) == ["eth1", "eth3"]
    assert names(("a", "net0"), ("b", "")) == ["net0", "eth0"]


def test_one_name_for_two_is_refused() -> None:
    with pytest.raises(CniError, match="eth5 is asked for twice"):
        names(("a", "eth5"), ("b", ""), ("c", "eth5"))


@pytest.mark.parametrize("ifname", ["a/b", "x" * 16, "..", "a b"])
def test_a_name_that_is_none_is_refused(ifname: str) -> None:
    with pytest.raises(CniError, match="interface name"):
        names(("a", ifname))


def test_loopback_is_not_named_twice() -> None:
    """Two attachments of one container and one interface name are what the specification forbids."""
    with pytest.raises(CniError, match="lo is"):
        names(("loopback", ""), ("loopback", ""))
    with pytest.raises(CniError, match="lo is"):
        names(("loopback", ""), ("a", "lo"))
