# SPDX-License-Identifier: Apache-2.0
"""Policies of containers whose packets the host does not route: in force in their own namespaces."""

import json
import os
import socket
from typing import Any

import pytest

from tests.support.commands.repair import cnihook
from tests.support.host.host import Container, Host, Outside
from tests.support.host.sockets import EXPERIMENTAL, frame, packet_socket
from tests.support.plugins import tap
from tests.support.plugins.child_link import SUBNET, SUBNET6
from tests.support.plugins.hostdev import FAR_ADDRESS, IPAM, conf, plug
from tests.support.policies import LEAVES, NO_BR_NETFILTER, Sandbox, apply, policy, refusal, tcp
from tests.support.runtimes.oci import configure

BUNDLE = "/run/.host/bundle"
KINDS = ("macvlan", "bridge")
NEIGHBOUR = f"{SUBNET['subnet'].rpartition('.')[0]}.77"
ETH_P_IP, ETH_P_ARP = 0x0800, 0x0806


def lan(kind: str = "macvlan", **keys: Any) -> dict[str, Any]:
    """Return a network on the uplink, where `outside` is a machine; a bridge has it as a port."""
    own = {"master": "up0"} if kind == "macvlan" else {"bridge": "br-lan"}
    ipam = {"type": "host-local", "ranges": [[SUBNET], [SUBNET6]]}
    return {"cniVersion": "1.0.0", "name": "lan", "plugins": [{"type": kind, "ipam": ipam} | own | keys]}


@pytest.fixture
def stage(host: Host) -> Host:
    host.run("sh", "-c", NO_BR_NETFILTER)
    host.leaves(*LEAVES)
    for path, capabilities in ((BUNDLE, ["CAP_NET_RAW"]), (f"{BUNDLE}2", ["CAP_NET_ADMIN"])):
        bundle = {
            "process": {"capabilities": {"bounding": capabilities}},
            "linux": {"namespaces": [{"type": "network"}]},
        }
        host.write(f"{path}/config.json", json.dumps(bundle))
    return host


def inner(container: Container) -> str:
    """Return the rules in a container's namespace."""
    return container.run("nft", "list", "ruleset").stdout


@pytest.mark.parametrize("kind", KINDS)
def test_lists_hold_where_the_host_does_not_route(stage: Host, kind: str) -> None:
    """Both directions and IP versions, with labels, packet sockets, an update, a repair, and the end."""
    outside = stage.outside()
    configure(stage, lan(kind))
    one = Sandbox(
        stage,
        "one",
        bundle=BUNDLE,
        egress=f"label:app=db:5432/tcp,{Outside.ADDRESS}:80",
        ingress="label:app=db:80/tcp",
    )
    # Started later, it becomes known to the one that selects it.
    db, other = Sandbox(stage, "db", label="app=db"), Sandbox(stage, "other")
    for version in (4, 6):
        target = db.address(version)
        assert tcp(one.space, db.space, target, 5432, expected=True)
        assert not tcp(one.space, db.space, target, 5433, expected=False)
        assert not tcp(one.space, other.space, other.address(version), 5432, expected=False)
        assert tcp(db.space, one.space, one.address(version), 80, expected=True)
        assert not tcp(db.space, one.space, one.address(version), 81, expected=False)
        assert not tcp(other.space, one.space, one.address(version), 80, expected=False)
        assert tcp(other.space, db.space, target, 5433, expected=True)
    if kind == "macvlan":
        assert tcp(one.space, outside, Outside.ADDRESS, 80, expected=True)
        assert not tcp(one.space, outside, Outside.ADDRESS6, 80, expected=False)
    with pytest.raises(OSError, match="No route to host"), one.space.socket() as client:
        client.settimeout(5)
        client.connect((other.v4, 99))
    # Nothing gets out by a packet socket: the kernel drops it, and says so.
    with packet_socket(one.space, "eth0") as sender:
        for packet in (frame(one.space.link("eth0")["address"], "ff:ff:ff:ff:ff:ff"), raw_udp(one, db)):
            for number in (EXPERIMENTAL, ETH_P_IP, ETH_P_ARP):
                with pytest.raises(OSError, match="No buffer space"):
                    sender.sendto(packet, ("eth0", number))
    # Nor does a false address.
    one.space.run("ip", "address", "add", "198.51.100.77/32", "dev", "eth0")
    with one.space.socket(socket.SOCK_DGRAM) as sender, db.space.socket(socket.SOCK_DGRAM) as receiver:
        receiver.bind(("", 9))
        receiver.settimeout(0.3)
        sender.bind(("198.51.100.77", 0))
        sender.sendto(b"x", (db.v4, 9))
        with pytest.raises(TimeoutError):
            receiver.recv(10)
    # A broadcast does not get in.
    with one.space.socket(socket.SOCK_DGRAM) as receiver, db.space.socket(socket.SOCK_DGRAM) as sender:
        receiver.bind(("", 99))
        receiver.settimeout(0.3)
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        sender.sendto(b"x", ("198.51.100.255", 99))
        with pytest.raises(TimeoutError):
            receiver.recv(10)

    listed = json.loads(cnihook(stage, "denied", "one", "--json").stdout)
    entries = {(each["direction"], each["peer_name"], each["protocol"], each["port"]) for each in listed}
    assert {("egress", "db", "tcp", 5433), ("ingress", "other", "tcp", 80)} <= entries
    assert not any(each["protocol"] in ("2", "icmp") for each in listed), listed
    for to, status in (("db:5432/tcp", 0), ("db:5433/tcp", 1), (f"{Outside.ADDRESS}:80", 0)):
        assert cnihook(stage, "policy", "explain", "one", to).returncode == status
    assert policy(stage, "diff") == []
    assert cnihook(stage, "check", "--all").returncode == 0

    one.space.run("nft", "delete", "table", "netdev", "cnihook")
    assert "in its namespace" in cnihook(stage, "check", "one").stdout
    assert "not in force" in cnihook(stage, "doctor").stdout
    assert cnihook(stage, "repair", "one").returncode == 0
    assert policy(stage, "diff") == []
    # With a new link, too.
    one.space.run("ip", "link", "delete", "eth0")
    assert cnihook(stage, "repair", "one").returncode == 0
    assert policy(stage, "diff") == []
    with packet_socket(one.space, "eth0") as sender, pytest.raises(OSError, match="No buffer space"):
        sender.send(frame(one.space.link("eth0")["address"], "ff:ff:ff:ff:ff:ff"))
    # A new list, from the next connection on; without one, no rule stays.
    assert cnihook(stage, "update", "one", "--egress", "label:app=db:5433/tcp").returncode == 0
    assert tcp(one.space, db.space, db.v4, 5433, expected=True)
    assert not tcp(one.space, db.space, db.v4, 5432, expected=False)
    db.stop()
    assert "lan db eth0" not in inner(one.space)
    again = Sandbox(stage, "again", ip=db.v4)
    one.space.run("ip", "neigh", "flush", "all")
    assert not tcp(one.space, again.space, again.v4, 5433, expected=False)
    assert cnihook(stage, "update", "one", "--egress", "all", "--ingress", "all").returncode == 0
    assert tcp(one.space, again.space, again.v4, 99, expected=True)
    assert inner(one.space) == ""
    assert not stage.exists("/run/cnihook/policy")
    for each in (one, other, again):
        each.stop()


def raw_udp(one: Sandbox, other: Sandbox) -> bytes:
    """Return a frame with a datagram from the own address."""
    macs = "".join(each.space.link("eth0")["address"].replace(":", "") for each in (other, one))
    packet = bytes([0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0])
    packet += socket.inet_aton(one.v4) + socket.inet_aton(other.v4) + bytes([0, 9, 0, 9, 0, 8, 0, 0])
    return bytes.fromhex(macs) + b"\x08\x00" + packet.ljust(46, b"\0")


def test_policy_of_the_host_and_its_limits_in_a_namespace(stage: Host) -> None:
    """`policy apply` for one that runs; what cannot be enforced there is refused in one line."""
    stage.outside()
    configure(stage, lan())
    stage.leaves("file /run/cnihook/log/*")
    line = refusal(stage, "bad", bundle=f"{BUNDLE}2", egress="none")
    assert "with CAP_NET_ADMIN, its process can remove the rules" in line and "--weak-policy" in line
    line = refusal(stage, "bad2", bundle=BUNDLE, egress="name:pypi.org:443")
    assert "it lists DNS names" in line
    weak = Sandbox(stage, "weak", bundle=f"{BUNDLE}2", egress="none", weak_policy="true")
    one = Sandbox(stage, "one", bundle=BUNDLE, label="app=x")
    assert not tcp(weak.space, one.space, one.v4, 80, expected=False)

    rules: dict[str, Any] = {
        "name": "x",
        "select": {"labels": {"app": "x"}},
        "egress": {"allow": [{"to": ["all"], "ports": ["80/tcp"]}]},
    }
    assert apply(stage, rules) == ["new policy x: label:app=x"]
    assert tcp(one.space, weak.space, weak.v4, 80, expected=True)
    assert not tcp(one.space, weak.space, weak.v6, 81, expected=False)
    with one.space.socket() as client, weak.space.socket() as listener:
        listener.bind(("", 80))
        listener.listen()
        client.connect((weak.v4, 80))
        closed = rules | {"egress": {"allow": []}}
        assert cnihook(stage, "update", "weak", "--egress", "all").returncode == 0
        assert apply(stage, closed, options=("--cut",))[-1] == (
            "1 established connection is denied from now on, and ended; "
            "1 can go on, because the other end may open it"
        )
        server, _ = listener.accept()
        with server:
            server.settimeout(0.3)
            client.send(b"x")
            with pytest.raises(TimeoutError):
                server.recv(1)
    # Nothing changes if one of those that it selects could remove it.
    everyone = rules | {"select": {}, "egress": {"allow": []}}
    assert "CAP_NET_ADMIN" in apply(stage, everyone, status=1)[0]
    assert apply(stage, everyone | {"weak": True})[0] == "changed policy x: all"
    policy(stage, "delete", "x")
    assert inner(one.space) == ""
    for each in (one, weak):
        each.stop()
    assert not stage.exists("/run/cnihook/policy")


def test_link_whose_other_end_is_a_program_has_its_policy(stage: Host) -> None:
    ipam = {"type": "host-local", "ranges": [[SUBNET], [SUBNET6]]}
    configure(stage, {"cniVersion": "1.0.0", "name": "vm", "plugins": [{"type": "tap", "ipam": ipam}]})
    one = Sandbox(stage, "one", bundle=BUNDLE, egress=f"{NEIGHBOUR}:80")
    one.space.run("ip", "neighbour", "replace", NEIGHBOUR, "lladdr", "02:00:00:00:00:99", "dev", "eth0")
    tun = tap.attach(one.space)
    with one.space.socket(socket.SOCK_DGRAM) as client:
        with pytest.raises(PermissionError):
            client.sendto(b"denied", (NEIGHBOUR, 81))
        client.sendto(b"allowed", (NEIGHBOUR, 80))
    seen: list[bytes] = []

    def is_allowed(data: bytes) -> bool:
        seen.append(data)
        return b"allowed" in data

    assert tap.arrives(tun, is_allowed)
    assert not any(b"denied" in data for data in seen)
    os.close(tun)
    one.stop()


def test_device_of_the_host_has_its_policy_before_it_is_up(stage: Host) -> None:
    plug(stage)
    configure(stage, {"cniVersion": "1.0.0", "name": "net1", "plugins": [conf(ipam=IPAM)]})
    one = Sandbox.__new__(Sandbox)
    one.host, one.id, one.space = stage, "one", stage.container("one", process=True)
    process = one.start(bundle=BUNDLE, egress=f"{FAR_ADDRESS}:80")
    assert (process.returncode, process.stderr) == (0, "")

    assert tcp(one.space, stage, FAR_ADDRESS, 80, expected=False) is False  # it is an address of the host
    assert cnihook(stage, "update", "one", "--egress", "host:80").returncode == 0
    assert tcp(one.space, stage, FAR_ADDRESS, 80, expected=True)
    assert not tcp(one.space, stage, FAR_ADDRESS, 81, expected=False)
    one.stop()
