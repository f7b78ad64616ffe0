# SPDX-License-Identifier: Apache-2.0
"""oci.wants and runtime.wants: the one vocabulary of what a container wants, and who serves it."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnihook.oci import multus, wants, words
from cnihook.runtime import networks
from cnihook.runtime.networks import Network
from cnihook.runtime.wants import Port, Served, Want, Wants, choose, serve
from cnihook.spec.errors import CniError


def want(**words: str) -> Wants:
    """By annotations; `_` in a word stands for a hyphen."""
    return wants.from_annotations({f"cnihook.{key.replace('_', '-')}": text for key, text in words.items()})


def ports(text: str) -> list[tuple[int, int, int, str, str]]:
    return [(p.container, p.first, p.last, p.protocol, p.host_ip) for p in words.parse_ports(text)]


# Words


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("8080:80", [(80, 8080, 8080, "tcp", "")]),
        ("8080:80/UDP", [(80, 8080, 8080, "udp", "")]),
        ("127.0.0.1:8080:80/sctp", [(80, 8080, 8080, "sctp", "127.0.0.1")]),
        ("[2001:DB8::1]:8080:80", [(80, 8080, 8080, "tcp", "2001:db8::1")]),
        ("80", [(80, 0, 0, "tcp", "")]),
        ("127.0.0.1::80", [(80, 0, 0, "tcp", "127.0.0.1")]),
        ("8000-8001:80-81", [(80, 8000, 8000, "tcp", ""), (81, 8001, 8001, "tcp", "")]),
        ("8000-8010:80", [(80, 8000, 8010, "tcp", "")]),
        ("80-81", [(80, 0, 0, "tcp", ""), (81, 0, 0, "tcp", "")]),
        (" 8080:80 ", [(80, 8080, 8080, "tcp", "")]),
    ],
)
def test_ports_are_dockers(text: str, meant: list[tuple[int, int, int, str, str]]) -> None:
    assert ports(text) == meant


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("0:80", "from 1 to 65535"),
        ("80:0", "from 1 to 65535"),
        ("70000:80", "from 1 to 65535"),
        ("8080:80/icmp", "unknown protocol"),
        ("8080:80/", "unknown protocol"),
        ("8000-8002:80-81", "3 ports of the host for 2 of the container"),
        ("8001-8000:80-81", "ends before it begins"),
        ("x:80", "is not a port"),
        (":80", "missing before the colon"),
        ("8080:", "is not a port"),
        ("", "is not a port"),
        ("1.2.3:8080:80", "is not an IP address"),
        ("[::1:8080:80", "has no end"),
        ("-80", "is not a port"),
        ("٨٠:80", "is not a port"),
    ],
)
def test_ports_that_make_no_sense(text: str, why: str) -> None:
    with pytest.raises(CniError, match=why) as refused:
        ports(text)
    assert len(str(refused.value).splitlines()) == 1


@given(st.text(max_size=30))
def test_any_text_is_ports_or_one_clear_error(text: str) -> None:
    try:
        assert all(1 <= port[0] <= 65535 for port in ports(text))
    except CniError as error:
        assert error.msg.startswith("port ") and len(str(error).splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("02:00:00:00:00:01", "02:00:00:00:00:01"),
        ("AA-BB-CC-DD-EE-FE", "aa:bb:cc:dd:ee:fe"),
        ("01:00:5e:00:00:01", "multicast"),
        ("ff:ff:ff:ff:ff:ff", "multicast"),
        ("00:00:00:00:00:00", "all zeros"),
        ("02:00:00:00:00", "six bytes"),
        ("0200.0000.0001", "six bytes"),
    ],
)
def test_mac_addresses(text: str, meant: str) -> None:
    if ":" in meant:
        assert want(mac_address=text).common.mac == meant
        return
    with pytest.raises(CniError, match=f"annotation cnihook.mac-address.*{meant}"):
        want(mac_address=text)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ({"ip": "10.1.2"}, "is not an IP address"),
        ({"ip": "2001:db8::1"}, "not an IPv4 address"),
        ({"ip6": "10.1.2.3"}, "not an IPv6 address"),
        ({"ip": "0.0.0.0"}, "no container can have it"),
        ({"ip": "127.0.0.1"}, "no container can have it"),
        ({"hostname": "my_host"}, "host name"),
        ({"hostname": "-x"}, "host name"),
        ({"hostname": "x" * 64}, "host name"),
        ({"network_alias": "a b"}, "host name"),
        ({"add_host": "db"}, "host"),
        ({"add_host": "db:nowhere"}, "is not an IP address"),
        ({"dns": "ns.example"}, "DNS server"),
        ({"dns_search": "a..b"}, "host name"),
        ({"dns_option": "a b"}, "one word"),
        ({"bandwidth": "10M"}, "in=RATE"),
        ({"bandwidth": "in=0"}, "is not a rate"),
        ({"bandwidth": "in=10X"}, "is not a rate"),
        ({"bandwidth": "in-burst=10M"}, "a burst without a rate"),
        ({"route": "10.0.0.0"}, "CIDR"),
        ({"route": "10.0.0.0/8=2001:db8::1"}, "two versions"),
        ({"no_default_route": "maybe"}, "true or false"),
        ({"networks": "mynet:ip=x"}, "is not an IP address"),
        ({"networks": "mynet:color=red"}, "unknown option 'color'"),
        ({"networks": "mynet:ip="}, "is not KEY=VALUE"),
        ({"networks": "ip=10.1.2.3"}, "no name=NAME"),
        ({"networks": "name=mynet,gw-priority=1"}, "unknown option 'gw-priority'"),
    ],
)
def test_words_that_make_no_sense_are_one_line_that_names_the_annotation(
    words: dict[str, str], why: str
) -> None:
    with pytest.raises(CniError, match=why) as refused:
        want(**words)
    assert refused.value.msg.startswith("annotation cnihook.")
    assert len(str(refused.value).splitlines()) == 1


def test_annotations_hold_several_values() -> None:
    found = want(
        publish="8080:80,53:53/udp",
        dns="192.0.2.53, 2001:db8::53",
        dns_search="a.test,.",
        dns_option="ndots:2,rotate",
        add_host="db:10.1.2.3,host:host-gateway,six:[2001:db8::1]",
        network_alias="web,www",
        route="10.0.0.0/8=10.1.2.1,default via 10.1.2.254",
        bandwidth="in=10M,out=500k,out-burst=1M",
        hostname="box.example",
    )

    assert len(found.common.ports) == 2
    assert found.dns.nameservers == ["192.0.2.53", "2001:db8::53"]
    assert (found.dns.search, found.dns.options) == (["a.test", "."], ["ndots:2", "rotate"])
    assert found.hosts == [("db", "10.1.2.3"), ("host", "host-gateway"), ("six", "2001:db8::1")]
    assert found.common.aliases == ["web", "www"]
    assert [(str(net), str(via)) for net, via in found.common.routes] == [
        ("10.0.0.0/8", "10.1.2.1"),
        ("0.0.0.0/0", "10.1.2.254"),
    ]
    assert found.common.bandwidth == {
        "ingressRate": 10_000_000,
        "ingressBurst": 1_000_000,
        "egressRate": 500_000,
        "egressBurst": 1_000_000,
    }
    assert found.hostname == "box.example"


def test_networks_may_have_options_of_their_own() -> None:
    text = "front:ip=10.1.2.3,mac=02:00:00:00:00:01,alias=web back:ifname=data0,ip6=2001:db8::7 plain"
    front, back, plain = want(networks=text).networks or []

    assert (front.network, front.ips, front.mac) == ("front", ["10.1.2.3"], "02:00:00:00:00:01")
    assert (front.aliases, back.ifname, back.ips) == (["web"], "data0", ["2001:db8::7"])
    assert (plain.network, plain.ips) == ("plain", [])


def test_networks_may_be_said_as_docker_says_them() -> None:
    first = "name=front,ip=10.1.2.3,mac-address=02:00:00:00:00:01,alias=web"
    front, back = want(networks=f"{first} ifname=data0,IP6=2001:db8::7,name=back").networks or []

    assert (front.network, front.ips, front.mac) == ("front", ["10.1.2.3"], "02:00:00:00:00:01")
    assert (front.aliases, back.network, back.ifname, back.ips) == (
        ["web"],
        "back",
        "data0",
        ["2001:db8::7"],
    )


def test_names_that_are_only_looked_up_may_have_underscores() -> None:
    found = want(network_alias="my_web", add_host="my_db:10.1.2.3", networks="front:alias=_x")

    assert (found.common.aliases, found.hosts) == (["my_web"], [("my_db", "10.1.2.3")])
    assert found.aliases_on("front") == ["_x", "my_web"]


def test_what_flags_say_goes_before_annotations() -> None:
    flags = Wants()
    wants.WORDS["publish"].add(flags, "1:1")
    wants.WORDS["dns"].add(flags, "192.0.2.1")

    found = flags.over(want(publish="2:2", ip="10.1.2.3", dns="192.0.2.2", dns_search="x", networks=""))

    assert [port.first for port in found.common.ports] == [1]
    assert (found.common.ips, found.dns.nameservers, found.dns.search) == (
        ["10.1.2.3"],
        ["192.0.2.1"],
        ["x"],
    )
    assert found.networks == []


# The Network Plumbing Working Group's annotation


def test_multus_short_form() -> None:
    found = multus.parse("front, default/back@data0 ,kube-system/third")

    assert [(one.network, one.ifname) for one in found] == [("front", ""), ("back", "data0"), ("third", "")]


def test_multus_json_form() -> None:
    item = {
        "name": "front",
        "namespace": "default",
        "interface": "data0",
        "ips": ["10.1.2.3/24", "2001:db8::3/64"],
        "mac": "02:00:00:00:00:01",
        "portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "TCP"}],
        "bandwidth": {"ingressRate": 1000, "ingressBurst": 2000},
        "default-route": ["10.1.2.1"],
        "cni-args": {"KEY": "value", "ignored": 1},
    }
    (found,) = wants.from_annotations({words.MULTUS: json.dumps([item])}).networks or []

    assert (found.network, found.ifname, found.mac) == ("front", "data0", "02:00:00:00:00:01")
    assert found.ips == ["10.1.2.3/24", "2001:db8::3/64"]
    assert choose(found.ports) == [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]
    assert found.bandwidth == {"ingressRate": 1000, "ingressBurst": 2000}
    assert [(str(net), str(via)) for net, via in found.routes] == [("0.0.0.0/0", "10.1.2.1")]
    assert found.cni_args == ["KEY=value"]


def test_our_own_annotation_goes_before_multus() -> None:
    found = wants.from_annotations({"cnihook.networks": "mine", words.MULTUS: "theirs"})
    assert [one.network for one in found.networks or []] == ["mine"]


@pytest.mark.parametrize(
    "text", ["[{]", "[1]", '[{"name": 1}]', "a/b/@", '[{"name":"x","interface":"a/b"}]']
)
def test_multus_words_that_make_no_sense(text: str) -> None:
    with pytest.raises(CniError, match="annotation k8s.v1.cni.cncf.io/networks"):
        multus.parse(text)


# Who serves it


def net(*plugins: dict[str, Any], name: str = "mynet", **keys: Any) -> Network:
    raw = {"cniVersion": "1.0.0", "name": name, "plugins": list(plugins), **keys}
    return networks.parse(json.dumps(raw).encode(), f"{name}.conflist")


BRIDGE: dict[str, Any] = {"type": "bridge", "ipam": {"type": "host-local", "subnet": "10.1.0.0/16"}}
ALL: dict[str, Any] = {
    "type": "other",
    "capabilities": {key: True for key in ("ips", "mac", "portMappings", "bandwidth", "aliases")},
}
LOOPBACK = net({"type": "loopback"}, name="loopback")


def served(*chosen: tuple[Network, Want], **words: str) -> list[Served]:
    return serve(list(chosen), want(**words).common)


def test_capabilities_go_before_arguments() -> None:
    words = {
        "ip": "10.1.2.3",
        "mac_address": "02:00:00:00:00:01",
        "publish": "8080:80",
        "network_alias": "web",
    }
    (found,) = served((net(BRIDGE, ALL), Want("mynet")), bandwidth="in=1M", **words)

    assert found.cni_args == ""
    assert found.capability_args == {
        "ips": ["10.1.2.3"],
        "mac": "02:00:00:00:00:01",
        "portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}],
        "bandwidth": {"ingressRate": 1_000_000, "ingressBurst": 120_000},
        "aliases": ["web"],
    }


def test_arguments_serve_where_there_are_no_capabilities() -> None:
    (found,) = served((net(BRIDGE), Want("mynet")), ip="10.1.2.3", mac_address="02:00:00:00:00:01")

    assert found.cni_args == "IgnoreUnknown=1;IP=10.1.2.3;MAC=02:00:00:00:00:01"
    assert found.capability_args == {}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ({"publish": "8080:80"}, 'add {"type": "portmap", "capabilities": {"portMappings": true}}'),
        ({"bandwidth": "in=1M"}, 'add {"type": "bandwidth"'),
        ({"ip": "10.1.2.3"}, "none of its plugins takes a requested address"),
        ({"mac_address": "02:00:00:00:00:01"}, "none of its plugins takes a MAC address"),
        ({"route": "10.0.0.0/8"}, "none of its plugins takes a route"),
        ({"no_default_route": "true"}, "none of its plugins takes a request for no default route"),
    ],
)
def test_what_nobody_serves_is_told_with_the_mend(words: dict[str, str], told: str) -> None:
    with pytest.raises(CniError, match="network mynet") as refused:
        served((net({"type": "other"}), Want("mynet")), **words)
    assert told in str(refused.value)


def test_an_address_is_for_one_network() -> None:
    two = [(net(BRIDGE, name=name), Want(name)) for name in ("one", "two")]

    with pytest.raises(CniError, match="on 2 networks; name the network: NETWORK:ip=ADDRESS"):
        served(*two, ip="10.1.2.3")
    two[1][1].ips = ["10.1.2.3"]
    assert [found.cni_args for found in served(*two)] == ["", "IgnoreUnknown=1;IP=10.1.2.3"]
    assert served((LOOPBACK, Want("loopback")), two[0], ip="10.1.2.3")[1].cni_args


def test_a_port_is_published_once() -> None:
    """On the first network that can."""
    chosen = [(net(BRIDGE, name="a"), Want("a")), *((net(ALL, name=n), Want(n)) for n in ("b", "c"))]

    found = served(*chosen, publish="8080:80")
    assert ["portMappings" in one.capability_args for one in found] == [False, True, False]


def test_routes_are_the_networks_own_from_then_on() -> None:
    """In the configuration that its record keeps, so CHECK and DEL know of them."""
    conf = BRIDGE | {"isDefaultGateway": True, "IPAM": None}
    (found,) = served(
        (net(conf, ALL, disableCheck=True), Want("mynet")), route="10.9.0.0/16=10.1.0.9", no_default_route=""
    )

    again = networks.parse(found.network.text, "the record")
    assert again.plugins[0]["ipam"]["routes"] == [{"dst": "10.9.0.0/16", "gw": "10.1.0.9"}]
    assert again.plugins[0]["isGateway"] is True and "isDefaultGateway" not in again.plugins[0]
    assert again.disable_check and again.plugins[1] == ALL


def test_a_default_route_of_ipam_can_be_done_without() -> None:
    ipam = {**BRIDGE["ipam"], "routes": [{"dst": "0.0.0.0/0"}, {"dst": "192.0.2.0/24"}, {"dst": "::/0"}]}
    single = {"cniVersion": "0.4.0", "name": "old", **BRIDGE, "ipam": ipam}
    network = networks.parse(json.dumps(single).encode(), "old.conf")

    (found,) = served((network, Want("old")), no_default_route="true")
    assert found.network.plugins[0]["ipam"]["routes"] == [{"dst": "192.0.2.0/24"}]
    assert (found.network.name, found.network.version) == ("old", "0.4.0")
    assert network.plugins[0]["ipam"]["routes"] == ipam["routes"], "nobody else's network has changed"


def test_a_free_port_is_one_that_can_be_bound() -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("", 0))
        number = taken.getsockname()[1]
        assert Port(80, number, min(number + 20, 65535), "tcp", "").free(set()) > number
        with pytest.raises(CniError, match=f"no free port from {number} to {number}"):
            Port(80, number, number, "tcp", "").free(set())
    assert Port(80, 0, 0, "udp", "127.0.0.1").free(set()) > 1023


def test_ports_of_one_container_are_different_ones() -> None:
    """Of one protocol; those that are named are not given away."""
    texts = ["40000-40003:80", "40000-40003:81", "40000:82", "40000-40003:83", "40000-40003:80/udp"]
    ports = [port for text in texts for port in words.parse_ports(text)]

    chosen = choose(ports)
    assert [one["hostPort"] for one in chosen] == [40001, 40002, 40000, 40003, 40000]
    assert [one["containerPort"] for one in chosen] == [80, 81, 82, 83, 80]
    with pytest.raises(CniError, match="no free port from 40000 to 40003/tcp"):
        choose([*ports, *words.parse_ports("40000-40003:84")])


def test_ports_of_the_container_and_of_a_network_are_published_together() -> None:
    own = Want("mynet")
    own.ports = words.parse_ports("8081:81")

    (found,) = served((net(ALL), own), publish="8080:80")
    assert [one["hostPort"] for one in found.capability_args["portMappings"]] == [8081, 8080]


# Options as annotations

SAID = [
    ("network", "mynet:eth1"),
    ("network", "other:ip=10.0.0.9,mac=02:00:00:00:00:01"),
    ("ip6", "fd00::2"),
    ("ip6", "fd00::3"),
    ("publish", "80"),
    ("publish", "127.0.0.1:8080:80/udp"),
    ("bandwidth", "in=1M"),
    ("bandwidth", "out=2M,out-burst=3M"),
    ("hostname", "one"),
    ("hostname", "two"),
    ("add-host", "db:10.0.0.1"),
    ("route", "10.9.0.0/16 via 10.0.0.1"),
    ("no-default-route", ""),
]


def as_said(said: list[tuple[str, str]]) -> Wants:
    wanted = Wants()
    for word, text in said:
        wants.WORDS[word].add(wanted, text)
    return wanted


def compare(one: Any, other: Any) -> None:
    assert type(one) is type(other)
    slots = getattr(type(one), "__slots__", None)
    if isinstance(one, list):
        assert len(one) == len(other)
        for left, right in zip(one, other, strict=True):
            compare(left, right)
    elif isinstance(one, (Wants, Want, Port)) and slots:
        for name in slots:
            compare(getattr(one, name), getattr(other, name))
    else:
        assert str(one) == str(other) if slots else one == other


@pytest.mark.parametrize(
    "said", [SAID, SAID[:1], [("network", "a,b"), ("network", "c:ip=10.0.0.1")], [("network", "")], []]
)
def test_options_become_annotations_that_mean_the_same(said: list[tuple[str, str]]) -> None:
    """They travel so to a container that another program starts later."""
    annotations = wants.to_annotations(said)

    found = wants.from_annotations(annotations)
    for name in ("networks", "common", "hostname", "hosts"):
        compare(getattr(found, name), getattr(as_said(said), name))


@pytest.mark.parametrize("said", [("ip", "x"), ("dns-option", "a,b")])
def test_an_option_that_is_no_annotation_is_refused(said: tuple[str, str]) -> None:
    with pytest.raises(CniError):
        wants.to_annotations([said])
