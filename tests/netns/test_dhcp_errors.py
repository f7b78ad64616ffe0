# SPDX-License-Identifier: Apache-2.0
"""dhcp: requests that fail, the reason that the error gives, and that no lease is left."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.support.host.host import Container, Host
from tests.support.plugins import cni
from tests.support.plugins.cni import CniFailure
from tests.support.services import dhcp
from tests.support.services.dhcp import (
    LEASES,
    Lan,
    address,
    keepers,
    network,
    request,
    wait_for,
)

pytestmark = pytest.mark.needs("dnsmasq")

SHORT = "--dhcp-option=58,3"  # T1, so that a test need not wait for a minute until a lease is renewed


@pytest.fixture
def implementation(implementations: dict[str, cni.Implementation]) -> cni.Implementation:
    """Return the built-in plugins only: the reference's daemon is another program."""
    return implementations["builtin"]


@pytest.fixture
def container(host: Host, lan: Lan) -> Container:
    """Return a container that has a link, so that the plugin dhcp can be called by itself."""
    return lan.plug(host.container())


def test_address_that_the_server_refuses_is_given_up(host: Host, lan: Lan) -> None:
    """Another machine may have it.  CHECK then reports that the lease is missing."""
    lan.serve(SHORT)
    container = host.container()
    result = host.cni("ADD", network(), container)
    lan.serve(SHORT, range="10.9.0.200,10.9.0.220,255.255.255.0,2m")

    wait_for(lambda: "UP" not in container.link("eth0")["flags"], "the link is down")
    with pytest.raises(CniFailure, match="no lease"):
        host.cni("CHECK", network() | {"prevResult": result}, container)
    log = host.read(f"/run/cnihook/log/{container.name}")
    assert address(result) in log and "eth0 is down now" in log
    host.leaves("file /run/cnihook/log/*")


def test_error_says_that_no_server_answers(host: Host, lan: Lan) -> None:
    """The error comes earlier than a hook's time limit.  ADD leaves neither the link nor a lease."""
    keeper = dhcp.start_keeper(host, "--timeout", "1", "--linger", "60")
    container = host.container()
    with pytest.raises(CniFailure, match="eth0 of container c2: no DHCP server answers") as failure:
        host.cni("ADD", network(), container)

    assert failure.value.code == 11
    assert container.links() == {"lo"}
    keeper.terminate()
    assert keeper.wait(30) == 0
    assert not host.exists(LEASES)


@pytest.mark.parametrize("kind", ["bridge", "macvlan"])
def test_error_names_spanning_tree_that_blocks_the_port(host: Host, lan: Lan, kind: str) -> None:
    """`timeout` of ipam limits how long the keeper asks; its default is 45 seconds."""
    dhcp.start_keeper(host, "--linger", "60")
    host.ip("link", "set", "cni0", "type", "bridge", "stp_state", "1", "forward_delay", "1500")
    conf = network(timeout=1) | {"type": kind, "master": "cni0"}

    with pytest.raises(CniFailure, match=r"no DHCP server answers \(asked for 1 s\)") as failure:
        host.cni("ADD", conf, host.container())

    assert "bridge cni0 has spanning tree" in str(failure.value) and "after 30 s" in str(failure.value)
    assert ("does not forward yet" in str(failure.value)) == (kind == "bridge")


def test_interrupted_request_leaves_no_lease(host: Host, lan: Lan, container: Container) -> None:
    """A runtime may give up before the plugin does."""
    assert host.implementation
    environment = cni.Attachment(network(), container, "eth0", "dhcp", {}).environment("ADD", Path("/x"))
    with host.popen(host.implementation.program("dhcp"), env=environment, stdin=-1) as plugin:
        assert plugin.stdin
        plugin.stdin.write(json.dumps(network()))
        plugin.stdin.close()
        plugin.stdin = None
        wait_for(lambda: keepers(host), "the keeper runs")
        plugin.send_signal(signal.SIGTERM)
        stdout, _stderr = plugin.communicate(timeout=30)
    assert "interrupted by signal 15" in json.loads(stdout)["msg"]

    wait_for(lambda: not keepers(host), "the keeper ends")
    assert not host.exists(LEASES)


def test_error_names_the_daemon_of_the_reference(host: Host, lan: Lan, container: Container) -> None:
    """Both daemons have the same socket by default, but another protocol.  DEL has nothing to do then."""
    daemon = dhcp.reference_daemon(host)
    with pytest.raises(CniFailure, match="is the reference plugins' daemon; stop it"):
        request(host, "ADD", network(), container)
    request(host, "DEL", network(), container)

    daemon.terminate()


@pytest.mark.parametrize(
    "ipam",
    [
        {"daemonSocketPath": "relative"},
        {"daemonSocketPath": "/run/" + "x" * 120},
        {"daemonSocketPath": 1},
        {"priority": -1},
        {"provide": [{"option": "53", "value": "x"}]},
        {"provide": {"option": "12"}},
        {"request": ["12"]},
    ],
)
def test_invalid_configuration_is_refused(host: Host, ipam: Any) -> None:
    with pytest.raises(CniFailure) as failure:
        request(host, "ADD", network(**ipam), host.container())

    assert failure.value.code == 7 and str(failure.value.msg).count(next(iter(ipam)))
    assert keepers(host) == []


def test_status_reports_if_no_keeper_can_start(host: Host, lan: Lan) -> None:
    request(host, "STATUS", network(version="1.1.0"), None)

    with pytest.raises(CniFailure, match="/proc/nowhere") as failure:
        request(host, "STATUS", network(version="1.1.0", daemonSocketPath="/proc/nowhere/d.sock"), None)
    assert failure.value.code == 50
