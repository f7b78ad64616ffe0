# SPDX-License-Identifier: Apache-2.0
"""Containers that find each other by name: by ID, host name and alias, as they come and go."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.cni import CHECKOUT
from tests.support.host import Host
from tests.support.namespace import Failed
from tests.support.oci import CNIHOOK, Running, Runtime, bridge, configure, kill, make_rootfs

RUN = str(CHECKOUT / "scripts" / "priv-net-run")
NAMES = "/run/cnihook/names"
Start = Callable[..., Running]


@pytest.fixture
def start(host: Host, runtime: Runtime, tmp_path: Path) -> Start:
    """Start a container with a root file system of its own."""
    configure(host, bridge("front", "10.1.0.0/24"), bridge("back", "10.2.0.0/24"))

    def run(container_id: str, *arguments: str, etc: dict[str, str] | None = None, **options: Any) -> Running:
        runtime.rootfs = tmp_path / container_id / "rootfs"
        if not runtime.rootfs.exists():
            make_rootfs(runtime.rootfs)
        for name, text in (etc or {}).items():
            (runtime.rootfs / "etc" / name).write_text(text)
        return runtime.run(container_id, *arguments, **options)

    return run


def hosts(container: Running) -> str:
    return container.exec("cat", "/etc/hosts")


def pings(container: Running, name: str) -> str:
    """The address that a name has for it, and that answers."""
    return container.exec("ping", "-c1", "-W2", name).partition("(")[2].partition(")")[0]


def knows(container: Running, name: str) -> bool:
    try:
        return bool(pings(container, name))
    except Failed as failed:
        assert "bad address" in failed.stdout + failed.stderr
        return False


def test_a(start: Start) -> None:
    one = start("one", "--network", "front", "--hostname", "web", "--network-alias", "www")
    print(hosts(one))
    two = start("two", "--network", "front")
    print(hosts(one))
    print(hosts(two))
    print(one.host.run(CNIHOOK, "logs", "one").stdout)
    print(pings(two, "one"), pings(two, "web"), pings(two, "www"), pings(two, "two"))
    print(one.exec("busybox", "hostname"), one.exec("cat", "/etc/hostname"), one.exec("cat", "/etc/resolv.conf"))
    one.runtime.delete("two")
    print(hosts(one))
    assert not knows(one, "two")
    assert 0
