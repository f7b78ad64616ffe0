# SPDX-License-Identifier: Apache-2.0
"""A container's resolv.conf if its networks have DNS servers, in valid and hostile root file systems."""

import json
import os
from pathlib import Path

import pytest

from tests.support.host.host import Host
from tests.support.runtimes.oci import CNIHOOK, Runtime, bridge, configure, make_rootfs

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


@pytest.mark.parametrize(
    "link",
    ["../run/systemd/resolve/stub-resolv.conf", "/run/resolv.conf", "../../../../run/a", "/etc/one"],
    ids=["systemd-resolved", "absolute", "above the root", "two links"],
)
def test_link_leads_to_a_file_of_the_container(runtime: Runtime, etc: Path, link: str) -> None:
    """Root file systems of Ubuntu and Fedora have such a link.  The file and its folders may be missing."""
    (etc / "resolv.conf").symlink_to(link)
    (etc / "one").symlink_to("../run/./two")
    if link == "/run/resolv.conf":
        (etc.parent / "run").mkdir()
        (etc.parent / "run" / "resolv.conf").write_text("nameserver 127.0.0.53\n" * 100)
    container = runtime.run("c1")

    assert container.exec("cat", "/etc/resolv.conf") == TEXT
    assert (etc / "resolv.conf").is_symlink() and not Path("/run/a").exists()


def test_link_to_a_file_that_an_engine_mounted_is_written(
    host: Host, runtime: Runtime, etc: Path, tmp_path: Path
) -> None:
    """Runtimes mount it at the target of the link.  Then `attach` writes it, too."""
    (etc / "resolv.conf").symlink_to("../run/systemd/resolve/stub-resolv.conf")
    own = tmp_path / "own-resolv.conf"
    own.write_text("")
    mount(runtime, own)
    container = runtime.started("c1", runtime.start("c1"))
    assert container.exec("cat", "/etc/resolv.conf") == own.read_text() == TEXT

    more = bridge("more", "10.23.0.0/24", dns={"nameservers": ["10.23.0.53"]})
    host.write("/etc/cni/net.d/20-more.conflist", json.dumps(more))
    host.run(CNIHOOK, "attach", "c1", "--network", "more", "--runtime", runtime.name)
    assert "nameserver 10.23.0.53\n" in own.read_text()


@pytest.mark.parametrize("kind", ["volume", "tmpfs", "proc", "itself", "too deep"])
def test_link_to_another_place_is_not_followed(
    host: Host, runtime: Runtime, etc: Path, tmp_path: Path, kind: str
) -> None:
    """The image chooses the link: it must not have a file of a volume overwritten."""
    volume = tmp_path / "volume"
    volume.mkdir()
    (volume / "file").write_text("of the host\n")
    targets = {"proc": "/proc/sys/kernel/domainname", "itself": "resolv.conf", "too deep": "/a" * 12}
    (etc / "resolv.conf").symlink_to(targets.get(kind, "/run/file"))
    runtime.bundle("c1")
    if kind in ("volume", "tmpfs"):
        runtime.mount("c1", ("/run", str(volume) if kind == "volume" else "tmpfs"))
    runtime.started("c1", runtime.start("c1"))

    assert (volume / "file").read_text() == "of the host\n"
    assert "not in its /etc/resolv.conf" in host.run("cat", "/run/cnihook/log/c1").stdout
    assert not (etc.parent / "a").exists()
    finding = host.run(CNIHOOK, "doctor", check=False).stdout
    assert "container-dns: container c1: /etc/resolv.conf is a link" in finding


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

    container = runtime.run("c1")

    assert target.read_text() == "of the host\n" and os.listdir(outside) == ["resolv.conf"]
    if "link" in kind:  # to a path in the container
        assert container.exec("cat", "/etc/resolv.conf") == TEXT
    else:
        assert "not in its /etc/resolv.conf" in host.run("cat", "/run/cnihook/log/c1").stdout


def test_container_without_a_route_to_its_servers_is_reported(
    host: Host, runtime: Runtime, etc: Path
) -> None:
    """A network without a way out has its server on a machine outside.  One of its own can be reached."""
    configure(host, bridge("mynet", "10.22.0.0/24", dns={"nameservers": ["192.0.2.53"]}))
    runtime.run("c1")
    finding = "note container-dns: container c1 has no route to 192.0.2.53 of its /etc/resolv.conf"
    assert finding in host.run(CNIHOOK, "doctor", "--verbose", check=False).stdout
    assert "container-dns" not in host.run(CNIHOOK, "doctor", check=False).stdout
    event = "it has no route to 192.0.2.53 of its /etc/resolv.conf"
    assert event in host.run(CNIHOOK, "logs", "c1").stdout
    (etc / "resolv.conf").write_text("nameserver 192.0.2.53\nnameserver 10.22.0.1\n")
    assert "container-dns" not in host.run(CNIHOOK, "doctor", "--verbose", check=False).stdout
    for servers in ("10.22.0.1", "127.0.0.11"):  # the second may be a program of the engine
        (etc / "resolv.conf").write_text(f"nameserver {servers}\n")
        configure(host, bridge("mynet", "10.22.0.0/24"))
        runtime.run(f"c-{servers}")
        assert "no route" not in host.run(CNIHOOK, "logs", f"c-{servers}").stdout


def test_networks_without_dns_leave_resolv_conf_alone(host: Host, runtime: Runtime, etc: Path) -> None:
    configure(host, bridge("mynet", "10.22.0.0/24"))
    (etc / "resolv.conf").write_text("of the image\n")

    assert runtime.run("c1").exec("cat", "/etc/resolv.conf") == "of the image\n"
