# SPDX-License-Identifier: Apache-2.0
"""An error while state is read is an error of DEL: only a file that does not exist is absent."""

import json
import os
import subprocess
from typing import Any

import pytest

from tests.support.host.host import Container, Host
from tests.support.host.namespace import base_environment
from tests.support.plugins import cni
from tests.support.plugins.ipam import leased

IPAM = {"type": "host-local", "ranges": [[{"subnet": "10.9.0.0/24"}], [{"subnet": "fd09::/64"}]]}
KINDS: dict[str, dict[str, Any]] = {
    "bridge": {},
    "ptp": {},
    "macvlan": {"master": "dev0"},
    "tap": {},
    "host-device": {"device": "dev0"},
}
DEVICES = "/run/cnihook/host-device"


@pytest.fixture
def implementation(implementations: dict[str, cni.Implementation]) -> cni.Implementation:
    return implementations["builtin"]


def prepare(host: Host) -> None:
    host.run(*"ip link add dev0 type veth peer name ved0".split())
    host.run(*"ip link set dev0 up".split())
    host.save_state()


def delete(host: Host, container: Container, conf: Any, *before: str) -> subprocess.CompletedProcess[str]:
    variables = {"CNI_CONTAINERID": "c1", "CNI_NETNS": container.path, "CNI_IFNAME": "eth0"}
    env = base_environment() | {"CNI_COMMAND": "DEL", "CNI_PATH": "/nowhere"} | variables
    assert host.implementation
    program = host.implementation.program(conf["type"])
    return host.run(*before, program, input=json.dumps(conf), env=env, check=False, timeout=20)


def failing(what: str, path: str) -> list[str]:
    return ["strace", "-qqo/dev/null", "--trace=openat", f"--trace-path={path}", f"--inject=openat:{what}"]


@pytest.mark.parametrize("error", ["EMFILE", "EIO"])
@pytest.mark.parametrize("recorded", [True, False], ids=["with-result", "without-result"])
@pytest.mark.parametrize("kind", KINDS)
def test_namespace_that_cannot_be_opened_keeps_the_lease(
    host: Host, container: Container, kind: str, recorded: bool, error: str
) -> None:
    """The namespace may still hold the interface, and the address with it."""
    prepare(host)
    conf = {"cniVersion": "1.0.0", "name": "net1", "type": kind, "ipam": IPAM, **KINDS[kind]}
    result = host.cni("ADD", conf, container)
    conf = cni.with_previous_result(conf, result) if recorded else conf

    answer = delete(host, container, conf, *failing(f"error={error}", container.path))

    if kind in ("bridge", "ptp") and not recorded:
        assert container.links() == {"lo"}  # found and removed on the host
    else:
        assert answer.returncode == 1 and container.path in answer.stdout
        assert leased(host) == ["10.9.0.2", "fd09::2"]
    assert delete(host, container, conf).returncode == 0
    assert container.links() == {"lo"} and leased(host) == []


def test_unreadable_file_of_a_moved_device_fails_del(host: Host, container: Container) -> None:
    """The file has the state of the device before ADD, so the next DEL needs it."""
    prepare(host)
    conf = {"cniVersion": "1.0.0", "name": "net1", "type": "host-device", "ipam": IPAM, "device": "dev0"}
    host.cni("ADD", conf, container)
    (name,) = host.listdir(DEVICES)

    answer = delete(host, container, conf, *failing("error=EIO", f"{DEVICES}/{name}"))

    assert answer.returncode == 1 and f"{DEVICES}/{name}: Input/output error" in answer.stdout
    assert host.listdir(DEVICES) == [name] and leased(host) == ["10.9.0.2", "fd09::2"]
    assert delete(host, container, conf).returncode == 0


@pytest.mark.parametrize("kind", ["host-device", "tuning"])
def test_del_does_not_wait_at_a_fifo(host: Host, container: Container, kind: str) -> None:
    prepare(host)
    before = {"cniVersion": "1.0.0", "name": "net1", "type": "ptp", "ipam": IPAM}
    conf: dict[str, Any] = {"cniVersion": "1.0.0", "name": "net1", "type": kind}
    if kind == "tuning":
        conf = cni.with_previous_result(conf | {"mtu": 1400}, host.cni("ADD", before, container))
        folder = host.root / "run/cni/tuning"
        path = folder / "c1_eth0.json"
    else:
        conf |= {"device": "dev0"}
        folder = host.root / DEVICES.lstrip("/")
        path = folder / "net1+c1+eth0"
    host.leaves("dir /run/cni", "dir /run/cni/tuning", f"dir {DEVICES}", f"* {DEVICES}*", "dir /run/cnihook")
    folder.mkdir(parents=True)
    os.mkfifo(path)

    answer = delete(host, container, conf)

    assert (answer.returncode, answer.stderr) == (0, "")
