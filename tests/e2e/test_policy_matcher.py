# SPDX-License-Identifier: Apache-2.0
"""The matcher of `explain` against the kernel: random policies, and random packets in both IP versions."""

import itertools
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from cnihook.fast.address import Address
from cnihook.linux.netlink import reopen_netfilter
from cnihook.policy import kernel, matcher
from cnihook.policy.desired import Desired
from cnihook.policy.document import Policy
from cnihook.policy.endpoint import World, of_records
from cnihook.policy.matcher import Connection
from cnihook.policy.store import Policies
from cnihook.runtime import records
from tests.support.host.host import Host, Outside
from tests.support.policies import NO_BR_NETFILTER, Sandbox, network
from tests.support.raw_packets import PROTOCOLS, Wire
from tests.support.runtimes.oci import RESULTS, configure

PORTS = (53, 80, 5432)
SERVERS = [Outside.ADDRESS, Outside.ADDRESS6]
PEERS = (
    *("all", "outside", "container:two", "container:t*", "label:app=a", "label:app", "network:front"),
    *("10.7.0.0/24", "10.7.0.3", "fd07::/64", "fd07::4", "198.51.100.0/24", "2001:db8::/32", "0.0.0.0/1"),
)
TO_PEERS = (*PEERS, "host", "dns")
EXCEPTED = ("!10.7.0.3", "!fd07::2/127", "!198.51.100.2", "!2001:db8:100::/64")
PORT_TEXTS = ("80", "53/udp", "5432/tcp", "icmp", "50-90/tcp", "1-65535/udp")
NAMES = ("one", "two", "three")
SHORT = ("", "", "none", "dns", "host:80", "label:app=a:icmp,10.7.0.0/24", "all:53,!10.7.0.0/31")


def rules(key: str) -> st.SearchStrategy[list[dict[str, Any]]]:
    peers = TO_PEERS if key == "to" else PEERS
    one = st.builds(
        lambda named, excepted, ports: {key: [*named, *excepted], "ports": ports},
        st.lists(st.sampled_from(peers), min_size=1, max_size=3),
        st.lists(st.sampled_from(EXCEPTED), max_size=2),
        st.lists(st.sampled_from(PORT_TEXTS), max_size=2),
    )
    return st.lists(one, max_size=2)


def side(key: str) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional={"allow": rules(key), "deny": rules(key)})


POLICY = st.fixed_dictionaries(
    {
        "select": st.sampled_from(
            [
                {},
                {"labels": {"app": "a"}},
                {"containers": ["t*"]},
                {"networks": ["front"], "containers": ["one"]},
            ]
        ),
        "mode": st.sampled_from(["enforce", "enforce", "audit"]),
        "egress": side("to"),
    },
    optional={"ingress": side("from"), "deny": st.sampled_from(["drop", "reject"])},
)


@pytest.fixture
def stack() -> Any:
    with ExitStack() as stack:
        yield stack


def test_matcher_agrees_with_the_kernel(
    host: Host, stack: ExitStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One set of containers, with other policies for each example, and every packet that they can send."""
    host.run("sh", "-c", NO_BR_NETFILTER)
    outside = host.outside()
    outside.run("ip", "route", "add", "10.7.0.0/24", "via", Outside.HOST)
    outside.run("ip", "route", "add", "fd07::/64", "via", Outside.HOST6)
    configure(host, network("ptp", ipMasq=False))
    labels = {"one": "", "two": "app=a", "three": "app=b"}
    sandboxes = {
        name: Sandbox(host, name, **({"label": text} if text else {})) for name, text in labels.items()
    }
    spaces = {name: one.space for name, one in sandboxes.items()} | {"outside": outside, "host": host}
    wires = {name: Wire(space, stack) for name, space in spaces.items()}
    endpoints = of_records(records.all_records(f"{host.root}{RESULTS}"), named=False)
    own = {
        4: {"outside": Outside.ADDRESS, "host": "10.7.0.1"},
        6: {"outside": Outside.ADDRESS6, "host": "fd07::1"},
    }
    for name, one in sandboxes.items():
        own[4][name], own[6][name] = one.v4, one.v6
    hosts = [own[4]["host"], own[6]["host"], Outside.HOST, Outside.HOST6]
    world = World(endpoints, list(map(Address.parse, hosts)))
    packets = [
        (source, to, version, protocol, port)
        for source, to in itertools.permutations(spaces, 2)
        for version in (4, 6)
        for protocol in PROTOCOLS
        for port in (PORTS if protocol != "icmp" else (0,))
        if {source, to} != {"outside", "host"}
    ]
    numbers = itertools.count(1)
    monkeypatch.setattr(kernel, "STATE", str(tmp_path / "policy"))

    def put_in_force(policies: Policies) -> None:
        reopen_netfilter()
        try:
            kernel.sync(Desired(endpoints, policies))
        finally:
            reopen_netfilter()

    @settings(
        max_examples=80,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],  # a failing example takes seconds, and says enough
        suppress_health_check=list(HealthCheck),
    )
    @given(
        st.lists(POLICY, min_size=1, max_size=3),
        st.lists(st.sampled_from(SHORT), min_size=3, max_size=3),
        st.randoms(use_true_random=False),
    )
    def examine(raws: list[dict[str, Any]], texts: list[str], random: Any) -> None:
        policies = [Policy(raw | {"name": f"p{number}"}, "p") for number, raw in enumerate(raws)]
        for endpoint, text in zip(endpoints, texts, strict=True):
            endpoint.request = {"egress": text} if text else {}
            endpoint.dns = SERVERS
        host.inside(lambda: put_in_force(Policies(policies, [])))
        expected: dict[str, set[int]] = {name: set() for name in wires}
        sent = {}
        for packet in random.sample(packets, 60):
            source, to, version, protocol, port = packet
            number = next(numbers)
            connection = Connection(
                Address.parse(own[version][source]), Address.parse(own[version][to]), protocol, port
            )
            verdict = matcher.decide(connection, world, policies)
            if verdict.is_allowed:
                expected[to].add(number)
            sent[number] = packet, str(verdict)
            wires[source].send(version, own[version][to], protocol, port, number)
        heard: dict[str, set[int]] = {name: set() for name in wires}
        deadline = time.monotonic() + 2
        while heard != expected and time.monotonic() < deadline:
            for name, wire in wires.items():
                heard[name] |= wire.heard()
            if any(heard[name] - expected[name] for name in wires):
                break
            time.sleep(0.001)
        wrong = [
            (*sent[number], "arrived" if number in heard[name] else "did not arrive")
            for name in wires
            for number in heard[name] ^ expected[name]
        ]
        assert not wrong, (raws, texts)

    examine()
    clear(endpoints)
    host.inside(lambda: put_in_force(Policies([], [])))
    for one in sandboxes.values():
        one.stop()


def clear(endpoints: list[Any]) -> None:
    for endpoint in endpoints:
        endpoint.request = {}
