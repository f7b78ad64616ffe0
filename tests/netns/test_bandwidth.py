# SPDX-License-Identifier: Apache-2.0
"""bandwidth: how fast a container can receive and send, where the limits are, what a failed ADD leaves."""

import json
from typing import Any

import pytest

from tests.netns.differences import LEAVES_QDISC, ONE_CODE
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
    check_limit,
    conf,
    ifb_name,
    limits,
    linked,
    pair,
    previous,
    qdiscs,
)
from tests.support.plugins.cni import Attachment, CniFailure

BOTH = INGRESS | EGRESS
IFB = ifb_name("c1")

PANICS = pytest.mark.known_difference(
    "panics without a limit or without a previous result",
    here="passes the result on, or reports an error",
    right="SPEC.md, 2 ADD",
)


@pytest.fixture
def container(host: Host) -> Container:
    return linked(host)


OUTER = "vc1eth0"


# The limits


def test_container_receives_no_faster_than_ingress(host: Host, container: Container) -> None:
    addressed(host, container)
    add(host, container, conf(**INGRESS))

    check_limit(host, container, CONTAINER, *INGRESS.values())


def test_container_sends_no_faster_than_egress(host: Host, container: Container) -> None:
    addressed(host, container)
    add(host, container, conf(**EGRESS))

    check_limit(container, host, HOST, *EGRESS.values())


def test_each_direction_has_its_own_limit(host: Host, container: Container) -> None:
    addressed(host, container)
    add(host, container, conf(**BOTH))

    check_limit(host, container, CONTAINER, *INGRESS.values())
    check_limit(container, host, HOST, *EGRESS.values())
    assert connect(host, container, CONTAINER) == HOST


def test_limits_are_on_the_host(host: Host, container: Container) -> None:
    """The container cannot remove them there.  Rates are in bytes, and a packet waits 25 ms at most."""
    add(host, container, conf(**BOTH))

    assert limits(host) == {OUTER: INGRESS_TBF, IFB: EGRESS_TBF}
    assert qdiscs(host) == {f"tbf on {OUTER}", f"ingress on {OUTER}", f"tbf on {IFB}"}
    assert qdiscs(container) == set()


@pytest.mark.parametrize(
    ("keys", "expected"),
    [(INGRESS, {f"tbf on {OUTER}"}), (EGRESS, {f"ingress on {OUTER}", f"tbf on {IFB}"})],
    ids=["ingress", "egress"],
)
def test_direction_without_a_limit_gets_no_qdisc(
    host: Host, container: Container, keys: dict[str, int], expected: set[str]
) -> None:
    add(host, container, conf(**keys))

    assert qdiscs(host) == expected


@pytest.mark.known_difference(
    "a burst that lasts for more than 274 s overflows, in this test to 61 bytes",
    here="the burst is as configured",
    right="cnihook",
)
def test_burst_may_be_far_above_the_rate(host: Host, container: Container) -> None:
    """Kubernetes has no option for the burst, and runtimes fill in gigabits."""
    addressed(host, container)
    long = 34_359_800 * 8
    sent = add(
        host,
        container,
        conf(ingressRate=1_000_000, ingressBurst=long, egressRate=1_000_000, egressBurst=long),
    )

    assert connect(container, host, HOST) == CONTAINER
    host.cni("CHECK", sent, container)


@pytest.mark.known_difference(
    "takes the largest number of a type, which runtimes pass for a pod, as its burst: gigabytes pass first",
    here="replaces it by a tenth of a second at the rate",
    right="cnihook",
)
@pytest.mark.parametrize(
    "burst",
    [2**31 - 1, 2**32 - 1, (2**32 - 1) * 8 - 1, (2**32 - 1) * 8],
    ids=["cri-dockerd", "containerd", "CRI-O", "older CRI-O"],
)
def test_placeholder_for_a_burst_is_replaced(host: Host, container: Container, burst: int) -> None:
    """Kubernetes has no option for the burst; a network that has such a number keeps it."""
    limit = {"ingressRate": 10_000_000, "ingressBurst": burst, "egressRate": 0, "egressBurst": 0}
    sent = add(host, container, conf(runtimeConfig={"bandwidth": limit}))

    assert limits(host) == {OUTER: {"rate": 1_250_000, "burst": 125_000, "lat": 25_000}}
    host.cni("CHECK", sent, container)


@pytest.mark.known_difference(
    "the length of the queue overflows with a large burst",
    here="the queue has the largest length that the kernel supports",
    right="cnihook",
)
def test_largest_burst_is_accepted(host: Host, container: Container) -> None:
    sent = add(host, container, conf(ingressRate=8_000_000_000, ingressBurst=(0xFFFFFFFF * 8) - 1))

    assert limits(host)[OUTER]["rate"] == 1_000_000_000
    assert "lat" in limits(host)[OUTER]
    host.cni("CHECK", sent, container)


def test_rate_may_have_more_than_32_bits(host: Host, container: Container) -> None:
    sent = add(host, container, conf(ingressRate=4_000_000_000_000, ingressBurst=80_000_000))

    assert limits(host)[OUTER]["rate"] == 500_000_000_000
    host.cni("CHECK", sent, container)


@pytest.mark.known_difference(
    "accepts a burst smaller than a packet, and all packets are lost",
    here="accepts it with a warning on stderr",
    right="cnihook",
)
def test_burst_below_a_packet_is_reported_on_stderr(host: Host, container: Container) -> None:
    """The kernel drops packets larger than the burst: such a link is slow, and then it hangs."""
    assert host.implementation
    sent = conf(egressRate=8000, egressBurst=8000, prevResult=previous(container))
    attachment = Attachment(sent, container, "eth0", "bandwidth", {})
    host.attachments.append(attachment)

    answer = host.run(
        host.implementation.program("bandwidth"),
        input=json.dumps(sent),
        env=attachment.environment("ADD", host.implementation.folder),
    )

    assert "1000 bytes" in answer.stderr and "1514" in answer.stderr


# The configuration


@pytest.mark.parametrize(
    "keys",
    [
        {"runtimeConfig": {"bandwidth": INGRESS}},
        {"RuntimeConfig": {"bandWidth": {key.upper(): value for key, value in INGRESS.items()}}},
        {key.lower(): value for key, value in INGRESS.items()},
        INGRESS | {"runtimeConfig": {"bandwidth": {"ingressRate": 8_000_000, "ingressBurst": 80_000}}},
        INGRESS | {"runtimeConfig": {"bandwidth": EGRESS}},
    ],
    ids=["of the runtime", "in any case", "of the network", "both", "not a mixture"],
)
def test_limits_of_the_network_override_those_of_the_runtime(
    host: Host, container: Container, keys: dict[str, Any]
) -> None:
    add(host, container, conf(**keys))

    assert limits(host) == {OUTER: INGRESS_TBF}


NONE: list[dict[str, Any]] = [
    {},
    {"ingressRate": 0, "ingressBurst": 0, "egressRate": 0, "egressBurst": 0},
    {"ingressRate": 0, "runtimeConfig": {"bandwidth": INGRESS}},
    {"runtimeConfig": {"bandwidth": {}}},
    {"runtimeConfig": {"bandwidth": {"ingressRate": 0, "ingressBurst": 0}}},
]


@pytest.mark.parametrize("keys", NONE)
def test_without_a_limit_the_result_is_passed_on(
    host: Host, container: Container, keys: dict[str, Any]
) -> None:
    """The plugin has no limit to set, so it does not inspect the result."""
    sent = conf(**keys, prevResult={"cniVersion": "1.0.0", "ips": [{"address": "10.9.0.2/24"}]})

    assert host.cni("ADD", sent, container) == sent["prevResult"]
    assert qdiscs(host) == set()


@pytest.mark.known_difference(
    "CHECK panics without a limit", here="succeeds", right="SPEC.md, 2 CHECK", fixed_in="1.9.1"
)
def test_without_a_limit_there_is_nothing_to_check(host: Host, container: Container) -> None:
    host.cni("CHECK", add(host, container, conf()), container)


@pytest.mark.parametrize(
    ("command", "keys"),
    [pytest.param("ADD", {}, marks=PANICS), ("ADD", INGRESS), ("CHECK", INGRESS)],
    ids=["ADD without a limit", "ADD", "CHECK"],
)
def test_plugin_without_previous_result_is_refused(
    host: Host, container: Container, command: str, keys: dict[str, int]
) -> None:
    with pytest.raises(CniFailure, match="chained plugin"):
        host.cni(command, conf(**keys), container)


WRONG = [
    ({"ingressRate": 8000}, "if rate is set, burst must also be set"),
    ({"ingressRate": 8000, "ingressBurst": 0}, "if rate is set, burst must also be set"),
    ({"ingressBurst": 8000}, "if burst is set, rate must also be set"),
    (INGRESS | {"egressBurst": 8000}, "if burst is set, rate must also be set"),
    ({"runtimeConfig": {"bandwidth": {"egressBurst": 8}}}, "if burst is set, rate must also be set"),
    ({"ingressRate": 8000, "ingressBurst": 0xFFFFFFFF * 8}, "burst cannot be more than 4GB"),
    ({"ingressRate": -1, "ingressBurst": 8000}, "ingressRate"),
    ({"ingressRate": "1M", "ingressBurst": 8000}, "ingressRate"),
    ({"ingressRate": 1 << 64, "ingressBurst": 8000}, "ingressRate"),
    ({"runtimeConfig": {"bandwidth": [8000]}}, "bandwidth"),
]


@pytest.mark.parametrize(("keys", "words"), WRONG)
def test_invalid_limit_is_refused(
    host: Host, container: Container, keys: dict[str, Any], words: str
) -> None:
    with pytest.raises(CniFailure, match=words):
        add(host, container, conf(**keys))

    assert qdiscs(host) == set()


@ONE_CODE
@pytest.mark.parametrize("keys", [WRONG[0][0], WRONG[5][0], WRONG[-1][0]])
def test_invalid_limit_has_error_code_7(host: Host, container: Container, keys: dict[str, Any]) -> None:
    with pytest.raises(CniFailure, match="Rate|Burst|bandwidth") as failure:
        add(host, container, conf(**keys))

    assert failure.value.code == 7


@pytest.mark.known_difference(
    "the error of a limit below one byte is the kernel's and does not name the key",
    here="the error names the key",
    right="either",
)
@pytest.mark.parametrize("key", ["ingressRate", "ingressBurst"])
def test_limit_of_less_than_a_byte_is_refused(host: Host, container: Container, key: str) -> None:
    with pytest.raises(CniFailure, match=key):
        add(host, container, conf(**INGRESS | {key: 7}))


# The result


@pytest.mark.parametrize("version", ["0.3.0", "0.4.0", "1.0.0"])
def test_result_names_the_ifb_too(host: Host, container: Container, version: str) -> None:
    sent = conf(version, **EGRESS, prevResult=previous(container, version=version))
    result = host.cni("ADD", sent, container)

    mac = host.link(IFB)["address"]
    assert result["cniVersion"] == version
    assert result["interfaces"] == [*sent["prevResult"]["interfaces"], {"name": IFB, "mac": mac}]


def test_result_of_ingress_is_passed_on(host: Host, container: Container) -> None:
    sent = conf(**INGRESS, prevResult=previous(container))

    assert host.cni("ADD", sent, container) == sent["prevResult"]


def test_ifb_has_the_mtu_of_the_link(host: Host, container: Container) -> None:
    host.run("ip", "link", "set", OUTER, "mtu", "1400")
    host.save_state()

    add(host, container, conf(**EGRESS))

    assert host.link(IFB)["mtu"] == 1400
    assert "UP" in host.link(IFB)["flags"]


# A failed ADD, and an ADD after it


@pytest.mark.parametrize(
    "own",
    [
        pytest.param("root handle 1: pfifo", id="root"),
        pytest.param("root handle 7: tbf rate 1mbit burst 10kb latency 1ms", id="limit"),
        pytest.param("ingress", id="ingress", marks=LEAVES_QDISC),
        pytest.param("clsact", id="clsact", marks=LEAVES_QDISC),
    ],
)
def test_foreign_qdisc_stays(host: Host, container: Container, own: str) -> None:
    """There is no room for the limits beside it.  The error says so, and nothing is left of them."""
    host.run(*f"tc qdisc add dev {OUTER} {own}".split())
    if own == "ingress":
        rule = "protocol all prio 9 u32 match u32 0 0 action mirred ingress redirect dev lo"
        host.run(*f"tc filter add dev {OUTER} ingress {rule}".split())
    before = qdiscs(host)

    with pytest.raises(CniFailure):
        add(host, container, conf(**BOTH))
    assert qdiscs(host) == before

    host.cni("DEL", conf(**BOTH, prevResult=previous(container)), container)
    assert qdiscs(host) == before


@pytest.mark.known_difference(
    'the error is "file exists" and names no qdisc', here="the error names the qdisc", right="either"
)
def test_error_names_the_qdisc_that_is_in_the_way(host: Host, container: Container) -> None:
    host.run(*f"tc qdisc add dev {OUTER} ingress".split())
    rule = "protocol all prio 9 u32 match u32 0 0 action mirred ingress redirect dev lo"
    host.run(*f"tc filter add dev {OUTER} ingress {rule}".split())

    with pytest.raises(CniFailure, match=f"{OUTER} has a qdisc already") as failure:
        add(host, container, conf(**BOTH))

    assert failure.value.details == f"`tc qdisc show dev {OUTER}` shows it"


@pytest.mark.known_difference("ADD fails after a killed ADD: file exists", here="succeeds", right="cnihook")
@pytest.mark.parametrize("left", ["all", "ifb", "half an ifb", "qdiscs", "filter without ifb"])
def test_add_succeeds_after_a_killed_add(host: Host, container: Container, left: str) -> None:
    add(host, container, conf(**EGRESS, ingressRate=8000, ingressBurst=80_000))
    if left in ("ifb", "half an ifb"):
        host.run("ip", "link", "del", OUTER)
        pair(host, container)
        host.before = host.before.without(f"link {IFB}")
    if left == "half an ifb":
        host.run("ip", "link", "set", IFB, "down", "alias", "")
    if left == "filter without ifb":
        host.run("ip", "link", "del", IFB)
    if left == "qdiscs":
        host.run("tc", "filter", "del", "dev", OUTER, "ingress")
        host.run("ip", "link", "del", IFB)

    sent = add(host, container, conf(**BOTH))

    assert limits(host) == {OUTER: INGRESS_TBF, IFB: EGRESS_TBF}
    host.cni("CHECK", sent, container)
