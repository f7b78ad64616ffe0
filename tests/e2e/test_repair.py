# SPDX-License-Identifier: Apache-2.0
"""cnihook repair: traffic flows again, after any part of a running container's network was removed."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support import firewall, traffic
from tests.support.attached import PORT, WEB, Attached, cnihook, detach, repair
from tests.support.host import ACCEPT_DAD, Host, Outside
from tests.support.oci import CNIHOOK, MYNET, NET_D, RESULTS, Runtime, bridge, configure, external
from tests.support.see import See

PTP: dict[str, Any] = {
    "cniVersion": "1.0.0",
    "name": "ptp",
    "plugins": [
        {
            "type": "ptp",
            "ipMasq": True,
            "ipam": {
                "type": "host-local",
                "ranges": [[{"subnet": "10.23.0.0/24"}]],
                "routes": [{"dst": "0.0.0.0/0"}],
            },
        }
    ],
}


@pytest.fixture
def outside(host: Host) -> Outside:
    host.leaves("dir /run/cni", "dir /run/cni/tuning")
    return host.outside()


@pytest.fixture
def web(host: Host, outside: Outside) -> Iterator[Attached]:
    configure(host, WEB)
    attached = Attached(host, outside, "c1", publish=f"{PORT}:80", bandwidth="in=100M,out=100M")
    assert attached.works() and attached.is_published()
    yield attached


def test_repair_of_nothing_prints_nothing(host: Host, web: Attached) -> None:
    before = host.nft(), host.ip("link")

    assert repair(host) == repair(host, "c1") == []
    assert (host.nft(), host.ip("link")) == before
    detach(web)


def test_flushed_nftables_are_restored_without_a_new_link(host: Host, web: Attached) -> None:
    """`systemctl reload nftables` flushes so; open connections are kept."""
    index = web.space.link("eth0")["ifindex"]
    host.run("nft", "flush", "ruleset")
    assert not web.reaches_outside(expected=False) and not web.is_published(expected=False)

    lines = repair(host)

    assert [line.partition(" plugin ")[0] for line in lines] == ["repaired c1: web eth0:"] * 2
    assert "10.22.0.2 is not masqueraded" in lines[0] and "table inet cnihook" in lines[1]
    assert web.works() and web.is_published()
    assert web.space.link("eth0")["ifindex"] == index
    detach(web)


@pytest.mark.parametrize("what", ["table inet cnihook", "chain inet cnihook postrouting"])
def test_flushed_chains_are_filled_again(host: Host, web: Attached, what: str) -> None:
    """The map elements stay then, but their chains are empty."""
    host.run("nft", "flush", *what.split())
    assert not web.reaches_outside(expected=False)

    assert repair(host, "c1")
    assert web.works() and web.is_published()
    detach(web)


@pytest.mark.parametrize("end", ["host", "container"])
def test_deleted_link_is_restored_with_its_addresses(host: Host, web: Attached, end: str) -> None:
    """Both ends of a veth pair are deleted together."""
    if end == "host":
        (port,) = [link["ifname"] for link in host.ip("link", "show", "master", "cni0")]
        host.run("ip", "link", "del", port)
    else:
        web.space.run("ip", "link", "del", "eth0")
    assert not web.is_published(expected=False)

    lines = repair(host)

    assert all(line.startswith("repaired c1: web eth0: ") for line in lines)
    assert all(line.endswith("(attached again)") for line in lines)
    assert web.works() and web.is_published()
    detach(web)


def test_flushed_addresses_in_the_container_are_restored(host: Host, web: Attached) -> None:
    web.space.run("ip", "address", "flush", "dev", "eth0")

    (line,) = repair(host)

    assert "does not have address 10.22.0.2/24 (attached again)" in line
    assert web.works() and web.is_published()
    detach(web)


def test_link_that_is_down_in_the_container_is_restored(host: Host, web: Attached) -> None:
    """The kernel has removed its routes as well."""
    web.space.run("ip", "link", "set", "eth0", "down")

    assert repair(host)
    assert web.works() and web.is_published()
    detach(web)


@pytest.mark.parametrize(
    "command",
    [
        "ip link del cni0",
        "ip link set cni0 down",
        "ip address flush dev cni0",
        "ip link set {port} down",
        "ip link set {port} nomaster",
    ],
)
def test_bridge_is_restored_without_a_new_link(host: Host, web: Attached, command: str) -> None:
    """Two containers use the bridge; the repair of the first restores it for both."""
    other = Attached(host, web.outside, "c2")
    (port,) = [
        link["ifname"]
        for link in host.ip("link")
        if "master" in link and link.get("ifalias") == "web c1 eth0"
    ]
    host.run(*command.format(port=port).split())
    index = web.space.link("eth0")["ifindex"]

    assert repair(host)
    assert web.works() and web.is_published() and other.works()
    assert traffic.reaches(web.space, other.space, other.address, expected=True)
    assert web.space.link("eth0")["ifindex"] == index
    detach(web, other)


def test_rules_in_dockers_chain_are_restored(host: Host, web: Attached) -> None:
    """Docker started later than the container, with its policy; then DOCKER-USER was flushed."""
    firewall.like_docker(host)
    assert not web.reaches_outside(expected=False)
    assert "does not let cni0 through" in "".join(repair(host))
    assert web.works() and web.is_published()

    host.run("iptables", "-F", "DOCKER-USER")
    assert not web.reaches_outside(expected=False)
    assert "does not let cni0 through" in "".join(repair(host))
    assert web.works() and web.is_published()
    detach(web)


def test_lost_limit_is_restored(host: Host, web: Attached) -> None:
    (port,) = [link["ifname"] for link in host.ip("link", "show", "master", "cni0")]
    host.run("tc", "qdisc", "del", "dev", port, "root")

    (line,) = repair(host)

    assert f"{port} has no limit" in line and "attached again" not in line
    assert "tbf" in host.run("tc", "qdisc", "show", "dev", port).stdout
    detach(web)


def test_changed_setting_is_set_again(host: Host, web: Attached) -> None:
    web.space.run("sh", "-c", "echo 0 > /proc/sys/net/ipv4/conf/eth0/arp_filter")

    (line,) = repair(host)

    assert "arp_filter" in line and "attached again" not in line
    assert web.space.sysctl("net/ipv4/conf/eth0/arp_filter") == "1"
    detach(web)


def test_lost_name_of_the_namespace_is_bound_again(host: Host, web: Attached) -> None:
    host.run("ip", "netns", "del", "c1")

    (line,) = repair(host)

    assert line == "repaired c1: it had lost its name in /run/netns"
    assert "eth0" in host.run("ip", "-n", "c1", "link").stdout
    detach(web)


def test_ptp_keeps_its_address(host: Host, outside: Outside) -> None:
    """No plugin of the network accepts a MAC address, so the link gets another one."""
    configure(host, PTP)
    attached = Attached(host, outside, "c1")
    host.run("nft", "flush", "ruleset")
    (line,) = repair(host)
    assert "not masqueraded" in line and attached.works()
    host.run("ip", "route", "flush", "10.23.0.2")
    assert repair(host)
    assert attached.space.addresses("eth0") == ["10.23.0.2/24"] and attached.reaches_outside()
    detach(attached)


def test_network_of_a_version_without_check_is_repaired(host: Host, outside: Outside) -> None:
    """Most existing configurations have version 0.2.0, whose results do not even name an interface."""
    configure(host, MYNET)
    attached = Attached(host, outside, "c1")
    record = json.loads(host.read(f"{RESULTS}/mynet-c1-eth0"))
    host.run("nft", "flush", "ruleset")
    (line,) = repair(host)
    assert "not masqueraded" in line and attached.works()

    attached.space.run("ip", "link", "del", "eth0")
    assert all("attached again" in line for line in repair(host))
    assert attached.space.addresses("eth0") == ["10.22.0.2/16"] and attached.reaches_outside()
    assert json.loads(host.read(f"{RESULTS}/mynet-c1-eth0"))["result"] == record["result"]
    detach(attached)


DUAL: dict[str, Any] = {
    "type": "bridge",
    "bridge": "cni0",
    "isDefaultGateway": True,
    "ipMasq": True,
    "ipam": {
        "type": "host-local",
        "ranges": [[{"subnet": "10.22.0.0/24"}], [{"subnet": "2001:db8:9::/64"}]],
    },
}
STATIC: dict[str, Any] = {
    "type": "bridge",
    "bridge": "cni0",
    "isGateway": True,
    "capabilities": {"ips": True, "mac": True},
    "ipam": {"type": "static", "routes": [{"dst": "0.0.0.0/0", "gw": "10.22.0.1"}]},
}
MACVLAN: dict[str, Any] = {
    "type": "macvlan",
    "master": "up0",
    "ipam": {"type": "host-local", "subnet": "198.51.100.0/24", "rangeStart": "198.51.100.16"},
}


@pytest.mark.parametrize(
    ("plugin", "wants"),
    [(DUAL, {}), (STATIC, {"networks": "web:ip=10.22.0.77/24,mac=02:00:00:00:00:07"}), (MACVLAN, {})],
    ids=["dual-stack", "static", "macvlan"],
)
def test_all_addresses_are_the_same_after_a_new_link(
    host: Host, outside: Outside, plugin: dict[str, Any], wants: dict[str, str]
) -> None:
    configure(host, {"cniVersion": "1.0.0", "name": "web", "plugins": [plugin]})
    attached = Attached(host, outside, "c1", **wants)
    addresses = attached.identity[1]
    assert len(addresses) == (2 if plugin is DUAL else 1)
    attached.space.run("ip", "link", "del", "eth0")

    assert all("attached again" in line for line in repair(host))
    assert attached.link() == attached.identity
    attached.space.run("ip", "address", "flush", "dev", "eth0")
    assert repair(host)
    assert attached.link() == attached.identity
    if plugin is DUAL:
        assert attached.works()
        assert traffic.connect(attached.space, outside, Outside.ADDRESS6) == Outside.HOST6
    if plugin is MACVLAN:
        assert traffic.connect(attached.space, outside, Outside.ADDRESS) == attached.address
    detach(attached)


def test_restored_gateway_is_ready_at_once(host: Host, outside: Outside) -> None:
    """The host detects duplicates of its IPv6 addresses, as by default."""
    host.run("sh", "-c", f"echo 1 > {ACCEPT_DAD}")
    configure(host, {"cniVersion": "1.0.0", "name": "web", "plugins": [DUAL]})
    attached = Attached(host, outside, "c1")
    host.run("ip", "link", "del", "cni0")

    outcome = cnihook(host, "repair", "--all")
    assert not [*host.inside(See).pending, *attached.space.inside(See).pending]
    assert outcome.returncode == 0 and attached.works()
    detach(attached)


def test_isolation_of_bridges_is_restored(host: Host, outside: Outside) -> None:
    """A flush also removes the isolation, which no missing traffic would show."""
    apart = []
    for name, subnet in (("one", "10.22.0.0/24"), ("two", "10.23.0.0/24")):
        network = bridge(name, subnet, isDefaultGateway=True)
        network["plugins"].append({"type": "firewall", "ingressPolicy": "same-bridge"})
        apart.append(network)
    configure(host, *apart)
    one, two = (Attached(host, outside, f"c-{name}", networks=name) for name in ("one", "two"))
    assert not traffic.reaches(one.space, two.space, two.address)
    host.run("nft", "flush", "ruleset")
    assert traffic.reaches(one.space, two.space, two.address, expected=True)

    assert len(repair(host)) == 2
    assert not traffic.reaches(one.space, two.space, two.address)
    detach(one, two)


def test_repair_needs_no_configuration(host: Host, web: Attached) -> None:
    """The record has the configuration; later changes of the file are for new containers."""
    host.run("rm", f"{NET_D}/10-net.conflist")
    host.run("nft", "flush", "ruleset")

    assert repair(host)
    assert web.works() and web.is_published()
    detach(web)


def test_address_taken_by_another_container_is_reported_and_tried_again(host: Host, web: Attached) -> None:
    """Another container has the lease; no other address is assigned silently."""
    web.space.run("ip", "link", "del", "eth0")
    host.write("/var/lib/cni/networks/web/10.22.0.2", "stranger\r\neth0")

    outcome = cnihook(host, "repair", "--all")

    assert outcome.returncode == 1 and outcome.stderr.count("\n") == 1
    assert outcome.stderr.startswith("cnihook: repair: c1: web eth0: ")
    assert "10.22.0.2 is not available" in outcome.stderr
    host.run("rm", "/var/lib/cni/networks/web/10.22.0.2")
    assert repair(host)
    assert web.works() and web.is_published()
    detach(web)
    host.leaves("file /run/cnihook/log/c1")


def test_failure_of_one_attachment_does_not_stop_the_others(host: Host, outside: Outside) -> None:
    configure(host, WEB, bridge("other", "10.24.0.0/24"))
    first = Attached(host, outside, "c1")
    second = Attached(host, outside, "c2", networks="web")
    first.space.run("ip", "link", "del", "eth1")
    host.write("/var/lib/cni/networks/other/10.24.0.2", "stranger\r\neth0")
    host.run("nft", "flush", "ruleset")

    assert cnihook(host, "repair", "--all").returncode == 1
    assert first.works() and second.works()
    host.run("rm", "/var/lib/cni/networks/other/10.24.0.2")
    assert repair(host)
    assert first.space.addresses("eth1") == ["10.24.0.2/24"]
    detach(first, second)
    host.leaves("file /run/cnihook/log/c1")


def test_dead_container_is_left_to_gc(host: Host, web: Attached) -> None:
    web.space.destroy()

    assert repair(host) == []
    outcome = cnihook(host, "repair", "c1")
    assert (outcome.returncode, outcome.stderr.count("\n")) == (1, 1) and "cnihook gc" in outcome.stderr
    host.run(CNIHOOK, "gc")


def test_repair_completes_if_its_output_is_closed(host: Host, web: Attached) -> None:
    host.run("nft", "flush", "ruleset")
    (port,) = [link["ifname"] for link in host.ip("link", "show", "master", "cni0")]
    host.run("tc", "qdisc", "del", "dev", port, "root")

    outcome = host.run("sh", "-c", f"exec {CNIHOOK} repair --all | exec true")

    assert (outcome.stdout, outcome.stderr) == ("", "")
    assert web.is_published() and repair(host) == []
    detach(web)  # if there had been a failure, the log would be kept


def test_repair_requires_a_container_or_all(host: Host) -> None:
    assert cnihook(host, "repair").returncode == 2
    assert cnihook(host, "repair", "c1", "--all").returncode == 2
    outcome = cnihook(host, "repair", "c9")
    assert (outcome.returncode, outcome.stderr) == (
        1,
        "cnihook: repair c9: no network of this container is on record\n",
    )


def test_changed_address_is_reported(host: Host, outside: Outside) -> None:
    """The IPAM plugin cannot be asked for a certain address."""
    script = """if [ $CNI_COMMAND = ADD ]; then
    calls=$(wc -l < /run/.host/plugins/calls)
    printf '{"cniVersion": "1.0.0", "ips": [{"address": "10.22.0.%d/24"}]}' $calls
fi"""
    path = external(host, "counting", script)
    conf = {"type": "bridge", "bridge": "cni0", "ipam": {"type": "counting"}}
    configure(host, {"cniVersion": "1.0.0", "name": "web", "plugins": [conf]})
    attached = Attached(host, outside, "c1", plugins=path)
    (before,), mac = attached.space.addresses("eth0"), attached.space.link("eth0")["address"]
    attached.space.run("ip", "link", "del", "eth0")

    lines = repair(host)

    (now,) = attached.space.addresses("eth0")
    assert f"(attached again, with {now} instead of {before})" in lines[0]
    assert attached.space.link("eth0")["address"] == mac
    detach(attached)


def test_container_of_a_runtime_keeps_running(host: Host, outside: Outside, runtime: Runtime) -> None:
    configure(host, MYNET)
    container = runtime.run("c1")
    address = container.address
    host.run("nft", "flush", "ruleset")
    container.run("ip", "link", "del", "eth0")

    assert repair(host, "c1")
    assert container.address == address and runtime.state("c1")["pid"] == container.pid
    assert traffic.connect(container, outside, Outside.ADDRESS) == Outside.HOST
    container.exec("ping", "-c1", "-W30", Outside.ADDRESS)


def test_repairs_at_once_do_not_conflict(host: Host, web: Attached) -> None:
    """A restart of the firewall may start several."""
    host.run("nft", "flush", "ruleset")
    web.space.run("ip", "link", "del", "eth0")

    at_once = [host.popen(CNIHOOK, "repair", "--all") for _ in range(4)]
    outputs = [process.communicate(timeout=30) for process in at_once]

    assert [process.returncode for process in at_once] == [0] * 4
    assert sum(bool(stdout) for stdout, _ in outputs) == 1, (
        "one repaired it, and the others had nothing to do"
    )
    assert web.works() and web.is_published()
    detach(web)


@pytest.mark.needs("conntrack")
def test_connection_is_kept_with_a_new_link(host: Host, web: Attached) -> None:
    """The container keeps its address, so the host keeps the flows that a DEL would delete."""
    with web.outside.socket() as server, web.space.socket() as client:
        server.bind((Outside.ADDRESS, 5353))
        server.listen()
        client.connect((Outside.ADDRESS, 5353))
        peer, _ = server.accept()
        flow = host.run("conntrack", "-L", "-o", "id", "-p", "tcp", "--orig-port-dst", "5353").stdout
        web.space.run("ip", "link", "del", "eth0")
        assert repair(host)

        again = host.run("conntrack", "-L", "-o", "id", "-p", "tcp", "--orig-port-dst", "5353").stdout
        assert flow.split("id=")[1] == again.split("id=")[1]
        with peer:
            peer.sendall(b"ping")
            assert client.recv(16) == b"ping"
    detach(web)
