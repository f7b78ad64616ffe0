# SPDX-License-Identifier: Apache-2.0
"""ptp: how DEL removes the link, and when the address is released."""

import json

import pytest

from tests.netns.differences import (
    LEAVES_HOST_END,
    LINK_RULES,
    RELEASES_EARLY,
)
from tests.netns.test_ptp import expect_nothing_of
from tests.support.host.host import ACCEPT_DAD, Container, Host, Outside
from tests.support.host.sockets import connect
from tests.support.plugins.bridge import add, leased
from tests.support.plugins.cni import with_previous_result
from tests.support.plugins.ptp import BOTH, MASQUERADED, ROUTED, network


@pytest.fixture
def quick(container: Container) -> Container:
    """Return a container in which the reference does not wait 2 s to see if an IPv6 address is unique."""
    container.set_sysctl(ACCEPT_DAD, "0")
    return container


def test_del_undoes_all_of_add_and_can_be_repeated(host: Host, quick: Container) -> None:
    result = host.cni("ADD", BOTH, quick)

    for _ in range(3):
        assert host.cni("DEL", with_previous_result(BOTH, result), quick) is None

    expect_nothing_of(host, quick)
    assert host.routes() == []


def test_del_without_an_add_succeeds(host: Host, container: Container) -> None:
    host.cni("DEL", MASQUERADED, container)


def test_del_needs_no_previous_result(host: Host) -> None:
    one, _ = add(host, MASQUERADED)

    host.cni("DEL", MASQUERADED, one)

    expect_nothing_of(host, one)


@LINK_RULES
@pytest.mark.parametrize("netns", [None, ""], ids=["path", "no path"])
@pytest.mark.parametrize("with_result", [True, False], ids=["result", "no result"])
def test_del_after_the_namespace_has_gone(host: Host, with_result: bool, netns: str | None) -> None:
    one, result = add(host, MASQUERADED)
    one.destroy()

    path = one.path if netns is None else netns
    host.cni("DEL", with_previous_result(MASQUERADED, result if with_result else None), one, CNI_NETNS=path)

    assert leased(host) == []


@LEAVES_HOST_END
def test_del_without_the_path_of_a_live_namespace_removes_the_link(host: Host) -> None:
    one, result = add(host, ROUTED)

    host.cni("DEL", with_previous_result(ROUTED, result), one, CNI_NETNS="")

    expect_nothing_of(host, one)


@LINK_RULES
def test_del_after_the_link_has_gone(host: Host) -> None:
    one, result = add(host, MASQUERADED)
    one.run("ip", "link", "del", "eth0")

    host.cni("DEL", with_previous_result(MASQUERADED, result), one)

    assert leased(host) == []


def links_that_ipam_sees(host: Host) -> dict[str, bool]:
    """Return, for each operation, whether an IPAM plugin finds the host's end of the link."""
    answer = {"cniVersion": "1.0.0", "ips": [{"address": "10.9.0.7/24", "gateway": "10.9.0.1"}]}
    script = f"ip link > /run/seen.$CNI_COMMAND; echo '{json.dumps(answer)}'"
    host.write("/run/plugins/fake", f"#!/bin/sh\n{script}\n", mode=0o755)
    host.leaves("dir /run/plugins", "file /run/plugins/fake", "file /run/seen.*")
    conf = network(ipam={"type": "fake"})
    one, result = add(host, conf, CNI_PATH="/run/plugins")

    host.cni("DEL", with_previous_result(conf, result), one, CNI_PATH="/run/plugins")

    name = result["interfaces"][0]["name"]
    return {command: name in host.read(f"/run/seen.{command}") for command in ("ADD", "DEL")}


@pytest.mark.known_difference(
    "makes the link after IPAM, so dhcp cannot be used", here="makes it before IPAM", right="cnihook"
)
def test_link_exists_when_the_address_is_requested(host: Host) -> None:
    """A plugin such as dhcp asks a server on the other side of the link."""
    assert links_that_ipam_sees(host)["ADD"]


@RELEASES_EARLY
def test_address_is_released_after_its_link_is_deleted(host: Host) -> None:
    """Otherwise another container could get the address while this one still has it."""
    assert not links_that_ipam_sees(host)["DEL"]


def test_del_of_one_leaves_the_others(host: Host) -> None:
    """The others have the same gateway, each on its own link, and the same firewall chains."""
    outside = host.outside()
    (one, first), (two, _) = (add(host, MASQUERADED) for _ in range(2))

    host.cni("DEL", with_previous_result(MASQUERADED, first), one)

    assert leased(host) == ["10.9.0.3"]
    assert connect(two, host, "10.9.0.1") == "10.9.0.3"
    assert connect(two, outside, Outside.ADDRESS) == Outside.HOST
