# SPDX-License-Identifier: Apache-2.0
"""The files with the names: what stays in them, what is written, what a container cannot change."""

import os
from pathlib import Path

import pytest

from tests.e2e.test_names import LOCALHOST, Start, hosts, knows, pings, starter
from tests.support.host.host import Host
from tests.support.runtimes.oci import (
    Runtime,
    bridge,
    configure,
    make_rootfs,
)

FILES = ("hosts", "hostname", "resolv.conf")


@pytest.fixture
def start(host: Host, runtime: Runtime, tmp_path: Path) -> Start:
    return starter(host, runtime, tmp_path)


def test_lines_of_the_image_stay(runtime: Runtime, start: Start) -> None:
    """The file is changed in place, and after the last DEL its bytes are as before."""
    text = "127.0.0.1\tlocalhost\n# image\n192.0.2.9\tthere # on front\n192.0.2.8 last"
    one = start("one", etc={"hosts": text})
    path = runtime.rootfs / "etc" / "hosts"
    inode = path.stat().st_ino
    start("two")

    assert hosts(one).startswith(
        f"{text}\n10.1.0.2\tcontainer one\t# cnihook: one on front\n10.1.0.3\ttwo\t"
    )
    assert path.stat().st_ino == inode
    runtime.delete("one")
    assert path.read_text() == f"{text}\n" and path.stat().st_ino == inode


def test_shared_file_has_the_names_of_both_containers(host: Host, runtime: Runtime, start: Start) -> None:
    """Each container has its names in the file while it is attached, and no line is there twice."""
    one = start("one", "--network", "front", "--network", "back")
    rootfs = runtime.rootfs
    two = runtime.run("two", "--network", "front")
    three = start("three", "--network", "back")
    assert runtime.rootfs != rootfs

    assert hosts(two) == (rootfs / "etc" / "hosts").read_text()
    assert knows(three, "one") and knows(one, "three")
    lines = hosts(two).splitlines()
    assert len(lines) == len(set(lines)) == 6 and "10.2.0.3\tthree\t# cnihook: three on back" in lines
    runtime.delete("one")
    assert hosts(two) == f"{LOCALHOST}10.1.0.3\tcontainer two\t# cnihook: two on front\n"


def test_old_and_hostile_lines_are_removed(start: Start) -> None:
    """The root file system may be a copy of one in use, or hostile: its tags have no effect."""
    old = f"{LOCALHOST}10.1.0.9\tprevious\t# cnihook: old on front\n10.0.0.1\tx\t# cnihook: gone\n"
    hostile = "10.0.0.2\ty\t# cnihook: passwd on ../../../etc\n10.0.0.3\tz\t# cnihook: ../../../etc/passwd\n"
    one = start("one", etc={"hosts": old + hostile})

    assert hosts(one) == f"{LOCALHOST}10.1.0.2\tcontainer one\t# cnihook: one on front\n"
    assert os.path.exists(f"{one.host.root}/etc/passwd")


@pytest.mark.parametrize("kind", ["link", "hard link", "FIFO", "folder", "link of the folder"])
def test_hostile_image_changes_nothing_outside(
    host: Host, runtime: Runtime, tmp_path: Path, kind: str
) -> None:
    """Root writes to an untrusted image: no byte outside may change, and the container has to run."""
    configure(host, bridge("front", "10.1.0.0/24", dns={"nameservers": ["192.0.2.1"]}))
    outside = tmp_path / "outside"
    outside.mkdir()
    runtime.rootfs = make_rootfs(tmp_path / "rootfs")
    etc = runtime.rootfs / "etc"
    for name in FILES:
        (outside / name).write_text("of the host\n")
        if kind == "link":
            (etc / name).symlink_to(outside / name)
        elif kind == "hard link":
            (etc / name).hardlink_to(outside / name)
        elif kind == "FIFO":
            os.mkfifo(etc / name)
        elif kind == "folder":
            (etc / name).mkdir()
    if kind == "link of the folder":
        etc.rmdir()
        etc.symlink_to(outside)

    container = runtime.run("c1", "--hostname", "web", "--add-host", "db:192.0.2.2")

    assert [(outside / name).read_text() for name in os.listdir(outside)] == ["of the host\n"] * 3
    if kind.startswith("link"):  # to files of the container, whose folders are missing
        assert "db" in container.exec("cat", "/etc/hosts")
        assert container.exec("cat", "/etc/hostname") == "web\n"
        assert "nameserver 192.0.2.1" in container.exec("cat", "/etc/resolv.conf")
    else:
        assert all(f"not in its /etc/{name}: " in container.log for name in FILES)


@pytest.mark.parametrize("change", ["link", "FIFO", "hard link"])
def test_hostile_container_changes_nothing_outside(
    host: Host, runtime: Runtime, start: Start, tmp_path: Path, change: str
) -> None:
    """The container may replace its /etc/hosts before another one starts or ends."""
    start("one")
    outside = tmp_path / "outside"
    outside.write_text("of the host # cnihook: two on front\n")
    path = runtime.rootfs / "etc" / "hosts"
    path.unlink()
    if change == "link":
        path.symlink_to(outside)
    elif change == "FIFO":
        os.mkfifo(path)
    else:
        path.hardlink_to(outside)

    two = start("two")
    assert pings(two, "one") == "10.1.0.2"
    assert "its names are not in the hosts file of one" in two.log
    runtime.delete("two")
    assert outside.read_text() == "of the host # cnihook: two on front\n"


def test_files_of_the_host_are_not_changed(host: Host, runtime: Runtime, tmp_path: Path) -> None:
    """Many containers mount them; cnihook must not write to a file that others use."""
    configure(host, bridge("front", "10.1.0.0/24", dns={"nameservers": ["192.0.2.1"]}))
    for name in FILES:
        host.write(f"/etc/{name}", f"the host's {name}\n")
    host.leaves("file /etc/*")
    runtime.rootfs = make_rootfs(tmp_path / "rootfs")
    runtime.bundle("c1", "--hostname", "web")
    runtime.mount("c1", *((f"/etc/{name}", f"/etc/{name}") for name in FILES))

    container = runtime.started("c1", runtime.start("c1"))
    for name in FILES:
        assert container.exec("cat", f"/etc/{name}") == host.read(f"/etc/{name}") == f"the host's {name}\n"
        assert f"not in its /etc/{name}: it is the host's own" in container.log


def test_mounted_hosts_file_gets_the_names(
    host: Host, runtime: Runtime, start: Start, tmp_path: Path
) -> None:
    """Engines mount such a file over that of the image."""
    own = tmp_path / "own-hosts"
    own.write_text("")
    runtime.rootfs = make_rootfs(tmp_path / "rootfs")
    (runtime.rootfs / "etc" / "hosts").write_text("of the image\n")
    rootfs = runtime.rootfs
    runtime.bundle("c1", "--network", "front")
    runtime.mount("c1", ("/etc/hosts", str(own)))
    container = runtime.started("c1", runtime.start("c1"))
    start("two")

    assert hosts(container) == own.read_text()
    assert pings(container, "two") == "10.1.0.3"
    assert (rootfs / "etc" / "hosts").read_text() == "of the image\n"


def test_file_that_the_host_cannot_see_is_written_once(
    host: Host, runtime: Runtime, start: Start, tmp_path: Path
) -> None:
    """Only the container sees a tmpfs on /etc.  It has the names at its start; other files have its name."""
    one = start("one")
    runtime.rootfs = make_rootfs(tmp_path / "rootfs")
    runtime.bundle("c1", "--network", "front")
    runtime.mount("c1", ("/etc", "tmpfs"))
    container = runtime.started("c1", runtime.start("c1"))

    assert pings(container, "one") == "10.1.0.2" and pings(one, "c1") == "10.1.0.3"
    assert "later containers cannot be added to it" in container.log


def test_host_name_is_set_if_config_json_has_none(start: Start) -> None:
    one = start("one", "--hostname", "web", hostname="")

    assert one.exec("busybox", "hostname") == one.exec("cat", "/etc/hostname") == "web\n"
    assert hosts(one).endswith("10.1.0.2\tweb one\t# cnihook: one on front\n")


def test_host_name_that_the_runtime_overrides_is_reported(start: Start) -> None:
    """The runtime sets its own host name after the hook; the log reports that the request is void."""
    one = start("one", "--hostname", "web")

    assert one.exec("busybox", "hostname") == "container\n" and knows(one, "web")
    assert "its host name is not web: its runtime will set" in one.log
