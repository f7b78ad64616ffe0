# SPDX-License-Identifier: Apache-2.0
"""An emulated network: real delays and losses, at the start and under a running container."""

import copy
import json
import re
from typing import Any

import pytest

from cnihook.doctor import kernel
from tests.support.commands.repair import WEB, WebContainer, cnihook, detach
from tests.support.host.host import Container, Host
from tests.support.plugins.bandwidth import (
    EGRESS,
    HOST,
    INGRESS,
    add,
    addressed,
    conf,
    ifb_name,
    ifbs,
    linked,
    outer_of,
    qdiscs,
)
from tests.support.plugins.cni import CniFailure, Implementation
from tests.support.plugins.update import update
from tests.support.runtimes.oci import configure
from tests.support.wait import wait_for

IFB = ifb_name("c1")
DELAY = {"delay": 80_000}
GATEWAY = "10.22.0.1"  # of WEB


@pytest.fixture
def implementation(implementations: dict[str, Implementation]) -> Implementation:
    """Return the built-in plugin: the reference emulates nothing."""
    return implementations["builtin"]


def requested(limits: dict[str, int] | None = None, **emulate: Any) -> dict[str, Any]:
    return conf(runtimeConfig={"bandwidth": limits or {}, "emulate": emulate})


def fastest(container: Container, address: str = HOST) -> float | None:
    """Return the shortest round trip of three pings in milliseconds; None if none is answered."""
    ping = container.run("ping", "-q", "-c3", "-i0.2", "-W2", address, check=False)
    times = re.search(r"= ([\d.]+)/", ping.stdout)
    assert times or "100% packet loss" in ping.stdout, ping.stdout + ping.stderr
    return float(times[1]) if times else None


def options_of(host: Host, name: str) -> dict[str, Any]:
    """Return the options of the netem of a link, as `tc` shows them."""
    listed = json.loads(host.run("tc", "-j", "qdisc", "show", "dev", name).stdout)
    (options,) = [qdisc["options"] for qdisc in listed if qdisc["kind"] == "netem"]
    return dict(options)


def test_container_starts_with_an_emulated_network(host: Host) -> None:
    container = addressed(host, linked(host))
    assert (fastest(container) or 80) < 80
    effects = {**DELAY, "jitter": 2_000, "duplicate": 10_000, "corrupt": 10, "rate": 8_000_000}

    sent = add(host, container, requested(EGRESS, egress=effects, ingress={"loss": 1_000_000}))

    seen = options_of(host, IFB)
    assert seen["delay"] == {"delay": 0.08, "jitter": 0.002, "correlation": 0}
    assert (seen["rate"]["rate"], seen["duplicate"]["duplicate"]) == (1_000_000, 0.01)
    assert options_of(host, outer_of(container))["loss-random"]["loss"] == 1
    assert qdiscs(host) >= {f"tbf on {IFB}", f"netem on {IFB}", f"netem on {outer_of(container)}"}
    host.cni("CHECK", sent, container)
    assert fastest(container) is None
    host.run(*f"tc qdisc change dev {IFB} parent 1:1 handle 656e: netem delay 1ms".split())
    with pytest.raises(CniFailure, match="the netem has delay 1000, not 80000"):
        host.cni("CHECK", sent, container)
    host.cni("DEL", sent, container)
    assert (qdiscs(host), ifbs(host)) == (set(), set())
    assert (fastest(container) or 80) < 80


def test_emulation_changes_under_a_running_container(host: Host) -> None:
    container = addressed(host, linked(host))
    now = add(host, container, requested())
    for limits, emulate, least in (
        ({}, {"egress": DELAY}, 80),
        ({}, {"egress": {"delay": 150_000}}, 150),
        (EGRESS | INGRESS, {"egress": {"delay": 150_000}}, 150),  # it moves below the limit
        (EGRESS | INGRESS, {"egress": DELAY, "ingress": DELAY}, 160),
        (EGRESS | {"ingressRate": 400_000, "ingressBurst": 120_000}, {"ingress": DELAY}, 80),
        (EGRESS, {}, 0),  # the limit needs another queue
        (EGRESS, {"egress": DELAY}, 80),
        ({}, {"egress": DELAY}, 80),  # it moves on top of the link
        ({}, {}, 0),
    ):
        now = update(host, container, requested(limits, **emulate), now)
        host.cni("CHECK", now, container)
        shortest = fastest(container)
        assert shortest is not None and least <= shortest < least + 70, (limits, emulate, shortest)
    assert (qdiscs(host), ifbs(host)) == (set(), set())


def test_kernel_has_what_networks_can_emulate() -> None:
    assert kernel._missing(["netem"]) == {}


def test_network_of_a_container_is_emulated_from_its_first_packet_for_a_time(host: Host) -> None:
    """The hook sets it and `update` changes it; another process ends a change with --for."""
    host.leaves("dir /run/cni", "dir /run/cni/tuning")
    conf = copy.deepcopy(WEB)
    conf["plugins"][2]["capabilities"] = {"bandwidth": True, "emulate": True}
    configure(host, conf)
    web = WebContainer(host, host.outside(), "c1", emulate="delay=80ms")
    assert 80 <= (fastest(web.space, GATEWAY) or 0) < 150

    command = cnihook(host, "update", "c1", "--emulate", "in-loss=100%", "--for", "3s")
    assert (command.stdout, command.stderr) == ("emulating in-loss=100% for eth0 on web\n", "")
    assert fastest(web.space, GATEWAY) is None
    wait_for(lambda: fastest(web.space, GATEWAY) is not None, "the end of the loss")
    assert 80 <= (fastest(web.space, GATEWAY) or 0) < 150
    assert cnihook(host, "update", "c1", "--emulate", "none").stdout == (
        "no longer emulating a network for eth0 on web\n"
    )
    assert (fastest(web.space, GATEWAY) or 80) < 80
    detach(web)
