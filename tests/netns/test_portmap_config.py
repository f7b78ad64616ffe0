# SPDX-License-Identifier: Apache-2.0
"""portmap: the configurations that are refused, and the keys that change how a port is reached."""

from typing import Any

import pytest

from tests.netns.differences import OLD_KEYS, ONE_CODE, SPEC_1_1
from tests.support.host.host import Host, Outside
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
    reached,
    seen,
)

TAKES_IT = pytest.mark.known_difference(
    "accepts a port of another container, and one of the two is never reached",
    here="refused; the error names the other container",
    right="cnihook",
)
BOTH = (SUBNET, SUBNET6)


def refused(host: Host, *requests: Any) -> list[CniFailure]:
    """Return the error of each request.  No port may be left, and no rule that leads to one."""
    container, result = attach(host, *BOTH)
    before = host.nft()
    errors = []
    for sent in requests:
        with pytest.raises(CniFailure) as failure:
            publish(host, container, result, sent)
        errors.append(failure.value)
    assert host.nft() == before
    return errors


# Ports


WRONG = [
    (mapping(0), "Invalid host port number: 0"),
    (mapping(-1), "Invalid host port number: -1"),
    (mapping(65536), "Invalid host port number: 65536"),
    (mapping(80, 0), "Invalid container port number: 0"),
    (mapping(80, 65536), "Invalid container port number: 65536"),
    ({"hostPort": "80", "containerPort": 80, "protocol": "tcp"}, "hostPort"),
    ({"hostPort": 8080, "containerPort": 80}, "protocol"),
    (mapping(80, 80, "icmp"), "icmp"),
    (mapping(80, ip="localhost"), "localhost"),
    (mapping(80, ip="::1"), "::1"),
]


@ONE_CODE
def test_error_names_an_invalid_mapping(host: Host) -> None:
    for (wrong, word), error in zip(
        WRONG, refused(host, *(conf(mapping(8080), wrong) for wrong, _ in WRONG)), strict=True
    ):
        assert error.code == 7, wrong
        assert word in error.msg


@pytest.mark.known_difference(
    "of two mappings of one port, the first is used, without an error", here="refused", right="cnihook"
)
def test_port_with_two_targets_is_refused(host: Host) -> None:
    contradictions = [
        [mapping(8080, 80), mapping(8080, 81)],
        [mapping(8080, 80), mapping(8080, 81, ip="127.0.0.1")],
        [mapping(8080, 80, ip="127.0.0.1"), mapping(8080, 81, ip="0.0.0.0")],
    ]
    for error in refused(host, *(conf(*mappings) for mappings in contradictions)):
        assert "8080/tcp" in error.msg


def test_repeated_mapping_is_published_once(host: Host) -> None:
    twice = [mapping(8080), mapping(8080), mapping(8080, ip="127.0.0.1"), mapping(8080, 53, "udp")]
    container = published(host, *twice)

    for own in (GATEWAY, "127.0.0.1"):
        assert seen(host, container, own, 8080) == GATEWAY
        assert seen(host, container, own, 8080, 53, protocol="udp") == GATEWAY


CONFLICTS = [
    (mapping(8080), mapping(8080, 81)),
    (mapping(8081, 53, "udp"), mapping(8081, 53, "udp")),
    (mapping(8082, ip=Outside.HOST), mapping(8082, ip=Outside.HOST)),
    (mapping(8083), mapping(8083, ip=Outside.HOST)),
    (mapping(8084, ip=Outside.HOST), mapping(8084)),
    (mapping(8085, ip=Outside.HOST6), mapping(8085, ip="::")),
]
NO_CONFLICTS = [
    (mapping(8080), mapping(8081)),
    (mapping(8082, 80), mapping(8082, 80, "udp")),
    (mapping(8083, ip=Outside.HOST), mapping(8083, ip="127.0.0.1")),
    (mapping(8084, ip="0.0.0.0"), mapping(8084, ip="::")),
]


@TAKES_IT
def test_port_of_another_container_is_refused(host: Host) -> None:
    """The error names the container.  All addresses include each one, as for bind(2) and Docker."""
    published(host, *(first for first, _ in CONFLICTS), subnets=BOTH)

    errors = refused(host, *(conf(mapping(9000), second, name="net2") for _, second in CONFLICTS))

    for (first, _), error in zip(CONFLICTS, errors, strict=True):
        assert f"{first['hostPort']}/{first['protocol']}" in error.msg
        assert "container c1" in error.msg and "network net1" in error.msg


def test_different_ports_do_not_conflict(host: Host) -> None:
    published(host, *(first for first, _ in NO_CONFLICTS), subnets=BOTH)
    published(host, *(second for _, second in NO_CONFLICTS), subnets=BOTH)


def test_port_is_free_again_after_del(host: Host) -> None:
    """A port on two of the host's addresses is free only when both are."""
    ends = []
    for ip in ("127.0.0.1", "127.0.0.2"):
        container, result = attach(host)
        ends.append((publish(host, container, result, conf(mapping(8080, ip=ip))), container))
    host.cni("DEL", *ends[0])
    if host.implementation and host.implementation.name == "builtin":
        assert "c2" in refused(host, conf(mapping(8080)))[0].msg
    host.cni("DEL", *ends[1])

    container = published(host, mapping(8080))

    assert seen(host, container, "127.0.0.1", 8080) == GATEWAY


@pytest.mark.known_difference(
    "the second network of a container takes the port over, and DEL of either network removes it",
    here="the first network keeps it",
    right="SPEC.md, 2 DEL",
    fixed_in="1.9.1",
)
def test_port_stays_with_the_first_network_of_the_container(host: Host) -> None:
    """Podman passes all published ports to each network of a container."""
    container, first = attach(host)
    sent = publish(host, container, first, conf(mapping(8080)))
    other = network("10.8.0.0/24", name="net2", bridge="cni1")
    second = host.cni("ADD", other, container, "eth1")
    late = conf(mapping(8080), name="net2") | {"prevResult": second}
    host.cni("ADD", late, container, "eth1")
    host.cni("CHECK", late, container, "eth1")
    assert seen(host, container, GATEWAY, 8080) == GATEWAY

    host.cni("DEL", late, container, "eth1")
    assert seen(host, container, GATEWAY, 8080) == GATEWAY
    host.cni("CHECK", sent, container)


def test_add_replaces_an_add_without_del(host: Host) -> None:
    """A runtime that crashed begins again with ADD."""
    container, result = attach(host)
    for target in (80, 81):
        publish(host, container, result, conf(mapping(8080, target), mapping(9000 + target)))

    assert seen(host, container, GATEWAY, 8080, 80 if "CNI-DN" in host.nft() else 81) == GATEWAY


# Keys


WRONG_KEYS: list[tuple[dict[str, Any], str]] = [
    ({"markMasqBit": 32}, "must be between 0 and 31"),
    ({"markMasqBit": -1}, "must be between 0 and 31"),
    ({"markMasqBit": 5, "externalSetMarkChain": "KUBE-MARK-MASQ"}, "externalSetMarkChain"),
    ({"snat": "no"}, "snat"),
    ({"conditionsV4": "-s 192.0.2.0/24"}, "conditionsV4"),
]
WRONG_NEW_KEYS: list[tuple[dict[str, Any], str]] = [
    ({"masqAll": 1}, "masqAll"),
    ({"backend": "pf"}, "unrecognized backend"),
    ({"backend": "nftables", "conditionsV4": ["-s", "192.0.2.0/24"]}, "conditionsV4"),
    ({"backend": "iptables", "conditionsV6": ["ip6 saddr fd00::/8"]}, "conditionsV6"),
    ({"backend": "nftables", "externalSetMarkChain": "X"}, "externalSetMarkChain"),
]


@pytest.mark.parametrize(
    "wrong", [WRONG_KEYS, pytest.param(WRONG_NEW_KEYS, marks=OLD_KEYS)], ids=["old", "new"]
)
def test_error_names_an_invalid_key(host: Host, wrong: list[tuple[dict[str, Any], str]]) -> None:
    """Also if no port is published, so that the mistake shows before a container needs a port."""
    for mappings in ([], [mapping(8080)]):
        errors = refused(host, *(conf(*mappings, **keys) for keys, _ in wrong))
        for (_, word), error in zip(wrong, errors, strict=True):
            assert word in error.msg


def test_keys_that_select_the_implementation_make_no_difference(host: Host) -> None:
    ways: list[dict[str, Any]] = [{"markMasqBit": 31}, {"backend": "iptables"}, {"backend": "nftables"}]
    containers = [published(host, mapping(8000 + i), **keys) for i, keys in enumerate(ways)]

    for i, container in enumerate(containers):
        assert seen(host, container, "127.0.0.1", 8000 + i) == GATEWAY


def test_external_chain_for_marks_is_not_needed(host: Host) -> None:
    """The packets that it would mark for masquerading are masqueraded without it."""
    host.leaves("nft: table ip nat*")
    host.run(
        "sh",
        "-ec",
        "iptables -t nat -N KUBE-MARK-MASQ; iptables -t nat -A KUBE-MARK-MASQ -j MARK --or-mark 0x4000;"
        " iptables -t nat -A POSTROUTING -m mark --mark 0x4000/0x4000 -j MASQUERADE",
    )
    container = published(host, mapping(8080), externalSetMarkChain="KUBE-MARK-MASQ")

    assert seen(host, container, "127.0.0.1", 8080) == GATEWAY


# Conditions

IPTABLES = [
    (["-s", "198.51.100.0/24"], True),
    (["-s", "192.0.2.0/24"], False),
    (["!", "-s", "198.51.100.2"], False),
    (["!", "-d", "192.0.2.0/24"], True),
    (["--source", "198.51.100.2/255.255.255.255", "-i", "up+"], True),
    (["--src", "0.0.0.0/0", "!", "-i", "up0"], False),
    (["-d", "192.0.2.1,198.51.100.1"], True),
]
NFT = [
    (["ip", "saddr", "198.51.100.0/24"], True),
    (["ip saddr != { 198.51.100.2, 192.0.2.1 }"], False),
    (['iifname "up*"', "tcp sport 1024-65535"], True),
    (["meta", "mark", "&", "0x1", "==", "0x1"], False),
]


ANY_CONDITION = pytest.mark.known_difference(
    "passes a wrong condition on to nftables", here="refused; the error names the key", right="either"
)


@pytest.mark.parametrize(
    "cases", [IPTABLES, pytest.param(NFT, marks=ANY_CONDITION)], ids=["iptables", "nft"]
)
def test_port_is_reached_under_its_conditions_only(host: Host, cases: list[tuple[list[str], bool]]) -> None:
    """A condition is in the language of iptables or in that of nft."""
    outside = host.outside()
    container, result = attach(host)

    for conditions, expected in cases:
        sent = publish(host, container, result, conf(mapping(8080), conditionsV4=conditions))
        assert reached(outside, container, Outside.HOST, 8080, expected=expected) == expected, conditions
        host.cni("DEL", sent, container)


def test_ipv6_has_its_own_conditions(host: Host) -> None:
    outside = host.outside()
    conditions = {"conditionsV4": ["-s", "192.0.2.1"], "conditionsV6": ["-s", "2001:db8:100::/64"]}
    container = published(host, mapping(8080), subnets=BOTH, **conditions)

    assert seen(outside, container, Outside.HOST6, 8080) == Outside.ADDRESS6
    assert not reached(outside, container, Outside.HOST, 8080)


def test_each_network_has_its_own_conditions(host: Host) -> None:
    """Conditions of another network do not change them, and one port may have two targets."""
    outside = host.outside()
    near = published(host, mapping(8080), conditionsV4=["!", "-s", Outside.ADDRESS], name="net1")
    far = published(host, mapping(8080), conditionsV4=["-s", Outside.ADDRESS], name="net2")
    free = published(host, mapping(8081), name="net3")

    assert seen(outside, far, Outside.HOST, 8080) == Outside.ADDRESS
    assert seen(host, near, GATEWAY, 8080) == GATEWAY
    assert seen(outside, free, Outside.HOST, 8081) == Outside.ADDRESS


@TAKES_IT
def test_port_in_use_under_the_same_conditions_is_refused(host: Host) -> None:
    conditions = ["-s", "198.51.100.0/24"]
    published(host, mapping(8080), conditionsV4=conditions)

    assert "c1" in refused(host, conf(mapping(8080), conditionsV4=conditions))[0].msg


@pytest.mark.known_difference(
    "a condition may be any option of iptables", here="a condition is a match only", right="cnihook"
)
def test_condition_that_is_more_than_a_match_is_refused(host: Host) -> None:
    """A condition selects packets and may do nothing else.  The unit tests have more cases."""
    tricks = [
        ["-s", "192.0.2.1", "-j", "ACCEPT"],
        ["ip saddr 192.0.2.1; add table inet evil; #"],
        ["ip saddr 192.0.2.1\nadd table inet evil"],
        ["ip saddr 192.0.2.1 accept"],
        ["ip saddr nonsense"],
    ]
    requests = [
        conf(mapping(8080)) | {f"conditionsV{version}": words} for words in tricks for version in (4, 6)
    ]

    refused(host, *requests)

    assert "evil" not in host.nft()


# Versions


@pytest.mark.parametrize("version", ["0.3.1", "1.0.0", pytest.param("1.1.0", marks=SPEC_1_1)])
def test_result_is_passed_on(host: Host, version: str) -> None:
    container, result = attach(host, version=version)

    sent = conf(mapping(8080), version=version) | {"prevResult": result}
    assert host.cni("ADD", sent, container) == result
