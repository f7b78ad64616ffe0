# SPDX-License-Identifier: Apache-2.0
"""Podman on a throw-away host, for all files of this folder."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.host.host import Host
from tests.support.runtimes.oci import LEAVES, MYNET, configure
from tests.support.runtimes.podman import Podman

MARKS = [pytest.mark.needs("podman"), pytest.mark.root, pytest.mark.xdist_group("podman")]


@pytest.hookimpl(tryfirst=True)  # before xdist, which names the group in the name of the test
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            for mark in MARKS:
                item.add_marker(mark)


@pytest.fixture
def podman(host: Host, rootfs: Path) -> Iterator[Podman]:
    """Yield podman without plugins for its own networks: the hook attaches its containers."""
    configure(host, MYNET)
    engine = Podman(host, rootfs)
    host.leaves(*LEAVES, "dir /run/libpod*", "file /run/libpod*", "dir /run/cni*", "dir /run/lock*")
    host.leaves("dir /run/containers*", "file /run/containers*", "dir /etc/containers*")
    host.leaves(
        "file /etc/cni/net.d/cni.lock", "dir /run/netns", "mount /run/netns", "* /var/lib/containers*"
    )
    yield engine
    engine.close()
