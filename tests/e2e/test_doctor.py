# SPDX-License-Identifier: Apache-2.0
"""cnihook doctor: it finds each fault, and reports nothing on a healthy host."""

import json
from collections.abc import Iterator

import pytest

from tests.support.commands.doctor import doctor, finds, fixes, run
from tests.support.commands.listings import INSTALLED, on_screen
from tests.support.host.host import Container, Host
from tests.support.host.namespace import base_environment
from tests.support.plugins import firewall
from tests.support.runtimes.oci import (
    CNIHOOK,
    LEAVES,
    NETWORKS,
    RESULTS,
    bridge,
    call_hook,
    configure,
    wait_for,
)
from tests.support.skip import need

NET = bridge("mynet", "10.22.0.0/24", ipMasq=True, hairpinMode=True)
NET["cniVersion"] = "1.1.0"
PORTS = {"type": "portmap", "capabilities": {"portMappings": True}}
FIREWALL = {"type": "firewall"}
NET["plugins"] += [PORTS, FIREWALL]


def attach(host: Host, name: str, **options: str) -> Container:
    container = host.container(name, process=True)
    annotations = {f"cnihook.{option}": value for option, value in options.items()}
    state = {"ociVersion": "1.0.2", "id": name, "pid": container.pid, "status": "creating", "bundle": "/"}
    result = call_hook(host, "createRuntime", state | {"annotations": annotations})
    assert (result.returncode, result.stderr) == (0, "")
    return container


def detach(host: Host, *names: str) -> None:
    for name in names:
        host.run(CNIHOOK, "detach", name)


@pytest.fixture
def attached(host: Host) -> Iterator[Container]:
    configure(host, NET)
    yield attach(host, "c1", publish="8080:80")


# Nothing is wrong


def test_new_host_is_healthy(host: Host) -> None:
    assert doctor(host, status=0) == []
    assert json.loads("".join(doctor(host, "--json", status=0))) == []


def test_host_with_containers_is_healthy(host: Host, attached: Container) -> None:
    """Doctor reports neither containers and published ports nor namespaces and links of other programs."""
    host.outside()
    other = bridge("other", "10.23.0.0/24", ipMasq=True)
    configure(host, NET, other)
    attach(host, "c2", networks="other")
    host.run("ip", "netns", "add", "foreign")
    before = host.nft(), host.links()

    assert doctor(host, status=0) == []
    assert run(host, "--fix").stderr == ""
    assert (host.nft(), host.links()) == before
    host.run("ip", "netns", "del", "foreign")
    detach(host, "c1", "c2")


def test_notes_are_printed_with_verbose_only(host: Host) -> None:
    """Notes are known traps of the installed runtimes, for example; the exit code stays 0."""
    need("runc")

    lines = doctor(host, "--verbose", status=0)
    host.leaves(*LEAVES)

    assert all(line.startswith("note ") for line in lines)
    assert doctor(host, status=0) == []


# Each kind of finding


def test_forwarding_is_off(host: Host, attached: Container) -> None:
    host.run("sysctl", "-qw", "net.ipv4.ip_forward=0")

    assert finds(host, "forwarding-off", "mynet") == "sysctl -w net.ipv4.ip_forward=1"
    fixes(host, "forwarding-off")
    assert host.sysctl("net/ipv4/ip_forward") == "1"
    detach(host, "c1")


def test_forward_policy_drops_packets_of_containers(host: Host) -> None:
    """The administrator's own rules may accept the packets.  Otherwise the plugin firewall is the remedy."""
    configure(host, bridge("mynet", "10.22.0.0/24"))
    firewall.drop_forwarded(host)
    host.run("sysctl", "-qw", "net.bridge.bridge-nf-call-iptables=0")

    assert FIREWALL["type"] in finds(host, "forward-drop", "mynet", "DROP")
    host.run("iptables", "-A", "FORWARD", "-i", "br-mynet", "-j", "ACCEPT")
    host.run("iptables", "-A", "FORWARD", "-o", "br-mynet", "-j", "ACCEPT")
    assert doctor(host, status=0) == []
    host.run("iptables", "-F", "FORWARD")
    configure(host, NET)
    assert doctor(host, status=0) == []


def test_forward_policy_drops_bridged_packets(host: Host) -> None:
    if not host.exists(f"/proc/sys/{firewall.BRIDGED}"):
        pytest.skip("the kernel has no br_netfilter")
    configure(host, bridge("mynet", "10.22.0.0/24", isGateway=False))
    firewall.drop_forwarded(host, "iptables")
    host.run("sysctl", "-qw", "net.bridge.bridge-nf-call-iptables=1")

    remedy = finds(host, "bridged-drop", "br-mynet")

    host.run(*remedy.replace("-w", "-qw").split())
    assert doctor(host, status=0) == []


def test_subnet_overlaps_with_a_network_of_the_host(host: Host) -> None:
    configure(host, NET)
    host.run("ip", "link", "add", "up0", "type", "veth", "peer", "name", "up1")
    host.run("ip", "address", "add", "10.22.0.77/16", "dev", "up0")
    host.run("ip", "link", "set", "up0", "up")

    finds(host, "subnet-overlap", "10.22.0.0/24 of network mynet", "10.22.0.0/16 on up0")
    host.run("ip", "link", "del", "up0")
    assert doctor(host, status=0) == []


def test_subnets_of_two_networks_overlap(host: Host) -> None:
    configure(host, NET, bridge("other", "10.22.0.0/16"))

    finds(host, "subnet-overlap", "network mynet", "network other")


def test_subnet_of_a_bridged_network_may_overlap(host: Host) -> None:
    """The bridge is part of the LAN if `isGateway` is false, so the LAN's subnet is intended."""
    configure(host, bridge("lan", "198.51.100.0/24", isGateway=False))
    host.outside()

    assert doctor(host, status=0) == []


def test_route_to_a_container_uses_another_link(host: Host, attached: Container) -> None:
    host.run("ip", "link", "add", "tun0", "type", "veth", "peer", "name", "tun1")
    host.run("ip", "link", "set", "tun0", "up")
    host.run("ip", "link", "set", "tun1", "up")
    host.run("ip", "route", "add", "10.22.0.2", "dev", "tun0")
    host.run("sysctl", "-qw", "net.ipv4.conf.all.rp_filter=1")

    remedy = finds(host, "route-astray", "10.22.0.2 of container c1", "tun0, not by br-mynet", "rp_filter")

    assert remedy == "ip route get 10.22.0.2"
    host.run("ip", "link", "del", "tun0")
    assert doctor(host, status=0) == []
    host.run("sysctl", "-qw", "net.ipv4.conf.all.rp_filter=0")
    detach(host, "c1")


def test_range_is_almost_full(host: Host) -> None:
    configure(host, bridge("small", "10.22.0.0/29"))
    names = [f"c{number}" for number in range(1, 6)]
    for name in names[:4]:
        attach(host, name)
    assert doctor(host, status=0) == []
    attach(host, names[4])

    finds(host, "range-full", "network small: 5 of the 5 addresses of 10.22.0.1-10.22.0.6")
    detach(host, *names)


def test_lease_without_owner(host: Host, attached: Container) -> None:
    host.write(f"{NETWORKS}/mynet/10.22.0.99", "gone\r\neth0")

    remedy = finds(host, "lease-without-owner", "mynet: 1 lease", "10.22.0.99 (the first is of gone eth0)")

    assert remedy == "cnihook gc mynet"
    host.run(CNIHOOK, "gc", "mynet")
    assert doctor(host, status=0) == []
    detach(host, "c1")


def test_lease_of_a_removed_network(host: Host) -> None:
    host.write(f"{NETWORKS}/old/10.22.0.99", "gone\r\neth0")

    remedy = finds(host, "lease-without-owner", "network old")

    host.run(*remedy.split())
    assert doctor(host, status=0) == []
    host.leaves(f"dir {NETWORKS}", f"dir {NETWORKS}/old")


def test_lease_that_is_not_a_regular_file(host: Host) -> None:
    """Such a lease blocks an address for ever, because no plugin removes it."""
    path = f"{NETWORKS}/old/10.22.0.99"
    host.run("mkdir", "-p", path)
    host.leaves(f"dir {NETWORKS}", f"dir {NETWORKS}/old")

    remedy = finds(host, "lease-damaged", "network old", f"{path} is not a regular file")

    host.run(*remedy.partition(",")[0].split())
    assert doctor(host, status=0) == []


def test_record_of_a_dead_container(host: Host, attached: Container) -> None:
    attached.destroy()

    assert finds(host, "record-without-container", "container c1", "mynet eth0") == "cnihook gc"
    assert "fixing record-without-container" in run(host, "--fix").stderr
    assert host.listdir(RESULTS) == [] and doctor(host, status=0) == []


def test_attachment_with_missing_parts(host: Host, attached: Container) -> None:
    """--fix leaves this to `cnihook repair`, which may have to create a new link."""
    host.run("nft", "flush", "ruleset")

    lines = doctor(host, "--fix", status=1)

    assert [line.partition(":")[0] for line in lines] == ["attachment-broken"] * 2
    assert "container c1, mynet eth0: " in lines[0] and "10.22.0.2 is not masqueraded" in lines[0]
    assert all(line.endswith("remedy: cnihook repair c1") for line in lines)
    host.run(CNIHOOK, "repair", "c1")
    assert doctor(host, status=0) == []
    detach(host, "c1")


def test_one_cause_is_one_finding(host: Host, attached: Container) -> None:
    """The finding names all containers, and a command for all of them; --fix says what it leaves."""
    names = ["c1", *(f"c{number}" for number in range(2, 14))]
    for name in names[1:]:
        attach(host, name)
    host.run("ip", "link", "set", "br-mynet", "down")

    broken = [line for line in doctor(host, status=1) if line.startswith("attachment-broken: ")]
    assert len(broken) == 1 and broken[0].endswith("; remedy: cnihook repair --all")
    assert "c1, mynet eth0: " in broken[0]
    assert ": bridge br-mynet is down; the same: c2, mynet eth0; c3, mynet eth0" in broken[0]
    assert "c11, mynet eth0 and 2 more; " in broken[0]
    findings = json.loads("".join(doctor(host, "--json", status=1)))
    (finding,) = [one for one in findings if one["kind"] == "attachment-broken"]
    assert sorted(finding["subjects"]) == sorted(f"{name}, mynet eth0" for name in names)

    host.run("nft", "flush", "ruleset")
    host.run("ip", "link", "set", "br-mynet", "up")
    outcome = run(host, "--fix")
    left = [line.partition(":")[0] for line in outcome.stdout.splitlines()]
    assert left == ["attachment-broken"] * 2, "masquerading, and the port of c1"
    assert f"--fix leaves {len(left)} findings; apply each remedy yourself" in outcome.stderr
    host.run(CNIHOOK, "repair", "--all")
    assert doctor(host, status=0) == []
    assert "nothing wrong was found" in on_screen(host, 80, "doctor")
    detach(host, *names)


def test_damaged_record(host: Host, attached: Container) -> None:
    """gc releases a damaged record by its file name, but not one that another runtime wrote."""
    host.write(f"{RESULTS}/mynet-c9-eth0", "")

    assert finds(host, "record-damaged", f"{RESULTS}/mynet-c9-eth0") == "cnihook gc"
    fixes(host, "record-damaged")
    assert host.listdir(RESULTS) == ["mynet-c1-eth0"]

    host.write(f"{RESULTS}/mynet-c8-eth0", '{"kind":"cniCa')
    remedy = finds(host, "record-damaged", f"{RESULTS}/mynet-c8-eth0")
    assert remedy == f"mkdir -p /var/lib/cni/damaged; mv {RESULTS}/mynet-c8-eth0 /var/lib/cni/damaged/"
    run(host, "--fix")
    assert host.listdir(RESULTS) == ["mynet-c1-eth0", "mynet-c8-eth0"]
    host.run("rm", f"{RESULTS}/mynet-c8-eth0")
    detach(host, "c1")


def test_namespace_name_without_record_and_process(host: Host, attached: Container) -> None:
    """cnihook marks its own names; a name that the operator added stays."""
    host.run("ip", "netns", "add", "foreign")
    record = host.read(f"{RESULTS}/mynet-c1-eth0")
    host.run("rm", f"{RESULTS}/mynet-c1-eth0")
    assert not any(line.startswith("name-left-over") for line in doctor(host, status=1)), "its process lives"
    host.write(f"{RESULTS}/mynet-c1-eth0", record)
    attached.destroy()
    wait_for(lambda: not host.exists(f"/proc/{attached.pid}"), "the end of the container")
    host.run("rm", f"{RESULTS}/mynet-c1-eth0")

    lines = [line for line in doctor(host, status=1) if line.startswith("name-left-over")]
    assert len(lines) == 1 and lines[0].endswith("remedy: cnihook gc")
    run(host, "--fix")
    assert host.listdir("/run/netns") == ["foreign"]
    host.run("ip", "netns", "del", "foreign")
    assert doctor(host, status=0) == []


def test_nftables_elements_without_owner(host: Host, attached: Container) -> None:
    """Each remedy is the command that removes the element."""
    record = host.read(f"{RESULTS}/mynet-c1-eth0")
    host.run("rm", f"{RESULTS}/mynet-c1-eth0")
    host.run("rm", f"{NETWORKS}/mynet/10.22.0.2")

    lines = doctor(host, status=1)

    assert {line.partition(":")[0] for line in lines} == {"element-without-owner"}
    assert [line.rpartition("element inet cnihook ")[2] for line in lines] == [
        "masq4 '{ 10.22.0.2 }'",
        "ports-to4 '{ 10.22.0.2 }'",
        "ports4 '{ tcp . 8080 }'",
    ]
    for line in lines:
        host.run("sh", "-c", line.rpartition("; remedy: ")[2])
    assert doctor(host, status=0) == []
    host.write(f"{RESULTS}/mynet-c1-eth0", record)
    host.run(CNIHOOK, "detach", "c1")


# Output


def test_findings_are_json_for_programs(host: Host, attached: Container) -> None:
    host.run("sysctl", "-qw", "net.ipv4.ip_forward=0")

    (finding,) = json.loads("".join(doctor(host, "--json", status=1)))

    assert (finding["kind"], finding["fixable"], finding["note"]) == ("forwarding-off", True, False)
    assert finding["remedy"] == "sysctl -w net.ipv4.ip_forward=1"
    detach(host, "c1")


@pytest.mark.parametrize(("variables", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_terminal_gets_colours_without_no_color(
    host: Host, variables: dict[str, str], coloured: bool
) -> None:
    need("script")
    configure(host, **{"10-cut.conflist": "{"})

    result = host.run(
        "script", "-qec", f"{INSTALLED} doctor", "/dev/null", check=False,
        env=base_environment() | {"TERM": "xterm"} | variables,
    )  # fmt: skip

    assert ("\033[31m" in result.stdout) is coloured
    assert "    remedy: " in result.stdout and "    why:    " in result.stdout


def test_doctor_without_root_is_refused(host: Host) -> None:
    result = host.run("setpriv", "--reuid=65534", "--clear-groups", CNIHOOK, "doctor", check=False)

    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == "cnihook: doctor: only root can look at all of it\n"


# The loopback link


def test_loopback_is_open_without_guard_rules(host: Host, attached: Container) -> None:
    host.run("sysctl", "-qw", "net.ipv4.conf.br-mynet.route_localnet=1")
    assert doctor(host, status=0) == []  # the table of published ports guards it
    host.leaves("dir /run/crun")  # created by `crun --version`
    assert any(line.startswith("note loopback-open: ") for line in doctor(host, "--verbose"))
    host.run("nft", "flush", "chain", "inet", "cnihook", "ports-guard")

    lines = doctor(host, status=1)
    assert lines[0].startswith("loopback-open: net.ipv4.conf.br-mynet.route_localnet is 1"), lines
    assert lines[0].endswith("remedy: sysctl -w net.ipv4.conf.br-mynet.route_localnet=0")

    run(host, "--fix")
    assert host.sysctl("net/ipv4/conf/br-mynet/route_localnet") == "0"
    detach(host, "c1")
