# SPDX-License-Identifier: Apache-2.0
"""bandwidth with unshapedSubnets or shapedSubnets: the traffic that the limits apply to."""

import re
from typing import Any

import pytest

from tests.support.host.host import Container, Host
from tests.support.host.namespace import Namespace
from tests.support.plugins.bandwidth import (
    CONTAINER,
    EGRESS,
    HOST,
    INGRESS,
    add,
    addressed,
    check_limit,
    conf,
    ifb_name,
    ifbs,
    linked,
    qdiscs,
)
from tests.support.plugins.cni import CniFailure

SUBNETS_OF_OTHERS = pytest.mark.known_difference(
    "shapedSubnets and unshapedSubnets are ignored (1.1.1), or mean the destination in both directions",
    here="they mean the other end",
    right="cnihook",
)
BOTH = INGRESS | EGRESS
OUTER, IFB = "vc1eth0", ifb_name("c1")
# The host has two addresses on the link; one of them is in the subnets of these tests.
NEAR = {4: "10.8.0.1", 6: "fd08::1"}
FAR = {4: HOST, 6: "fd09::1"}
SUBNETS = {4: "10.8.0.0/24", 6: "fd08::/32"}
OWN = {4: CONTAINER, 6: "fd09::2"}
FREE, LIMITED = "636e:1", "636e:30"


@pytest.fixture
def container(host: Host) -> Container:
    return linked(host)


@pytest.fixture
def addresses(host: Host, container: Container) -> None:
    """Give both ends their addresses and routes, and let the neighbours know each other."""
    addressed(host, container)
    nears = (f"{NEAR[4]}/24", f"{NEAR[6]}/64", f"{FAR[6]}/64")
    host.run("ip", "-batch", "-", input="".join(f"address add {one} dev {OUTER} nodad\n" for one in nears))
    container.run("ip", "-batch", "-", input=f"""\
address add {OWN[6]}/64 dev eth0 nodad
route add 10.8.0.0/24 via {FAR[4]}
""")  # fmt: skip
    container.run("ip", "route", "add", "fd08::/64", "via", FAR[6])
    for version in (4, 6):
        container.run("ping", f"-{version}", "-c1", "-W5", FAR[version])
        container.run("ping", f"-{version}", "-c1", "-W5", NEAR[version])
    host.save_state()


def packets(namespace: Namespace, dev: str) -> dict[str, int]:
    """Return how many packets each class has sent."""
    text = namespace.run("tc", "-s", "class", "show", "dev", dev).stdout
    counts = re.findall(r"class htb (\S+) .*\n Sent \d+ bytes (\d+) pkt", text)
    return {name: int(count) for name, count in counts}


def classes_of_a_ping(host: Host, version: int, source: str) -> tuple[str, str]:
    """Return the class of an echo request to the container, and that of its reply."""
    before = {dev: packets(host, dev) for dev in (OUTER, IFB)}
    host.run("ping", f"-{version}", "-c20", "-l20", "-W5", "-I", source, OWN[version])
    counted = []
    for dev, counts in before.items():
        (name,) = [each for each, count in packets(host, dev).items() if count - counts[each] >= 20]
        counted.append(name)
    return counted[0], counted[1]


@pytest.mark.usefixtures("addresses")
@SUBNETS_OF_OTHERS
@pytest.mark.parametrize("place", ["network", "runtime", "subnets of the network"])
@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("key", ["unshapedSubnets", "shapedSubnets"])
def test_subnets_mean_the_other_end_in_both_directions(
    host: Host, container: Container, key: str, version: int, place: str
) -> None:
    subnets = {key: [SUBNETS[4], SUBNETS[6]]}
    keys: dict[str, Any] = BOTH | subnets
    if place == "runtime":
        keys = {"runtimeConfig": {"bandwidth": BOTH | subnets}}
    elif place == "subnets of the network":
        keys = {"runtimeConfig": {"bandwidth": BOTH}} | subnets
    add(host, container, conf(**keys))

    inside, outside = (FREE, LIMITED) if key == "unshapedSubnets" else (LIMITED, FREE)
    assert classes_of_a_ping(host, version, NEAR[version]) == (inside, inside)
    assert classes_of_a_ping(host, version, FAR[version]) == (outside, outside)


@pytest.mark.usefixtures("addresses")
@pytest.mark.parametrize("key", ["unshapedSubnets", "shapedSubnets"])
def test_limited_class_has_the_limit(host: Host, container: Container, key: str) -> None:
    add(
        host,
        container,
        conf(**BOTH, **{key: ["10.8.0.0/24" if key == "unshapedSubnets" else "10.9.0.0/24"]}),
    )

    check_limit(host, container, CONTAINER, *INGRESS.values())
    check_limit(container, host, HOST, *EGRESS.values())


@pytest.mark.usefixtures("addresses")
@SUBNETS_OF_OTHERS
@pytest.mark.parametrize("subnet", ["0.0.0.0/0", "::/0"])
def test_subnet_may_be_all_addresses_of_a_version(host: Host, container: Container, subnet: str) -> None:
    add(host, container, conf(**BOTH, unshapedSubnets=[subnet]))

    own, other = (6, 4) if ":" in subnet else (4, 6)
    assert classes_of_a_ping(host, own, FAR[own]) == (FREE, FREE)
    assert classes_of_a_ping(host, other, FAR[other]) == (LIMITED, LIMITED)


@SUBNETS_OF_OTHERS
@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"unshapedSubnets": ["10.0.0.0/8"], "shapedSubnets": ["10.0.0.0/8"]}, "cannot be set together"),
        ({"unshapedSubnets": ["nonsense"]}, r"unshapedSubnets\[0\].*nonsense"),
        ({"shapedSubnets": ["10.0.0.0/8", "10.0.0.1"]}, r"shapedSubnets\[1\].*10\.0\.0\.1"),
        ({"shapedSubnets": "10.0.0.0/8"}, "shapedSubnets.*list"),
        ({"shapedSubnets": [8]}, r"shapedSubnets\[0\]"),
    ],
)
@pytest.mark.parametrize("place", ["network", "runtime"])
def test_invalid_subnets_are_refused(
    host: Host, container: Container, keys: dict[str, Any], words: str, place: str
) -> None:
    if place == "runtime":
        keys = {"runtimeConfig": {"bandwidth": keys | BOTH}}
    with pytest.raises(CniFailure, match=words):
        add(host, container, conf(**(keys | (BOTH if place == "network" else {}))))

    assert qdiscs(host) == set()


@pytest.mark.parametrize("keys", [{"unshapedSubnets": []}, {"shapedSubnets": [], "unshapedSubnets": []}])
def test_empty_lists_limit_everything(host: Host, container: Container, keys: dict[str, Any]) -> None:
    add(host, container, conf(**BOTH, **keys))

    assert {each for each in qdiscs(host) if "tbf" in each} == {f"tbf on {OUTER}", f"tbf on {IFB}"}


@SUBNETS_OF_OTHERS
def test_del_leaves_the_link_without_limits(host: Host, container: Container) -> None:
    sent = add(host, container, conf(**BOTH, unshapedSubnets=["10.8.0.0/24"]))
    host.cni("DEL", sent, container)

    assert qdiscs(host) == set() and ifbs(host) == set()
    host.cni("DEL", sent, container)


@SUBNETS_OF_OTHERS
def test_del_leaves_the_htb_of_another_program(host: Host, container: Container) -> None:
    sent = add(host, container, conf(**EGRESS, unshapedSubnets=["10.8.0.0/24"]))
    host.run(*f"tc qdisc add dev {OUTER} root handle 1: htb default 30".split())
    host.cni("DEL", sent, container)

    assert qdiscs(host) == {f"htb on {OUTER}"}
    host.run(*f"tc qdisc del dev {OUTER} root".split())


FILTER = f"tc filter add dev {OUTER} parent 636e: protocol ip prio 16 u32"


@SUBNETS_OF_OTHERS
@pytest.mark.parametrize(
    "damage",
    [
        f"tc qdisc del dev {OUTER} root",
        f"tc filter del dev {OUTER} parent 636e:",
        f"{FILTER} match ip src 10.7.0.0/24 flowid 636e:1",
        f"tc class change dev {OUTER} parent 636e: classid 636e:30 htb rate 21mbit burst 50000",
        f"tc class change dev {IFB} parent 636e: classid 636e:30 htb rate 16mbit burst 60000",
        f"tc qdisc del dev {IFB} root",
    ],
    ids=["no qdisc", "no filter", "another filter", "rate", "burst", "none on the ifb"],
)
@pytest.mark.parametrize("key", ["unshapedSubnets", "shapedSubnets"])
def test_check_finds_damage_and_repair_undoes_it(
    host: Host, container: Container, key: str, damage: str
) -> None:
    sent = add(host, container, conf(**BOTH, **{key: [SUBNETS[4], SUBNETS[6]]}))
    host.cni("CHECK", sent, container)
    host.run(*damage.split())

    with pytest.raises(CniFailure):
        host.cni("CHECK", sent, container)
    add(host, container, conf(**BOTH, **{key: [SUBNETS[4], SUBNETS[6]]}))  # a repair does the same
    host.cni("CHECK", sent, container)


@SUBNETS_OF_OTHERS
def test_check_finds_changed_subnets(host: Host, container: Container) -> None:
    sent = add(host, container, conf(**BOTH, unshapedSubnets=["10.8.0.0/24"]))

    changes: list[dict[str, Any]] = [
        {"unshapedSubnets": ["10.7.0.0/24"]},
        {"unshapedSubnets": []},
        {"shapedSubnets": ["10.8.0.0/24"]},
    ]
    for keys in changes:
        with pytest.raises(CniFailure):
            host.cni("CHECK", sent | {"unshapedSubnets": []} | keys, container)
