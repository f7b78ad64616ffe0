# SPDX-License-Identifier: Apache-2.0
"""firewall: a network's traffic passes what stands in its way on the host, shown by connections."""

from collections.abc import Callable

import pytest

from tests.netns.differences import LEAVES_RULES, SPEC_1_1
from tests.support import bridge
from tests.support.cni import CniFailure
from tests.support.firewall import (
    BRIDGED,
    NET,
    NET6,
    Attached,
    attach,
    conf,
    drop_forwarded,
    like_docker,
    publish,
    routed_outside,
    rules,
)
from tests.support.host import Container, Host, Outside
from tests.support.traffic import connect, reaches

pytestmark = pytest.mark.needs("iptables")

OPEN_TO_KNOWN = pytest.mark.known_difference("what a DNAT sends to a container is dropped with the rest")


def legacy(host: Host) -> None:
    drop_forwarded(host, "iptables-legacy ip6tables-legacy")


DROPS = {"iptables": drop_forwarded, "docker": like_docker, "legacy": legacy}
FIREWALLS = {"none": lambda host: None, **DROPS}


@pytest.fixture(autouse=True)
def plain_bridge(host: Host) -> None:
    """As on a machine that has not loaded br_netfilter."""
    host.run("sh", "-c", f"echo 0 > /proc/sys/{BRIDGED}")
    assert host.implementation
    if host.implementation.name == "reference":  # LEAVES_RULES
        host.leaves("nft: table ip filter*", "nft: table ip6 filter*")


@pytest.fixture(params=FIREWALLS)
def firewall(request: pytest.FixtureRequest, host: Host) -> str:
    FIREWALLS[request.param](host)
    return str(request.param)


@pytest.fixture(params=DROPS)
def drop(request: pytest.FixtureRequest, host: Host) -> str:
    """A firewall that drops all that is forwarded and that nobody has let through."""
    if request.param == "legacy":
        need_legacy(host)
    DROPS[request.param](host)
    return str(request.param)
