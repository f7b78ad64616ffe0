# SPDX-License-Identifier: Apache-2.0
"""Containers that find each other by name: by ID, host name and alias, as they start and end."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.host.host import Host
from tests.support.host.namespace import Failed
from tests.support.runtimes.oci import (
    CNIHOOK,
    Running,
    Runtime,
    bridge,
    call_hook,
    configure,
    make_rootfs,
)

NAMES = "/run/cnihook/names"
LOCALHOST = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"
Start = Callable[..., Running]


def starter(host: Host, runtime: Runtime, tmp_path: Path) -> Start:
    """Return a function that starts a container, by default on front, with the files `etc` in its image."""
    configure(host, bridge("front", "10.1.0.0/24"), bridge("back", "10.2.0.0/24"))

    def run(
        container_id: str, *arguments: str, etc: dict[str, str] | None = None, **options: Any
    ) -> Running:
        runtime.rootfs = tmp_path / container_id / "rootfs"
        if not runtime.rootfs.exists():
            make_rootfs(runtime.rootfs)
        for name, text in (etc or {}).items():
            (runtime.rootfs / "etc" / name).write_text(text)
        if "--network" not in arguments and not options.keys() & {"annotations", "hooks"}:
            arguments = ("--network", "front", *arguments)
        return runtime.run(container_id, *arguments, **options)

    return run


@pytest.fixture
def start(host: Host, runtime: Runtime, tmp_path: Path) -> Start:
    return starter(host, runtime, tmp_path)


def hosts(container: Running) -> str:
    return container.exec("cat", "/etc/hosts")


def pings(container: Running, name: str) -> str:
    """Return the address that a name has in the container, after it has answered a ping."""
    return container.exec("ping", "-c1", "-W30", name).partition("(")[2].partition(")")[0]


def knows(container: Running, name: str) -> bool:
    try:
        return bool(pings(container, name))
    except Failed as failed:
        assert "bad address" in failed.stdout + failed.stderr
        return False


def test_containers_reach_each_other_by_id_host_name_and_alias(start: Start) -> None:
    """The order of starts does not matter; its own host name means the container itself."""
    one = start("one", "--hostname", "web.example.test", "--network-alias", "www")
    two = start("two", "--network", "front:alias=db")

    for name in ("one", "web", "www"):
        assert pings(two, name) == pings(one, name) == one.address
    assert pings(one, "web.example.test") == one.address
    for name in ("two", "db"):
        assert pings(two, name) == pings(one, name) == two.address
    assert pings(one, "container") == one.address and pings(two, "container") == two.address  # config.json's


def test_names_are_removed_with_their_container(host: Host, runtime: Runtime, start: Start) -> None:
    """The other files are then as before; a container that starts again has its new address."""
    one = start("one")
    before = hosts(one)
    two = start("two")
    assert pings(one, "two") == two.address
    start("three")

    runtime.delete("two")
    assert not knows(one, "two") and knows(one, "three")
    runtime.delete("three")
    assert hosts(one) == before
    two = start("two")
    assert pings(one, "two") == two.address == "10.1.0.5"
    runtime.delete("two")
    runtime.delete("one")
    assert not host.exists(NAMES)


def test_containers_started_at_once_have_each_others_names(
    host: Host, runtime: Runtime, tmp_path: Path
) -> None:
    """Containers write to each other's files, and no line may be lost."""
    configure(host, bridge("front", "10.1.0.0/24"))
    ids = [f"c{number}" for number in range(6)]
    for container_id in ids:
        runtime.rootfs = make_rootfs(tmp_path / container_id)
        runtime.bundle(container_id)
    starting = [(container_id, runtime.start(container_id)) for container_id in ids]
    containers = [runtime.started(*one) for one in starting]

    for container in containers:
        entries = {line.partition("# cnihook: ")[2] for line in hosts(container).splitlines()[2:]}
        assert entries == {f"{container_id} on front" for container_id in ids}
    runtime.delete_at_once(ids[1:])
    assert (
        hosts(containers[0]) == f"{LOCALHOST}{containers[0].address}\tcontainer c0\t# cnihook: c0 on front\n"
    )


def test_names_are_known_on_their_network_only(start: Start) -> None:
    both = start("both", "--network", "front", "--network", "back:alias=inner")
    front = start("fore", "--network", "front")
    back = start("aft", "--network", "back")

    assert pings(front, "both") == "10.1.0.2" and pings(back, "both") == pings(back, "inner") == "10.2.0.2"
    assert pings(both, "fore") == "10.1.0.3" and pings(both, "aft") == "10.2.0.3"
    assert not knows(front, "inner") and not knows(front, "aft") and not knows(back, "fore")


def test_attached_container_gets_names_of_the_network(host: Host, start: Start) -> None:
    one = start("one", "--network", "front", "--add-host", "db:10.9.9.9")
    two = start("two", "--network", "back")
    first = hosts(one)

    host.run(CNIHOOK, "attach", "one", "--network", "back", "--network-alias", "late")
    assert pings(one, "two") == "10.2.0.2" and pings(two, "late") == "10.2.0.3"
    assert knows(one, "container") and "10.9.9.9\tdb" in hosts(one)
    host.run(CNIHOOK, "detach", "one", "--network", "back")
    assert not knows(one, "two") and not knows(two, "late")
    assert hosts(one) == first
    host.run(CNIHOOK, "detach", "one")
    assert hosts(one) == LOCALHOST


def test_container_without_a_hook_gets_its_host_name_when_attached(host: Host, start: Start) -> None:
    """The container runs already, so cnihook itself sets the host name, with any config.json."""
    one = start("one", hooks={})
    two = start("two")

    host.run(CNIHOOK, "attach", "one", "--network", "front", "--hostname", "web")
    assert pings(one, "two") == "10.1.0.2" and pings(two, "web") == "10.1.0.3"
    assert one.exec("busybox", "hostname") == one.exec("cat", "/etc/hostname") == "web\n"
    assert host.run("busybox", "hostname").stdout != "web\n"
    host.run(CNIHOOK, "detach", "one")


@pytest.mark.parametrize("end", ["gc", "restart"])
def test_names_of_a_killed_container_are_removed_later(
    host: Host, runtime: Runtime, start: Start, end: str
) -> None:
    """There is no poststop: gc removes the names, or the next start of the same ID."""
    one = start("one")
    start("two").kill()
    assert "two" in hosts(one)

    if end == "gc":
        host.run(CNIHOOK, "gc")
        assert "two" not in hosts(one) and host.listdir(f"{NAMES}/front") == ["one"]
    else:
        # An engine that restarts the container has a new process for the ID, and calls no poststop.
        third = start("three", hooks={})
        state = {"id": "two", "pid": third.pid, "bundle": str(runtime.folder("three"))}
        assert call_hook(host, "createRuntime", state, "--network", "front").returncode == 0
        assert pings(one, "two") == third.address
        assert hosts(one).count("two on front") == 1
        call_hook(host, "poststop", state)
    runtime.delete("two")


def test_names_without_a_record_are_removed(host: Host, start: Start) -> None:
    """Another runtime has collected the attachment, or cnihook was killed between the two steps."""
    one = start("one")
    start("two")
    host.run(CNIHOOK, "gc", "front", "--keep", "one")
    host.run("ip", "netns", "del", "two")

    three = start("three")
    assert knows(one, "three")
    assert "two on" not in hosts(one) and "two on" not in hosts(three)
    assert host.listdir(f"{NAMES}/front") == ["one", "three"]


def test_failing_start_leaves_no_name(host: Host, runtime: Runtime, start: Start) -> None:
    """A later hook fails; crun then calls no poststop, so gc has to remove the name."""
    one = start("one")
    before = hosts(one)
    hooks = runtime.config("one")["hooks"]
    hooks["createRuntime"].append({"path": "/bin/false"})
    with pytest.raises(Failed):
        start("two", hooks=hooks)

    host.run(CNIHOOK, "gc")
    assert hosts(one) == before and host.listdir(f"{NAMES}/front") == ["one"]


def test_extra_hosts_are_in_the_file(start: Start) -> None:
    """An annotation can add them too; host-gateway is the host's address, which answers."""
    annotations = {
        "cnihook.networks": "back",
        "cnihook.add-host": "db:192.0.2.1,v6:2001:db8::1,up:host-gateway",
    }
    one = start("one", annotations=annotations)
    other = start("two", "--network", "back")

    assert pings(one, "up") == "10.2.0.1"
    assert "192.0.2.1\tdb" in hosts(one) and "2001:db8::1\tv6" in hosts(one)
    assert "192.0.2.1" not in hosts(other)


def test_extra_host_without_a_network_is_in_the_file(start: Start) -> None:
    one = start("one", "--network", "", "--add-host", "db:192.0.2.1", "--add-host", "up:host-gateway")

    assert hosts(one) == f"{LOCALHOST}192.0.2.1\tdb\t# cnihook: one\n"
    assert "no host up" in one.log


def test_file_has_addresses_of_both_families(host: Host, start: Start) -> None:
    ranges = [[{"subnet": "10.1.0.0/24"}], [{"subnet": "2001:db8:1::/64"}]]
    network = bridge("front", "10.1.0.0/24")
    network["plugins"][0]["ipam"]["ranges"] = ranges
    start("warm")
    configure(host, network)
    one, two = start("one"), start("two")

    assert "2001:db8:1::2\tcontainer one\t" in hosts(one)
    assert "2001:db8:1::2\tone\t" in hosts(two)


# The files


def test_damaged_record_is_released_with_its_names(host: Host, start: Start) -> None:
    web, db = start("web"), start("db")
    assert "db" in hosts(web)
    os.truncate(host.root / "var/lib/cni/results/front-db-eth0", 100)

    db.runtime.delete("db")

    assert "db" not in hosts(web) and not host.exists(f"{NAMES}/front/db")


@pytest.mark.needs("strace")
@pytest.mark.parametrize("release", ["poststop", "gc"])
@pytest.mark.parametrize("call", ["ftruncate", "fstat,newfstatat"])
def test_name_stays_on_record_while_it_cannot_be_removed_from_a_neighbor(
    host: Host, start: Start, tmp_path: Path, call: str, release: str
) -> None:
    """The disk of the neighbor's file may fail for a moment."""
    one = start("one")
    before = hosts(one)
    start("two")
    path = str(tmp_path / "one/rootfs/etc/hosts")
    inject = ["strace", "-f", "-qq", "-o", "/dev/null", "-P", path, "-e", f"inject={call}:error=EIO"]

    host.run(*inject, "/usr/bin/python3", "-IS", CNIHOOK, "detach", "two")
    assert hosts(one) != before

    if release == "gc":
        host.run(CNIHOOK, "gc")
    else:
        call_hook(host, "poststop", {"ociVersion": "1.0", "id": "two", "pid": 0, "bundle": "/nowhere"})
    assert hosts(one) == before
