# SPDX-License-Identifier: Apache-2.0
"""dummy: an interface without a peer, for addresses of the container's own."""

from typing import Any

import pytest

from tests.support.host.host import Container, Host
from tests.support.host.sockets import connect
from tests.support.plugins import cni
from tests.support.plugins.cni import CniFailure
from tests.support.plugins.ipam import leased

RANGES = [[{"subnet": "10.9.0.0/24"}], [{"subnet": "2001:db8:9::/64"}]]


@pytest.fixture
def implementation(implementations: dict[str, cni.Implementation]) -> cni.Implementation:
    """Return cnihook's plugins only, because the reference 1.1.1 has no dummy."""
    return implementations["builtin"]


def conf(version: str = "1.0.0", **keys: Any) -> dict[str, Any]:
    ipam = {"type": "host-local", "ranges": RANGES} | keys.pop("ipam", {})
    return {"cniVersion": version, "name": "net1", "type": "dummy", "ipam": ipam, **keys}


def test_container_has_addresses_of_its_own(host: Host, container: Container) -> None:
    routes = [{"dst": "192.0.2.0/24"}]
    host.write("/run/resolv.conf", "nameserver 192.0.2.53\n")
    host.save_state()
    ipam = {"routes": routes, "resolvConf": "/run/resolv.conf"}

    result = host.cni("ADD", conf(ipam=ipam), container)

    link = container.link("eth0")
    assert link["linkinfo"]["info_kind"] == "dummy" and "UP" in link["flags"]
    sandbox = {"name": "eth0", "mac": link["address"], "sandbox": container.path}
    assert result["interfaces"] == [sandbox]
    assert [(ip["interface"], ip["address"]) for ip in result["ips"]] == [
        (0, "10.9.0.2/24"),
        (0, "2001:db8:9::2/64"),
    ]
    assert result["dns"] == {"nameservers": ["192.0.2.53"]}
    assert container.addresses("eth0") == ["10.9.0.2/24", "2001:db8:9::2/64"]
    assert ("192.0.2.0/24", "10.9.0.1", "eth0") in container.routes()
    container.run("ip", "link", "set", "lo", "up")
    assert connect(container, container, "10.9.0.2") == "10.9.0.2"
    assert connect(container, container, "2001:db8:9::2") == "2001:db8:9::2"
    container.run("ip", "link", "set", "lo", "down")
    host.cni("CHECK", conf(prevResult=result), container)


CHANGES = [
    ("link set eth0 down", "is down|route"),
    ("link del eth0", "does not exist"),
    ("link set eth0 address 02:00:00:00:00:01", "has MAC"),
    ("address flush dev eth0 scope global", "does not have address"),
]


def test_check_notices_what_has_changed(host: Host, container: Container) -> None:
    for change, message in CHANGES:
        sent = conf() | {"prevResult": host.cni("ADD", conf(), container)}
        container.run("ip", *change.split())

        with pytest.raises(CniFailure, match=message):
            host.cni("CHECK", sent, container)
        host.cni("DEL", sent, container)


def test_ipam_is_required(host: Host, container: Container) -> None:
    with pytest.raises(CniFailure, match="dummy interface requires an IPAM configuration") as caught:
        host.cni("ADD", conf(ipam={"type": None}), container)

    assert caught.value.code == 7


def test_failed_add_leaves_nothing(host: Host, container: Container) -> None:
    """If the container already has an interface of that name, it does not change."""
    unreachable = {"routes": [{"dst": "192.0.2.0/24", "gw": "203.0.113.1"}]}
    broken: list[Any] = [{"ranges": []}, unreachable]
    for ipam in broken:
        with pytest.raises(CniFailure):
            host.cni("ADD", conf(ipam=ipam), container)

        assert container.links() == {"lo"}
        assert leased(host) == []

    host.cni("ADD", conf(), container)
    with pytest.raises(CniFailure, match="eth0 already exists"):
        host.cni("ADD", conf(name="net2"), container)
    assert len(container.addresses("eth0")) == 2


def test_del_in_every_broken_situation(host: Host) -> None:
    """DEL is called twice, without the dummy, without a path, without the namespace, and after a new ADD."""
    first, second, third, late = (host.container() for _ in range(4))
    for container in (first, second, third):
        host.cni("ADD", conf(), container)

    host.cni("DEL", conf(), first)
    host.cni("DEL", conf(), first)
    second.run("ip", "link", "del", "eth0")
    host.cni("DEL", conf(), second)
    host.cni("DEL", conf(), third, CNI_NETNS="")
    third.destroy()
    host.cni("DEL", conf(), third)
    assert leased(host) == []

    host.cni("ADD", conf(name="net2"), late)
    host.cni("DEL", conf(), late)
    assert "eth0" in late.links()


def test_dns_of_the_network_and_status_and_gc_of_ipam_are_used(host: Host, container: Container) -> None:
    own = {"nameservers": ["192.0.2.99"]}
    assert host.cni("ADD", conf("1.1.0", dns=own), container)["dns"] == own

    host.cni("STATUS", conf("1.1.0"))
    host.cni("GC", conf("1.1.0") | {"cni.dev/valid-attachments": []})

    assert leased(host) == []
