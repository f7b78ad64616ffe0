# SPDX-License-Identifier: Apache-2.0
"""Sticky names: a container gets the addresses and the MAC address that the one before it had."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.support.host.host import Container, Host
from tests.support.host.leaks import compare
from tests.support.plugins.cni import CHECKOUT
from tests.support.runtimes.oci import CNIHOOK, NETWORKS, bridge, call_hook, configure, leases, wait_for
from tests.support.services.dhcp import Lan, leave_keeper

HOOK = ("/usr/bin/python3", "-IS", CNIHOOK)
STATE = "/var/lib/cnihook/sticky"
FRONT = bridge("front", "10.1.0.0/29", capabilities={"mac": True})  # .2 to .6
BACK = bridge("back", "fd00:2::/64")
NAMES = [f"{NETWORKS}/*/lock", f"{NETWORKS}/*/last*"]


@pytest.fixture(autouse=True)
def networks(host: Host) -> None:
    configure(host, FRONT, BACK)
    host.leaves("dir /var/lib/cnihook*", f"file {NETWORKS}/*/l*", f"dir {NETWORKS}/*", "file /run/cnihook/*")


def forget(host: Host) -> None:
    """Remove all sticky names, and check that no lease is left."""
    names = host.listdir(STATE)
    assert host.run(CNIHOOK, "sticky", "rm", *names).stdout.split() == names
    assert leases(host, "front") == leases(host, "back") == kept(host) == []


def state_of(container: Container, name: str = "", **annotations: str) -> dict[str, Any]:
    annotations = {f"cnihook.{key}": value for key, value in annotations.items()}
    if name:
        annotations["cnihook.sticky"] = name
    state = {"ociVersion": "1.0.2", "id": container.name, "pid": container.pid, "bundle": "/"}
    return {**state, "annotations": annotations}


def start(host: Host, container_id: str, name: str = "", **annotations: str) -> Container:
    container = host.container(container_id, process=True)
    outcome = call_hook(host, "createRuntime", state_of(container, name, **annotations))
    assert (outcome.returncode, outcome.stderr) == (0, "")
    return container


def refused(host: Host, container_id: str, name: str = "", **annotations: str) -> str:
    """Return the only line on stderr of a start that fails."""
    container = host.container(container_id, process=True)
    outcome = call_hook(host, "createRuntime", state_of(container, name, **annotations))
    assert (outcome.returncode, outcome.stderr.count("\n")) == (1, 1)
    return outcome.stderr


def stop(host: Host, container: Container, *arguments: str) -> None:
    assert call_hook(host, "poststop", state_of(container), *arguments).returncode == 0


def kill(host: Host, container: Container) -> None:
    container.destroy()
    wait_for(lambda: not host.exists(f"/proc/{container.pid}"), "the end of the container")


def present(container: Container) -> tuple[list[str], list[str], str]:
    """Return the addresses on both networks, and the MAC address on the first."""
    return container.addresses("eth0"), container.addresses("eth1")[:1], container.link("eth0")["address"]


def kept(host: Host) -> list[Any]:
    rows: list[Any] = json.loads(host.run(CNIHOOK, "sticky", "ls", "--json").stdout)
    return rows


def log(host: Host, container_id: str) -> str:
    return host.read(f"/run/cnihook/log/{container_id}")


def test_restarted_container_has_the_same_addresses(host: Host) -> None:
    """In between, no other container gets them, even if all others are leased, and GC keeps them."""
    web = start(host, "web1", "web")
    before = present(web)
    assert before[0] == ["10.1.0.2/29"]
    assert [(row["network"], row["container"]) for row in kept(host)] == [
        ("back", "web1"),
        ("front", "web1"),
    ]
    stop(host, web)

    assert host.read(f"{NETWORKS}/front/10.1.0.2") == "sticky:web"
    others = [start(host, f"c{number}", networks="front") for number in range(4)]
    assert "10.1.0.2/29" not in {address for other in others for address in other.addresses("eth0")}
    message = refused(host, "c5", networks="front")
    assert "no IP addresses available" in message and "`cnihook sticky ls`" in message
    message = refused(host, "c5", networks="front:ip=10.1.0.2")
    assert "it is kept for the sticky name web; `cnihook sticky rm web` releases it" in message
    for network in ("front", "back"):
        assert host.run(CNIHOOK, "gc", network).stdout == ""
    assert "lease-without-owner" not in host.run(CNIHOOK, "doctor", check=False).stdout
    assert [row["container"] for row in kept(host)] == ["", ""]

    again = start(host, "web2", "web")
    assert present(again) == before
    assert leases(host, "front").count("10.1.0.2") == 1 and "10.1.0.2" in host.run(CNIHOOK, "ps").stdout
    assert host.run(CNIHOOK, "check", "--all").returncode == 0
    for container in (again, *others):
        stop(host, container)
    forget(host)


def test_killed_container_leaves_its_addresses_to_the_name(host: Host) -> None:
    """No poststop has run; after a reboot, /run is empty, too."""
    before = present(web := start(host, "web1", "web"))
    kill(host, web)

    again = start(host, "web2", "web")
    assert present(again) == before
    kill(host, again)
    host.run("rm", "-r", "/run/cnihook")
    other = start(host, "c1")
    assert other.addresses("eth0") != before[0]
    third = start(host, "web2", "web")
    assert present(third) == before
    stop(host, third)
    stop(host, other)
    forget(host)


def test_repair_keeps_the_sticky_address(host: Host) -> None:
    """The new link is made by DEL and ADD."""
    before = present(web := start(host, "web", "web"))
    web.run("ip", "link", "delete", "eth0")

    host.run(CNIHOOK, "repair", "web")

    assert present(web) == before and host.read(f"{NETWORKS}/front/10.1.0.2") == "web\r\neth0"
    stop(host, web)
    assert host.read(f"{NETWORKS}/front/10.1.0.2") == "sticky:web"
    forget(host)


def test_second_container_with_the_name_is_refused(host: Host) -> None:
    web = start(host, "web1", "web")

    message = refused(host, "web2", "web")
    assert "sticky name web: container web1 has it, and lives; stop that one" in message
    assert "sticky name 'a/b' is not valid" in refused(host, "c1", "a/b")
    stop(host, web)
    stop(host, start(host, "web2", "web"))
    forget(host)


def test_only_one_of_two_starts_at_once_gets_the_name(host: Host) -> None:
    containers = [host.container(f"web{number}", process=True) for number in range(3)]
    with ThreadPoolExecutor() as pool:
        outcomes = list(
            pool.map(lambda one: call_hook(host, "createRuntime", state_of(one, "web")), containers)
        )
    assert sorted(outcome.returncode for outcome in outcomes) == [0, 1, 1]
    (winner,) = [one for one, outcome in zip(containers, outcomes, strict=True) if not outcome.returncode]
    assert [row["container"] for row in kept(host)] == [winner.name] * 2
    for container in containers:
        stop(host, container)
    assert leases(host, "front") == ["10.1.0.2"]
    forget(host)


def test_failed_start_keeps_nothing_for_a_new_name(host: Host) -> None:
    """The plugins of the first network have run then."""
    message = refused(host, "web1", "web", networks="front back:ip=10.9.9.9")

    assert "10.9.9.9" in message
    assert host.listdir(STATE) == leases(host, "front") == kept(host) == []


def test_changed_subnet_and_removed_network_release_what_was_kept(host: Host) -> None:
    """The container starts, and its log has one line for each."""
    stop(host, start(host, "web", "web"))
    configure(host, bridge("front", "10.7.0.0/24"), bridge("other", "10.8.0.0/24"))

    web = start(host, "web", "web")
    assert web.addresses("eth0") == ["10.7.0.2/24"]
    assert (
        log(host, "web").count("sticky name web: address 10.7.0.2/24 on front instead of 10.1.0.2/29") == 1
    )
    assert log(host, "web").count("fd00:2::2/64 is kept no longer: network back is gone") == 1
    stop(host, web)
    assert leases(host, "front") == ["10.7.0.2"] and leases(host, "back") == []
    requested = start(host, "web", "web", networks="front:ip=10.7.0.9 other")
    assert requested.addresses("eth0") == ["10.7.0.9/24"]
    stop(host, requested)
    assert leases(host, "front") == ["10.7.0.9"]
    forget(host)


def test_removed_name_is_not_kept_at_the_end(host: Host) -> None:
    """The container has the addresses until then.  A damaged file is reported, and can be removed."""
    web = start(host, "web", "web")
    assert host.run(CNIHOOK, "sticky", "rm", "web").stdout == "web\n"
    assert web.addresses("eth0") == ["10.1.0.2/29"]
    stop(host, web)
    assert leases(host, "front") == []

    stop(host, start(host, "web", "web"))
    host.write(f"{STATE}/web", "{")
    listing = host.run(CNIHOOK, "sticky", "ls", check=False)
    assert listing.returncode == 1 and "/var/lib/cnihook/sticky/web is damaged" in listing.stderr
    assert "`cnihook sticky rm web` removes it" in refused(host, "web", "web")
    assert host.run(CNIHOOK, "sticky", "rm", "web").stdout == "web\n"
    assert leases(host, "front") == leases(host, "back") == []
    again = host.run(CNIHOOK, "sticky", "rm", "web", check=False)
    assert (again.returncode, again.stderr.count("\n")) == (
        1,
        1,
    ) and "nothing is kept for web" in again.stderr


@pytest.mark.needs("strace")
@pytest.mark.parametrize("event", ["createRuntime", "poststop"])
def test_hook_killed_anywhere_keeps_the_address(host: Host, event: str) -> None:
    """SIGKILL at each change of a file: the next container has the address, and `rm` leaves nothing."""
    before = present(web := start(host, "web0", "web"))
    for number in range(1, 40, 2):
        if event == "createRuntime":
            stop(host, web)
            web = host.container(f"web{number}", process=True)
        calls = "rename,symlink,unlink,fsync"
        inject = f"inject={calls}:signal=KILL:when={number}"
        strace = ("strace", "-qq", "-o", "/dev/null", "-e", f"trace={calls}", "-e", inject)
        text = json.dumps(state_of(web, "web"))
        code = host.run(*strace, *HOOK, event, input=text, check=False).returncode
        kill(host, web)
        web = start(host, f"again{number}", "web")
        assert present(web) == before
        if code == 0:
            break
        assert code in (-9, 137)
    assert code == 0 and number > 4
    stop(host, web)
    forget(host)
    host.run(CNIHOOK, "gc")
    host.run("rm", "-rf", "/run/cnihook/log")
    compare(host.before, host.state, host.stay)


@pytest.mark.needs("strace")
def test_full_disk_loses_no_address(host: Host) -> None:
    """A start that fails leaves the address to the name, and an end that fails can be repeated."""
    host.leaves("file /run/cnihook/log/*")

    def hook(event: str, container: Container, number: int) -> int:
        inject = f"inject=fsync:error=ENOSPC:when={number}"
        strace = ("strace", "-qq", "-o", "/dev/null", "-e", "trace=fsync", "-e", inject)
        text = json.dumps(state_of(container, "web"))
        outcome = host.run(*strace, *HOOK, event, input=text, check=False)
        assert outcome.returncode in (0, 1) and outcome.stderr.count("\n") == outcome.returncode
        return outcome.returncode

    before = present(web := start(host, "web0", "web"))
    stop(host, web)
    for number in range(1, 20):
        web = host.container(f"web{number}", process=True)
        if not hook("createRuntime", web, number):
            break
        assert host.read(f"{NETWORKS}/front/10.1.0.2") == "sticky:web" and "eth0" not in web.links()
    assert number > 4 and present(web) == before
    assert hook("poststop", web, 1) == 1
    stop(host, web)
    assert host.read(f"{NETWORKS}/front/10.1.0.2") == "sticky:web"
    forget(host)


@pytest.mark.needs("dnsmasq")
def test_dhcp_server_sees_the_same_client(host: Host, tmp_path: Path) -> None:
    """The server binds leases to a client ID, which has the sticky name instead of the container's ID."""
    lan = Lan(host, tmp_path)
    host.save_state()
    leave_keeper(host)
    plugin = {"type": "bridge", "bridge": "cni0", "ipam": {"type": "dhcp"}}
    configure(host, {"cniVersion": "1.0.0", "name": "net1", "plugins": [plugin]})
    with lan:
        lan.serve()
        web = start(host, "web1", "web", networks="net1")
        before = web.addresses("eth0"), lan.leases()
        stop(host, web)
        other = start(host, "c1", networks="net1")
        again = start(host, "web2", "web", networks="net1")
        assert again.addresses("eth0") == before[0]
        (old,) = before[1].values()
        assert old[2] in [lease[2] for lease in lan.leases().values()]
        stop(host, again)
        stop(host, other)
        forget(host)


def test_priv_net_run_has_a_sticky_address(host: Host) -> None:
    run = str(CHECKOUT / "scripts" / "priv-net-run")
    show = ("ip", "-4", "-br", "address", "show", "eth0")
    printed = [
        host.run(run, "--network", "front", *name, *show).stdout.split()[2]
        for name in (["--sticky", "job"], [], ["--sticky", "job"])
    ]

    assert printed[0] == printed[2] != printed[1]
    forget(host)
