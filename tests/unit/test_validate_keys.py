# SPDX-License-Identifier: Apache-2.0
"""cnihook validate knows every key that the reference's plugins read, up to version 1.9.1."""

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cnihook.cli import validate

DNS = {"nameservers": ["10.0.0.1"], "domain": "x", "search": ["y"], "options": ["z"]}
ROUTE = {
    "dst": "0.0.0.0/0",
    "gw": "10.1.0.1",
    "mtu": 1400,
    "advmss": 1360,
    "priority": 9,
    "table": 7,
    "scope": 0,
}
RANGE = {"subnet": "10.2.0.0/24", "rangeStart": "10.2.0.5", "rangeEnd": "10.2.0.9", "gateway": "10.2.0.1"}
IPAM: dict[str, Any] = {
    "type": "host-local", "subnet": "10.1.0.0/24", "rangeStart": "10.1.0.5", "rangeEnd": "10.1.0.9",
    "gateway": "10.1.0.1", "routes": [ROUTE], "ranges": [[RANGE]], "resolvConf": "/etc/resolv.conf",
    "dataDir": "/run/leases",
}  # fmt: skip
MAC = "02:00:00:00:00:09"
ARGS_MAC = {"cni": {"mac": MAC}}
SUB = {"master": "eth0", "mtu": 1400, "linkInContainer": False, "ipam": IPAM}

# The tags of the structures into which the plugins of 1.9.1 decode their configuration.  Exceptions: sbr's
# addSourceHints and gateways are on the branch after 1.9.1, and bandwidth's subnets were in 1.6.0 only.
SAMPLES: dict[str, dict[str, Any]] = {
    "bridge": {
        "type": "bridge", "bridge": "br0", "isGateway": True, "isDefaultGateway": True, "forceAddress": True,
        "ipMasq": True, "ipMasqBackend": "nftables", "mtu": 1400, "hairpinMode": True, "promiscMode": False,
        "vlan": 5, "vlanTrunk": [{"minID": 7, "maxID": 9}, {"id": 12}], "preserveDefaultVlan": False,
        "macspoofchk": True, "enabledad": True, "disableContainerInterface": False, "portIsolation": True,
        "ipam": IPAM, "dns": DNS, "args": ARGS_MAC,
    },
    "ptp": {
        "type": "ptp", "ipMasq": True, "ipMasqBackend": "iptables", "mtu": 1400, "ipam": IPAM, "dns": DNS,
    },
    "macvlan": {"type": "macvlan", **SUB, "mode": "vepa", "mac": MAC, "bcqueuelen": 5},
    "ipvlan": {"type": "ipvlan", **SUB, "mode": "l3s"},
    "vlan": {"type": "vlan", **SUB, "vlanId": 5},
    "host-device": {"type": "host-device", "device": "eth1", "ipam": IPAM},
    "host-device by MAC": {"type": "host-device", "hwaddr": MAC},
    "host-device by path": {"type": "host-device", "kernelpath": "/sys/devices/pci0000:00/0000:00:1f.6"},
    "dummy": {"type": "dummy", "ipam": IPAM},
    "loopback": {"type": "loopback"},
    "tap": {
        "type": "tap", "multiQueue": True, "owner": 1, "group": 1, "selinuxContext": "", "mtu": 1400,
        "bridge": "br0", "mac": MAC, "ipam": IPAM,
    },
    "tap with a MAC address of the container's": {"type": "tap", "args": ARGS_MAC},
    "static": {
        "type": "dummy",
        "ipam": {
            "type": "static", "addresses": [{"address": "10.1.0.5/24", "gateway": "10.1.0.1"}],
            "routes": [ROUTE], "dns": DNS,
        },
        "args": {"cni": {"ips": ["10.1.0.6/24"]}},
    },
    "dhcp": {
        "type": "macvlan", "master": "eth0",
        "ipam": {
            "type": "dhcp", "daemonSocketPath": "/run/cni/dhcp.sock", "priority": 7,
            "provide": [{"option": "host-name", "value": "x"}, {"option": "12", "fromArg": "K8S_POD_NAME"}],
            "request": [{"option": "121", "skipDefault": True}],
        },
    },
    "portmap": {
        "type": "portmap", "snat": True, "masqAll": True, "markMasqBit": 13, "backend": "iptables",
        "conditionsV4": ["-s", "10.0.0.0/8"], "conditionsV6": ["-s", "fd00::/8"],
        "capabilities": {"portMappings": True},
    },
    "portmap with a chain of others": {"type": "portmap", "externalSetMarkChain": "KUBE-MARK-MASQ"},
    "firewall": {
        "type": "firewall", "backend": "iptables", "iptablesAdminChainName": "X", "firewalldZone": "trusted",
        "ingressPolicy": "same-bridge",
    },
    "bandwidth": {
        "type": "bandwidth", "ingressRate": 80000, "ingressBurst": 8000, "egressRate": 80000,
        "egressBurst": 8000, "unshapedSubnets": ["10.0.0.0/8"],
    },
    "bandwidth of some subnets": {
        "type": "bandwidth", "ingressRate": 80000, "ingressBurst": 8000, "shapedSubnets": ["fd00::/8"],
    },
    "tuning": {
        "type": "tuning", "sysctl": {"net.core.somaxconn": "500"}, "mac": MAC, "mtu": 1400, "promisc": True,
        "allmulti": True, "txQLen": 100, "dataDir": "/run/t",
    },
    "tuning of the container": {
        "type": "tuning",
        "args": {
            "cni": {
                "mac": MAC, "mtu": 1400, "promisc": True, "allmulti": False, "txQLen": 100,
                "sysctl": {"net.core.somaxconn": "500"},
            }
        },
    },
    "sbr": {"type": "sbr", "addSourceHints": True, "gateways": ["10.1.0.1", "fd00::1"]},
    "sbr with a table": {"type": "sbr", "table": 100},
    "vrf": {"type": "vrf", "vrfname": "red", "table": 100},
}  # fmt: skip
OF_THE_LIST = {"disableCheck": True, "disableGC": False, "loadOnlyInlinedPlugins": True}
# Names in these objects are not keys: sysctls, capabilities, and values under args.
NAMES = {"sysctl", "capabilities", "args"}


# The report for a configuration without one of these keys.
REQUIRED = {
    "ipam": "ipam.type is empty or absent", "dst": '"dst" is missing', "minID": "minID is missing",
    "maxID": "maxID is missing", "id": "", "master": '"master" field is required',
    "vrfname": "valid vrf name", "device": "specify either", "hwaddr": "specify either",
    "kernelpath": "specify either",
    "addresses": "address", "address": '"address"', "option": "DHCP option",
    "value": "value", "fromArg": "value", "subnet": "subnet",
    "ingressRate": "rate must also be set", "egressRate": "rate must also be set",
    "ingressBurst": "burst must also be set", "egressBurst": "burst must also be set",
}  # fmt: skip


def problems(folder: Path, plugin: Any, **of_the_list: Any) -> list[str]:
    path = folder / "10-x.conflist"
    network = {"cniVersion": "1.1.0", "cniVersions": ["1.0.0"], "name": "x", **OF_THE_LIST, **of_the_list}
    path.write_text(json.dumps({**network, "plugins": [plugin]}))
    return [f"{one['problem']}; {one['hint']}" for one in validate.problems_of(str(path), None)]


def misspelled(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield each key below `value`, and a copy of everything in which that key has an extra letter."""
    if isinstance(value, list):
        for index, item in enumerate(value):
            for key, changed in misspelled(item):
                yield key, [*value[:index], changed, *value[index + 1 :]]
    if isinstance(value, dict):
        for key, item in value.items():
            if key != "type":
                yield key, {f"{name}x" if name == key else name: other for name, other in value.items()}
            for inner, changed in misspelled(item) if key not in NAMES else ():
                yield inner, {**value, key: changed}


@pytest.mark.parametrize("name", SAMPLES)
def test_configuration_with_all_keys_of_the_reference_is_accepted(tmp_path: Path, name: str) -> None:
    assert problems(tmp_path, SAMPLES[name]) == []


@pytest.mark.parametrize("name", SAMPLES)
def test_every_key_of_the_reference_is_known(tmp_path: Path, name: str) -> None:
    """validate suggests the key for a misspelled one, or reports that it is missing."""
    for key, changed in misspelled(copy.deepcopy(SAMPLES[name])):
        output = "\n".join(problems(tmp_path, changed))

        assert f'write "{key}"' in output or key in REQUIRED and REQUIRED[key] in output, (key, output)


@pytest.mark.parametrize("key", ["cniVersions", *OF_THE_LIST])
def test_every_key_of_a_list_is_known(tmp_path: Path, key: str) -> None:
    assert f'write "{key}"' in "\n".join(problems(tmp_path, {"type": "loopback"}, **{f"{key}x": True}))
