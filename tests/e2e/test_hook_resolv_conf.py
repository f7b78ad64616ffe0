# SPDX-License-Identifier: Apache-2.0
"""A container's resolv.conf if its networks have DNS servers, in valid and hostile root file systems."""

import json
import os
from pathlib import Path

import pytest

from tests.support.host.host import Host
from tests.support.runtimes.oci import Runtime, bridge, configure, make_rootfs

DNS = {"nameservers": ["10.22.0.53", "192.0.2.53"], "search": ["example.test"], "options": ["ndots:2"]}
TEXT = """\
# cnihook: of the networks
search example.test
nameserver 10.22.0.53
nameserver 192.0.2.53
options ndots:2
"""


@pytest.fixture
def etc(host: Host, runtime: Runtime, tmp_path: Path) -> Path:
    """Return the /etc of the next container, which has its own root file system and a network with DNS."""
    configure(host, bridge("mynet", "10.22.0.0/24", dns=DNS))
    runtime.rootfs = make_rootfs(tmp_path / "rootfs")
    return runtime.rootfs / "etc"


@pytest.mark.parametrize("before", [None, "nameserver 127.0.0.1\n" * 100], ids=["absent", "longer"])
def test_resolv_conf_contains_servers_of_networks(runtime: Runtime, etc: Path, before: str | None) -> None:
    """The file is written in place, so a process that has it open, or a mount of it, sees the change."""
    if before:
        (etc / "resolv.conf").write_text(before)
        inode = (etc / "resolv.conf").stat().st_ino
    container = runtime.run("c1")

    assert container.exec("cat", "/etc/resolv.conf") == TEXT
    if before:
        assert (etc / "resolv.conf").stat().st_ino == inode


def test_mounted_resolv_conf_is_written(runtime: Runtime, etc: Path, tmp_path: Path) -> None:
    (etc / "resolv.conf").write_text("of the image\n")
    own = tmp_path / "own-resolv.conf"
    own.write_text("")
    mount(runtime, own)

    assert runtime.started("c1", runtime.start("c1")).exec("cat", "/etc/resolv.conf") == TEXT
    assert own.read_text() == TEXT
    assert (etc / "resolv.conf").read_text() == "of the image\n"


def test_mounted_resolv_conf_of_the_host_is_unchanged(host: Host, runtime: Runtime, etc: Path) -> None:
    """runc's users have bind-mounted the host's /etc/resolv.conf into their containers for years."""
    before = Path("/etc/resolv.conf").read_text()
    (etc / "resolv.conf").write_text("")
    mount(runtime, Path("/etc/resolv.conf"))

    assert runtime.started("c1", runtime.start("c1")).exec("cat", "/etc/resolv.conf") == before
    assert Path("/etc/resolv.conf").read_text() == before
    assert "the host's own" in host.run("cat", "/run/cnihook/log/c1").stdout


def mount(runtime: Runtime, source: Path) -> None:
    folder = runtime.bundle("c1")
    config = json.loads((folder / "config.json").read_text())
    config["mounts"].append(
        {"destination": "/etc/resolv.conf", "type": "bind", "source": str(source), "options": ["bind"]}
    )
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize("kind", ["link", "link of the folder", "FIFO", "folder"])
def test_hostile_image_cannot_redirect_writes_outside(
    host: Host, runtime: Runtime, etc: Path, tmp_path: Path, kind: str
) -> None:
    """An image is untrusted.  Its links must not lead the hook, which is root, to a file of the host."""
    outside = tmp_path / "outside"
    outside.mkdir()
    target = outside / "resolv.conf"
    target.write_text("of the host\n")
    if kind == "link":
        (etc / "resolv.conf").symlink_to(target)
    elif kind == "link of the folder":
        etc.rmdir()
        etc.symlink_to(outside)
    elif kind == "FIFO":
        os.mkfifo(etc / "resolv.conf")
    else:
        (etc / "resolv.conf").mkdir()

    runtime.run("c1")

    assert target.read_text() == "of the host\n" and os.listdir(outside) == ["resolv.conf"]
    assert "not in its /etc/resolv.conf" in host.run("cat", "/run/cnihook/log/c1").stdout


def test_networks_without_dns_leave_resolv_conf_alone(host: Host, runtime: Runtime, etc: Path) -> None:
    configure(host, bridge("mynet", "10.22.0.0/24"))
    (etc / "resolv.conf").write_text("of the image\n")

    assert runtime.run("c1").exec("cat", "/etc/resolv.conf") == "of the image\n"
