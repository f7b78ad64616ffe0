# SPDX-License-Identifier: Apache-2.0
"""request.options and request.resolve: the options of a request, and the plugins that serve them."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnihook.request import npwg, values
from cnihook.request import options as request_options
from cnihook.request.request import ContainerRequest, NetworkRequest, PortRequest
from cnihook.request.resolve import choose_host_ports
from cnihook.types.errors import CniError


def want(**words: str) -> ContainerRequest:
    """Read a request from annotations; `_` in an argument represents a hyphen."""
    return request_options.from_annotations(
        {f"cnihook.{key.replace('_', '-')}": text for key, text in words.items()}
    )


def ports(text: str) -> list[tuple[int, int, int, str, str]]:
    return [(p.container, p.first, p.last, p.protocol, p.host_ip) for p in values.parse_ports(text)]


# Options


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
def test_ports_have_dockers_syntax(text: str, meant: list[tuple[int, int, int, str, str]]) -> None:
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
def test_malformed_port_is_refused(text: str, why: str) -> None:
    with pytest.raises(CniError, match=why) as refused:
        ports(text)
    assert len(str(refused.value).splitlines()) == 1


@given(st.text(max_size=30))
def test_any_text_is_ports_or_a_one_line_error(text: str) -> None:
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
def test_malformed_annotation_is_a_one_line_error_with_its_name(words: dict[str, str], why: str) -> None:
    with pytest.raises(CniError, match=why) as refused:
        want(**words)
    assert refused.value.msg.startswith("annotation cnihook.")
    assert len(str(refused.value).splitlines()) == 1


def test_annotation_has_several_values() -> None:
    request = want(
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

    assert len(request.common.ports) == 2
    assert request.dns.nameservers == ["192.0.2.53", "2001:db8::53"]
    assert (request.dns.search, request.dns.options) == (["a.test", "."], ["ndots:2", "rotate"])
    assert request.hosts == [("db", "10.1.2.3"), ("host", "host-gateway"), ("six", "2001:db8::1")]
    assert request.common.aliases == ["web", "www"]
    assert [(str(net), str(via)) for net, via in request.common.routes] == [
        ("10.0.0.0/8", "10.1.2.1"),
        ("0.0.0.0/0", "10.1.2.254"),
    ]
    assert request.common.bandwidth == {
        "ingressRate": 10_000_000,
        "ingressBurst": 1_000_000,
        "egressRate": 500_000,
        "egressBurst": 1_000_000,
    }
    assert request.hostname == "box.example"


def test_networks_may_have_options_of_their_own() -> None:
    text = "front:ip=10.1.2.3,mac=02:00:00:00:00:01,alias=web back:ifname=data0,ip6=2001:db8::7 plain"
    front, back, plain = want(networks=text).networks or []

    assert (front.network, front.ips, front.mac) == ("front", ["10.1.2.3"], "02:00:00:00:00:01")
    assert (front.aliases, back.ifname, back.ips) == (["web"], "data0", ["2001:db8::7"])
    assert (plain.network, plain.ips) == ("plain", [])


def test_networks_may_be_given_in_dockers_syntax() -> None:
    first = "name=front,ip=10.1.2.3,mac-address=02:00:00:00:00:01,alias=web"
    front, back = want(networks=f"{first} ifname=data0,IP6=2001:db8::7,name=back").networks or []

    assert (front.network, front.ips, front.mac) == ("front", ["10.1.2.3"], "02:00:00:00:00:01")
    assert (front.aliases, back.network, back.ifname, back.ips) == (
        ["web"],
        "back",
        "data0",
        ["2001:db8::7"],
    )


def test_alias_and_extra_host_may_have_underscores() -> None:
    request = want(network_alias="my_web", add_host="my_db:10.1.2.3", networks="front:alias=_x")

    assert (request.common.aliases, request.hosts) == (["my_web"], [("my_db", "10.1.2.3")])
    assert request.aliases_on("front") == ["_x", "my_web"]


def test_flags_take_precedence_over_annotations() -> None:
    flags = ContainerRequest()
    request_options.OPTIONS["publish"].add(flags, "1:1")
    request_options.OPTIONS["dns"].add(flags, "192.0.2.1")

    request = flags.merged_with(
        want(publish="2:2", ip="10.1.2.3", dns="192.0.2.2", dns_search="x", networks="")
    )

    assert [port.first for port in request.common.ports] == [1]
    assert (request.common.ips, request.dns.nameservers, request.dns.search) == (
        ["10.1.2.3"],
        ["192.0.2.1"],
        ["x"],
    )
    assert request.networks == []


# The Network Plumbing Working Group's annotation


def test_multus_short_form_is_read() -> None:
    requests = npwg.parse("front, default/back@data0 ,kube-system/third")

    assert [(one.network, one.ifname) for one in requests] == [
        ("front", ""),
        ("back", "data0"),
        ("third", ""),
    ]


def test_multus_json_form_is_read() -> None:
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
    (request,) = request_options.from_annotations({values.NPWG: json.dumps([item])}).networks or []

    assert (request.network, request.ifname, request.mac) == ("front", "data0", "02:00:00:00:00:01")
    assert request.ips == ["10.1.2.3/24", "2001:db8::3/64"]
    assert choose_host_ports(request.ports) == [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]
    assert request.bandwidth == {"ingressRate": 1000, "ingressBurst": 2000}
    assert [(str(net), str(via)) for net, via in request.routes] == [("0.0.0.0/0", "10.1.2.1")]
    assert request.cni_args == {"KEY": "value"}


def test_own_annotation_takes_precedence_over_multus() -> None:
    request = request_options.from_annotations({"cnihook.networks": "mine", values.NPWG: "other"})
    assert [one.network for one in request.networks or []] == ["mine"]


@pytest.mark.parametrize(
    "text", ["[{]", "[1]", '[{"name": 1}]', "a/b/@", '[{"name":"x","interface":"a/b"}]']
)
def test_malformed_multus_annotation_is_refused(text: str) -> None:
    with pytest.raises(CniError, match="annotation k8s.v1.cni.cncf.io/networks"):
        npwg.parse(text)


# Options as annotations

OPTIONS = [
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
    ("mdns", "eth0,wlan0"),
    ("add-host", "db:10.0.0.1"),
    ("route", "10.9.0.0/16 via 10.0.0.1"),
    ("no-default-route", ""),
]


def request_of(options: list[tuple[str, str]]) -> ContainerRequest:
    request = ContainerRequest()
    for word, text in options:
        request_options.OPTIONS[word].add(request, text)
    return request


def compare(one: Any, other: Any) -> None:
    assert type(one) is type(other)
    slots = getattr(type(one), "__slots__", None)
    if isinstance(one, list):
        assert len(one) == len(other)
        for left, right in zip(one, other, strict=True):
            compare(left, right)
    elif isinstance(one, (ContainerRequest, NetworkRequest, PortRequest)) and slots:
        for name in slots:
            compare(getattr(one, name), getattr(other, name))
    else:
        assert str(one) == str(other) if slots else one == other


@pytest.mark.parametrize(
    "options",
    [OPTIONS, OPTIONS[:1], [("network", "a,b"), ("network", "c:ip=10.0.0.1")], [("network", "")], []],
)
def test_options_become_annotations_with_the_same_meaning(options: list[tuple[str, str]]) -> None:
    """Annotations pass them to a container that another program starts later."""
    annotations = request_options.to_annotations(options)

    request = request_options.from_annotations(annotations)
    for name in ("networks", "common", "hostname", "hosts"):
        compare(getattr(request, name), getattr(request_of(options), name))


@pytest.mark.parametrize("option", [("ip", "x"), ("dns-option", "a,b")])
def test_option_without_an_annotation_is_refused(option: tuple[str, str]) -> None:
    with pytest.raises(CniError):
        request_options.to_annotations([option])
