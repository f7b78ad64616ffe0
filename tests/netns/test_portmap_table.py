# SPDX-License-Identifier: Apache-2.0
"""portmap: the nftables table that it shares with other plugins, and what ADD and DEL read of it."""

import json
from typing import Any

import pytest

from tests.support.host.host import Container, Host
from tests.support.plugins import cni
from tests.support.plugins.cni import CniFailure
from tests.support.plugins.ports import (
    GATEWAY,
    SUBNET,
    SUBNET6,
    attach,
    conf,
    mapping,
    network,
    publish,
    published,
    seen,
)

BOTH = (SUBNET, SUBNET6)
TABLE = "inet cnihook"


@pytest.fixture
def implementation(implementations: dict[str, cni.Implementation]) -> cni.Implementation:
    """Return the built-in plugins only: the reference has its own tables."""
    return implementations["builtin"]


@pytest.mark.parametrize(
    "edited",
    [
        {"runtimeConfig": {"portMappings": [mapping(9000)]}},
        {"runtimeConfig": {"portMappings": [mapping(8080), mapping(9000)]}},
        {"runtimeConfig": {"portMappings": "nonsense"}},
        {"markMasqBit": 99},
        {"conditionsV4": ["-s", "192.0.2.1"]},
        {"conditionsV4": ["; drop"]},
        {"prevResult": {"cniVersion": "1.0.0", "ips": "damaged"}},
        {"prevResult": {"cniVersion": "9.9.9"}},
    ],
)
def test_del_finds_its_ports_with_any_configuration(host: Host, edited: dict[str, Any]) -> None:
    container, result = attach(host)
    sent = publish(host, container, result, conf(mapping(8080), mapping(8081), conditionsV6=["-i", "up0"]))

    host.cni("DEL", sent | edited, container)

    assert "ports" not in host.nft()


def test_late_del_leaves_port_and_address_of_their_new_owner(host: Host) -> None:
    """A runtime that was killed may send DEL long after another container got them."""
    container, result = attach(host)
    sent = publish(host, container, result, conf(mapping(8080)))
    host.run("nft", "delete", "element", *TABLE.split(), "ports4", "{ tcp . 8080 }")
    successor = sent | {"name": "net2"}
    host.cni("ADD", successor, container)

    host.cni("DEL", sent, container)

    assert seen(host, container, "127.0.0.1", 8080) == GATEWAY
    host.cni("CHECK", successor, container)


@pytest.mark.parametrize("chain", ["ports-guard", "ports-output", "ports", "ports-conditional"])
def test_next_add_fills_an_emptied_chain(host: Host, chain: str) -> None:
    first = published(host, mapping(8080))
    whole = host.nft()
    host.run("nft", "flush", "chain", *TABLE.split(), chain)
    container, result = attach(host)
    sent = publish(host, container, result, conf(mapping(8081)))

    assert seen(host, first, "127.0.0.1", 8080) == GATEWAY
    host.cni("DEL", sent, container)
    host.cni("DEL", network(SUBNET) | {"prevResult": result}, container, plugin="bridge")
    assert sorted(host.nft().splitlines()) == sorted(whole.splitlines())


@pytest.mark.parametrize(
    "damage",
    [
        "flush ruleset",
        f"delete element {TABLE} ports4 {{ tcp . 8080 }}",
        f"delete element {TABLE} ports6 {{ tcp . 8080 }}",
        f"delete element {TABLE} ports-to4 {{ 10.9.0.2 }}",
        f"flush chain {TABLE} ports",
        f"flush chain {TABLE} ports-postrouting",
        f"flush chain {TABLE} ports-guard",
        f"delete element {TABLE} ports4 {{ tcp . 8080 }};"
        f" add element {TABLE} ports4 {{ tcp . 8080 : 10.9.0.9 . 80 }}",
    ],
)
def test_check_finds_damage(host: Host, damage: str) -> None:
    container, result = attach(host, *BOTH)
    sent = publish(host, container, result, conf(mapping(8080)))
    host.run("nft", damage)
    if "10.9.0.9" in damage:  # it has no owner, so no DEL removes it
        host.leaves("nft: *")

    with pytest.raises(CniFailure):
        host.cni("CHECK", sent, container)


def test_table_of_ten_containers_has_the_rules_of_one(host: Host) -> None:
    """There is an element for each port and one for each container."""
    published(host, mapping(8080), mapping(5353, 53, "udp"))
    before = host.nft()
    for n in range(1, 10):
        published(host, mapping(8080 + n), mapping(5353 + n, 53, "udp"))
    lines = [line.strip() for line in host.nft().splitlines()]

    def others(lines: list[str]) -> list[str]:
        return [line.strip() for line in lines if "comment" not in line]

    assert others(lines) == others(before.splitlines())
    elements = {
        element.removesuffix(" }")
        for line in lines
        if "comment" in line
        for element in line.removeprefix("elements = { ").rstrip(",").split(", ")
    }
    assert {
        'tcp . 8085 comment "net1 c6 eth0" : 10.9.0.7 . 80',
        'udp . 5358 comment "net1 c6 eth0" : 10.9.0.7 . 53',
        '10.9.0.7 comment "net1 c6 eth0" : jump ports-from-10.9.0.0/24',
    } < elements


def test_rules_of_conditions_are_removed_with_their_last_port(host: Host) -> None:
    published(host, mapping(8080, ip="127.0.0.1"))
    (one, result), (two, other) = (attach(host) for _ in range(2))
    before = host.nft()
    conditions: dict[str, Any] = {"conditionsV4": ["-s", "127.0.0.1"]}
    first = publish(host, one, result, conf(mapping(8081), **conditions))
    among = host.nft()
    second = publish(host, two, other, conf(mapping(8082, ip="127.0.0.1"), **conditions))

    host.cni("DEL", second, two)
    assert host.nft() == among
    assert seen(host, one, "127.0.0.1", 8081) == GATEWAY
    host.cni("DEL", first, one)
    assert host.nft() == before


def test_next_add_restores_the_rule_of_conditions(host: Host) -> None:
    conditions: dict[str, Any] = {"conditionsV4": ["-s", "127.0.0.1"]}
    container = published(host, mapping(8080), **conditions)
    host.run("nft", "flush", "chain", *TABLE.split(), "ports-conditional")
    published(host, mapping(8081), **conditions)

    assert seen(host, container, "127.0.0.1", 8080) == GATEWAY
    assert host.nft().count("jump ports-when-ipv4") == 1


def test_many_adds_and_dels_run_at_once(host: Host) -> None:
    """Each holds the lock, so that what it has read is still true when it acts (plugins#418)."""
    attached = [attach(host) for _ in range(6)]
    before = host.nft()
    requests = [
        (container, conf(mapping(8000 + n), mapping(8000 + n, 53, "udp")) | {"prevResult": result})
        for n, (container, result) in enumerate(attached)
    ]

    at_once(host, "ADD", requests)
    for n, (container, _) in enumerate(requests):
        assert seen(host, container, "127.0.0.1", 8000 + n) == GATEWAY
    at_once(host, "DEL", requests)
    assert host.nft() == before


def at_once(host: Host, command: str, requests: list[tuple[Container, Any]]) -> None:
    assert host.implementation
    processes = []
    for container, sent in requests:
        environment = cni.Attachment(sent, container, "eth0", "portmap", {}).environment(
            command, host.implementation.folder
        )
        host.write(f"/run/sent-{container.name}", json.dumps(sent))
        host.leaves(f"file /run/sent-{container.name}")
        program = f"exec {host.implementation.program('portmap')} < /run/sent-{container.name}"
        processes.append(host.popen("sh", "-c", program, env=environment))
    for process in processes:
        stdout, stderr = process.communicate(timeout=30)
        assert process.returncode == 0, stdout + stderr


@pytest.mark.parametrize(
    "keys",
    [{}, {"ip": GATEWAY}, {"conditionsV4": ["-s", "192.0.2.0/24"]}],
    ids=["all addresses", "one address", "conditions"],
)
def test_two_thousand_ports_are_published_and_removed(host: Host, keys: dict[str, Any]) -> None:
    """The messages are larger than socket buffers of the usual size."""
    address, conditions = keys.get("ip"), {key: value for key, value in keys.items() if key != "ip"}
    container, result = attach(host, *BOTH)
    sent = conf(*(mapping(10000 + n, ip=address) for n in range(2000)), **conditions)
    before = host.nft()

    publish(host, container, result, sent)
    assert host.nft().count(" . 11999 ") >= 1
    if not conditions:
        assert seen(host, container, GATEWAY, 11999) == GATEWAY
    publish(host, container, result, sent)  # again, over the same ports
    host.cni("DEL", sent, container)
    assert host.nft() == before


@pytest.mark.needs("strace", "conntrack")
def test_cost_of_add_does_not_grow_with_other_ports(host: Host) -> None:
    """An ADD sends and receives the same messages with and without a thousand ports of other containers.

    They are counted, because a busy machine changes no count.  If the host has any flow, an ADD looks at its
    flows; so it has one during all counts.
    """
    published(host, mapping(8080), mapping(8081, ip="127.0.0.1"))
    container, result = attach(host)
    sent = conf(mapping(9000), mapping(9001, 53, "udp"), mapping(9002, ip="127.0.0.1")) | {
        "prevResult": result
    }
    host.leaves("file /run/strace")
    flow = "-p tcp --sport 1 --dport 2 -s 192.0.2.1 -d 192.0.2.2 --state ESTABLISHED --timeout 600"
    host.run("conntrack", "-I", *flow.split())
    alone = least_traced(host, container, sent)
    for protocol in ("tcp", "udp"):
        many = ", ".join(f'{protocol} . {10000 + n} comment "x" : 10.9.0.2 . 80' for n in range(1000))
        single = ", ".join(f"127.0.0.1 . {protocol} . {20000 + n} : 10.9.0.2 . 80" for n in range(1000))
        commands = [
            f"add element {TABLE} ports4 {{ {many} }}",
            f"add element {TABLE} ports4-at {{ {single} }}",
        ]
        host.run("nft", "-f", "-", input="\n".join(commands))

    assert least_traced(host, container, sent) == alone


def least_traced(host: Host, container: Container, sent: Any) -> tuple[int, int]:
    """Return the least count of three ADDs, each with its DEL."""
    counts = []
    for _time in range(3):
        counts.append(traced(host, "ADD", container, sent))
        host.cni("DEL", sent, container)
    return min(counts)


def traced(host: Host, command: str, container: Container, sent: Any) -> tuple[int, int]:
    """Return the number of messages that the plugin sends and receives, and of their bytes."""
    assert host.implementation
    attachment = cni.Attachment(sent, container, "eth0", "portmap", {})
    host.run(
        *("strace", "-f", "-qq", "-o", "/run/strace", "-e", "trace=sendto,sendmsg,recvfrom,recvmsg"),
        host.implementation.program("portmap"),
        input=json.dumps(sent),
        env=attachment.environment(command, host.implementation.folder),
    )
    lines = host.read("/run/strace").splitlines()
    sizes = [int(line.rsplit("= ", 1)[1].split()[0]) for line in lines if " = " in line]
    return len(lines), sum(size for size in sizes if size > 0)
