# SPDX-License-Identifier: Apache-2.0
"""connect and disconnect: networks of a container that runs come and go; its default routes stay."""

from typing import Any

import pytest

from tests.support.commands.repair import cnihook
from tests.support.host import sockets
from tests.support.host.echo import echo, expect_undisturbed
from tests.support.host.host import Host, Outside
from tests.support.runtimes.oci import Runtime, bridge, configure

ROUTES = {4: {"dst": "0.0.0.0/0"}, 6: {"dst": "::/0"}}
PORTMAP = {"type": "portmap", "capabilities": {"portMappings": True}}


def network(name: str, *subnets: str) -> dict[str, Any]:
    conf = bridge(name, subnets[0], ipMasq=True)
    ipam = conf["plugins"][0]["ipam"]
    ipam["ranges"] = [[{"subnet": subnet}] for subnet in subnets]
    ipam["routes"] = [ROUTES[6 if ":" in subnet else 4] for subnet in subnets]
    conf["plugins"].append(PORTMAP)
    return conf


def lines(host: Host, *argv: str) -> list[str]:
    """Run a command, which must print nothing on stderr, and return its lines."""
    process = cnihook(host, *argv)
    assert (process.returncode, process.stderr) == (0, "")
    return process.stdout.splitlines()


def defaults(container: Any) -> dict[int, str]:
    """Return {IP version: interface} of the container's default routes that the kernel uses."""
    first = {}
    for version in (4, 6):
        routes = container.ip(f"-{version}", "route", "show", "default")
        if routes:
            first[version] = min(routes, key=lambda route: route.get("metric", 0))["dev"]
    return first


@pytest.mark.parametrize("runtime", ["runc"], indirect=True)
def test_second_network_leaves_the_first_alone(host: Host, runtime: Runtime) -> None:
    """docker moved the default route to the network whose name sorts first, and lost random ports.

    It did so for all IP versions at once: a network with IPv6 next to one without it must give a route.
    """
    host.leaves("file /run/cnihook/log/c1")  # a failure is kept
    outside = host.outside()
    configure(
        host,
        network("zone", "10.7.0.0/24"),
        network("alpha", "10.6.0.0/24", "fd06::/64"),
        network("beta", "10.5.0.0/24"),
    )
    container = runtime.run("c1", "--network=zone", "--publish=80")
    (published,) = cnihook(host, "port", "c1", "80").stdout.split()
    number = int(published.rpartition(":")[2])
    other = runtime.run("c2", "--network=zone", "--publish=9090:80")
    assert defaults(container) == {4: "eth0"}

    with (
        echo(outside, container, Outside.HOST, number) as kept,
        echo(outside, other, Outside.HOST, 9090) as undisturbed,
    ):
        assert lines(host, "connect", "alpha", "c1") == ["connected to alpha, eth1: 10.6.0.2/24 fd06::2/64"]
        assert defaults(container) == {4: "eth0", 6: "eth1"}
        assert cnihook(host, "port", "c1", "80").stdout == f"{published}\n"
        connected = lines(host, "connect", "beta:web0", "c1", "--ip", "10.5.0.9")
        assert connected == ["connected to beta, web0: 10.5.0.9/24"]
        assert lines(host, "disconnect", "beta", "c1") == ["disconnected from beta"]
        assert defaults(container) == {4: "eth0", 6: "eth1"}
    expect_undisturbed(kept, undisturbed)
    assert sockets.connect(container, outside, Outside.ADDRESS) == Outside.HOST

    again = cnihook(host, "connect", "alpha", "c1")
    assert again.returncode == 1 and "is on network alpha already, as eth1" in again.stderr
    assert lines(host, "disconnect", "zone", "c1") == [
        "disconnected from zone",
        "the default route for IPv4 is by eth1, 10.6.0.1 now",
    ]
    assert sockets.connect(container, outside, Outside.ADDRESS) == Outside.HOST
    assert lines(host, "disconnect", "alpha", "c1")[1:] == [
        "no default route for IPv4 any more",
        "no default route for IPv6 any more",
    ]
    missing = cnihook(host, "disconnect", "alpha", "c1")
    assert missing.returncode == 1 and missing.stderr.startswith(
        "cnihook: disconnect c1: it is not on alpha; "
    )
    runtime.delete_all()
