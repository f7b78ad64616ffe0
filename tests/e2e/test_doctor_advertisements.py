# SPDX-License-Identifier: Apache-2.0
"""cnihook doctor: router advertisements that the host needs but ignores, and those it must not accept."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.test_doctor import attach, detach
from tests.support.commands.doctor import doctor, finds, fixes
from tests.support.host.host import Host
from tests.support.runtimes.oci import configure
from tests.support.services.advertising import Router, has_default_route, teach


def network(kind: str = "bridge", **keys: Any) -> dict[str, Any]:
    ipam = {"type": "host-local", "ranges": [[{"subnet": "fd09::/64"}]]}
    plugin = {"type": kind, "ipam": ipam} | (
        {"bridge": "br9", "isGateway": True} if kind == "bridge" else {}
    )
    return {"cniVersion": "1.1.0", "name": "six", "plugins": [plugin | keys]}


def set_sysctl(host: Host, name: str, value: int) -> None:
    host.run("sysctl", "-qw", f"net.ipv6.conf.{name}={value}")


@pytest.fixture(autouse=True)
def off(host: Host) -> Iterator[None]:
    set_sysctl(host, "all.forwarding", 0)
    host.leaves("file */cnihook/*")
    yield


def test_setting_that_first_container_changes_is_a_note(host: Host) -> None:
    configure(host, network())
    Router(host).teach()
    host.leaves("dir /run/crun")  # created by `crun --version`

    assert doctor(host, status=0) == []
    (line,) = [line for line in doctor(host, "--verbose") if "advertisements-needed" in line]
    assert "ra0" in line and "six" in line and "sysctl -w net.ipv6.conf.ra0.accept_ra=2" in line


def test_read_only_setting_is_found_before_first_container(host: Host) -> None:
    configure(host, network())
    Router(host).teach()
    path = "/proc/sys/net/ipv6/conf/ra0/accept_ra"
    host.run("mount", "--bind", path, path)
    host.run("mount", "-o", "remount,ro,bind", path)
    host.leaves(f"mount {path}", "dir /run/mount")

    finds(host, "advertisements-needed", "ra0", "no container gets this network")


def test_advertisements_are_ignored(host: Host) -> None:
    """Another program has set accept_ra of the link to 1, as ifup does."""
    configure(host, network())
    attach(host, "c1")
    router = Router(host)
    set_sysctl(host, "ra0.accept_ra", 2)
    router.teach()
    assert doctor(host, status=0) == []
    set_sysctl(host, "ra0.accept_ra", 1)

    assert "net.ipv6.conf.ra0.accept_ra=2" in finds(host, "advertisements-ignored", "ra0")

    fixes(host, "advertisements-ignored")
    router.teach()
    detach(host, "c1")


def test_fix_of_forwarding_keeps_the_hosts_routes(host: Host) -> None:
    configure(host, network())
    attach(host, "c1")
    set_sysctl(host, "all.forwarding", 0)
    Router(host).teach()

    remedy = finds(host, "forwarding-off", "net.ipv6.conf.all.forwarding is 0")
    assert remedy == "sysctl -w net.ipv6.conf.ra0.accept_ra=2 net.ipv6.conf.all.forwarding=1"

    fixes(host, "forwarding-off")
    assert has_default_route(host, "ra0")
    detach(host, "c1")


@pytest.mark.parametrize("kind", ["bridge", "ptp"])
def test_links_of_containers_accept_advertisements(host: Host, kind: str) -> None:
    configure(host, network(kind))
    attach(host, "c1")
    link = "br9" if kind == "bridge" else next(name for name in host.links() if name.startswith("veth"))
    set_sysctl(host, f"{link}.accept_ra", 2)

    assert finds(host, "advertisements-obeyed", link) == f"sysctl -w net.ipv6.conf.{link}.accept_ra=0"

    fixes(host, "advertisements-obeyed")
    detach(host, "c1")


def test_host_needs_advertisements_on_a_bridge_with_uplink(host: Host) -> None:
    configure(host, network(isGateway=False))
    host.run("ip", "link", "add", "br9", "type", "bridge")
    host.run("ip", "link", "set", "br9", "up")
    host.leaves("link br9 *", "address br9 *", "route br9 *", "route * br9 *")
    router = Router(host)
    host.run("ip", "link", "set", "ra0", "master", "br9")
    router.teach("br9")

    attach(host, "c1")

    assert host.sysctl("net/ipv6/conf/br9/accept_ra") == "1"
    finds(host, "advertisements-obeyed", "br9 has an uplink", "default route")
    teach(host, router.space, "br9")
    detach(host, "c1")
