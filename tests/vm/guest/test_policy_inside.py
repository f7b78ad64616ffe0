# SPDX-License-Identifier: Apache-2.0
"""Policies in the namespace of a container, for kinds of links that this machine's kernel may lack."""

import json
import socket
from typing import Any

import pytest

from tests.support.host.host import Host, Outside
from tests.support.host.sockets import EXPERIMENTAL, frame, packet_socket
from tests.support.plugins.child_link import SUBNET, SUBNET6
from tests.support.policies import LEAVES, Sandbox, refusal, tcp
from tests.support.runtimes.oci import configure

BUNDLE = "/run/.host/bundle"


@pytest.fixture
def implementation() -> None:
    """Run each test once: the reference plugins have no part in it."""


@pytest.mark.parametrize(("kind", "keys"), [("ipvlan", {}), ("vlan", {"vlanId": 7})], ids=["ipvlan", "vlan"])
def test_list_holds_on_a_link_above_the_uplink(host: Host, kind: str, keys: dict[str, Any]) -> None:
    """Both IP versions, and packet sockets; mode l3s of ipvlan is refused, and dummy has a policy, too."""
    host.leaves(*LEAVES, "file /run/cnihook/log/*")
    outside = host.outside()
    if kind == "vlan":
        outside.run("ip", "link", "add", "link", "up0", "name", "v7", "type", "vlan", "id", "7")
        for net in (f"{Outside.ADDRESS}/24", f"{Outside.ADDRESS6}/64"):
            outside.run("ip", "address", "del", net, "dev", "up0")
            outside.run("ip", "address", "add", net, "dev", "v7", "nodad")
        outside.run("ip", "link", "set", "v7", "up")
    bundle = {"process": {}, "linux": {"namespaces": [{"type": "network"}]}}
    host.write(f"{BUNDLE}/config.json", json.dumps(bundle))
    ipam = {"type": "host-local", "ranges": [[SUBNET], [SUBNET6]]}
    plugin = {"type": kind, "master": "up0", "ipam": ipam} | keys
    network = {"cniVersion": "1.0.0", "name": "lan", "plugins": [plugin]}
    nowhere = network | {"name": "nowhere", "plugins": [{"type": "dummy", "ipam": ipam}]}
    configure(host, network, network | {"name": "l3s", "plugins": [plugin | {"mode": "l3s"}]}, nowhere)
    if kind == "ipvlan":
        lonely = Sandbox(host, "lonely", bundle=BUNDLE, networks="nowhere", egress="none")
        with lonely.space.socket(socket.SOCK_DGRAM) as client, pytest.raises(PermissionError):
            client.sendto(b"x", (Outside.ADDRESS, 9))
        lonely.stop()
        assert "in mode l3s" in refusal(host, "bad", bundle=BUNDLE, networks="l3s", egress="none")
    egress = f"{Outside.ADDRESS}:80,[{Outside.ADDRESS6}]:80"
    one = Sandbox(host, "one", bundle=BUNDLE, networks="lan", egress=egress, ingress="outside:81")

    for address, own in ((Outside.ADDRESS, one.v4), (Outside.ADDRESS6, one.v6)):
        assert tcp(one.space, outside, address, 80, expected=True)
        assert not tcp(one.space, outside, address, 81, expected=False)
        assert tcp(outside, one.space, own, 81, expected=True)
        assert not tcp(outside, one.space, own, 80, expected=False)
    with packet_socket(one.space, "eth0") as sender, pytest.raises(OSError, match="No buffer space"):
        sender.sendto(frame(one.space.link("eth0")["address"], "ff:ff:ff:ff:ff:ff"), ("eth0", EXPERIMENTAL))
    one.stop()
