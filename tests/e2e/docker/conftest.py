# SPDX-License-Identifier: Apache-2.0
"""A docker daemon for each file, which may set RUNTIMES, its runtimes, and NETWORKS, the files in net.d."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.host.host import Host
from tests.support.runtimes.docker import Docker, daemon_with
from tests.support.runtimes.oci import MYNET


@pytest.hookimpl(tryfirst=True)  # before xdist, which names the group in the name of the test
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the tests of this folder one after another, with one daemon at a time."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.xdist_group("docker"))


@pytest.fixture(scope="module")
def daemon(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Docker]:
    """Yield the daemon and its host, which all tests of a file share."""
    with daemon_with(tmp_path_factory.mktemp("docker"), getattr(request.module, "RUNTIMES", {})) as docker:
        yield docker


@pytest.fixture
def host(request: pytest.FixtureRequest, daemon: Docker) -> Host:
    """Return the host of the daemon, with its networks as new."""
    return daemon.begin_test(getattr(request.module, "NETWORKS", {"10-mynet.conf": MYNET}))


@pytest.fixture
def docker(daemon: Docker, host: Host) -> Iterator[Docker]:
    """Yield the daemon.  The test must leave no container."""
    yield daemon
    daemon.end_test()
