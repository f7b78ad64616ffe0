# SPDX-License-Identifier: Apache-2.0
"""A container's request for its networks, translated for the plugins that serve it."""

import json
from typing import Any

import pytest

from cnihook.protocol.call import args_text
from cnihook.request import values
from cnihook.request.request import NetworkRequest, PortRequest
from cnihook.request.resolve import ResolvedNetwork, choose_host_ports, free_host_port, resolve
from cnihook.runtime import networks
from cnihook.runtime.networks import Network
from cnihook.types.errors import CniError
from tests.unit.test_request import want


def net(*plugins: dict[str, Any], name: str = "mynet", **keys: Any) -> Network:
    raw = {"cniVersion": "1.0.0", "name": name, "plugins": list(plugins), **keys}
    return networks.parse(json.dumps(raw).encode(), f"{name}.conflist")


BRIDGE: dict[str, Any] = {"type": "bridge", "ipam": {"type": "host-local", "subnet": "10.1.0.0/16"}}

ALL: dict[str, Any] = {
    "type": "other",
    "capabilities": {key: True for key in ("ips", "mac", "portMappings", "bandwidth", "aliases")},
}

LOOPBACK = net({"type": "loopback"}, name="loopback")


def served(*chosen: tuple[Network, NetworkRequest], **words: str) -> list[ResolvedNetwork]:
    return resolve(list(chosen), want(**words).common)


def test_capabilities_are_preferred_to_arguments() -> None:
    words = {
        "ip": "10.1.2.3",
        "mac_address": "02:00:00:00:00:01",
        "publish": "8080:80",
        "network_alias": "web",
    }
    (attachment,) = served((net(BRIDGE, ALL), NetworkRequest("mynet")), bandwidth="in=1M", **words)

    assert attachment.cni_args == {}
    assert attachment.capability_args == {
        "ips": ["10.1.2.3"],
        "mac": "02:00:00:00:00:01",
        "portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}],
        "bandwidth": {"ingressRate": 1_000_000, "ingressBurst": 120_000},
        "aliases": ["web"],
    }


def test_arguments_are_used_if_a_plugin_has_no_capabilities() -> None:
    (attachment,) = served(
        (net(BRIDGE), NetworkRequest("mynet")), ip="10.1.2.3", mac_address="02:00:00:00:00:01"
    )

    assert args_text(attachment.cni_args) == "IgnoreUnknown=1;IP=10.1.2.3;MAC=02:00:00:00:00:01"
    assert attachment.capability_args == {}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"publish": "8080:80"}, 'add {"type": "portmap", "capabilities": {"portMappings": true}}'),
        ({"bandwidth": "in=1M"}, 'add {"type": "bandwidth"'),
        ({"ip": "10.1.2.3"}, "none of its plugins takes a requested address"),
        ({"mac_address": "02:00:00:00:00:01"}, "none of its plugins takes a MAC address"),
        ({"ip": "10.1.2.3"}, "IPAM plugin host-local or static"),
        ({"mac_address": "02:00:00:00:00:01"}, 'add {"type": "tuning", "capabilities": {"mac": true}}'),
        ({"route": "10.0.0.0/8"}, "none of its plugins takes a route"),
        ({"no_default_route": "true"}, "none of its plugins takes a request for no default route"),
    ],
)
def test_request_that_no_plugin_serves_is_reported_with_a_suggestion(
    words: dict[str, str], message: str
) -> None:
    with pytest.raises(CniError, match="network mynet") as refused:
        served((net({"type": "other"}), NetworkRequest("mynet")), **words)
    assert message in str(refused.value)


def test_suggestion_for_a_single_plugin_is_a_list() -> None:
    """The file of a single plugin has no `plugins` to which another could be added."""
    single = networks.parse(
        json.dumps({"cniVersion": "0.2.0", "name": "old", **BRIDGE}).encode(), "old.conf"
    )
    with pytest.raises(CniError) as refused:
        served((single, NetworkRequest("old")), publish="8080:80")

    _text, _colon, suggested = refused.value.details.partition("a file that ends in .conflist: ")
    raw = json.loads(suggested.replace(", ...", ""))
    assert raw["name"] == "old" and [plugin["type"] for plugin in raw["plugins"]] == ["bridge", "portmap"]


def test_address_is_for_one_network() -> None:
    two = [(net(BRIDGE, name=name), NetworkRequest(name)) for name in ("one", "two")]

    with pytest.raises(CniError, match="on 2 networks; name the network: NETWORK:ip=ADDRESS"):
        served(*two, ip="10.1.2.3")
    two[1][1].ips = ["10.1.2.3"]
    assert [args_text(one.cni_args) for one in served(*two)] == ["", "IgnoreUnknown=1;IP=10.1.2.3"]
    assert served((LOOPBACK, NetworkRequest("loopback")), two[0], ip="10.1.2.3")[1].cni_args


def test_port_is_published_once() -> None:
    """The first network that can publish it does so."""
    chosen = [
        (net(BRIDGE, name="a"), NetworkRequest("a")),
        *((net(ALL, name=n), NetworkRequest(n)) for n in ("b", "c")),
    ]

    attachments = served(*chosen, publish="8080:80")
    assert ["portMappings" in one.capability_args for one in attachments] == [False, True, False]


def test_requested_routes_become_part_of_the_configuration() -> None:
    """CHECK and DEL know of them, because the record keeps this configuration."""
    conf = BRIDGE | {"isDefaultGateway": True, "IPAM": None}
    (attachment,) = served(
        (net(conf, ALL, disableCheck=True), NetworkRequest("mynet")),
        route="10.9.0.0/16=10.1.0.9",
        no_default_route="",
    )

    again = networks.parse(attachment.network.text, "the record")
    assert again.plugins[0]["ipam"]["routes"] == [{"dst": "10.9.0.0/16", "gw": "10.1.0.9"}]
    assert again.plugins[0]["isGateway"] is True and "isDefaultGateway" not in again.plugins[0]
    assert again.disable_check and again.plugins[1] == ALL


def test_default_route_of_ipam_can_be_omitted() -> None:
    ipam = {**BRIDGE["ipam"], "routes": [{"dst": "0.0.0.0/0"}, {"dst": "192.0.2.0/24"}, {"dst": "::/0"}]}
    single = {"cniVersion": "0.4.0", "name": "old", **BRIDGE, "ipam": ipam}
    network = networks.parse(json.dumps(single).encode(), "old.conf")

    (attachment,) = served((network, NetworkRequest("old")), no_default_route="true")
    assert attachment.network.plugins[0]["ipam"]["routes"] == [{"dst": "192.0.2.0/24"}]
    assert (attachment.network.name, attachment.network.version) == ("old", "0.4.0")
    assert network.plugins[0]["ipam"]["routes"] == ipam["routes"], "the network itself is unchanged"


def test_free_port_can_be_bound() -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("", 0))
        number = taken.getsockname()[1]
        assert free_host_port(PortRequest(80, number, min(number + 20, 65535), "tcp", ""), set()) > number
        with pytest.raises(CniError, match=f"no free port from {number} to {number}"):
            free_host_port(PortRequest(80, number, number, "tcp", ""), set())
    assert free_host_port(PortRequest(80, 0, 0, "udp", "127.0.0.1"), set()) > 1023


def test_ports_of_one_container_are_different() -> None:
    """This holds per protocol; a port that another option names is not chosen."""
    texts = ["40000-40003:80", "40000-40003:81", "40000:82", "40000-40003:83", "40000-40003:80/udp"]
    ports = [port for text in texts for port in values.parse_ports(text)]

    chosen = choose_host_ports(ports)
    assert [one["hostPort"] for one in chosen] == [40001, 40002, 40000, 40003, 40000]
    assert [one["containerPort"] for one in chosen] == [80, 81, 82, 83, 80]
    with pytest.raises(CniError, match="no free port from 40000 to 40003/tcp"):
        choose_host_ports([*ports, *values.parse_ports("40000-40003:84")])


def test_ports_of_the_container_and_of_a_network_are_published_together() -> None:
    own = NetworkRequest("mynet")
    own.ports = values.parse_ports("8081:81")

    (attachment,) = served((net(ALL), own), publish="8080:80")
    assert [one["hostPort"] for one in attachment.capability_args["portMappings"]] == [8081, 8080]
