# SPDX-License-Identifier: Apache-2.0
"""bandwidth: limits that change while the container runs, and what a kernel without netem refuses."""

import socket
from typing import Any

import pytest

from cnihook.linux import netem
from cnihook.linux.rtnl import Rtnl
from tests.support.host.host import Container, Host
from tests.support.host.sockets import connect
from tests.support.plugins.bandwidth import (
    CONTAINER,
    EGRESS,
    EGRESS_TBF,
    HOST,
    INGRESS,
    INGRESS_TBF,
    add,
    addressed,
    conf,
    ifb_name,
    ifbs,
    limits,
    linked,
    outer_of,
    qdiscs,
    stream,
)
from tests.support.plugins.cni import CniFailure, Implementation
from tests.support.plugins.update import update

BOTH = INGRESS | EGRESS
IFB = ifb_name("c1")
DELAY = {"runtimeConfig": {"emulate": {"egress": {"delay": 80_000}}}}
UDP_SEGMENT = 103  # <linux/udp.h>


@pytest.fixture
def implementation(implementations: dict[str, Implementation]) -> Implementation:
    """Return the built-in plugin: the reference cannot change anything."""
    return implementations["builtin"]


@pytest.fixture
def container(host: Host) -> Container:
    return addressed(host, linked(host))


def requested(**limits: int) -> dict[str, Any]:
    return conf(runtimeConfig={"bandwidth": limits})


def test_limits_change_under_a_connection(host: Host, container: Container) -> None:
    outer = outer_of(container)
    first = add(host, container, requested())
    with stream(host, container, CONTAINER) as incoming:
        both = update(host, container, requested(**BOTH), first)
        assert limits(host) == {outer: INGRESS_TBF, IFB: EGRESS_TBF}
        assert IFB in [each["name"] for each in both["prevResult"]["interfaces"]]
        host.cni("CHECK", both, container)
        assert incoming.recv(1 << 16)

        higher = update(host, container, requested(**BOTH | {"ingressRate": 40_000_000}), both)
        assert limits(host)[outer]["rate"] == 5_000_000
        assert update(host, container, requested(**BOTH | {"ingressRate": 40_000_000}), higher) == higher

        one = update(host, container, requested(**EGRESS), higher)
        assert limits(host) == {IFB: EGRESS_TBF}
        assert incoming.recv(1 << 16)

        none = update(host, container, requested(), one)
        assert (qdiscs(host), ifbs(host)) == (set(), set())
        assert IFB not in [each["name"] for each in none["prevResult"]["interfaces"]]
        assert incoming.recv(1 << 16)
    connect(container, host, HOST)


def test_smaller_burst_does_not_stall_the_link(host: Host, container: Container) -> None:
    """A packet larger than the burst gets no tokens: those that wait must not be kept."""
    before = add(host, container, requested(ingressRate=400_000, ingressBurst=64 * 8192))
    with container.socket(socket.SOCK_DGRAM) as receiver, host.socket(socket.SOCK_DGRAM) as sender:
        receiver.bind((CONTAINER, 0))
        sender.setsockopt(socket.SOL_UDP, UDP_SEGMENT, 1400)
        for _packet in range(4):  # the first uses up the burst, the others wait as they are
            sender.sendto(bytes(28_000), receiver.getsockname())
        update(host, container, requested(ingressRate=400_000, ingressBurst=15 * 8000), before)

        sender.setsockopt(socket.SOL_UDP, UDP_SEGMENT, 0)
        sender.sendto(b"last", receiver.getsockname())
        while receiver.recv(2000) != b"last":
            pass


def test_qdisc_of_another_program_is_not_changed(host: Host, container: Container) -> None:
    before = add(host, container, requested())
    host.run(*f"tc qdisc add dev {outer_of(container)} root handle 7: pfifo".split())

    with pytest.raises(CniFailure, match="which has a qdisc of another program"):
        update(host, container, requested(**INGRESS), before)
    assert update(host, container, requested(), before)["prevResult"] == before["prevResult"]
    assert qdiscs(host) == {f"pfifo on {outer_of(container)}"}
    host.run(*f"tc qdisc delete dev {outer_of(container)} root".split())


def test_kernel_without_netem_is_refused_before_a_change(
    host: Host, rtnl: Rtnl, container: Container
) -> None:
    if not netem.is_missing(rtnl):
        pytest.skip("this kernel has netem: tests/vm/guest/test_emulation.py emulates networks")
    with pytest.raises(CniFailure, match="this kernel has no netem") as refused:
        add(host, container, conf(**INGRESS, **DELAY))
    assert "modprobe sch_netem" in refused.value.details
    before = add(host, container, conf(**INGRESS))
    with pytest.raises(CniFailure, match="this kernel has no netem"):
        update(host, container, conf(**EGRESS, **DELAY), before)
    assert limits(host) == {outer_of(container): INGRESS_TBF}
