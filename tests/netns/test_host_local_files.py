# SPDX-License-Identifier: Apache-2.0
"""host-local: the files that it shares with every other host-local on the machine, byte for byte."""

import fcntl
import json
import os
import signal
import stat
import time
from pathlib import Path
from typing import Any

import pytest

from tests.netns.differences import NO_GC, SPEC_1_1
from tests.support.host.host import Host
from tests.support.plugins import cni
from tests.support.plugins.cni import CniFailure
from tests.support.plugins.ipam import LEASES, OWNERS, add, delete, leased, network, request

CONF = network("10.9.0.0/24")


def mode(host: Host, path: str) -> int:
    return stat.S_IMODE(os.stat(host.root / path.lstrip("/")).st_mode)


@pytest.fixture(params=["builtin", "reference"])
def other(
    request: pytest.FixtureRequest, implementations: dict[str, cni.Implementation]
) -> cni.Implementation:
    return implementations[str(request.param)]


def test_lease_is_a_file_with_its_owner(host: Host) -> None:
    """CR LF is between the two, and nothing is after them: the files are compared as a whole."""
    add(host, CONF, "c1", "eth0")

    assert host.read(f"{LEASES}/10.9.0.2") == "c1\r\neth0"


@pytest.mark.known_difference(
    "every user of the host can read leases", here="root only", right="cnihook", fixed_in="1.4.0"
)
def test_only_root_can_read_leases(host: Host) -> None:
    add(host, CONF)

    assert mode(host, f"{LEASES}/10.9.0.2") == mode(host, f"{LEASES}/last_reserved_ip.0") == 0o600


def test_ipv6_lease_has_the_shortest_name(host: Host) -> None:
    """The name is the key: with a second spelling, one address would have two leases."""
    start = {"subnet": "2001:0db8:0:0:0:0:0:0/64", "rangeStart": "2001:DB8:0:0::00ab"}
    add(host, network(start))

    assert leased(host) == ["2001:db8::ab"]


def test_last_address_of_each_set_is_stored(host: Host) -> None:
    add(host, network("10.9.0.0/24", "2001:db8::/64"))

    assert host.read(f"{LEASES}/last_reserved_ip.0") == "10.9.0.2"
    assert host.read(f"{LEASES}/last_reserved_ip.1") == "2001:db8::2"


def test_every_user_can_list_the_folder(host: Host) -> None:
    add(host, CONF)

    assert mode(host, LEASES) == 0o755


def test_folder_has_no_other_visible_files(host: Host) -> None:
    """Administrators and other programs list the folder, and take each name for an address."""
    add(host, CONF)

    visible = [name for name in host.listdir(LEASES) if not name.startswith(".")]
    assert visible == ["10.9.0.2", "last_reserved_ip.0", "lock"]


def test_data_dir_moves_all_files(host: Host) -> None:
    add(host, network("10.9.0.0/24", dataDir="/run/leases"))
    host.leaves("dir /run/leases", "dir /run/leases/net1*", "file /run/leases/net1/l*")

    assert "10.9.0.2" in host.listdir("/run/leases/net1")
    assert not host.exists(LEASES)


def test_newline_at_the_end_of_a_lease_is_ignored(host: Host) -> None:
    host.write(f"{LEASES}/10.9.0.2", "c1\r\neth0\n")

    delete(host, CONF, "c1", "eth0")

    assert leased(host) == []


def test_last_reserved_address_decides_where_the_search_starts(host: Host) -> None:
    host.write(f"{LEASES}/last_reserved_ip.0", "10.9.0.99")

    assert add(host, CONF) == ["10.9.0.100"]


@pytest.mark.parametrize("content", ["", "nonsense", "192.0.2.7", "10.9.0.255"])
def test_invalid_last_reserved_address_is_ignored(host: Host, content: str) -> None:
    """A crash leaves one, or a change of the range."""
    host.write(f"{LEASES}/last_reserved_ip.0", content)

    assert add(host, CONF) == ["10.9.0.2"]


def test_lease_of_another_owner_is_respected(host: Host) -> None:
    host.write(f"{LEASES}/10.9.0.2", "another\r\neth0")
    host.leaves(f"file {LEASES}/10.9.0.2", *OWNERS)

    assert add(host, CONF) == ["10.9.0.3"]


def test_lease_without_an_interface_is_released_with_its_container(host: Host) -> None:
    """Older versions wrote leases without the interface."""
    host.write(f"{LEASES}/10.9.0.7", "c1")

    delete(host, CONF, "c1", "eth0")

    assert leased(host) == []


def test_lease_without_an_interface_counts_for_check(host: Host) -> None:
    host.write(f"{LEASES}/10.9.0.7", "c1")
    host.leaves(f"file {LEASES}/10.9.0.7", *OWNERS)
    result = {"cniVersion": "1.0.0", "ips": [{"address": "10.9.0.7/24"}]}

    request(host, "CHECK", cni.with_previous_result(CONF, result))


@pytest.mark.known_difference(
    "an empty lease, left by a crash, is never released (plugins#498)",
    here="its address is free",
    right="cnihook",
)
def test_address_of_an_empty_lease_is_free(host: Host) -> None:
    host.write(f"{LEASES}/10.9.0.2", "")

    assert add(host, CONF) == ["10.9.0.2"]


def test_files_that_are_not_leases_stay(host: Host) -> None:
    host.write(f"{LEASES}/README", "c2")
    host.write(f"{LEASES}/10.9.0.2.bak", "c2\r\neth0x")
    host.leaves(f"file {LEASES}/README", f"file {LEASES}/10.9.0.2.bak")

    assert add(host, CONF) == ["10.9.0.2"]
    delete(host, CONF)


def test_lock_is_held_by_flock(host: Host) -> None:
    """Every program that uses the folder waits for flock(2).  A lock of fcntl(2) would not stop it."""
    add(host, CONF, "first")
    assert host.implementation
    env = {"CNI_COMMAND": "ADD", "CNI_CONTAINERID": "c1", "CNI_NETNS": "/x", "CNI_IFNAME": "eth0"}
    program = host.implementation.program("host-local")

    with open(host.root / LEASES.lstrip("/") / "lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        process = host.popen(program, env=env | {"CNI_PATH": "/nowhere"}, stdin=-1)
        assert process.stdin
        process.stdin.write(json.dumps(CONF))
        process.stdin.close()
        with pytest.raises(TimeoutError):
            wait_for(host, f"{LEASES}/10.9.0.3", seconds=0.15)
    assert process.wait(30) == 0
    assert leased(host) == ["10.9.0.2", "10.9.0.3"]
    delete(host, CONF)


def wait_for(host: Host, path: str, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not host.exists(path):
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(0.01)


def test_add_killed_while_it_waits_leaves_nothing_locked(host: Host) -> None:
    add(host, CONF, "first")
    assert host.implementation
    env = {"CNI_COMMAND": "ADD", "CNI_CONTAINERID": "c1", "CNI_NETNS": "/x", "CNI_IFNAME": "eth0"}
    with open(host.root / LEASES.lstrip("/") / "lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        process = host.popen(
            host.implementation.program("host-local"), env=env | {"CNI_PATH": "/nowhere"}, stdin=-1
        )
        assert process.stdin
        process.stdin.write(json.dumps(CONF))
        process.stdin.close()
        process.send_signal(signal.SIGKILL)
        process.wait(30)

    assert add(host, CONF) == ["10.9.0.3"]


def test_each_implementation_releases_leases_of_the_other(host: Host, other: cni.Implementation) -> None:
    """A machine that changes from one implementation to the other keeps its containers."""
    conf = network("10.9.0.0/24", "2001:db8::/64")
    add(host, conf, "c1")
    mine, host.implementation = host.implementation, other
    assert add(host, conf, "c2") == ["10.9.0.3", "2001:db8::3"]

    delete(host, conf, "c1")
    assert leased(host) == ["10.9.0.3", "2001:db8::3"]
    host.implementation = mine
    delete(host, conf, "c2")
    assert leased(host) == []

    assert add(host, conf, "c3") == ["10.9.0.4", "2001:db8::4"]


def test_owner_of_a_lease_of_the_other_implementation_gets_no_second(
    host: Host, other: cni.Implementation
) -> None:
    add(host, CONF, "c1")
    mine, host.implementation = host.implementation, other

    with pytest.raises(CniFailure, match="c1"):
        add(host, CONF, "c1")
    host.implementation = mine


def test_check_finds_leases_of_the_other_implementation(host: Host, other: cni.Implementation) -> None:
    result = request(host, "ADD", CONF)
    mine, host.implementation = host.implementation, other

    request(host, "CHECK", cni.with_previous_result(CONF, result))
    host.implementation = mine


CONF_1_1 = network("10.9.0.0/24", version="1.1.0")


def valid(*attachments: tuple[str, str]) -> Any:
    return [{"containerID": owner, "ifname": ifname} for owner, ifname in attachments]


@NO_GC
def test_gc_releases_all_but_valid_leases(host: Host) -> None:
    for owner, ifname in (("c1", "eth0"), ("c1", "eth1"), ("c2", "eth0")):
        add(host, CONF_1_1, owner, ifname)

    request(host, "GC", CONF_1_1 | {"cni.dev/valid-attachments": valid(("c1", "eth1"))})

    assert leased(host) == ["10.9.0.3"]
    assert host.exists(f"{LEASES}/lock") and host.exists(f"{LEASES}/last_reserved_ip.0")


@NO_GC
@pytest.mark.parametrize("listed", [[], None], ids=["empty", "null"])
@pytest.mark.parametrize("key", ["cni.dev/valid-attachments", "cni.dev/attachments"])
def test_gc_with_an_empty_list_releases_all_of_this_network(host: Host, key: str, listed: Any) -> None:
    """Go's libcni writes null for a slice that is nil."""
    add(host, CONF_1_1)
    add(host, CONF_1_1 | {"name": "another"})

    request(host, "GC", CONF_1_1 | {key: listed})

    assert leased(host) == []
    assert leased(host, "/var/lib/cni/networks/another") == ["10.9.0.2"]


@SPEC_1_1
def test_gc_without_a_list_releases_nothing(host: Host) -> None:
    """The caller has not said what is valid.  Addresses in use must not become free."""
    add(host, CONF_1_1)

    request(host, "GC", CONF_1_1)

    assert leased(host) == ["10.9.0.2"]


@NO_GC
def test_gc_reads_the_key_of_the_first_1_1(host: Host) -> None:
    add(host, CONF_1_1)

    request(host, "GC", CONF_1_1 | {"cni.dev/attachments": []})

    assert leased(host) == []


@NO_GC
def test_gc_keeps_a_lease_without_interface_while_its_container_is_valid(host: Host) -> None:
    host.write(f"{LEASES}/10.9.0.7", "c1")
    host.write(f"{LEASES}/10.9.0.8", "c2")
    host.leaves(f"file {LEASES}/10.9.0.7", *OWNERS)

    request(host, "GC", CONF_1_1 | {"cni.dev/valid-attachments": valid(("c1", "eth9"))})

    assert leased(host) == ["10.9.0.7"]


@SPEC_1_1
def test_gc_leaves_files_that_are_not_leases(host: Host) -> None:
    host.write(f"{LEASES}/README", "c2")
    host.leaves(f"file {LEASES}/README")

    request(host, "GC", CONF_1_1 | {"cni.dev/valid-attachments": []})

    assert Path(f"{host.root}{LEASES}/README").exists()
