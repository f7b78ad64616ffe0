# SPDX-License-Identifier: Apache-2.0
"""The specification's worked example (SPEC.md, "Appendix: Examples"), request by request.

dbnet consists of a bridge, tuning and portmap.
"""

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from cnihook.runtime import networks
from cnihook.runtime.cni import CNI
from tests.unit.standins import Plugins, answer

NETNS = "/proc/self/ns/net"  # the example has /var/run/netns/blue, which would have to exist
CAPABILITY_ARGS = {
    "mac": "00:11:22:33:44:66",
    "portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}],
}
DBNET: dict[str, Any] = {
    "cniVersion": "1.1.0",
    "cniVersions": ["0.3.1", "0.4.0", "1.0.0", "1.1.0"],
    "name": "dbnet",
    "plugins": [
        {
            "type": "bridge",
            "bridge": "cni0",
            "keyA": ["some more", "plugin specific", "configuration"],
            "ipam": {
                "type": "host-local",
                "subnet": "10.1.0.0/16",
                "gateway": "10.1.0.1",
                "routes": [{"dst": "0.0.0.0/0"}],
            },
            "dns": {"nameservers": ["10.1.0.1"]},
        },
        {
            "type": "tuning",
            "capabilities": {"mac": True},
            "sysctl": {"net.core.somaxconn": "500"},
        },
        {"type": "portmap", "capabilities": {"portMappings": True}},
    ],
}
OF_BRIDGE: dict[str, Any] = {
    "cniVersion": "1.1.0",
    "interfaces": [
        {"name": "cni0", "mac": "00:11:22:33:44:55"},
        {"name": "veth3243", "mac": "55:44:33:22:11:11"},
        {"name": "eth0", "mac": "99:88:77:66:55:44", "sandbox": NETNS},
    ],
    "ips": [{"interface": 2, "address": "10.1.0.5/16", "gateway": "10.1.0.1"}],
    "routes": [{"dst": "0.0.0.0/0"}],
    "dns": {"nameservers": ["10.1.0.1"]},
}
OF_TUNING = copy.deepcopy(OF_BRIDGE)
OF_TUNING["interfaces"][2]["mac"] = "00:11:22:33:44:66"


def stdin(index: int, **keys: Any) -> dict[str, Any]:
    """Return the stdin of plugin `index` in the example."""
    own = {key: value for key, value in DBNET["plugins"][index].items() if key != "capabilities"}
    return {"cniVersion": "1.1.0", "name": "dbnet", **own, **keys}


MAC = {"runtimeConfig": {"mac": CAPABILITY_ARGS["mac"]}}
PORTS = {"runtimeConfig": {"portMappings": CAPABILITY_ARGS["portMappings"]}}
LATER = [
    stdin(0, prevResult=OF_TUNING),
    stdin(1, prevResult=OF_TUNING, **MAC),
    stdin(2, prevResult=OF_TUNING, **PORTS),
]


@pytest.fixture
def plugins(state: Path) -> Plugins:
    plugins = Plugins(state)
    for name, result in (("bridge", OF_BRIDGE), ("tuning", OF_TUNING), ("portmap", OF_TUNING)):
        plugins.make(name, ADD=answer(result))
    return plugins


def test_dbnet_request_by_request(plugins: Plugins) -> None:
    cni = CNI(plugin_dirs=[str(plugins.folder)])
    network = networks.parse(json.dumps(DBNET).encode(), "10-dbnet.conflist")

    result = cni.add(network, "blue", netns=NETNS, capability_args=CAPABILITY_ARGS).result
    cni.check(network, "blue", "eth0")
    cni.delete(network, "blue", "eth0")

    assert result.to_json("1.1.0") == OF_TUNING
    assert plugins.calls == [
        *("bridge ADD", "tuning ADD", "portmap ADD"),
        *("bridge CHECK", "tuning CHECK", "portmap CHECK"),
        *("portmap DEL", "tuning DEL", "bridge DEL"),
    ]
    assert [plugins.stdin(index) for index in range(9)] == [
        stdin(0),
        stdin(1, prevResult=OF_BRIDGE, **MAC),
        stdin(2, prevResult=OF_TUNING, **PORTS),
        *LATER,
        *reversed(LATER),
    ]
    for index in range(9):
        command = plugins.calls[index].split()[1]
        variables = plugins.environment(index)
        assert {key: variables[key] for key in variables if key != "CNI_PATH"} == {
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": "blue",
            "CNI_NETNS": NETNS,
            "CNI_IFNAME": "eth0",
            "CNI_ARGS": "",
        }


def test_dbnet_collects_garbage_with_the_list_of_valid_attachments(plugins: Plugins) -> None:
    cni = CNI(plugin_dirs=[str(plugins.folder)])
    network = networks.parse(json.dumps(DBNET).encode(), "10-dbnet.conflist")

    cni.gc(network, [("id1", "eth0"), ("id2", "eth0")])

    alive = [{"containerID": "id1", "ifname": "eth0"}, {"containerID": "id2", "ifname": "eth0"}]
    keys = {"cni.dev/valid-attachments": alive, "cni.dev/attachments": alive}
    assert plugins.calls == ["bridge GC", "tuning GC", "portmap GC"]
    assert [plugins.stdin(index) for index in range(3)] == [stdin(index, **keys) for index in range(3)]
