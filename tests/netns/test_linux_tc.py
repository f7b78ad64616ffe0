# SPDX-License-Identifier: Apache-2.0
"""linux.tc: its requests, as pyroute2 reads them, and their effect, as pyroute2 and `tc` show it."""

import errno
import json
import struct
from collections.abc import Callable
from typing import Any

import pytest
from pyroute2 import IPRoute
from pyroute2.netlink.rtnl.tcmsg import tcmsg

from cnihook.linux import tc
from cnihook.linux.netlink import NetlinkError
from cnihook.linux.rtnl import Link, Rtnl
from tests.netns.test_linux_messages import Caught, link, plain
from tests.support.host.host import Host

NEWQDISC, DELQDISC, NEWTFILTER = 36, 37, 44
EXCL, CREATE = 0x200, 0x400
LATENCY = 25_000

USUAL = tc.Tbf.of(2_500_000, 100_000, LATENCY)


@pytest.fixture(autouse=True)
def implementation() -> None:
    """No plugin takes part: one run is enough."""


def sent(ask: Callable[[Rtnl, Link], object]) -> list[tuple[int, int, dict[str, Any]]]:
    """Return type, flags and content of all requests about a link, as pyroute2 reads them."""
    caught = Caught()
    ask(caught, link(5))
    requests = []
    for kind, flags, body in caught.requests:
        message = tcmsg(struct.pack("=IHHII", 16 + len(body), kind, flags, 1, 0) + body)
        message.decode()
        requests.append((kind, flags, plain(message)))
    return requests


# Requests


def test_a_limit_is_requested() -> None:
    assert sent(lambda rtnl, link: tc.add_tbf(rtnl, link, USUAL)) == [
        (
            NEWQDISC,
            CREATE | EXCL,
            {
                "index": 5,
                "handle": 0x10000,
                "parent": 0xFFFFFFFF,
                "TCA_KIND": "tbf",
                "TCA_OPTIONS": {
                    "TCA_TBF_PARMS": {
                        "rate___reserved": 1,  # the link layer: Ethernet
                        "rate": 2_500_000,
                        "limit": 162_500,
                        "buffer": 625_000,  # 40 ms
                    }
                },
            },
        )
    ]


@pytest.mark.parametrize(
    ("rate", "burst", "parameters", "extra"),
    [
        (1 << 32, 1 << 30, {"rate": 0xFFFFFFFF, "buffer": 3_906_250}, {4: struct.pack("=Q", 1 << 32)}),
        (1000, 300_000, {"rate": 1000}, {6: struct.pack("=I", 300_000)}),
        (1 << 31, 1500, {"rate": 1 << 31}, {6: struct.pack("=I", 1500)}),
    ],
    ids=["rate of more than 32 bits", "burst of more than 274 s", "burst of less than 1 us"],
)
def test_values_that_the_parameters_cannot_hold_are_sent_separately(
    rate: int, burst: int, parameters: dict[str, int], extra: dict[int, bytes]
) -> None:
    caught = Caught()
    tc.add_tbf(caught, link(5), tc.Tbf.of(rate, burst, LATENCY))

    ((_kind, _flags, body),) = caught.requests
    message = tcmsg(struct.pack("=IHHII", 16 + len(body), NEWQDISC, 0, 1, 0) + body)
    message.decode()
    options = message.get_attr("TCA_OPTIONS").get_attr("TCA_TBF_PARMS")
    assert {key: options[key] for key in ("rate", "buffer")} == {"buffer": 0} | parameters
    for kind, data in extra.items():  # pyroute2 does not know these
        assert struct.pack("=HH", 4 + len(data), kind) + data in body


def test_length_of_the_queue_has_at_most_32_bits() -> None:
    assert tc.Tbf.of(1 << 40, 0xFFFFFFFF, LATENCY).limit == 0xFFFFFFFF


def test_redirection_of_received_packets_is_requested() -> None:
    qdisc, rule = sent(lambda rtnl, received: tc.redirect_ingress(rtnl, received, link(6, "ifb0")))

    assert qdisc == (
        NEWQDISC,
        CREATE | EXCL,
        {"index": 5, "handle": 0xFFFF0000, "parent": 0xFFFFFFF1, "TCA_KIND": "ingress"},
    )
    every_packet = {"key_mask": 0, "key_val": 0, "key_off": 0, "key_offmask": 0}
    assert rule == (
        NEWTFILTER,
        CREATE | EXCL,
        {
            "index": 5,
            "parent": 0xFFFF0000,
            "info": 0x10300,  # priority 1, every protocol
            "TCA_KIND": "u32",
            "TCA_OPTIONS": {
                "TCA_U32_SEL": {"flags": 1, "nkeys": 1, "keys": [every_packet]},
                "TCA_U32_ACT": {
                    "TCA_ACT_PRIO_1": {
                        "TCA_ACT_KIND": "mirred",
                        "TCA_ACT_OPTIONS": {"TCA_MIRRED_PARMS": {"action": 4, "eaction": 1, "ifindex": 6}},
                    }
                },
            },
        },
    )


def test_removal_names_the_kind_and_the_handle() -> None:
    """The kernel then refuses to remove a qdisc of another program."""
    assert sent(tc.delete_tbf) == [
        (DELQDISC, 0, {"index": 5, "handle": 0x10000, "parent": 0xFFFFFFFF, "TCA_KIND": "tbf"})
    ]
    assert sent(tc.delete_ingress) == [
        (DELQDISC, 0, {"index": 5, "handle": 0xFFFF0000, "parent": 0xFFFFFFF1, "TCA_KIND": "ingress"})
    ]


# Effects


@pytest.fixture
def eth0(rtnl: Rtnl) -> Link:
    rtnl.add_veth("eth0", "eth1", up=True)
    return rtnl.link("eth0")


@pytest.fixture
def ifb0(rtnl: Rtnl) -> Link:
    rtnl.add_link("ifb", "ifb0", up=True)
    return rtnl.link("ifb0")


def witness(host: Host, look: Callable[[Any], Any]) -> list[dict[str, Any]]:
    """Return the messages that `look` returns, given a pyroute2 in the host's namespace."""

    def ask() -> list[dict[str, Any]]:
        with IPRoute() as ip:
            return [plain(message) for message in look(ip)]

    return host.inside(ask)


def shown(host: Host, name: str) -> list[Any]:
    """Return the qdiscs of a link as `tc` sees them."""
    qdiscs: list[Any] = json.loads(host.run("tc", "-j", "qdisc", "show", "dev", name).stdout)
    return qdiscs


def values_of(tbf: tc.Tbf | None) -> tuple[int, int, int | None]:
    assert tbf
    return tbf.rate, tbf.limit, tbf.buffer


def test_a_limit_is_set(host: Host, rtnl: Rtnl, eth0: Link) -> None:
    tc.add_tbf(rtnl, eth0, USUAL)

    (qdisc,) = witness(host, lambda ip: ip.get_qdiscs(index=eth0.index))
    assert qdisc["TCA_KIND"] == "tbf" and qdisc["handle"] == 0x10000
    parameters = qdisc["TCA_OPTIONS"]["TCA_TBF_PARMS"]
    assert [parameters[key] for key in ("rate", "limit", "buffer")] == [2_500_000, 162_500, 625_000]
    (seen,) = shown(host, "eth0")
    assert seen["options"] == {"rate": 2_500_000, "burst": 100_000, "lat": LATENCY}
    assert values_of(tc.find_tbf(rtnl, eth0)) == values_of(USUAL)


def test_each_link_has_its_own_limit(rtnl: Rtnl, eth0: Link, ifb0: Link) -> None:
    other = tc.Tbf.of(1_000_000, 50_000, LATENCY)
    tc.add_tbf(rtnl, eth0, USUAL)
    assert tc.find_tbf(rtnl, ifb0) is None
    tc.add_tbf(rtnl, ifb0, other)

    assert [values_of(tc.find_tbf(rtnl, link)) for link in (eth0, ifb0)] == [
        values_of(USUAL),
        values_of(other),
    ]


def test_a_rate_may_have_more_than_32_bits(host: Host, rtnl: Rtnl, eth0: Link) -> None:
    tbf = tc.Tbf.of(500_000_000_000, 1_000_000, LATENCY)
    tc.add_tbf(rtnl, eth0, tbf)

    (seen,) = shown(host, "eth0")
    assert seen["options"]["rate"] == 500_000_000_000
    assert values_of(tc.find_tbf(rtnl, eth0)) == values_of(tbf)


@pytest.mark.parametrize(
    ("rate", "burst"), [(1000, 300_000), (1 << 31, 1500), (1, 0xFFFFFFFE), ((1 << 61) - 1, 1)]
)
def test_a_burst_that_ticks_cannot_express_is_accepted(
    rtnl: Rtnl, eth0: Link, rate: int, burst: int
) -> None:
    tbf = tc.Tbf.of(rate, burst, LATENCY)
    assert tbf.buffer is None
    tc.add_tbf(rtnl, eth0, tbf)

    current = tc.find_tbf(rtnl, eth0)
    assert current and (current.rate, current.limit) == (tbf.rate, tbf.limit)


def test_a_limit_is_removed_if_there_is_one(host: Host, rtnl: Rtnl, eth0: Link) -> None:
    tc.delete_tbf(rtnl, eth0)
    tc.add_tbf(rtnl, eth0, USUAL)
    tc.delete_tbf(rtnl, eth0)
    assert [qdisc["kind"] for qdisc in shown(host, "eth0")] == ["noqueue"]

    for other in ("root handle 1: pfifo", "root handle 2: tbf rate 1mbit burst 10kb latency 1ms"):
        host.run(*"tc qdisc replace dev eth0".split(), *other.split())
        tc.delete_tbf(rtnl, eth0)
        assert shown(host, "eth0")[0]["kind"] == other.split()[3]


def test_redirection_of_received_packets_is_set_and_removed(
    host: Host, rtnl: Rtnl, eth0: Link, ifb0: Link
) -> None:
    assert tc.ingress_targets(rtnl, eth0) == set()
    tc.delete_ingress(rtnl, eth0)
    tc.redirect_ingress(rtnl, eth0, ifb0)

    filters = witness(host, lambda ip: ip.get_filters(index=eth0.index, parent=0xFFFF0000))
    rule = filters[-1]["TCA_OPTIONS"]
    assert rule["TCA_U32_SEL"]["nkeys"] == 1
    action = rule["TCA_U32_ACT"]["TCA_ACT_PRIO_1"]
    assert action["TCA_ACT_KIND"] == "mirred"
    seen = action["TCA_ACT_OPTIONS"]["TCA_MIRRED_PARMS"]
    assert (seen["action"], seen["eaction"], seen["ifindex"]) == (4, 1, ifb0.index)
    assert tc.ingress_targets(rtnl, eth0) == {ifb0.index}

    tc.delete_ingress(rtnl, eth0)
    assert tc.ingress_targets(rtnl, eth0) == set()
    assert "ingress" not in [qdisc["kind"] for qdisc in shown(host, "eth0")]
    tc.redirect_ingress(rtnl, eth0, ifb0)


def test_a_target_that_is_gone_is_reported(rtnl: Rtnl, eth0: Link, ifb0: Link) -> None:
    tc.redirect_ingress(rtnl, eth0, ifb0)
    rtnl.delete_link(ifb0)

    assert tc.ingress_targets(rtnl, eth0) == {0}


@pytest.mark.parametrize(
    "other",
    [
        "u32 match ip dst 10.0.0.0/8 flowid 1:1",
        "u32 match u32 0 0 action mirred egress mirror dev ifb0",
        "u32 match u32 0 0 action mirred ingress redirect dev ifb0",
        "bpf bytecode '1,6 0 0 0'",
    ],
)
def test_other_filters_are_reported(host: Host, rtnl: Rtnl, eth0: Link, ifb0: Link, other: str) -> None:
    tc.redirect_ingress(rtnl, eth0, ifb0)
    host.run("sh", "-c", f"tc filter add dev eth0 ingress protocol ip prio 7 {other}")

    assert tc.ingress_targets(rtnl, eth0) == {ifb0.index, tc.UNKNOWN}


def test_second_limit_and_redirection_are_refused(rtnl: Rtnl, eth0: Link, ifb0: Link) -> None:
    tc.add_tbf(rtnl, eth0, USUAL)
    tc.redirect_ingress(rtnl, eth0, ifb0)

    with pytest.raises(NetlinkError, match="limit eth0") as refused:
        tc.add_tbf(rtnl, eth0, USUAL)
    assert refused.value.errno == errno.EEXIST
    with pytest.raises(NetlinkError, match="eth0 receives") as refused:
        tc.redirect_ingress(rtnl, eth0, ifb0)
    assert refused.value.errno == errno.EEXIST


def test_a_link_that_is_gone_has_nothing_to_remove(rtnl: Rtnl, eth0: Link) -> None:
    """The links of a container can disappear at any moment when it ends."""
    rtnl.delete_link(eth0)

    tc.delete_tbf(rtnl, eth0)
    tc.delete_ingress(rtnl, eth0)
    assert tc.find_tbf(rtnl, eth0) is None
    assert tc.ingress_targets(rtnl, eth0) == set()
