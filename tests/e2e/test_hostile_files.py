# SPDX-License-Identifier: Apache-2.0
"""The three files in a container that cnihook writes, after the container has changed them."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.host.host import Host
from tests.support.runtimes.oci import (
    CNIHOOK,
    FOR_EVER,
    Running,
    Runtime,
    bridge,
    configure,
    make_rootfs,
    wait_for,
)

FILES = ("hosts", "hostname", "resolv.conf")
NAMING = ("--network", "front", "--hostname", "77", "--dns", "192.0.2.1", "--add-host", "db:192.0.2.2")


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    """Create a folder of the host that a container has at /data."""
    folder = tmp_path / "volume"
    folder.mkdir()
    return folder


@pytest.fixture
def start(host: Host, runtime: Runtime, tmp_path: Path, volume: Path) -> Callable[..., Running]:
    """Start a container with a root file system of its own, after a change of its config.json."""
    configure(host, bridge("front", "10.1.0.0/24"))
    for folder in (tmp_path, *tmp_path.parents[:3]):
        folder.chmod(0o755)  # otherwise users other than root cannot reach it

    def run(
        container_id: str,
        *mounts: tuple[str, str],
        change: Callable[[dict[str, Any]], None] = lambda config: None,
        options: list[str] | None = None,
        **bundle: Any,
    ) -> Running:
        runtime.rootfs = make_rootfs(tmp_path / container_id)
        (runtime.rootfs / "data").mkdir()
        for name in FILES:
            (runtime.rootfs / "etc" / name).write_text("127.0.0.1 of-image\n")
        folder = runtime.bundle(container_id, **bundle)
        runtime.mount(container_id, ("/data", str(volume)), *mounts)
        config = runtime.config(container_id)
        config["root"]["readonly"] = False
        change(config)
        (folder / "config.json").write_text(json.dumps(config))
        return runtime.started(container_id, runtime.start(container_id))

    return run


Start = Callable[..., Running]


def attach(container: Running) -> str:
    """Attach with an option for each file; return the container's log."""
    container.host.run(CNIHOOK, "attach", container.id, *NAMING)
    return container.log


def in_mounts(container: Running, script: str) -> None:
    """Run a script in the mounts of a container, as its root could with CAP_SYS_ADMIN."""
    container.host.run(
        "nsenter", "-t", str(container.pid), "-m", "/bin/busybox", "sh", "-ec", f"PATH=/bin; {script}"
    )


# attach


@pytest.mark.parametrize("name", FILES)
def test_attach_writes_no_file_that_the_container_may_not_write(
    runtime: Runtime, start: Start, volume: Path, name: str
) -> None:
    """A user without root mounts a file of root over its own in a user namespace."""
    secret = volume / "secret"
    secret.write_text("of root\n")
    secret.chmod(0o600)
    volume.chmod(0o777)
    script = f"busybox mount -o bind /data/secret /etc/{name}; : > /data/ready; exec sleep {FOR_EVER[1]}"

    def as_user(config: dict[str, Any]) -> None:
        config["process"]["user"] = {"uid": 1000, "gid": 1000}
        config["process"]["capabilities"] = {}

    container = start(
        "c1",
        change=as_user,
        hooks={},
        command=("busybox", "unshare", "-Urm", "sh", "-ec", script),
    )
    wait_for(lambda: (volume / "ready").exists(), "the mount")
    log = attach(container)

    assert secret.read_text() == "of root\n"
    assert f"not in its /etc/{name}: Permission denied" in log
    container.host.run(CNIHOOK, "detach", "c1")
    assert secret.read_text() == "of root\n"


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("kind", ["proc", "fuse", "cgroup", "FIFO", "link", "device"])
def test_attach_writes_only_to_ordinary_file_systems(
    host: Host, start: Start, volume: Path, name: str, kind: str
) -> None:
    """The container may be root: writing a sysctl has an effect, and a FUSE server need not answer."""
    container = start("c1", hooks={})
    if kind == "proc":
        in_mounts(container, f"busybox mount -o bind /proc/sys/net/ipv4/ip_default_ttl /etc/{name}")
    elif kind == "cgroup":
        (volume / "cg").mkdir()
        in_mounts(
            container,
            "M='busybox mount'; $M -t cgroup2 x /data/cg || $M -t cgroup -o none,name=systemd x /data/cg;"
            f" $M -o bind /data/cg/cgroup.procs /etc/{name}",
        )
    elif kind == "fuse":
        # The FUSE server is this script, which never answers.
        mount_fuse = (
            "import os, sys; sys.path.insert(0, sys.argv[1]); from cnihook.linux import libc;"
            "pid, path = sys.argv[2:]; fd = os.open('/dev/fuse', os.O_RDWR);"
            "libc.setns(os.open(f'/proc/{pid}/ns/mnt', os.O_RDONLY), 0x20000);"
            "libc.mount('x', path, 'fuse', 0, f'fd={fd},rootmode=100644,user_id=0,group_id=0');"
            "os.set_inheritable(fd, True); os.read(0, 1)"
        )
        checkout = str(Path(CNIHOOK).parent.parent)
        server = host.popen(
            "/usr/bin/python3", "-c", mount_fuse, checkout, str(container.pid), f"/etc/{name}"
        )
        mounts = f"/proc/{container.pid}/mountinfo"
        wait_for(lambda: f" /etc/{name} " in host.read(mounts), "the mount")
    else:
        in_mounts(
            container,
            f"rm /etc/{name}; "
            + {
                "FIFO": f"busybox mkfifo /etc/{name}",
                "link": f"busybox ln -s /data/x /etc/{name}",
                "device": f"busybox mknod /etc/{name} c 1 3",
            }[kind],
        )
    log = attach(container)

    assert f"not in its /etc/{name}: " in log
    assert container.run("cat", "/proc/sys/net/ipv4/ip_default_ttl").stdout == "64\n"
    if kind == "fuse":
        server.kill()
        server.communicate(timeout=30)
    host.run(CNIHOOK, "detach", "c1")


@pytest.mark.parametrize("owner", [0, 1000])
def test_attach_writes_files_in_mounts_of_the_container(start: Start, owner: int) -> None:
    """The container has mounted a tmpfs on its /etc: its root may write there, so attach may too."""
    container = start("c1", hooks={})
    in_mounts(
        container, f"busybox mount -t tmpfs none /etc; : > /etc/hosts; busybox chown {owner} /etc/hosts"
    )
    log = attach(container)

    if owner:
        assert (
            "not in its /etc/hosts: Permission denied" in log and container.exec("cat", "/etc/hosts") == ""
        )
    else:
        assert "10.1.0.2\t77 " in container.exec("cat", "/etc/hosts")
        assert container.exec("cat", "/etc/hostname") == "77\n"
    container.host.run(CNIHOOK, "detach", "c1")


def test_names_work_with_a_user_namespace(host: Host, start: Start) -> None:
    """The hook and attach both write, although the image's files belong to root of the host."""

    def with_users(config: dict[str, Any]) -> None:
        config["linux"]["namespaces"].append({"type": "user"})
        for kind in ("uidMappings", "gidMappings"):
            config["linux"][kind] = [{"containerID": 0, "hostID": 100000, "size": 1000}]

    one = start("one", change=with_users)
    two = start("two", change=with_users, hooks={})
    attach(two)

    for container in (one, two):
        hosts = container.exec("cat", "/etc/hosts")
        assert "10.1.0.2\t" in hosts and "10.1.0.3\t" in hosts
    assert two.exec("cat", "/etc/hostname") == "77\n"
    host.run(CNIHOOK, "detach", "two")
    assert "10.1.0.3\t" not in one.exec("cat", "/etc/hosts")


def test_attach_follows_links_of_the_operator(runtime: Runtime, start: Start, tmp_path: Path) -> None:
    """/var/lib/docker may be a link to another disk, for example.  The file is found and kept up to date."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    (tmp_path / "disk" / "hosts").write_text("127.0.0.1 localhost\n")
    one = start("one", ("/etc/hosts", str(tmp_path / "link" / "hosts")), hooks={})
    attach(one)
    start("two")

    assert "10.1.0.3\t" in (tmp_path / "disk" / "hosts").read_text()
    runtime.delete("two")
    one.host.run(CNIHOOK, "detach", "one")


def test_attach_follows_no_link_of_the_container(start: Start, tmp_path: Path, volume: Path) -> None:
    """The container has /etc in a volume, and mounts a read-only file of the host over its own."""
    (volume / "etc").mkdir()
    (volume / "etc" / "hosts").write_text("127.0.0.1 localhost\n")
    shared = tmp_path / "shared"
    shared.mkdir()
    (shared / "hosts").write_text("of the host\n")

    def read_only(config: dict[str, Any]) -> None:
        config["mounts"][-1]["options"] = ["bind", "ro"]
        config["process"]["user"] = {"uid": 1000, "gid": 1000}

    one = start("one", ("/etc", str(volume / "etc")), ("/tmp", str(shared)), change=read_only, hooks={})
    in_mounts(one, "busybox mount -o bind /tmp/hosts /etc/hosts")
    (volume / "etc").rename(volume / "old")
    (volume / "etc").symlink_to(shared)
    log = attach(one)

    assert (shared / "hosts").read_text() == "of the host\n"
    assert "names are not in its /etc/hosts: " in log
    one.host.run(CNIHOOK, "detach", "one")
    assert (shared / "hosts").read_text() == "of the host\n"


# Other containers


@pytest.mark.parametrize("change", ["link of the folder", "another file", "device"])
def test_hook_of_another_container_skips_exchanged_files(
    host: Host, runtime: Runtime, start: Start, tmp_path: Path, volume: Path, change: str
) -> None:
    """A container with /etc in a volume can rename it."""
    etc = volume / "etc"
    etc.mkdir()
    (etc / "hosts").write_text("127.0.0.1 localhost\n")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "hosts").write_text("of the host\n")
    one = start("one", ("/etc", str(etc)))
    before = one.exec("cat", "/etc/hosts")
    if change == "link of the folder":
        etc.rename(volume / "old")
        etc.symlink_to(outside)
    else:
        (etc / "hosts").rename(etc / "old")
        if change == "device":
            os.mknod(etc / "hosts", 0o20666, os.makedev(1, 3))
        else:
            (etc / "hosts").write_text("of root\n")
            (etc / "hosts").chmod(0o600)
    two = start("two")

    assert "names are not in the hosts file of one" in two.log
    assert "its /etc/hosts is not changed" in one.log and "will not be kept up to date" in one.log
    assert (outside / "hosts").read_text() == "of the host\n"
    if change == "another file":
        assert (etc / "hosts").read_text() == "of root\n"
    runtime.delete("two")
    if change == "link of the folder":
        assert (volume / "old" / "hosts").read_text() == before
    assert (outside / "hosts").read_text() == "of the host\n"
    # The file is tried once: its entry no longer names a file when the next container starts.
    assert "hosts file of one" not in start("three").log


# Read-only


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("way", ["hook", "attach"])
@pytest.mark.parametrize("kind", ["read-only mount", "read-only mount of the folder", "mode"])
def test_read_only_file_of_the_operator_stays(
    host: Host, start: Start, tmp_path: Path, kind: str, way: str, name: str
) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    for each in FILES:
        (shared / each).write_text("of the operator\n")
        (shared / each).chmod(0o444 if kind == "mode" else 0o644)
    mount = ("/etc", str(shared)) if "folder" in kind else (f"/etc/{name}", str(shared / name))

    def read_only(config: dict[str, Any]) -> None:
        if kind != "mode":
            config["mounts"][-1]["options"] = ["rbind", "rw", "ro"]

    container = start("c1", mount, change=read_only, **({"hooks": {}} if way == "attach" else {}))
    log = attach(container) if way == "attach" else container.log

    assert {(shared / each).read_text() for each in FILES} == {"of the operator\n"}
    if way == "attach" or name == "hosts":
        assert f"not in its /etc/{name}: " in log
        assert ("is mounted read-only" in log) == (kind != "mode")
    start("c2")
    assert {(shared / each).read_text() for each in FILES} == {"of the operator\n"}
    if way == "attach":
        host.run(CNIHOOK, "detach", "c1")


@pytest.mark.parametrize("writable", [False, True])
def test_file_mounted_by_engine_in_read_only_container_is_written(
    start: Start, tmp_path: Path, writable: bool
) -> None:
    """docker and podman with --read-only mount their own files for the container read-only too."""
    folder = tmp_path / "containers" / "c1"
    folder.mkdir(parents=True)
    (folder / "hosts").write_text("127.0.0.1 localhost\n")

    def read_only(config: dict[str, Any]) -> None:
        config["root"]["readonly"] = not writable
        config["mounts"][-1]["options"] = ["rbind", "ro"]

    start("c1", ("/etc/hosts", str(folder / "hosts")), change=read_only)

    assert ("10.1.0.2" in (folder / "hosts").read_text()) != writable
