# SPDX-License-Identifier: Apache-2.0
"""Flows of a deleted container: packets for them do not reach the next container with its address."""

import re
import socket
from typing import Any

import pytest

from tests.netns.differences import NO_GC
from tests.support.host.host import ACCEPT_DAD, Container, Host, Outside
from tests.support.host.sockets import family_of
from tests.support.plugins.cni import with_previous_result
from tests.support.plugins.ipam import leased
from tests.support.runtimes.oci import wait_for
from tests.support.wait import SILENCE

pytestmark = pytest.mark.needs("conntrack")

OUTLIVES = pytest.mark.known_difference(
    "flows of a deleted container stay, and reach the address's next owner",
    here="DEL ends them",
    right="cnihook",
)
SUBNETS = {4: "10.9.0.0/24", 6: "fd09::/64"}
CONTAINER = {4: "10.9.0.2", 6: "fd09::2"}
SERVER = {4: Outside.ADDRESS, 6: Outside.ADDRESS6}


def network(kind: str, version: int, **keys: Any) -> dict[str, Any]:
    default = {"dst": "0.0.0.0/0" if version == 4 else "::/0"}
    ipam = {
        "type": "host-local",
        "ranges": [[{"subnet": SUBNETS[version], "rangeStart": CONTAINER[version]}]],
        "routes": [default],
    }
    conf = {"cniVersion": "1.0.0", "name": "net1", "type": kind, "ipMasq": True, "ipam": ipam}
    return conf | ({"isGateway": True} if kind == "bridge" else {}) | keys


def attach(host: Host, conf: dict[str, Any], name: str) -> tuple[Container, dict[str, Any]]:
    container = host.container(name)
    container.set_sysctl(ACCEPT_DAD, "0")
    return container, with_previous_result(conf, host.cni("ADD", conf, container))


def flows(host: Host, version: int) -> str:
    return host.run("conntrack", "-L", "-f", f"ipv{version}", "-s", CONTAINER[version]).stdout


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("kind", ["bridge", "ptp"])
@OUTLIVES
def test_late_answer_does_not_reach_the_next_container(host: Host, kind: str, version: int) -> None:
    outside = host.outside()
    first, conf = attach(host, network(kind, version), "c1")
    family = family_of(SERVER[version])
    with outside.socket(socket.SOCK_DGRAM, family) as server:
        server.bind((SERVER[version], 5353))
        with first.socket(socket.SOCK_DGRAM, family) as client:
            client.bind((CONTAINER[version], 4000))
            client.sendto(b"question", (SERVER[version], 5353))
            _, peer = server.recvfrom(16)
        host.cni("DEL", conf, first)
        assert not flows(host, version)

        address = CONTAINER[version]
        for path in leased(host, "/var/lib/cni/networks/net1"):
            assert address not in path
        host.run("rm", "-f", "/var/lib/cni/networks/net1/last_reserved_ip.0")
        second, _ = attach(host, network(kind, version), "c2")
        with second.socket(socket.SOCK_DGRAM, family) as heir:
            heir.bind((address, 4000))
            heir.settimeout(SILENCE)
            server.sendto(b"late answer", peer)
            with pytest.raises(TimeoutError):
                heir.recv(16)


@OUTLIVES
def test_flows_end_without_a_previous_result(host: Host) -> None:
    """Runtimes pass no result to DEL if the network's version is 0.3.1."""
    host.outside()
    conf = network("bridge", 4, cniVersion="0.3.1")
    container = host.container("c1")
    host.cni("ADD", conf, container)
    send(host, container)

    host.cni("DEL", conf, container)
    assert not flows(host, 4)


@pytest.mark.parametrize(
    "path",
    [
        "own",
        pytest.param(
            "other",
            marks=pytest.mark.known_difference(
                "DEL fails without a previous result", here="succeeds", right="SPEC.md, 2 DEL"
            ),
        ),
    ],
)
def test_flows_of_another_container_stay(host: Host, path: str) -> None:
    """Even if the path is that container's namespace, and no previous result names the addresses."""
    host.outside()
    conf = network("bridge", 4)
    first, _ = attach(host, conf, "c1")
    second, sent = attach(host, conf, "c2")
    send(host, first)
    before = flows(host, 4)

    if path == "own":
        host.cni("DEL", sent, second)
    else:
        host.cni("DEL", conf, second, CNI_NETNS=first.path)
    ends = re.compile(r"(?:src|dst|sport|dport)=\S+")
    assert ends.findall(flows(host, 4)) == ends.findall(before)


def send(host: Host, container: Container) -> None:
    """Open a flow; the host has it once the container knows the MAC address of its gateway."""
    with container.socket(socket.SOCK_DGRAM) as client:
        client.sendto(b"ping", (SERVER[4], 5353))
        wait_for(lambda: flows(host, 4), "a flow of the container")


@NO_GC
@pytest.mark.parametrize("kind", ["bridge", "ptp"])
def test_gc_ends_the_flows_of_removed_attachments(host: Host, kind: str) -> None:
    host.outside()
    conf = network(kind, 4, cniVersion="1.1.0")
    first, _ = attach(host, conf, "c1")
    send(host, first)

    host.cni("GC", conf | {"cni.dev/valid-attachments": []})
    assert not flows(host, 4)


@OUTLIVES
def test_tcp_flow_of_a_published_port_ends_with_the_port(host: Host) -> None:
    """A SYN with the same ports would reach the next container, which publishes no port."""
    outside = host.outside()
    container, sent = attach(host, network("bridge", 4), "c1")
    mappings = [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]
    conf = {"cniVersion": "1.0.0", "name": "net1", "type": "portmap", "capabilities": {"portMappings": True}}
    conf |= {"runtimeConfig": {"portMappings": mappings}, "prevResult": sent["prevResult"]}
    host.cni("ADD", conf, container)
    with container.socket() as listener, outside.socket() as client:
        listener.bind(("", 80))
        listener.listen()
        client.connect((Outside.HOST, 8080))
        host.cni("DEL", conf, container)

        assert not host.run("conntrack", "-L", "-p", "tcp", "--orig-port-dst", "8080").stdout
