# SPDX-License-Identifier: Apache-2.0
"""Tests of the plugins by the CNI protocol: each runs with cnihook's plugins and with the reference's."""

from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from cnihook.linux.rtnl import Link, Rtnl
from tests.support.host.host import Container, Host
from tests.support.plugins import cni
from tests.support.plugins.forked import Forked
from tests.support.services import dhcp
from tests.support.services.dhcp import Lan


@pytest.fixture(scope="session")
def implementations(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, cni.Implementation]]:
    builtin = Forked(tmp_path_factory.mktemp("plugins"))
    yield {"builtin": builtin, "reference": cni.reference()}
    builtin.close()


@pytest.fixture(autouse=True, params=["builtin", "reference"])
def implementation(
    request: pytest.FixtureRequest, implementations: dict[str, cni.Implementation]
) -> cni.Implementation:
    return implementations[cast(str, request.param)]


@pytest.fixture
def container(host: Host) -> Iterator[Container]:
    yield host.container()


@pytest.fixture
def rtnl(host: Host) -> Iterator[Rtnl]:
    """Return a connection to the kernel in the throw-away host, whose links end with it."""
    host.leaves("*")
    connection = host.inside(Rtnl)
    yield connection
    connection.close()


@pytest.fixture
def eth0(rtnl: Rtnl) -> Link:
    """Return one end of a pair; both ends are up."""
    rtnl.add_veth("eth0", "eth1", up=True)
    rtnl.set_link(rtnl.link("eth1"), up=True)
    return rtnl.link("eth0")


@pytest.fixture
def lan(host: Host, tmp_path: Path) -> Iterator[Lan]:
    """Return a network with DHCP servers, and expect that the process stays which keeps the leases."""
    with Lan(host, tmp_path) as segment:
        host.save_state()
        dhcp.leave_keeper(host)
        yield segment
