# SPDX-License-Identifier: Apache-2.0
"""firewall on a host with firewalld, which is the real one on its own bus."""

from typing import Any

import pytest

from tests.netns.differences import NO_GC
from tests.support.host.host import Container, Host, Outside
from tests.support.host.sockets import connect, reaches
from tests.support.plugins import bridge
from tests.support.plugins.cni import CniFailure, with_previous_result
from tests.support.plugins.firewall import (
    NET,
    NET6,
    attach,
    conf,
    gc_conf,
    leave_to_reference,
    routed_outside,
)
from tests.support.services.firewalld import Firewalld, start_bus


@pytest.fixture
def firewalld(host: Host) -> Firewalld:
    return Firewalld(host)


@pytest.fixture(autouse=True)
def leave(host: Host) -> None:
    leave_to_reference(host)


@pytest.mark.parametrize("backend", [None, "firewalld"])
def test_addresses_are_in_the_zone_until_del(host: Host, backend: str | None) -> None:
    """The plugin uses firewalld if it runs, unless the backend is another."""
    firewalld = Firewalld(host)
    one, two = (attach(host, NET, NET6, backend=backend) for _ in range(2))

    assert set(firewalld.sources()) == {f"{one.address(0)}/32", f"{one.address(1)}/128"} | {
        f"{two.address(0)}/32",
        f"{two.address(1)}/128",
    }

    for _ in range(2):
        one.delete()
        assert set(firewalld.sources()) == {f"{two.address(0)}/32", f"{two.address(1)}/128"}


def test_traffic_passes_firewalld(host: Host, firewalld: Firewalld) -> None:
    """firewalld rejects forwarded packets of addresses that it does not know."""
    outside = routed_outside(host)
    one = attach(host, NET, NET6)
    assert connect(one.container, outside, Outside.ADDRESS) == one.address(0)
    assert connect(one.container, outside, Outside.ADDRESS6) == one.address(1)

    one.delete()
    assert not reaches(one.container, outside, Outside.ADDRESS)


def test_zone_may_be_another(host: Host, firewalld: Firewalld) -> None:
    one = attach(host, firewalldZone="internal")
    one.check()

    assert firewalld.sources() == []
    assert firewalld.sources("internal") == [f"{one.address()}/32"]


def test_other_backend_leaves_firewalld_alone(host: Host, firewalld: Firewalld) -> None:
    attach(host, backend="iptables").check()

    assert firewalld.sources() == []


def test_unknown_backend_leaves_the_choice_to_the_plugin(host: Host, firewalld: Firewalld) -> None:
    attach(host, backend="anything").check()

    assert firewalld.sources() == ["10.9.0.2/32"]


def test_address_may_be_in_the_zone_already(host: Host, firewalld: Firewalld) -> None:
    firewalld.add_source("trusted", "10.9.0.2/32")

    assert attach(host).address() == "10.9.0.2"


def test_error_of_firewalld_is_reported(host: Host, firewalld: Firewalld) -> None:
    with pytest.raises(CniFailure, match="INVALID_ZONE.*nowhere") as failed:
        attach(host, NET, NET6, firewalldZone="nowhere")

    assert failed.value.code == 999


@pytest.mark.known_difference(
    "an ADD that fails leaves the first address in the zone", here="leaves nothing", right="cnihook"
)
def test_failing_add_leaves_no_address_in_the_zone(host: Host, firewalld: Firewalld) -> None:
    firewalld.add_source("internal", "2001:db8:9::2/128")

    with pytest.raises(CniFailure, match="2001:db8:9::2"):
        attach(host, NET, NET6)

    assert firewalld.sources() == []
    assert firewalld.sources("internal") == ["2001:db8:9::2/128"]


@pytest.mark.known_difference(
    "CHECK ignores firewalld's answer", here="finds a missing address", right="SPEC.md, 2 CHECK"
)
def test_check_finds_an_address_that_is_missing_from_the_zone(host: Host, firewalld: Firewalld) -> None:
    """A reload of firewalld removes it."""
    one = attach(host)
    one.check()
    firewalld.reload()

    with pytest.raises(CniFailure, match="10.9.0.2 is not in zone trusted"):
        one.check()


@pytest.mark.known_difference(
    "a late DEL takes the address of its next owner out of the zone",
    here="leaves it",
    right="SPEC.md, 2 DEL",
)
def test_late_del_does_not_touch_the_new_owner_of_the_address(host: Host, firewalld: Firewalld) -> None:
    one = attach(host)

    host.cni("DEL", one.sent, host.container("late"))

    assert firewalld.sources() == [f"{one.address()}/32"]


@pytest.mark.known_difference(
    "DEL without prevResult leaves the address in the zone", here="leaves nothing", right="SPEC.md, 2 DEL"
)
def test_del_needs_no_prev_result(host: Host, firewalld: Firewalld) -> None:
    attach(host, NET, NET6).delete(keep="", CNI_NETNS="")

    assert firewalld.sources() == []


def test_address_of_the_other_implementation_is_removed(host: Host, firewalld: Firewalld) -> None:
    container, result = bridge.add(host, bridge.network(NET, isDefaultGateway=True))
    firewalld.add_source("trusted", "10.9.0.2/32")

    host.cni("DEL", with_previous_result(conf(), result), container)

    assert firewalld.sources() == []


def test_del_succeeds_after_firewalld_has_stopped(host: Host, firewalld: Firewalld) -> None:
    """firewalld has lost the address, so there is nothing to do."""
    one = attach(host, backend="firewalld")
    firewalld.stop()

    one.delete()


@NO_GC
def test_gc_and_status(host: Host, firewalld: Firewalld) -> None:
    one, two = (attach(host, version="1.1.0") for _ in range(2))
    host.cni("STATUS", conf("1.1.0", backend="firewalld"), plugin="firewall")
    host.cni("GC", gc_conf(two), plugin="firewall")

    assert firewalld.sources() == [f"{two.address()}/32"]
    one.delete()


@pytest.mark.parametrize("bus", [False, True], ids=["no bus", "a bus without firewalld"])
def test_configured_firewalld_that_does_not_run_is_an_error(
    host: Host, container: Container, bus: bool
) -> None:
    if bus:
        start_bus(host)
    container, result = bridge.add(host, bridge.network(NET), container)
    sent: Any = with_previous_result(conf(backend="firewalld"), result)

    with pytest.raises(CniFailure) as failed:
        host.cni("ADD", sent, container)
    assert failed.value.code == 999
    host.cni("ADD", sent | {"backend": ""}, container)


@pytest.mark.known_difference(
    "the error of a firewalld that does not run is that of the bus",
    here="the error names firewalld and the command that starts it",
    right="either",
)
def test_error_says_that_firewalld_does_not_run(host: Host, container: Container) -> None:
    sent = with_previous_result(conf(backend="firewalld"), {"cniVersion": "1.0.0"})

    with pytest.raises(CniFailure, match="firewalld does not run") as failed:
        host.cni("ADD", sent, container)
    assert "start it" in failed.value.details
