# SPDX-License-Identifier: Apache-2.0
"""host-local: damaged state, full disks and files that are not leases, given to the executable."""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.host.host import Host
from tests.support.host.namespace import base_environment
from tests.support.plugins import cni
from tests.support.plugins.cni import CniFailure
from tests.support.plugins.ipam import LEASES, add, delete, leased, network, request

CONF = network("10.9.0.0/24", "fd09::/64")
FIRST = ["10.9.0.2", "fd09::2"]
NEXT = ["10.9.0.3", "fd09::3"]

KINDS: dict[str, Callable[[Path], Any]] = {
    "fifo": os.mkfifo,
    "folder": Path.mkdir,
    "loop": lambda path: path.symlink_to(path.name),
    "dangling": lambda path: path.symlink_to("nothing"),
    "device": lambda path: os.mknod(path, 0o600 | 0o020000, os.makedev(1, 3)),
}


@pytest.fixture
def implementation(implementations: dict[str, cni.Implementation]) -> cni.Implementation:
    """Return cnihook's plugins only: the reference waits for ever at a FIFO."""
    return implementations["builtin"]


@pytest.fixture
def folder(host: Host) -> Path:
    path = host.root / LEASES.lstrip("/")
    path.mkdir(parents=True)
    return path


def run(host: Host, command: str, *before: str) -> subprocess.CompletedProcess[str]:
    """Send one request to the executable, which `before` starts."""
    variables = {"CNI_CONTAINERID": "c1", "CNI_NETNS": "/x", "CNI_IFNAME": "eth0", "CNI_PATH": "/nowhere"}
    assert host.implementation
    program = host.implementation.program("host-local")
    env = base_environment() | {"CNI_COMMAND": command} | variables
    return host.run(*before, program, input=json.dumps(CONF), env=env, check=False, timeout=20)


def failing(call: str, what: str, path: str) -> list[str]:
    return ["strace", "-qqo/dev/null", f"--trace={call}", f"--trace-path={path}", f"--inject={call}:{what}"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", FIRST)
def test_address_whose_file_is_not_regular_is_skipped(
    host: Host, folder: Path, kind: str, name: str
) -> None:
    KINDS[kind](folder / name)
    host.leaves(f"* {LEASES}/{name}*")

    addresses = add(host, CONF)

    assert addresses == [NEXT[i] if name == FIRST[i] else FIRST[i] for i in range(2)]
    delete(host, CONF)
    assert os.path.lexists(folder / name)


def test_error_names_a_requested_address_whose_file_is_not_regular(host: Host, folder: Path) -> None:
    (folder / FIRST[0]).mkdir()
    host.leaves(f"dir {LEASES}/{FIRST[0]}")

    with pytest.raises(CniFailure, match="not available") as failure:
        add(host, CONF, CNI_ARGS=f"IP={FIRST[0]}")
    assert f"{LEASES}/{FIRST[0]} is not a lease" in failure.value.details
    assert leased(host) == [FIRST[0]]


@pytest.mark.parametrize("name", FIRST)
@pytest.mark.parametrize("call", ["openat", "read"])
def test_lease_that_cannot_be_read_fails_del_and_stays(host: Host, name: str, call: str) -> None:
    """The lease may be the owner's, so DEL cannot succeed.  The other lease is released."""
    add(host, CONF)

    answer = run(host, "DEL", *failing(call, "error=EIO", f"{LEASES}/{name}"))

    assert answer.returncode == 1
    assert json.loads(answer.stdout)["msg"] == f"{LEASES}/{name}: Input/output error"
    assert leased(host) == [name]
    delete(host, CONF)
    assert leased(host) == []


def test_unreadable_lease_with_a_link_does_not_block_other_owners(host: Host) -> None:
    add(host, CONF, "c2")
    add(host, CONF)
    host.run("touch", LEASES)  # so that the index is rebuilt

    answer = run(host, "DEL", *failing("openat", "error=EIO", f"{LEASES}/{FIRST[0]}"))

    assert (answer.returncode, answer.stdout) == (0, "")
    assert leased(host) == FIRST


def test_unreadable_lease_without_a_link_fails_del_at_its_end(host: Host) -> None:
    """The reference may have leased it to this owner."""
    add(host, CONF)
    host.write(f"{LEASES}/10.9.0.9", "c1\r\neth0")

    answer = run(host, "DEL", *failing("openat", "error=EIO", f"{LEASES}/10.9.0.9"))

    assert answer.returncode == 1 and f"{LEASES}/10.9.0.9: Input/output error" in answer.stdout
    assert leased(host) == ["10.9.0.9"]
    delete(host, CONF)


def test_folder_that_cannot_be_read_fails_del(host: Host) -> None:
    add(host, CONF)

    answer = run(host, "DEL", *failing("stat,newfstatat", "error=EIO:when=1", LEASES))

    assert answer.returncode == 1 and LEASES in answer.stdout
    assert leased(host) == FIRST


def test_lease_of_any_bytes_is_released_with_its_owner(host: Host, folder: Path) -> None:
    """A crash can leave any bytes.  The link names the owner."""
    add(host, CONF)
    (folder / FIRST[0]).write_bytes(b"\271\377")

    delete(host, CONF)

    assert leased(host) == []


@pytest.mark.parametrize("call", ["symlink", "write", "utimensat", "unlink"])
@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_killed_add_is_undone_by_del(host: Host, call: str, number: int) -> None:
    kill = f"--inject={call}:error=EIO:signal=KILL:when={number}"
    run(host, "ADD", "strace", "-fqqo/dev/null", f"--trace={call}", kill)

    delete(host, CONF)
    assert leased(host) == [] and not host.exists(f"{LEASES}/.owners")


@pytest.mark.parametrize("content", [b"\271\377", b"10.9.0.", *KINDS])
def test_damaged_hint_is_ignored(host: Host, folder: Path, content: Any) -> None:
    path = folder / "last_reserved_ip.0"
    if isinstance(content, str):
        KINDS[content](path)
    else:
        path.write_bytes(content)
    host.leaves(f"* {path.name}*", f"* {LEASES}/{path.name}*")

    assert add(host, CONF) == FIRST


@pytest.mark.parametrize("kind", ["folder", "loop"])
def test_error_names_a_lock_of_another_kind(host: Host, folder: Path, kind: str) -> None:
    KINDS[kind](folder / "lock")
    host.leaves(f"* {LEASES}/lock*")

    for command in ("ADD", "DEL"):
        with pytest.raises(CniFailure, match=f"{LEASES}/lock: "):
            request(host, command, CONF)


def test_lock_may_be_a_fifo(host: Host, folder: Path) -> None:
    os.mkfifo(folder / "lock")
    host.leaves(f"* {LEASES}/lock*")

    assert add(host, CONF) == FIRST
    delete(host, CONF)


def test_full_disk_leaves_no_partial_lease(host: Host) -> None:
    host.run("mkdir", "-p", LEASES)
    refused = 0
    for inodes in range(2, 12):
        host.run("mount", "-n", "-t", "tmpfs", "-o", f"nr_inodes={inodes}", "tmpfs", LEASES)
        try:
            assert add(host, CONF) == FIRST
        except CniFailure as failure:
            assert LEASES in failure.msg and "No space left" in failure.msg
            refused += 1
        else:
            delete(host, CONF)
        assert leased(host) == []
        host.run("umount", "-n", LEASES)
    assert 3 < refused < 10
