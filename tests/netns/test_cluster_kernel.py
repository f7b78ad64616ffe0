# SPDX-License-Identifier: Apache-2.0
"""The kernel of hosts that share a network: three namespaces on a switch stand for them."""

import ipaddress
import json
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cnihook.cluster import transport
from cnihook.cluster.kernel import Changes, TransportError
from cnihook.cluster.model import Block, Settings
from cnihook.cluster.transport import managers
from cnihook.linux.rtnl import Rtnl
from tests.support.cluster.kernel_hosts import SWITCH, ClusterHost, inside, join, member
from tests.support.host.host import Container, Host
from tests.support.host.sockets import connect
from tests.support.wait import SILENCE, patience

BOTH = ("10.60.0.0/16", "fd00:60::/48")


@pytest.fixture(autouse=True)
def implementation() -> None:
    """No plugin takes part: one run is enough."""


@pytest.fixture(autouse=True)
def folder_of_networkd(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Return the folder in which to look for systemd-networkd, instead of the machine's."""
    monkeypatch.setattr(managers, "_NETWORKD_RAN", str(tmp_path / "state"))
    monkeypatch.setattr(managers, "_FOLDERS", (str(tmp_path),))
    monkeypatch.setattr(managers, "_DEVICES_OF_NETWORK_MANAGER", str(tmp_path))
    return tmp_path


def settings(kind: str, *subnets: str, mtu: int = 1450, **more: Any) -> Settings:
    nets = tuple(map(ipaddress.ip_network, subnets or BOTH))
    blocks = tuple(24 if net.version == 4 else 64 for net in nets)
    return Settings(nets, blocks, kind, mtu, "e1", "", **more)


def hosts_of(
    host: Host, tmp_path: Path, chosen: Settings, *, count: int = 3, underlay: int = 4
) -> list[ClusterHost]:
    host.leaves("*")
    host.run("ip", "-batch", "-", input=SWITCH)
    return [ClusterHost(host, chosen, n, tmp_path, underlay=underlay) for n in range(1, count + 1)]


def fragments(space: Container) -> int:
    """Return the number of fragments that a namespace has made."""

    def read() -> int:
        lines = [line.split() for line in Path("/proc/thread-self/net/snmp").read_text().splitlines()]
        names, values = [line for line in lines if line[0] == "Ip:"]
        ipv6 = dict(line.split() for line in Path("/proc/thread-self/net/snmp6").read_text().splitlines())
        return int(values[names.index("FragCreates")]) + int(ipv6["Ip6FragCreates"])

    return space.inside(read)


def largest(address: str, mtu: int) -> list[str]:
    """Return a ping that fills the MTU and must not be fragmented."""
    size = mtu - (48 if ":" in address else 28)
    return ["ping", "-c1", "-W2", "-q", "-M", "do", "-s", str(size), address]


def assert_all_reach_all(hosts: list[ClusterHost]) -> None:
    for one in hosts:
        for other in hosts:
            if one is not other:
                for source, address in zip(one.addresses, other.addresses, strict=True):
                    assert connect(one.container, other.container, address) == source
                    # The host itself, too; its address is one of the block or of the link to the others.
                    assert connect(one.space, other.container, address)


@pytest.mark.parametrize(
    ("kind", "underlay", "mtu"),
    [("vxlan", 4, 1450), ("vxlan", 6, 1430), ("routes", 6, 1500)],
    ids=["vxlan", "vxlan over IPv6", "routes"],
)
def test_containers_of_three_hosts_reach_each_other(
    host: Host, tmp_path: Path, kind: str, underlay: int, mtu: int
) -> None:
    """Both IP versions, each host with each, at full size without a fragment; then one host is gone."""
    hosts = hosts_of(host, tmp_path, settings(kind, mtu=mtu), underlay=underlay)
    join(hosts)

    assert_all_reach_all(hosts)
    one, two, three = hosts
    for address in two.addresses:
        one.container.run(*largest(address, mtu))
    assert [fragments(each.space) for each in hosts] == [0, 0, 0]
    assert [inside(each.space, each.transport.check) for each in hosts] == [[], [], []]

    # A second pass sends nothing.  A smaller view deletes nothing, unless it may.
    blocks = [each.block for each in hosts]
    assert join(hosts) == [Changes()] * 3
    assert one.program(blocks[0], blocks[1:2], may_delete=False) == Changes()
    assert connect(one.container, three.container, three.addresses[0])
    per_block = 6 if kind == "vxlan" else 4  # a nexthop and a route, and with vxlan a neighbour, by version
    assert one.program(blocks[0], blocks[1:2]) == Changes(deleted=per_block)
    assert connect(one.container, two.container, two.addresses[0])

    # The block moves to another host: its objects are replaced, so there is no moment without a route.
    moved = Block(2, member(3, three.address, mac=blocks[2].member.mac))
    assert one.program(blocks[0], [moved]) == Changes(replaced=4 if kind == "vxlan" else 2)

    inside(one.space, one.transport.remove)
    assert "proto 117" not in one.space.run("ip", "nexthop").stdout
    for version in ("-4", "-6"):
        assert one.space.run("ip", version, "route", "show", "proto", "117").stdout == ""
    assert one.space.links() >= {"eth0", "wide0"} and "vx-wide" not in one.space.links()
    assert "cnihook" not in one.space.run("nft", "list", "ruleset").stdout


def test_what_was_flushed_comes_back_and_is_reported(host: Host, tmp_path: Path) -> None:
    """Another program flushes routes, deletes nexthops, or deletes or lowers the device or the link."""
    one, two, three = hosts = hosts_of(host, tmp_path, settings("vxlan"))
    blocks = [each.block for each in hosts]
    join(hosts)
    stop = threading.Event()
    seen: list[None] = []
    came = threading.Condition()

    def follow() -> None:
        def wait() -> None:
            for _ in transport.events(stop):
                with came:
                    seen.append(None)
                    came.notify()

        one.space.inside(wait)

    thread = threading.Thread(target=follow)
    thread.start()
    try:
        for damage in (
            "route delete 10.60.2.0/24",
            "-6 route delete fd00:60:0:2::/64",
            "nexthop flush proto 117",
            "link set vx-wide down",
            "link delete vx-wide",
        ):
            with came:
                assert came.wait_for(lambda: bool(seen), patience())
                while came.wait(SILENCE):
                    pass  # the events of the last pass
                seen.clear()
                one.space.run("ip", *damage.split())
                assert came.wait_for(lambda: bool(seen), patience()), damage
            assert one.program(blocks[0], blocks[1:]).added
            assert connect(one.container, two.container, two.addresses[0]) == one.addresses[0]
            assert connect(three.container, one.container, one.addresses[1]) == three.addresses[1]
        with came:
            while came.wait(SILENCE):
                pass
            seen.clear()
            # The start of a container is not an event.
            one.space.run("ip", "link", "add", "c9", "type", "veth", "peer", "name", "c8")
            one.space.run("ip", "link", "set", "c9", "up", "master", "wide0")
            assert not came.wait_for(lambda: bool(seen), SILENCE)
    finally:
        stop.set()
        thread.join()


def test_entries_of_other_programs_stay(host: Host, tmp_path: Path) -> None:
    one, two, _three = hosts = hosts_of(host, tmp_path, settings("routes", BOTH[0], mtu=1500))
    ids = one.transport.ids
    others = [
        "nexthop add id 7 via 172.16.0.9 dev eth0 proto 117",
        f"nexthop add id {ids.start + 90} via 172.16.0.9 dev eth0 proto static",
        "route add 10.60.77.0/24 via 172.16.0.9 proto static",
        "route add 192.0.2.0/24 nhid 7 proto 117",
    ]
    one.space.run("ip", "-batch", "-", input="\n".join(others))
    before = one.space.run("ip", "route", "show", "proto", "static").stdout
    join(hosts)

    for _ in range(2):
        assert one.space.run("ip", "route", "show", "proto", "static").stdout == before
        assert "10.60.2.0/24" in one.space.run("ip", "route").stdout
        shown = [json.loads(one.space.run("ip", "-j", *words).stdout) for words in (["nexthop"], ["route"])]
        assert {7, ids.start + 90} <= {each["id"] for each in shown[0]}
        assert "192.0.2.0/24" in {each["dst"] for each in shown[1]}
        # A route of another program to a block of the network: an error, and all others are right.
        foreign = Block(77, member(77, "172.16.0.2"))
        blocks = [each.block for each in hosts]
        with pytest.raises(TransportError, match=r"route 10\.60\.77\.0/24: there is a route of another"):
            one.program(blocks[0], [*blocks[1:], foreign])
        assert connect(one.container, two.container, two.addresses[0]) == one.addresses[0]
    # A second network of the host.
    second = transport.of(settings("vxlan", "10.70.0.0/16", port=4790), "second", str(tmp_path))
    own, other = (Block(n, member(n, f"172.16.0.{n}", mac=f"02:00:00:00:01:{n:02x}")) for n in (1, 2))
    assert inside(one.space, lambda: second.program(own, [other], may_delete=True)) == Changes(added=4)
    inside(one.space, one.transport.remove)
    assert one.space.run("ip", "route", "show", "proto", "static").stdout == before
    left = one.space.run("ip", "route", "show", "proto", "117").stdout.splitlines()
    assert sorted(line.split(" nhid")[0] for line in left) == [
        "10.70.2.0/24",
        "192.0.2.0/24",
        f"unreachable 10.70.1.0/24 metric {1 << 30} ",
    ]
    assert inside(one.space, lambda: second.program(own, [other], may_delete=True)) == Changes()


def test_host_that_is_not_on_the_link_is_reported(host: Host, tmp_path: Path) -> None:
    one, two = hosts = hosts_of(host, tmp_path, settings("routes"), count=2)
    blocks = [each.block for each in hosts]
    far = Block(9, member(9, "192.0.2.9"))

    with pytest.raises(TransportError) as caught:
        one.program(blocks[0], [far, *blocks[1:]])

    assert "h9: 192.0.2.9 is not on a link of this host" in str(caught.value)
    assert "h2: fd00:60:0:2::/64 needs an IPv6 address of the host, not 172.16.0.2" in str(caught.value)
    two.program(blocks[1], [])  # its answers leave by the link to the other host
    assert "10.60.2.0/24" in one.space.run("ip", "route").stdout


# The port


def vxlan_packet(vni: int, mac: str, source: str, destination: str, text: bytes) -> bytes:
    """Return the content of a UDP packet that carries another one, to port 9999 of a container.

    `mac`: that of the device which receives it.
    """
    udp = struct.pack("!HHHH", 9999, 9999, 8 + len(text), 0) + text
    header = struct.pack(
        "!BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 1, 0, 64, 17, 0,
        socket.inet_aton(source), socket.inet_aton(destination),
    )  # fmt: skip
    total = sum(struct.unpack("!10H", header))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    header = header[:10] + struct.pack("!H", ~total & 0xFFFF) + header[12:]
    macs = bytes.fromhex(f"{mac}:02:00:00:00:00:09".replace(":", ""))
    return struct.pack("!II", 0x08000000, vni << 8) + macs + b"\x08\x00" + header + udp


def test_port_of_vxlan_is_closed_to_others(host: Host, tmp_path: Path) -> None:
    chosen = settings("vxlan")
    one, two, three = hosts = hosts_of(host, tmp_path, chosen)
    blocks = [each.block for each in hosts]
    join(hosts[:2])
    mac = blocks[0].member.mac
    packet = vxlan_packet(chosen.vni, mac, two.addresses[0], one.addresses[0], b"injected")

    with one.container.socket(socket.SOCK_DGRAM) as receiver:
        receiver.bind(("", 9999))

        def arrives(sender: ClusterHost, *, expected: bool) -> bool:
            with sender.space.socket(socket.SOCK_DGRAM) as out:
                out.sendto(packet, (one.address, chosen.port))
            receiver.settimeout(5 if expected else SILENCE)
            try:
                return receiver.recv(100) == b"injected"
            except TimeoutError:
                return False

        assert arrives(two, expected=True)  # a member could
        assert not arrives(three, expected=False)
        one.program(blocks[0], blocks[1:])
        assert arrives(three, expected=True)
        one.space.run("nft", "flush", "table", "inet", "cnihook-vx-wide")
        assert arrives(three, expected=True)
        one.program(blocks[0], blocks[1:2])  # the rules are back
        assert not arrives(three, expected=False)


def test_forwarding_passes_a_firewall_that_drops(host: Host, tmp_path: Path) -> None:
    """Docker sets this policy.  The plugin firewall accepts what containers of the host send."""
    one, two = hosts = hosts_of(host, tmp_path, settings("vxlan", BOTH[0]), count=2)
    one.space.run("sh", "-c", "iptables -P FORWARD DROP; iptables -A FORWARD -i wide0 -j ACCEPT")
    host.leaves("*")
    join(hosts)

    assert connect(two.container, one.container, one.addresses[0]) == two.addresses[0]
    assert connect(one.container, two.container, two.addresses[0]) == one.addresses[0]
    rules = one.space.run("iptables", "-S").stdout
    assert "-i vx-wide" in rules
    join(hosts)
    assert one.space.run("iptables", "-S").stdout == rules
    inside(one.space, one.transport.remove)
    assert "vx-wide" not in one.space.run("iptables", "-S").stdout


def test_problems_are_reported(host: Host, tmp_path: Path, folder_of_networkd: Path) -> None:
    one, _two = hosts = hosts_of(host, tmp_path, settings("vxlan"), count=2)
    blocks = [each.block for each in hosts]
    check = one.transport.check
    assert inside(one.space, check) == [
        "vx-wide: the device is missing",
        "UDP port 4789: is not closed to hosts of no network",
    ]

    one.space.run("ip", "link", "add", "flannel.1", "type", "vxlan", "external", "dstport", "4789")
    with pytest.raises(OSError, match=r"UDP port 4789: vxlan device flannel\.1 has it"):
        one.program(blocks[0], blocks[1:])
    assert any("flannel.1 has it" in line for line in inside(one.space, check))
    one.space.run("ip", "link", "delete", "flannel.1")

    one.space.run("ip", "link", "add", "vx-wide", "type", "veth", "peer", "name", "c8")
    with pytest.raises(TransportError, match="link vx-wide was not made by cnihook"):
        one.program(blocks[0], blocks[1:])
    one.space.run("ip", "link", "delete", "vx-wide")

    join(hosts)
    assert inside(one.space, check) == []
    one.space.run("ip", "link", "set", "eth0", "mtu", "1400")
    one.space.run("ip", "link", "set", "vx-wide", "mtu", "1300")
    assert inside(one.space, check) == [
        "vx-wide: MTU 1300, the network has 1450",
        "eth0: MTU 1400 is too small: network wide has 1450, and vxlan adds 50",
    ]
    one.space.run("ip", "link", "set", "vx-wide", "down")
    assert "vx-wide: the device is down" in inside(one.space, check)
    index = one.space.link("vx-wide")["ifindex"]
    (folder_of_networkd / str(index)).write_text("[device]\nmanaged=true\n")
    (folder_of_networkd / "state").touch()
    (folder_of_networkd / "networkd.conf").write_text("[Network]\nManageForeignRoutes = no\n")
    networkd, manager = [line for line in inside(one.space, check) if "anage" in line]
    assert "set ManageForeignNextHops=no below [Network]" in networkd
    assert "unmanaged-devices=interface-name:vx-wide" in manager
    assert one.program(blocks[0], blocks[1:])
    assert one.space.link("vx-wide")["mtu"] == 1450


# Scale


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Return the types of all requests to the kernel."""
    kinds: list[int] = []
    ask = Rtnl.request

    def request(self: Rtnl, kind: int, flags: int, body: bytes, what: str) -> list[bytes]:
        kinds.append(kind)
        return ask(self, kind, flags, body, what)

    monkeypatch.setattr(Rtnl, "request", request)
    yield kinds


@pytest.mark.parametrize("kind", ["vxlan", "routes"])
def test_many_blocks_are_programmed_once(host: Host, tmp_path: Path, kind: str, requests: list[int]) -> None:
    """A change of one host is one message for each of its entries; nothing else is sent."""
    count = 5000
    chosen = settings(kind, "10.64.0.0/10", mtu=1450)
    (one,) = hosts_of(host, tmp_path, chosen, count=1)
    space = one.space
    space.run("ip", "address", "add", "172.20.0.1/16", "dev", "eth0")
    blocks = [
        Block(n, member(n, f"172.20.{n >> 8}.{n & 255}", mac=f"02:00:00:00:{n >> 8:02x}:{n & 255:02x}"))
        for n in range(2, count + 2)
    ]
    own = Block(1, member(1, "172.20.0.1", mac="02:00:00:00:00:01"))
    per_block = 3 if kind == "vxlan" else 2

    assert one.program(own, blocks).added == count * per_block + 1
    assert len(space.run("ip", "nexthop").stdout.splitlines()) == count
    assert len(space.run("ip", "route", "show", "proto", "117").stdout.splitlines()) == count + 1

    requests.clear()
    assert one.program(own, blocks) == Changes()
    assert all(kind in (18, 22, 26, 30, 106) for kind in requests), "only requests for lists"

    more = Block(count + 2, member(count + 2, "172.20.30.1", mac="02:00:00:00:ff:01"))
    assert one.program(own, [*blocks, more]) == Changes(added=per_block)
    assert one.program(own, blocks) == Changes(deleted=per_block)
