# SPDX-License-Identifier: Apache-2.0
"""Isolation without a gap: containers send while one of them is attached, detached and repaired."""

import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.support.commands.repair import cnihook
from tests.support.host.host import ACCEPT_DAD, Container, Host
from tests.support.runtimes.oci import call_hook, configure

SENDER = """\
import socket, sys, time
targets = [(socket.socket(socket.AF_INET6 if ":" in to else socket.AF_INET, socket.SOCK_DGRAM), to)
           for to in sys.argv[1:]]
print("ready", flush=True)
while True:
    for one, to in targets:
        try:
            one.sendto(b"x", (to, 5000))
        except OSError:
            pass  # no route at the moment
    time.sleep(0.0002)
"""
ADDRESSES = {"a": ("10.1.0.2", "fd01::2"), "b": ("10.2.0.2", "fd02::2")}
ROUNDS = 3


def network(name: str, policy: str, bridge: str = "", **keys: Any) -> dict[str, Any]:
    """Return a network with one address per family, so that a container gets the same one again."""
    number = "12"["ab".index(name[0])]
    v4, v6 = ADDRESSES[name[0]]
    ranges = [[{"subnet": f"10.{number}.0.0/24"}], [{"subnet": f"fd0{number}::/64"}]]
    for (one,), address in zip(ranges, (v4, v6), strict=True):
        one |= {"rangeStart": address, "rangeEnd": address}
    ipam = {"type": "host-local", "ranges": ranges, "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]}
    plugin = {"type": "bridge", "bridge": bridge or f"br-{name}", "isGateway": True, "ipam": ipam} | keys
    plugins = [plugin, {"type": "firewall", "ingressPolicy": policy}]
    return {"cniVersion": "1.0.0", "name": name, "plugins": plugins}


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def container(host: Host, name: str) -> Container:
    container = host.container(name, process=True)
    container.set_sysctl(ACCEPT_DAD, "0")
    return container


def send(stack: ExitStack, space: Container, *targets: str) -> None:
    process = stack.enter_context(space.popen("/usr/bin/python3", "-IS", "-c", SENDER, *targets))
    stack.callback(process.wait, 10)
    stack.callback(process.kill)
    assert process.stdout and process.stdout.readline() == "ready\n"


def listen(stack: ExitStack, space: Container) -> list[socket.socket]:
    listeners = []
    for family, own in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
        one = stack.enter_context(space.socket(socket.SOCK_DGRAM, family))
        if family == socket.AF_INET6:
            one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        one.bind((own, 5000))
        one.setblocking(False)
        listeners.append(one)
    return listeners


def heard(listeners: list[socket.socket]) -> set[str]:
    """Return the source addresses of the datagrams received since the last call."""
    sources = set()
    for one in listeners:
        try:
            while True:
                sources.add(one.recvfrom(16)[1][0])
        except BlockingIOError:
            pass
    return sources


def attach(host: Host, space: Container, network: str) -> None:
    state = {"ociVersion": "1.0.2", "id": space.name, "pid": space.pid, "status": "created", "bundle": "/"}
    process = call_hook(host, "createRuntime", state | {"annotations": {"cnihook.networks": network}})
    assert (process.returncode, process.stderr) == (0, "")


def detach(host: Host, space: Container) -> None:
    assert cnihook(host, "detach", space.name).returncode == 0


@pytest.mark.parametrize("policy", ["same-bridge", "isolated"])
def test_networks_stay_isolated_during_first_add_and_last_del(
    host: Host, stack: ExitStack, policy: str
) -> None:
    """Traffic is checked in both directions and both families."""
    configure(host, network("a", policy), network("b", policy))
    first, second = (container(host, name) for name in ("c1", "c2"))
    attach(host, second, "b")
    send(stack, first, *ADDRESSES["b"])
    send(stack, second, *ADDRESSES["a"])
    ears = listen(stack, first) + listen(stack, second)

    for _round in range(ROUNDS):
        attach(host, first, "a")
        assert heard(ears) == set(), "during ADD"
        detach(host, first)
        assert heard(ears) == set(), "during DEL"
    stack.close()
    detach(host, second)


def test_bridge_ports_are_isolated_from_their_creation(host: Host, stack: ExitStack) -> None:
    """Two containers on one bridge can reach each other without passing through the host."""
    one, other = network("a", "isolated", "br0"), network("a2", "isolated", "br0")
    for (part,), address in zip(other["plugins"][0]["ipam"]["ranges"], ("10.1.0.3", "fd01::3"), strict=True):
        part |= {"rangeStart": address, "rangeEnd": address}
    configure(host, one, other)
    first, second = (container(host, name) for name in ("c1", "c2"))
    attach(host, second, "a2")
    send(stack, first, "10.1.0.3", "fd01::3")
    send(stack, second, *ADDRESSES["a"])
    ears = listen(stack, first) + listen(stack, second)

    for _round in range(ROUNDS):
        attach(host, first, "a")
        detach(host, first)
        assert heard(ears) == set()
    stack.close()
    detach(host, second)


@pytest.mark.parametrize("lost", ["bridge", "port"])
def test_repair_isolates_before_traffic_flows(host: Host, stack: ExitStack, lost: str) -> None:
    configure(host, network("a", "isolated"), network("b", "isolated"))
    first, second = (container(host, name) for name in ("c1", "c2"))
    for name, one in (("a", first), ("b", second)):
        attach(host, one, name)
    send(stack, first, *ADDRESSES["b"])
    send(stack, second, *ADDRESSES["a"])
    ears = listen(stack, first) + listen(stack, second)

    for _round in range(ROUNDS):
        if lost == "bridge":
            host.run("ip", "link", "del", "br-a")
        else:
            first.run("ip", "link", "del", "eth0")
        assert cnihook(host, "repair", "c1").returncode == 0
        assert heard(ears) == set()
    stack.close()
    detach(host, first)
    detach(host, second)


def test_failed_add_removes_isolation_policy(host: Host) -> None:
    """The policy is in force before the first plugin runs."""
    wrong = network("a", "isolated", vlan=5000)
    configure(host, wrong)
    one = container(host, "c1")
    before = host.nft()

    process = cnihook(host, "add", "a", f"/proc/{one.pid}/ns/net", "--container-id", "c1")
    assert process.returncode == 1 and "5000" in process.stderr
    assert host.nft() == before == ""
    assert json.loads(cnihook(host, "ps", "--json").stdout) == []
