# SPDX-License-Identifier: Apache-2.0
"""Policies of containers: what they may talk to, shown by packets that arrive or do not arrive."""

import json
import socket

import pytest

from tests.support.commands.repair import cnihook
from tests.support.host.host import Host, Outside
from tests.support.host.sockets import EXPERIMENTAL, arrives, connect, frame, packet_socket
from tests.support.policies import (
    LEAVES,
    NO_BR_NETFILTER,
    WITH_BR_NETFILTER,
    Sandbox,
    apply,
    network,
    policy,
    refusal,
    start,
    tcp,
)
from tests.support.runtimes.oci import configure

KINDS = ("bridge", "ptp")


@pytest.fixture
def stage(host: Host) -> Host:
    host.run("sh", "-c", NO_BR_NETFILTER)
    host.leaves(*LEAVES)
    return host


@pytest.mark.parametrize("kind", [*KINDS, "bridge with br_netfilter"])
def test_container_reaches_what_its_list_names_and_nothing_else(stage: Host, kind: str) -> None:
    """Both IP versions; not the host at any of its addresses, not its neighbours."""
    if "br_netfilter" in kind:
        stage.run("sh", "-c", WITH_BR_NETFILTER)
    outside = stage.outside()
    configure(stage, network(kind.split()[0]))
    allowed = f"label:app=db:5432/tcp,{Outside.ADDRESS}:80,[{Outside.ADDRESS6}]:80"
    one, db, other = (
        Sandbox(stage, "one", egress=allowed),
        Sandbox(stage, "db", label="app=db"),
        Sandbox(stage, "other"),
    )

    for version, there, own in ((4, Outside.ADDRESS, Outside.HOST), (6, Outside.ADDRESS6, Outside.HOST6)):
        target = db.address(version)
        assert tcp(one.space, db.space, target, 5432, expected=True)
        assert not tcp(one.space, db.space, target, 5433, expected=False)
        assert not tcp(one.space, other.space, other.address(version), 5432, expected=False)
        assert tcp(one.space, outside, there, 80, expected=True)
        assert not tcp(one.space, outside, there, 81, expected=False)
        gateway = "10.7.0.1" if version == 4 else "fd07::1"
        for address in (gateway, own):
            assert not tcp(one.space, stage, address, 80, expected=False)
        # Others are not limited, and the host reaches every container.
        assert tcp(other.space, db.space, target, 5433, expected=True)
        assert tcp(db.space, one.space, one.address(version), 9, expected=True)
        assert tcp(stage, one.space, one.address(version), 9, expected=True)
        with pytest.raises(OSError, match="No route to host|Permission denied"):
            connect(one.space, other.space, other.address(version), port=5432)
    listed = cnihook(stage, "denied", "one", "--json")
    entries = {(each["peer_name"], each["protocol"], each["port"]) for each in json.loads(listed.stdout)}
    assert ("db", "tcp", 5433) in entries and ("host", "tcp", 80) in entries
    for to, status in (("db:5432/tcp", 0), ("db:5433/tcp", 1), (f"{Outside.ADDRESS}:80", 0), ("host:80", 1)):
        assert cnihook(stage, "policy", "explain", "one", to).returncode == status
    for each in (one, db, other):
        each.stop()
    assert "policy-" not in stage.nft()


@pytest.mark.parametrize("kind", KINDS)
def test_ingress_list_admits_only_its_peers(stage: Host, kind: str) -> None:
    """Also through a published port, whose real client counts."""
    outside = stage.outside()
    configure(stage, network(kind))
    web = Sandbox(stage, "web", ingress="label:app=proxy:80/tcp,outside:81/tcp", publish="8081:81,8080:80")
    proxy, other = Sandbox(stage, "proxy", label="app=proxy"), Sandbox(stage, "other")

    for version in (4, 6):
        assert tcp(proxy.space, web.space, web.address(version), 80, expected=True)
        assert not tcp(proxy.space, web.space, web.address(version), 81, expected=False)
        assert not tcp(other.space, web.space, web.address(version), 80, expected=False)
        assert tcp(stage, web.space, web.address(version), 82, expected=True)
        assert tcp(web.space, other.space, other.address(version), 82, expected=True)

    def is_published(port: int, inside: int, *, expected: bool) -> bool:
        with web.space.socket() as listener, outside.socket() as client:
            listener.bind(("", inside))
            listener.listen()
            client.settimeout(10 if expected else 0.3)
            return client.connect_ex((Outside.HOST, port)) == 0

    assert is_published(8081, 81, expected=True)
    assert not is_published(8080, 80, expected=False)
    # The next container with an address does not have the rights of the one before.
    address = proxy.v4
    proxy.stop()
    assert '"front proxy' not in stage.nft()
    another = Sandbox(stage, "another", ip=address)
    assert not tcp(another.space, web.space, web.v4, 80, expected=False)
    for each in (web, other, another):
        each.stop()


@pytest.mark.parametrize("kind", KINDS)
def test_container_cannot_send_as_another_or_around_the_host(stage: Host, kind: str) -> None:
    """Raw sockets, foreign addresses, foreign MAC addresses and frames to a neighbour do not get out."""
    outside = stage.outside()
    configure(stage, network(kind))
    one, db = Sandbox(stage, "one", egress="none"), Sandbox(stage, "db")

    with outside.socket(socket.SOCK_RAW, socket.AF_INET, socket.IPPROTO_UDP) as receiver:
        receiver.settimeout(0.3)
        for address in (db.v4, "198.51.100.9"):
            one.space.run("ip", "address", "add", f"{address}/32", "dev", "eth0")
            with one.space.socket(socket.SOCK_DGRAM) as sender:
                sender.bind((address, 0))
                sender.sendto(b"x", (Outside.ADDRESS, 9))
            with one.space.socket(socket.SOCK_RAW, socket.AF_INET, socket.IPPROTO_RAW) as sender:
                sender.sendto(udp(address, Outside.ADDRESS), (Outside.ADDRESS, 0))
        with pytest.raises(TimeoutError):
            receiver.recvfrom(100)
    gateway = "10.7.0.1" if kind == "bridge" else "10.7.0.1"
    assert not tcp(one.space, stage, gateway, 80, expected=False)
    link_local = next(
        each["local"]
        for each in stage.link("br-front" if kind == "bridge" else host_end(stage))["addr_info"]
        if each["scope"] == "link" and each["family"] == "inet6"
    )
    with (
        stage.socket(family=socket.AF_INET6) as listener,
        one.space.socket(family=socket.AF_INET6) as client,
    ):
        listener.bind(("::", 80))
        listener.listen()
        client.settimeout(0.3)
        scope = one.space.inside(lambda: socket.if_nametoindex("eth0"))
        assert client.connect_ex((link_local, 80, 0, scope)) != 0
    if kind == "bridge":
        with packet_socket(one.space, "eth0") as sender, packet_socket(db.space, "eth0") as receiver:
            for destination in ("ff:ff:ff:ff:ff:ff", db.space.link("eth0")["address"]):
                sender.send(frame(one.space.link("eth0")["address"], destination))
            assert not arrives(receiver)
        assert EXPERIMENTAL
        # A false answer about the neighbour's address does not reach the host.
        one.space.run("ip", "link", "set", "eth0", "address", "02:00:00:00:00:99")
        assert tcp(stage, db.space, db.v4, 9, expected=True)
        assert not tcp(stage, one.space, one.v4, 9, expected=False)
    for each in (one, db):
        each.stop()


@pytest.mark.parametrize("kind", KINDS)
def test_result_without_interfaces_is_enough(stage: Host, kind: str) -> None:
    """Results before version 0.3.0 do not name the links."""
    configure(stage, network(kind) | {"cniVersion": "0.2.0"})
    one, two = Sandbox(stage, "one"), Sandbox(stage, "two")

    apply(stage, {"name": "all", "select": {"containers": ["one"]}, "egress": {}})
    assert not tcp(one.space, two.space, two.v4, 80, expected=False)
    assert policy(stage, "diff") == []
    one.stop()
    assert "policy-" not in stage.nft()
    one = Sandbox(stage, "one")
    assert not tcp(one.space, two.space, two.v6, 80, expected=False)
    policy(stage, "delete", "all")
    for each in (one, two):
        each.stop()


def test_list_of_a_running_container_is_replaced(stage: Host) -> None:
    """A list that is wrong changes nothing; a network that is attached later has the list, too."""
    stage.leaves("file /run/cnihook/log/one")  # a failure is kept
    configure(stage, network(), network(name="back", number=8))
    one, two = Sandbox(stage, "one", networks="front", egress="none"), Sandbox(stage, "two")

    def ports() -> list[int]:
        return [port for port in (80, 81) if tcp(one.space, two.space, two.v4, port, expected=False)]

    def change(text: str) -> int:
        return cnihook(stage, "update", "one", "--egress", text).returncode

    assert ports() == []
    assert change("container:two:80") == 0 and ports() == [80]
    assert change("hots") == 1 and ports() == [80]
    assert policy(stage, "diff") == []
    assert one.start(networks="back").returncode == 0
    there = two.space.addresses("eth1")[0].partition("/")[0]
    assert not tcp(one.space, two.space, there, 81, expected=False)
    assert change("all") == 0 and tcp(one.space, two.space, there, 81, expected=True)
    assert "policy-" not in stage.nft()
    for each in (one, two):
        each.stop()


def test_container_in_the_namespace_of_another_has_the_lists_of_that_one(stage: Host) -> None:
    """The lists of the second one do not apply to the links there."""
    configure(stage, network(), network(name="back", number=8))
    one, two = Sandbox(stage, "one", networks="front", egress="none"), Sandbox(stage, "two")
    assert start(stage, "guest", one.space, networks="back", egress="all").returncode == 0
    for address in two.space.addresses("eth1"):
        assert not tcp(one.space, two.space, address.partition("/")[0], 81, expected=False)
    for each in (one, two):
        each.stop()
    assert cnihook(stage, "gc").returncode == 0


def host_end(host: Host) -> str:
    """Return the host's end of the first container's link."""
    return sorted(name for name in host.links() if name.startswith("veth"))[0]


def udp(source: str, destination: str) -> bytes:
    """Return an IPv4 packet with an empty datagram; the kernel fills in the checksums."""
    header = bytes([0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0])
    header += socket.inet_aton(source) + socket.inet_aton(destination)
    return header + bytes([0, 9, 0, 9, 0, 8, 0, 0])


def test_policy_that_cannot_be_enforced_fails_the_start(stage: Host) -> None:
    """One line says why; nothing is left, and a container that the policy does not select starts."""
    macvlan = {
        "cniVersion": "1.0.0",
        "name": "lan",
        "plugins": [
            {
                "type": "tap",
                "bridge": "br0",
                "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.9.0.0/24"}]]},
            }
        ],
    }
    configure(stage, network(), macvlan)

    line = refusal(stage, "bad", networks="lan", egress="none")
    assert "its link is a port of a bridge" in line
    assert "egress" in refusal(stage, "bad2", networks="front", egress="pypi.org")
    assert "no policy 'sandbox'" in refusal(stage, "bad3", networks="front", policy="sandbox")
    stage.write(
        "/etc/cnihook/policy.d/a.json", '{"name": "a", "select": {"labels": {"app": "x"}}, "egres": {}}'
    )
    line = refusal(stage, "bad4", networks="front", label="app=x")
    assert '"egres" is not a key of a policy' in line and "egress" in line
    good = Sandbox(stage, "good", networks="front")
    good.stop()
    stage.write("/etc/cnihook/policy.d/a.json", "{")
    assert "is not JSON" in refusal(stage, "bad5", networks="front")
    stage.leaves("file /run/cnihook/log/bad*")


def test_host_policy_and_own_list_both_have_to_allow(stage: Host) -> None:
    """A container can narrow what the host's policies allow, and not widen it; deny comes first."""
    outside = stage.outside()
    configure(stage, network("ptp"))
    rules = {
        "name": "web",
        "select": {"containers": ["w*"]},
        "egress": {
            "deny": [{"to": [Outside.ADDRESS], "ports": ["82/tcp"]}],
            "allow": [{"to": ["all"], "ports": ["80-82/tcp"]}],
        },
    }
    assert apply(stage, rules) == ["new policy web: container:w*"]
    wide, narrow = (
        Sandbox(stage, "w1", egress="all"),
        Sandbox(stage, "w2", egress=f"{Outside.ADDRESS}:81/tcp"),
    )

    def ports(client: Sandbox) -> list[int]:
        return [
            port
            for port in (80, 81, 82, 83)
            if tcp(client.space, outside, Outside.ADDRESS, port, expected=port < 82)
        ]

    assert ports(wide) == [80, 81]
    assert ports(narrow) == [81]
    audit = rules | {"mode": "audit"}
    assert apply(stage, audit) == ["changed policy web: container:w*"]
    assert ports(wide) == [80, 81, 82, 83]
    learned = json.loads("\n".join(policy(stage, "learn", "w1")))
    assert learned["egress"]["allow"] == [
        {"to": [f"{Outside.ADDRESS}/32".removesuffix("/32")], "ports": ["82/tcp", "83/tcp"]}
    ]
    # Cleared by another program: repair restores it.
    before = stage.nft()
    stage.run("nft", "flush", "ruleset")
    assert policy(stage, "diff", status=2) == [
        "the rules that all policies share are missing: another program has removed them"
    ]
    policy(stage, "apply")
    assert sorted(
        line
        for line in before.splitlines()
        if "policy-" in line and "masq" not in line and "denied" not in line and "elements" not in line
    ) == sorted(
        line
        for line in stage.nft().splitlines()
        if "policy-" in line and "masq" not in line and "denied" not in line and "elements" not in line
    )
    assert policy(stage, "diff") == []
    policy(stage, "delete", "web")
    for each in (wide, narrow):
        each.stop()
