# SPDX-License-Identifier: Apache-2.0
"""cnihook network create: the file, the choice of a subnet, and what is refused."""

import json
import re
from typing import Any

import pytest

from tests.support.commands.networks import create, network, refused, subnets
from tests.support.host.host import Host, Outside
from tests.support.plugins.cni import REFERENCE
from tests.support.runtimes.oci import CNIHOOK, NET_D, NETWORKS, bridge, configure
from tests.support.skip import skip_or_fail


def test_defaults_are_a_bridge_with_ports_limits_and_firewall(host: Host) -> None:
    conf = create(host, "mynet")

    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", conf.pop("cnihook")["created"])
    assert conf == {
        "cniVersion": "1.0.0",
        "name": "mynet",
        "plugins": [
            {
                "type": "bridge",
                "bridge": "br-mynet",
                "isGateway": True,
                "ipMasq": True,
                "hairpinMode": True,
                "capabilities": {"ips": True, "mac": True},
                "ipam": {
                    "type": "host-local",
                    "ranges": [[{"subnet": "10.22.0.0/24"}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": True}},
            {"type": "bandwidth", "capabilities": dict.fromkeys(("bandwidth", "emulate", "quota"), True)},
            {"type": "firewall"},
        ],
    }
    assert "exists already, in /etc/cni/net.d/90-mynet.conflist" in refused(host, "create", "mynet")
    assert "letters, digits" in network(host, "create", "my net", status=2).stderr
    assert "has a meaning of its own" in refused(host, "create", "host")
    # Neither has published ports that need it; the bridge plugin rejects the two modes together.
    assert "hairpinMode" not in create(host, "inside", "--internal")["plugins"][0]
    assert "hairpinMode" not in create(host, "open", "--opt", "promiscMode=true")["plugins"][0]


def test_options_are_in_the_file(host: Host) -> None:
    words = (
        "--subnet 10.60.0.0/16 --gateway 10.60.0.9 --ip-range 10.60.4.0/24 --ipv6 --dns 192.0.2.1 --vlan 7"
    )
    words += " --mtu 1300 --opt com.docker.network.bridge.name=cnibr --opt hairpinMode=true"
    words += " --opt sysctl.net.core.somaxconn=64 --label com.example=a=b --label plain"
    conf = create(host, "full", *words.split())
    first = conf["plugins"][0]

    (one,), (other,) = first["ipam"]["ranges"]
    assert one == {
        "subnet": "10.60.0.0/16",
        "rangeStart": "10.60.4.0",
        "rangeEnd": "10.60.4.255",
        "gateway": "10.60.0.9",
    }
    assert re.fullmatch(r"fd[0-9a-f:]+::/64", other["subnet"])
    assert first["ipam"]["routes"] == [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]
    assert (first["bridge"], first["vlan"], first["mtu"], first["hairpinMode"]) == ("cnibr", 7, 1300, True)
    assert first["dns"] == {"nameservers": ["192.0.2.1"]}
    assert conf["nerdctlLabels"] == {"com.example": "a=b", "plain": ""}
    assert conf["plugins"][-1] == {"type": "tuning", "sysctl": {"net.core.somaxconn": "64"}}


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ("--subnet 10.60.0.1/24", "subnet 10.60.0.1/24 has host bits; write 10.60.0.0/24"),
        ("--subnet 10.60.0.0", "'10.60.0.0' is not an address in CIDR notation"),
        ("--subnet 10.60.0.0/31", "is too small"),
        ("--subnet 10.60.0.0/24 --gateway 10.61.0.1", "--gateway 10.61.0.1 is in none of the subnets"),
        (
            "--subnet 10.60.0.0/24 --ip-range 10.61.0.0/28",
            "--ip-range 10.61.0.0/28 is in none of the subnets",
        ),
        ("--subnet 10.60.0.0/24 --subnet 10.60.0.128/25", "overlaps another --subnet"),
        ("--mtu 20", "--mtu 20: it must be from 68 to 65535"),
        ("--ipv6 --mtu 576", "it must be from 1280 to 65535"),
        ("--parent lo", "--parent lo: the driver bridge has no parent link"),
        ("--vlan 5000", "a VLAN has a number from 1 to 4094"),
        ("--opt nothing=1", "the driver bridge has no option nothing; there are: bridge,"),
        ("--opt mtu=many", "'many' is not a number"),
        ("--opt mtu", "it is not KEY=VALUE"),
        ("--dns nowhere", "--dns 'nowhere' is not an IP address"),
        ("--label =x", "the key is empty"),
        ("--driver ptp --isolated", "--isolated has no effect on the driver ptp"),
        ("--driver macvlan", "no default route, so no parent link is known; use --parent"),
        ("--driver macvlan --parent lo", "parent lo is the loopback interface"),
        ("--driver macvlan --parent none0", "parent none0 does not exist on this host"),
    ],
)
def test_wrong_options_are_refused(host: Host, words: str, problem: str) -> None:
    assert problem in refused(host, "create", "mynet", *words.split())


def test_subnet_in_use_is_neither_chosen_nor_accepted(host: Host) -> None:
    """Addresses, routes of both IP versions and of another table, networks, and podman's files count."""
    outside = host.outside()
    via = ("via", Outside.ADDRESS)
    host.run("ip", "address", "add", "10.22.0.1/24", "dev", "lo")
    host.run("ip", "route", "add", "10.22.1.0/25", *via)
    host.run("ip", "route", "add", "10.22.2.0/23", *via, "table", "77")
    host.run("ip", "rule", "add", "from", "192.0.2.9", "lookup", "77")
    host.run("ip", "route", "add", "10.22.5.0/24", *via, "table", "78")  # which no rule names
    host.run("ip", "route", "add", "0.0.0.0/1", *via)  # of a VPN
    host.run("ip", "-6", "route", "add", "fd07::/64", "via", Outside.ADDRESS6)
    host.save_state()
    configure(host, bridge("front", "10.22.4.0/24"))
    podman = {"name": "pod", "network_interface": "podman7", "subnets": [{"subnet": "10.22.6.0/24"}]}
    host.write("/etc/containers/networks/pod.json", json.dumps(podman))
    host.write("/etc/containers/networks/bad.json", '{"subnets": 5}')
    host.leaves("dir /etc/containers*", "file /etc/containers/*")

    assert [subnets(create(host, name)) for name in ("one", "two")] == [["10.22.5.0/24"], ["10.22.7.0/24"]]
    for subnet, use in (
        ("10.22.0.128/25", "address 10.22.0.1/24 of lo"),
        ("10.22.1.0/24", "the host's route to 10.22.1.0/25 on up0"),
        ("10.22.3.0/24", "the host's route to 10.22.2.0/23 on up0"),
        ("10.22.4.0/22", "network front, /etc/cni/net.d/10-net.conflist"),
        ("10.22.6.0/24", "pod of podman"),
        ("10.22.7.0/24", "network two, /etc/cni/net.d/90-two.conflist"),
        ("198.51.100.0/24", "address 198.51.100.1/24 of up0"),
        ("fd07::/48", "the host's route to fd07::/64 on up0"),
    ):
        assert f"subnet {subnet} overlaps {use}; choose another" in refused(
            host, "create", "x", "--subnet", subnet
        )
    assert "bridge podman7 is that of network pod" in refused(host, "create", "x", "-o", "bridge=podman7")
    assert "bridge br-front is that of network front" in refused(
        host, "create", "x", "-o", "bridge=br-front"
    )
    assert "bridge up0: the host has a link" in refused(host, "create", "x", "-o", "bridge=up0")

    outside.run("ip", "link", "set", "up0", "mtu", "1400")
    host.run("ip", "link", "set", "up0", "mtu", "1400")
    assert create(host, "low")["plugins"][0]["mtu"] == 1400
    assert "mtu" not in create(host, "inside", "--internal")["plugins"][0]


def test_long_name_and_taken_bridge_get_a_hash(host: Host) -> None:
    host.run("ip", "link", "add", "br-short", "type", "bridge")
    host.save_state()

    names = [create(host, name)["plugins"][0]["bridge"] for name in ("short", "name-of-15-more")]

    assert all(re.fullmatch(r"br-[0-9a-f]{12}", name) for name in names)


def test_two_at_once_get_different_subnets(host: Host) -> None:
    host.leaves(f"file {NET_D}/*")
    script = f"for i in 1 2 3 4; do {CNIHOOK} network create n$i & done; wait"
    host.run("sh", "-c", script)

    files = [json.loads(host.read(f"{NET_D}/{name}")) for name in host.listdir(NET_D)]
    assert len({subnets(conf)[0] for conf in files}) == 4


def test_parent_link_is_that_of_the_default_route(host: Host) -> None:
    """The router of that route is the gateway, and the address of the host itself must not be leased."""
    host.outside()
    parents: dict[str, Any] = {}
    for driver, words in (
        ("macvlan", ["--subnet", "198.51.100.0/24", "--ip-range", "198.51.100.64/26"]),
        ("macvlan", []),
        ("vlan", ["--vlan", "5", "--subnet", "10.70.0.0/24"]),
    ):
        name = f"n{len(parents)}"
        parents[name] = create(host, name, "--driver", driver, *words)
        network(host, "rm", name)

    assert [conf["plugins"][0]["master"] for conf in parents.values()] == ["up0"] * 3
    ((lan,),) = parents["n0"]["plugins"][0]["ipam"]["ranges"]
    assert (lan["gateway"], lan["rangeStart"]) == (Outside.ADDRESS, "198.51.100.64")
    assert parents["n1"]["plugins"][0]["ipam"] == {"type": "dhcp"}
    assert parents["n2"]["plugins"][0]["vlanId"] == 5
    assert all(len(conf["plugins"]) == 1 for conf in parents.values())
    lan_words = ("create", "x", "--driver", "ipvlan", "--subnet", "198.51.100.0/24")
    assert "the host itself has 198.51.100.1, on up0" in refused(host, *lan_words)
    assert "needs a --subnet" in refused(host, "create", "x", "--driver", "ipvlan")
    assert "needs the number of a VLAN" in refused(host, "create", "x", "--driver", "vlan")

    words = ["--ip-range", "198.51.100.64/26"]
    assert create(host, "i", *lan_words[2:], *words)["plugins"][0]["ipam"]["routes"] == [
        {"dst": "0.0.0.0/0"}
    ]
    network(host, "rm", "i")
    create(host, "m", "--driver", "macvlan")
    assert "is that of network m, of driver macvlan" in refused(
        host, *lan_words, "--ip-range", "198.51.100.64/26"
    )
    create(host, "v", "--driver", "vlan", "--vlan", "5")
    assert "VLAN 5 of up0 is that of network v" in refused(host, "create", "x", "-d", "vlan", "--vlan", "5")
    host.run("ip", "link", "add", "brx", "type", "bridge")
    host.run("ip", "link", "set", "up0", "master", "brx")
    assert "parent up0 is a port of brx; --parent brx uses that" in refused(
        host, "create", "x", "--driver", "macvlan", "--parent", "up0"
    )
    host.run("ip", "link", "delete", "brx")


# The options of each network.  The kernel of few test machines has ipvlan and vlan.
DRIVERS: dict[str, list[str]] = {
    "bridge": ["--ipv6"],
    "isolated": ["--isolated"],
    "internal": ["--internal", "--ipv6", "--dns", "192.0.2.1"],
    "ptp": ["--driver", "ptp", "--ipv6"],
    "macvlan": ["--driver", "macvlan", "--parent", "up0", "--subnet", "10.71.0.0/24"],
}


@pytest.mark.parametrize("plugins", ["cnihook", "reference"])
def test_created_networks_attach(host: Host, plugins: str) -> None:
    """The reference's executables accept each list, and `network rm` removes also their bridges."""
    if not REFERENCE.is_dir():
        skip_or_fail(f"no reference plugins in {REFERENCE}")
    host.run("ip", "link", "add", "up0", "up", "type", "veth", "peer", "name", "up0-peer")
    host.run("ip", "link", "set", "up0-peer", "up")
    if plugins == "reference":
        # Its firewall and portmap leave their chains, and a bridge its settings.
        host.leaves("nft: *", "sysctl *", "dir /run/cni*", "file /run/cni*")
    host.save_state()
    path = ["--cni-path", str(REFERENCE)] if plugins == "reference" else []
    results: dict[str, Any] = {}
    for name, words in DRIVERS.items():
        conf = create(host, name, *words)
        container = host.container(f"c-{name}")
        answer = host.run(CNIHOOK, "add", name, container.path, *path).stdout
        results[name] = json.loads(answer)
        assert len(results[name]["ips"]) == len(subnets(conf))
        defaults = [route for route in results[name].get("routes", []) if route["dst"].endswith("/0")]
        assert len(defaults) == (0 if name == "internal" else len(subnets(conf)))
    assert results["internal"]["dns"] == {"nameservers": ["192.0.2.1"]}

    for name in DRIVERS:
        host.run(CNIHOOK, "del", name, f"/run/netns/c-{name}", *path)
    assert network(host, "rm", *DRIVERS).stdout.split() == list(DRIVERS)
    assert not any(link.startswith("br-") for link in host.links())
    assert host.listdir(NETWORKS) == [] and host.listdir(NET_D) == []
