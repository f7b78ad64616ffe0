# SPDX-License-Identifier: Apache-2.0
"""`cnihook update` of MTU, routes and sysctls, with an echo connection: what a container has for itself."""

import copy
import json
from typing import Any

import pytest

from tests.support.commands.apply import ACCEPT, ARP, sysctl
from tests.support.commands.repair import WEB, WebContainer, cnihook, detach
from tests.support.host.echo import echo, expect_undisturbed
from tests.support.host.host import Host, Outside
from tests.support.runtimes.oci import RESULTS, configure

RECORD = f"{RESULTS}/web-c1-eth0"


@pytest.fixture
def outside(host: Host) -> Outside:
    host.leaves("dir /run/cni", "dir /run/cni/tuning", "file /run/cnihook/log/*")
    return host.outside()


def change(host: Host, *argv: str, code: int = 0) -> list[str]:
    process = cnihook(host, "update", "c1", *argv)
    assert (process.returncode, process.stderr) == (code, ""), (process.stdout, process.stderr)
    return process.stdout.splitlines()


def refusal(host: Host, *argv: str) -> str:
    process = cnihook(host, "update", "c1", *argv)
    assert process.returncode == 1 and not process.stdout, process
    return process.stderr


def mtus(host: Host, web: WebContainer) -> set[int]:
    (port,) = (name for name in host.links() if name.startswith("veth"))
    return {host.link(port)["mtu"], web.space.link("eth0")["mtu"]}


def routes(web: WebContainer, dst: str) -> list[str]:
    """Return the gateways of the routes to a destination."""
    version = 6 if ":" in dst else 4
    return [route.get("gateway", "") for route in web.space.ip(f"-{version}", "route", "show", dst)]


def network(kind: str) -> dict[str, Any]:
    conf = copy.deepcopy(WEB)
    first = conf["plugins"][0]
    first["type"] = kind
    first["ipam"]["ranges"].append([{"subnet": "fd22::/64"}])
    return conf


@pytest.mark.parametrize("kind", ["bridge", "ptp"])
def test_keys_of_one_container_change_under_a_connection(host: Host, outside: Outside, kind: str) -> None:
    """The record has them: check, repair and diff agree; DEL and a new container have nothing of them."""
    configure(host, network(kind))
    web = WebContainer(host, outside, "c1", publish="8080:80")
    gateway = routes(web, "default")[0]
    with (
        echo(outside, web.space, Outside.HOST, 8080) as connection,
        echo(outside, host, Outside.HOST, 81, port=81) as other,
    ):
        assert change(host, "--mtu", "9000") == ["set MTU 9000 of eth0 on web"]
        assert mtus(host, web) == {9000}
        assert change(host, "--mtu", "1400", "--dry-run", code=2) == ["would set MTU 1400 of eth0 on web"]
        change(host, "--mtu", "1400")
        assert (mtus(host, web), change(host, "--mtu", "1400")) == ({1400}, [])
        assert "it has an IPv6 address" in refusal(host, "--mtu", "1279", "--publish-add", "8081:80")
        assert "8081" not in cnihook(host, "port", "c1").stdout

        via = f"192.0.2.0/24={gateway}"
        assert change(host, "--route-add", via, "--route-add", "fd99::/64") == [
            f"added route 192.0.2.0/24 via {gateway} of eth0 on web", "added route fd99::/64 of eth0 on web"
        ]  # fmt: skip
        assert (routes(web, "192.0.2.0/24"), routes(web, "fd99::/64")) == ([gateway], ["fd22::1"])
        assert change(host, "--route-add", via) == []
        for wrong in ("192.0.2.0/24=10.99.0.1", "0.0.0.0/0"):
            refusal(host, "--route-add", wrong, "--sysctl", f"{ACCEPT}=1")
        assert "add --default-route" in refusal(host, "--route-rm", "default")

        assert change(host, "--sysctl", f"{ARP}=0", "--sysctl", "net.ipv4.conf.eth0.accept_local=1") == [
            f"set sysctl {ARP}=0", "set sysctl net.ipv4.conf.eth0.accept_local=1"
        ]  # fmt: skip
        assert (sysctl(web, ARP), sysctl(web, ACCEPT)) == ("0", "1")
        web.space.run("ip", "route", "delete", "192.0.2.0/24")
        assert cnihook(host, "check", "c1").returncode == 1
    expect_undisturbed(connection, other)

    assert cnihook(host, "repair", "c1").returncode == 0
    assert mtus(host, web) == {1400} and routes(web, "192.0.2.0/24") == [gateway]
    assert (sysctl(web, ARP), sysctl(web, ACCEPT)) == ("0", "1")
    assert (cnihook(host, "check", "c1").returncode, cnihook(host, "diff").stdout) == (0, "")

    removed = change(host, "--route-rm", "192.0.2.0/24", "--route-rm", "default", "--default-route")
    assert len(removed) == 2 and routes(web, "default") == [] == routes(web, "192.0.2.0/24")
    change(host, "--route-add", f"default={gateway}", "--default-route")
    assert routes(web, "default") == [gateway]
    assert change(host, "--sysctl", f"{ACCEPT}=none") == ["removed sysctl net.ipv4.conf.eth0.accept_local"]
    assert sysctl(web, ACCEPT) == "0"
    detach(web)


def test_link_on_a_parent_link_is_not_above_it(host: Host, outside: Outside) -> None:
    """On two networks, it must be clear which one is meant."""
    ipam = {"type": "static", "addresses": [{"address": "10.30.0.2/24"}]}
    macvlan = {"type": "macvlan", "master": "up0", "mtu": 1400, "ipam": ipam}
    ptp = {"type": "ptp", "ipam": {**ipam, "addresses": [{"address": "10.31.0.2/24"}]}}
    configure(
        host,
        {"cniVersion": "1.0.0", "name": "wire", "plugins": [macvlan]},
        {"cniVersion": "1.0.0", "name": "apart", "plugins": [ptp]},
    )
    web = WebContainer(host, outside, "c1")
    assert "the container is on 2 networks" in refusal(host, "--mtu", "1500")
    assert "must be [0, master MTU(1500)]" in refusal(host, "--mtu", "1501", "--network", "wire")
    assert "no network of it has the plugin tuning" in refusal(host, "--sysctl", f"{ARP}=0")
    change(host, "--mtu", "1500", "--network", "wire")
    record = json.loads(host.read(f"{RESULTS}/wire-c1-eth0"))
    assert web.space.link("eth0")["mtu"] == 1500 and record["cnihook"]["requested"] == ["0.mtu"]
    assert change(host, "--route-add", "192.0.2.0/24=10.30.0.9") == [
        "added route 192.0.2.0/24 via 10.30.0.9 of eth0 on wire"
    ]
    assert cnihook(host, "check", "c1").returncode == 0
    detach(web)
