# SPDX-License-Identifier: Apache-2.0
"""cnihook network create --isolated and --internal: which packets pass, in both IP versions."""

import json

from tests.support.commands.networks import create
from tests.support.host.host import Container, Host, Outside
from tests.support.host.namespace import Namespace
from tests.support.host.sockets import connect, reaches
from tests.support.runtimes.oci import CNIHOOK, RESULTS


class Attached:
    """A container on a network; on `iso` with a published port."""

    def __init__(self, host: Host, network: str, name: str) -> None:
        self.container: Container = host.container(name)
        ports = [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}] if network == "iso" else []
        words = ["--capability-args", json.dumps({"portMappings": ports})] if ports else []
        result = json.loads(host.run(CNIHOOK, "add", network, self.container.path, *words).stdout)
        self.addresses = [ip["address"].partition("/")[0] for ip in result["ips"]]
        self.gateways = [ip["gateway"] for ip in result["ips"]]


def reach(one: Attached, other: Attached, expected: bool = False) -> bool:
    """Return True if `one` reaches `other` in both IP versions, False if in neither."""
    (answer,) = {
        reaches(one.container, other.container, address, expected=expected) for address in other.addresses
    }
    return answer


def published(client: Namespace, server: Container, address: str) -> bool:
    """Return True if port 8080 of the host leads to port 80 of the container."""
    with server.socket() as listener, client.socket() as end:
        listener.bind(("", 80))
        listener.listen()
        end.settimeout(5)
        end.connect((address, 8080))
        return True


def test_isolated_network_is_reached_through_published_ports_only(host: Host) -> None:
    """Containers of a plain network do not reach it, nor does a machine outside that has a route."""
    outside = host.outside()
    create(host, "open", "--ipv6")
    create(host, "iso", "--ipv6", "--isolated")
    one, two, other = Attached(host, "iso", "c1"), Attached(host, "open", "c2"), Attached(host, "open", "c3")
    host.run(CNIHOOK, "check", "iso", one.container.path)

    assert not reach(two, one)
    assert reach(two, other, expected=True)
    outside.run("ip", "route", "add", "10.22.0.0/16", "via", Outside.HOST)
    assert not reaches(outside, one.container, one.addresses[0])
    for client in (outside, two.container):
        assert published(client, one.container, Outside.HOST)
    for family, there in enumerate((Outside.ADDRESS, Outside.ADDRESS6)):
        assert connect(one.container, outside, there)  # and the answers come back
        assert connect(host, one.container, one.addresses[family]) == one.gateways[family]

    host.run(CNIHOOK, "del", "iso", one.container.path)
    assert "forward-published" not in host.nft()
    for each in (two, other):
        host.run(CNIHOOK, "del", "open", each.container.path)
    assert host.listdir(RESULTS) == []


def test_internal_network_has_no_way_out(host: Host) -> None:
    """A container with all privileges sets a default route itself."""
    outside = host.outside()
    create(host, "open", "--ipv6")
    create(host, "int", "--ipv6", "--internal")
    one, two, other = Attached(host, "int", "c1"), Attached(host, "int", "c2"), Attached(host, "open", "c3")
    assert one.container.run("ip", "route", "show", "default").stdout == ""
    outside.run("ip", "route", "add", "10.22.0.0/16", "via", Outside.HOST)
    outside.run("ip", "-6", "route", "add", "fd00::/8", "via", Outside.HOST6)
    for each in (one, two):
        each.container.run("ip", "route", "add", "default", "via", each.gateways[0])
        each.container.run("ip", "-6", "route", "add", "default", "via", each.gateways[1])

    for family, there in enumerate((Outside.ADDRESS, Outside.ADDRESS6)):
        assert not reaches(one.container, outside, there)
        assert not reaches(outside, one.container, one.addresses[family])
        assert connect(host, one.container, one.addresses[family]) == one.gateways[family]
    assert reach(one, two, expected=True)
    assert not reach(one, other) and not reach(other, one)

    host.run("nft", "flush", "chain", "inet", "cnihook", "forward-none/br-int")
    assert "policy" in host.run(CNIHOOK, "check", "int", one.container.path, check=False).stderr
    host.leaves("file /run/cnihook/log/*")
    host.run(CNIHOOK, "repair", "--all")
    host.run(CNIHOOK, "check", "int", one.container.path)
    assert not reaches(one.container, outside, Outside.ADDRESS)
    for each, name in ((one, "int"), (two, "int"), (other, "open")):
        host.run(CNIHOOK, "del", name, each.container.path)
