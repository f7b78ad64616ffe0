# SPDX-License-Identifier: Apache-2.0
"""vrf: the configurations that it refuses, and DEL without a VRF.  See also tests/vm/guest/test_vrf.py."""

from typing import Any

import pytest

from tests.netns.differences import NO_STATUS
from tests.support.host.host import Container, Host
from tests.support.plugins.cni import CniFailure, with_previous_result
from tests.support.plugins.routing import all_of, attach, network

BLUE = {"type": "vrf", "vrfname": "blue"}
NO_VRF = "ip link add blue type bridge"
WRONG = [
    ("true", {"vrfname": None}, "configuration is expected to have a valid vrf name"),
    ("true", {"vrfname": ""}, "configuration is expected to have a valid vrf name"),
    ("true", {"vrfname": ["blue"]}, "vrf"),
    ("true", {"vrfname": "with/slash"}, ""),
    ("true", {"vrfname": "longer-than-a-link's"}, ""),
    ("true", {"table": -1}, "table"),
    ("true", {"table": "7"}, "table"),
    ("true", {"prevResult": None}, "prevResult"),
    (NO_VRF, {}, "Netlink blue is not a VRF"),
]


@pytest.mark.parametrize(("before", "keys", "message"), WRONG)
def test_invalid_configuration_changes_nothing(
    host: Host, container: Container, before: str, keys: dict[str, Any], message: str
) -> None:
    chain = attach(host, container, "eth0", network(1))
    container.run(*before.split())
    unchanged = container.links(), all_of(container)

    with pytest.raises(CniFailure) as failure:
        host.cni("ADD", chain.shared | BLUE | {"prevResult": chain.result} | keys, container)

    assert message in failure.value.msg
    assert (container.links(), all_of(container)) == unchanged
    container.run("ip", "link", "del", "blue", check=False)


@pytest.mark.known_difference("an ADD that fails leaves the VRF", here="leaves nothing", right="cnihook")
@pytest.mark.parametrize(
    ("ifname", "message"), [("eth0", "interface eth0 has already a master set: other"), ("eth7", "eth7")]
)
def test_interface_that_cannot_join_is_refused(
    host: Host, container: Container, ifname: str, message: str
) -> None:
    chain = attach(host, container, "eth0", network(1))
    container.run("ip", "link", "add", "other", "type", "bridge")
    container.run("ip", "link", "set", "eth0", "master", "other")

    with pytest.raises(CniFailure, match=message):
        host.cni("ADD", chain.shared | BLUE | {"prevResult": chain.result}, container, ifname)

    container.run("ip", "link", "del", "other")


def test_del_without_a_vrf_succeeds(host: Host, container: Container) -> None:
    chain = attach(host, container, "eth0", network(1))
    sent = with_previous_result(chain.shared | BLUE, chain.result)

    host.cni("DEL", sent, container)
    host.cni("DEL", sent, container, CNI_NETNS="/run/netns/gone")
    host.cni("DEL", sent, container, CNI_NETNS="")


@pytest.mark.known_difference("DEL after a refused ADD fails", here="succeeds", right="SPEC.md, 2 DEL")
def test_del_after_a_refused_add_succeeds(host: Host, container: Container) -> None:
    """The name may be missing or another link's, and the path may lead to a file that is not a namespace."""
    conf = network(1) | BLUE
    container.run(*NO_VRF.split())

    host.cni("DEL", conf, container)
    assert "blue" in container.links()
    host.cni("DEL", conf | {"vrfname": ""}, container)
    host.cni("DEL", conf, container, CNI_NETNS="/proc/self/status")
    container.run("ip", "link", "del", "blue")


@NO_STATUS
def test_status_reports_an_invalid_configuration(host: Host) -> None:
    assert host.cni("STATUS", network(1, version="1.1.0") | BLUE) is None

    with pytest.raises(CniFailure, match="vrf name"):
        host.cni("STATUS", network(1, version="1.1.0") | BLUE | {"vrfname": None})
