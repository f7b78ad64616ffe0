# SPDX-License-Identifier: Apache-2.0
"""A host whose /proc/sys is mounted read-only, as in a container or under ProtectKernelTunables=yes."""

from typing import Any

import pytest

from tests.support.host.host import Container, Host
from tests.support.plugins.ports import seen
from tests.support.runtimes import oci
from tests.support.runtimes.oci import call_hook, configure

SUBNETS = {4: "10.31.0.0/24", 6: "fd31::/64"}


def network(kind: str, versions: tuple[int, ...], **keys: Any) -> dict[str, Any]:
    ipam = {"type": "host-local", "ranges": [[{"subnet": SUBNETS[version]}] for version in versions]}
    plugin = {"type": kind, "ipam": ipam} | keys
    return {
        "cniVersion": "1.0.0",
        "name": "net1",
        "plugins": [plugin, {"type": "portmap", "capabilities": {"portMappings": True}}],
    }


PLUGINS: dict[str, dict[str, Any]] = {
    "bridge": {"bridge": "br31", "isGateway": True, "ipMasq": True},
    "ptp": {"ipMasq": True},
    "macvlan": {"master": "up0"},
    "tap": {},
}


def make_read_only(host: Host) -> None:
    host.run("mount", "--bind", "/proc/sys", "/proc/sys")
    host.run("mount", "-o", "remount,ro,bind", "/proc/sys")
    host.leaves("mount /proc/sys", "dir /run/mount", "file */cnihook/log/c1", "file /var/log/cnihook/c1")


def create(host: Host, container: Container, *arguments: str) -> Any:
    state = {"ociVersion": "1.0.2", "id": "c1", "pid": container.pid, "status": "created", "bundle": "/run"}
    return call_hook(host, "createRuntime", state, *arguments)


def end(host: Host, container: Container) -> None:
    container.destroy()
    state = {"ociVersion": "1.0.2", "id": "c1", "pid": container.pid, "status": "stopped", "bundle": "/run"}
    assert call_hook(host, "poststop", state).returncode == 0


def forwarding(host: Host, value: int) -> None:
    host.run("sysctl", "-qw", f"net.ipv4.ip_forward={value}", f"net.ipv6.conf.all.forwarding={value}")


@pytest.mark.parametrize("versions", [(4,), (6,), (4, 6)])
@pytest.mark.parametrize("kind", PLUGINS)
def test_network_works_without_optional_settings(host: Host, kind: str, versions: tuple[int, ...]) -> None:
    host.outside()
    configure(host, network(kind, versions, **PLUGINS[kind]))
    forwarding(host, 1)
    make_read_only(host)
    container = host.container("c1", process=True)

    outcome = create(host, container, *(("--publish", "8080:80") if kind in ("bridge", "ptp") else ()))

    assert (outcome.returncode, outcome.stderr) == (0, "")
    for version in versions:
        addresses = container.run("ip", f"-{version}", "-br", "addr", "show", "eth0").stdout
        assert SUBNETS[version].partition(".0/" if version == 4 else "/")[0] in addresses
    log = host.read("/run/cnihook/log/c1")
    skipped = log.count("Read-only file system; this and other optional settings are skipped")
    assert skipped == (0 if (kind, versions) == ("tap", (4,)) else 1)  # that writes none below /proc/sys
    end(host, container)


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("kind", ["bridge", "ptp"])
def test_forwarding_that_cannot_be_enabled_is_an_error(host: Host, kind: str, version: int) -> None:
    configure(host, network(kind, (version,), **PLUGINS[kind]))
    forwarding(host, 0)
    make_read_only(host)
    container = host.container("c1", process=True)

    outcome = create(host, container)

    assert outcome.returncode == 1
    name = "net/ipv4/ip_forward" if version == 4 else "net/ipv6/conf/all/forwarding"
    assert f"set sysctl {name} to 1: Read-only file system; without it the host does not" in outcome.stderr
    assert oci.leases(host, "net1") == []
    assert "eth0" not in container.run("ip", "link").stdout


def test_port_on_127_0_0_1_needs_no_setting(host: Host) -> None:
    configure(host, network("bridge", (4,), **PLUGINS["bridge"]))
    forwarding(host, 1)
    make_read_only(host)
    container = host.container("c1", process=True)

    outcome = create(host, container, "--publish", "127.0.0.1:8080:80")

    assert (outcome.returncode, outcome.stderr) == (0, "")
    assert seen(host, container, "127.0.0.1", 8080) == "10.31.0.1"
    end(host, container)
