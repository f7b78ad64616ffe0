# SPDX-License-Identifier: Apache-2.0
"""Quotas of the plugin bandwidth: what counts, what a container can do that has used it up, and its end."""

import json
import socket
from hashlib import blake2s
from typing import Any

import pytest

from tests.support.host.host import Container, Host, Outside
from tests.support.host.namespace import Namespace
from tests.support.host.sockets import family_of
from tests.support.plugins.bandwidth import CONTAINER, HOST, add, addressed, conf, linked, outer_of, previous
from tests.support.plugins.cni import CniFailure, Implementation
from tests.support.plugins.update import update

CONTAINER6, HOST6 = "fd00:9::2", "fd00:9::1"
OWNER = "net1 c1 eth0"
PACKET = 1000  # bytes of data
SIZES = {4: PACKET + 28, 6: PACKET + 48}  # with the headers


@pytest.fixture
def implementation(implementations: dict[str, Implementation]) -> Implementation:
    """Return the built-in plugin: the reference has no quotas."""
    return implementations["builtin"]


@pytest.fixture
def container(host: Host) -> Container:
    """Return a container behind the host, with an address of each IP version."""
    container = addressed(host, linked(host))
    host.run("ip", "address", "add", f"{HOST6}/64", "dev", outer_of(container), "nodad")
    container.run("ip", "address", "add", f"{CONTAINER6}/64", "dev", "eth0", "nodad")
    for gateway in (HOST, HOST6):
        container.run("ip", "route", "add", "default", "via", gateway)
    # The messages of neighbour discovery would count.
    for space, link, other, address in (
        (host, outer_of(container), container.link("eth0"), CONTAINER6),
        (container, "eth0", host.link(outer_of(container)), HOST6),
    ):
        space.run("ip", "neigh", "replace", address, "lladdr", other["address"], "dev", link)
    host.run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
    host.save_state()
    return container


@pytest.fixture
def outside(host: Host, container: Container) -> Outside:
    outside = host.outside()
    outside.run("ip", "route", "add", CONTAINER, "via", Outside.HOST)
    outside.run("ip", "route", "add", CONTAINER6, "via", Outside.HOST6)
    host.save_state()
    return outside


def packets(number: int, version: int) -> int:
    """Return a limit that lets this many packets pass: kernels differ about one that is reached exactly."""
    return number * SIZES[version] + 100


def limited(container: Container, **limits: int) -> dict[str, Any]:
    result = previous(container)
    result["ips"] = [
        {"address": f"{CONTAINER}/24", "gateway": HOST, "interface": 1},
        {"address": f"{CONTAINER6}/64", "gateway": HOST6, "interface": 1},
    ]
    return conf(runtimeConfig={"quota": limits}, prevResult=result)


def arrived(sender: Namespace, receiver: Namespace, address: str, packets: int) -> int:
    """Send UDP packets; return how many arrive."""
    family = family_of(address)
    with (
        receiver.socket(socket.SOCK_DGRAM, family) as incoming,
        sender.socket(socket.SOCK_DGRAM, family) as outgoing,
    ):
        incoming.bind((address, 0))
        for _packet in range(packets):
            outgoing.sendto(bytes(PACKET), incoming.getsockname()[:2])
        incoming.setblocking(False)  # what is not dropped has arrived: a pair has no queue
        for count in range(packets):
            try:
                incoming.recv(PACKET)
            except BlockingIOError:
                return count
        return packets


def used(host: Host, owner: str = OWNER) -> dict[str, int]:
    """Return the bytes that the quotas of an owner have counted, by kind, as the program nft shows them."""
    listed = json.loads(host.run("nft", "-j", "list", "quotas").stdout)["nftables"]
    quotas = {each["quota"]["name"]: each["quota"] for each in listed if "quota" in each}
    digest = blake2s(owner.encode(), digest_size=8).hexdigest()
    return {
        name.split("-")[1]: quota["used"] for name, quota in quotas.items() if name.split("-")[2] == digest
    }


def collect(host: Host, *keep: str) -> None:
    """Run GC for net1, with these containers as the valid ones."""
    valid = [{"containerID": container_id, "ifname": "eth0"} for container_id in keep]
    host.cni("GC", conf("1.1.0", **{"cni.dev/valid-attachments": valid}))


def test_used_up_quota_cuts_the_container_off_until_it_is_raised(
    host: Host, container: Container, outside: Outside
) -> None:
    sent = add(host, container, limited(container, egress=packets(10, 6)))

    assert arrived(container, outside, Outside.ADDRESS, 4) == 4
    assert arrived(container, host, HOST6, 4) == 4  # the host counts, too, and both IP versions together
    assert used(host) == {"egress": 4 * (SIZES[4] + SIZES[6])}
    assert arrived(outside, container, CONTAINER, 20) == 20  # what it receives does not count
    assert arrived(container, outside, Outside.ADDRESS6, 20) == 2
    assert arrived(container, outside, Outside.ADDRESS, 4) == 0
    host.cni("CHECK", sent, container)
    collect(host, "c1")

    higher = packets(20, 6) + 100
    raised = update(host, container, limited(container, egress=higher, ingress=packets(10, 4)), sent)
    assert used(host) == {"egress": packets(10, 6), "ingress": 0}  # what was dropped does not count
    assert arrived(container, outside, Outside.ADDRESS6, 20) == 10
    assert arrived(outside, container, CONTAINER, 20) == 10

    again = update(host, container, limited(container, egress=packets(20, 6), since=1), raised)
    assert used(host) == {"egress": 0}
    assert arrived(container, outside, Outside.ADDRESS6, 30) == 20
    update(host, container, limited(container), again)
    assert host.nft() == ""
    assert arrived(container, outside, Outside.ADDRESS6, 20) == 20
    assert host.listdir("/run/cnihook/quota") == []


def test_total_counts_both_directions(host: Host, container: Container, outside: Outside) -> None:
    sent = add(host, container, limited(container, total=packets(10, 4), egress=1 << 40))

    assert arrived(container, outside, Outside.ADDRESS, 5) == 5
    assert arrived(outside, container, CONTAINER, 20) == 5
    assert arrived(container, outside, Outside.ADDRESS, 5) == 0
    assert used(host)["egress"] == 10 * SIZES[4]
    host.cni("DEL", sent, container)
    assert arrived(container, outside, Outside.ADDRESS, 5) == 5


def test_count_survives_a_flush_of_the_rules(host: Host, container: Container, outside: Outside) -> None:
    sent = add(host, container, limited(container, egress=packets(10, 4)))
    assert arrived(container, outside, Outside.ADDRESS, 6) == 6
    collect(host, "c1")
    host.run("nft", "flush", "ruleset")

    with pytest.raises(CniFailure, match="quota in table inet cnihook is missing"):
        host.cni("CHECK", sent, container)
    add(host, container, sent)
    host.cni("CHECK", sent, container)
    assert used(host) == {"egress": 6 * SIZES[4]}
    assert arrived(container, outside, Outside.ADDRESS, 6) == 4

    collect(host)
    assert host.nft() == ""


def test_address_of_an_ended_container_has_the_quota_of_its_present_one(
    host: Host, container: Container, outside: Outside
) -> None:
    add(host, container, limited(container, egress=1))
    host.attachments.clear()
    assert arrived(container, outside, Outside.ADDRESS, 1) == 0
    sent = {**limited(container, egress=1 << 30), "name": "net2"}

    host.cni("ADD", sent, container)
    assert arrived(container, outside, Outside.ADDRESS, 1) == 1
    collect(host)
    assert (used(host), used(host, "net2 c1 eth0")) == ({}, {"egress": SIZES[4]})
    assert arrived(container, outside, Outside.ADDRESS, 1) == 1


def test_container_whose_packets_do_not_pass_the_host_is_refused(host: Host, container: Container) -> None:
    without_gateway = limited(container, egress=1 << 30)
    for address in without_gateway["prevResult"]["ips"]:
        del address["gateway"]
    with pytest.raises(CniFailure, match="the host is not the gateway of eth0"):
        add(host, container, without_gateway)

    host.run(*f"ip link add link {outer_of(container)} name mac0 netns c1 type macvlan".split())
    of_parent = limited(container, egress=1 << 30)
    of_parent["prevResult"]["interfaces"] = [{"name": "mac0", "sandbox": container.path}]
    with pytest.raises(CniFailure, match="mac0 is of the kind macvlan: its packets do not pass the host"):
        add(host, container, of_parent, "mac0")
    container.run("ip", "link", "delete", "mac0")
    assert host.nft() == ""
