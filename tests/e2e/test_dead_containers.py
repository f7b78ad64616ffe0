# SPDX-License-Identifier: Apache-2.0
"""Stale attachments: the next container that needs what a dead one holds releases it, and starts.

crun calls no poststop if the container's program does not exist, and no runtime calls it after a crash.
"""

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.host.host import Container, Host
from tests.support.host.namespace import base_environment
from tests.support.runtimes.oci import CNIHOOK, RESULTS, bridge, call_hook, configure, leases, wait_for

HOST_LOCAL = {"type": "host-local", "ranges": [[{"subnet": "10.22.0.0/24"}], [{"subnet": "fd22::/64"}]]}
STATIC = {"type": "static", "addresses": [{"address": "10.22.0.9/24", "gateway": "10.22.0.1"}]}


def network(kind: str, ipam: dict[str, Any], **keys: Any) -> dict[str, Any]:
    plugins = [{"type": kind, "ipam": ipam, **keys}]
    return {"cniVersion": "1.0.0", "name": "mynet", "plugins": plugins}


def chained(*plugins: dict[str, Any], **keys: Any) -> dict[str, Any]:
    network = bridge("mynet", "10.22.0.0/24")
    network["plugins"][0] |= keys
    network["plugins"] += plugins
    return network


SMALL = {"type": "host-local", "subnet": "10.22.0.0/30"}
CAPABLE: dict[str, Any] = {"capabilities": {"ips": True, "mac": True}}
# What a container can hold: the network, and the annotations of both containers.
HELD: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "range": (chained(ipam=SMALL), {}),
    "ip": (chained(ipam=HOST_LOCAL, **CAPABLE), {"cnihook.ip": "10.22.0.9"}),
    "ip6": (chained(ipam=HOST_LOCAL, **CAPABLE), {"cnihook.ip6": "fd22::9"}),
    "port": (
        chained({"type": "portmap", "capabilities": {"portMappings": True}}),
        {"cnihook.publish": "8080:80"},
    ),
    "route": (network("ptp", STATIC), {}),
    "device": (network("host-device", HOST_LOCAL, device="dev0"), {}),
    "mac": (
        network("macvlan", HOST_LOCAL, master="dev0", **CAPABLE),
        {"cnihook.mac-address": "02:00:00:00:00:09"},
    ),
}


def state_of(container: Container, annotations: dict[str, str]) -> dict[str, Any]:
    state = {"ociVersion": "1.0", "id": container.name, "pid": container.pid, "bundle": "/nowhere"}
    return state | {"annotations": annotations}


@pytest.fixture
def prepare(host: Host) -> Callable[[dict[str, Any]], None]:
    def prepare(conf: dict[str, Any]) -> None:
        if "dev0" in json.dumps(conf):
            host.run(*"ip link add dev0 type veth peer name ved0".split())
            host.run(*"ip link set dev0 up".split())
            host.save_state()
        configure(host, conf)

    return prepare


@pytest.fixture
def leave_dead(host: Host, prepare: Callable[[dict[str, Any]], None]) -> Callable[[str], dict[str, str]]:
    """Attach the container `dead`, and end it without a poststop; the annotations are for its successor."""

    def leave(held: str) -> dict[str, str]:
        conf, annotations = HELD[held]
        prepare(conf)
        dead = host.container("dead", process=True)
        assert call_hook(host, "createRuntime", state_of(dead, annotations)).returncode == 0
        dead.destroy()
        wait_for(lambda: not host.exists(f"/proc/{dead.pid}"), "the end of the container")
        return annotations

    return leave


@pytest.mark.parametrize("held", HELD)
def test_hook_releases_what_a_dead_container_holds(
    host: Host, leave_dead: Callable[[str], dict[str, str]], held: str
) -> None:
    annotations = leave_dead(held)
    living = host.container("living", process=True)

    answer = call_hook(host, "createRuntime", state_of(living, annotations))

    assert (answer.returncode, answer.stderr) == (0, "")
    assert host.listdir(RESULTS) == ["mynet-living-eth0"]
    assert call_hook(host, "poststop", state_of(living, annotations)).returncode == 0


@pytest.mark.parametrize("held", sorted(set(HELD) - {"range"}))
def test_hook_takes_nothing_from_a_live_container(
    host: Host, prepare: Callable[[dict[str, Any]], None], held: str
) -> None:
    conf, annotations = HELD[held]
    prepare(conf)
    first = host.container("first", process=True)
    assert call_hook(host, "createRuntime", state_of(first, annotations)).returncode == 0
    second = host.container("second", process=True)

    assert call_hook(host, "createRuntime", state_of(second, annotations)).returncode == 1

    assert host.listdir(RESULTS) == ["mynet-first-eth0"]
    assert call_hook(host, "poststop", state_of(first, annotations)).returncode == 0
    host.leaves("file /run/cnihook/log/second", "dir /run/cnihook/log")


@pytest.mark.parametrize("other", [False, True], ids=["same network", "another network"])
def test_library_releases_what_a_dead_container_holds(host: Host, other: bool) -> None:
    """A host port is shared by all networks, so the dead container can hold it on another one."""
    portmap = {"type": "portmap", "capabilities": {"portMappings": True}}
    first = chained(portmap, ipam=HOST_LOCAL, bridge="br0")
    second = first | {"name": "second"}
    configure(host, first, second)
    ports = json.dumps({"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]})
    dead, living = host.container("dead"), host.container("living")
    environment = {"CAP_ARGS": ports, "CNI_ARGS": "" if other else "IP=10.22.0.9"}
    host.run(CNIHOOK, "add", "mynet", "dead", env=base_environment() | environment)
    dead.destroy()

    name = "second" if other else "mynet"
    host.run(CNIHOOK, "add", name, "living", env=base_environment() | environment)

    assert [record.startswith(f"{name}-") for record in host.listdir(RESULTS)] == [True]
    assert leases(host) == ([] if other else ["10.22.0.9", "fd22::3"])
    host.run(CNIHOOK, "del", name, living.name)


@pytest.mark.parametrize("held", ["port", "range"])
def test_start_waits_for_a_process_that_works_on_the_dead_container(
    host: Host, leave_dead: Callable[[str], dict[str, str]], held: str
) -> None:
    """gc, a poststop or another start may be at it; what the dead container has is free soon after."""
    annotations = leave_dead(held)
    lock = "/run/cnihook/lock/container-dead.lock"
    with host.popen("flock", lock, "sh", "-c", "echo held; sleep 1") as other:
        assert other.stdout and other.stdout.readline() == "held\n"
        heir = host.container("heir", process=True)
        answer = call_hook(host, "createRuntime", state_of(heir, annotations))
        assert (answer.returncode, answer.stderr) == (0, "")
        other.wait(10)
    assert call_hook(host, "poststop", state_of(heir, annotations)).returncode == 0
    host.run("rm", "-f", lock)
