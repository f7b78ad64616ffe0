# SPDX-License-Identifier: Apache-2.0
"""containerd for each file, which sets NETWORK, the text of its network, or TEMPLATE, its conf_template."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.host.host import Host, Outside
from tests.support.runtimes.containerd import Containerd
from tests.support.runtimes.oci import NET_D


@pytest.hookimpl(tryfirst=True)  # before xdist, which names the group in the name of the test
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the tests of this folder one after another, with one daemon at a time."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.xdist_group("containerd"))


@pytest.fixture(scope="module")
def outside(daemon: Containerd) -> Outside:
    """Return a machine that reaches the daemon's host."""
    return daemon.host.outside()


@pytest.fixture(scope="module")
def daemon(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Containerd]:
    """Yield the daemon on its host, which all tests of a file share."""
    with Host() as throw_away:
        if network := getattr(request.module, "NETWORK", None):
            throw_away.write(f"{NET_D}/10-pods.conflist", json.dumps(network))
        folder = tmp_path_factory.mktemp("containerd")
        containerd = Containerd(throw_away, folder, getattr(request.module, "TEMPLATE", ""))
        yield containerd
        containerd.close()


@pytest.fixture
def host(daemon: Containerd, outside: Outside) -> Host:
    """Return the host of the daemon.  The leak check compares it with its state before the test."""
    daemon.host.stay = ["dir /run/containerd*", "file /run/containerd*", "empty bridges"]
    daemon.host.stay += [f"file {NET_D}/*"]
    daemon.host.save_state()
    return daemon.host


@pytest.fixture
def containerd(daemon: Containerd, host: Host) -> Iterator[Containerd]:
    """Yield the daemon.  The test must leave no pod."""
    yield daemon
    left = daemon.pods()
    for pod in left:
        daemon.call("StopPodSandbox", {1: pod})
        daemon.call("RemovePodSandbox", {1: pod})
    assert not left, "the test leaves pods"
