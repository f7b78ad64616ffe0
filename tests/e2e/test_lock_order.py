# SPDX-License-Identifier: Apache-2.0
"""protocol.locks: every process takes its locks in one order, so no two processes wait for each other."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.host import lock_order
from tests.support.host.host import Container, Host
from tests.support.host.lock_order import WRONG
from tests.support.runtimes.oci import CNIHOOK, NET_D, bridge, call_hook, configure, wait_for

FULL = bridge("full", "10.9.0.0/29", ipMasq=True, macspoofchk=True)
FULL["cniVersion"] = "1.1.0"
FULL["plugins"] += [
    {"type": "portmap", "capabilities": {"portMappings": True}},
    {"type": "firewall", "ingressPolicy": "same-bridge"},
    {"type": "sbr"},
    {"type": "tuning", "mtu": 1400},
]
SECOND = bridge("second", "10.10.0.0/29")
OPTIONS = ("--network-alias=web", "--publish=8080:80")


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "locks"


@pytest.fixture
def watched(log: Path) -> tuple[str, ...]:
    return ("/usr/bin/python3", "-IS", lock_order.__file__, str(log))


@pytest.fixture
def bundle(host: Host, tmp_path: Path) -> Iterator[Path]:
    configure(host, FULL, SECOND)
    host.leaves("dir /run/cni*", "sysctl *", "file /run/cnihook/log/*", "dir /run/cnihook*")
    config = {
        "ociVersion": "1.0.2",
        "linux": {"namespaces": [{"type": "network"}]},
        "root": {"path": "rootfs"},
    }
    (tmp_path / "rootfs" / "etc").mkdir(parents=True)
    (tmp_path / "config.json").write_text(json.dumps(config))
    yield tmp_path


def state_of(container: Container, name: str, bundle: Path) -> dict[str, Any]:
    return {
        "ociVersion": "1.0.2",
        "id": name,
        "status": "creating",
        "pid": container.pid,
        "bundle": str(bundle),
    }


def taken(log: Path) -> list[str]:
    lines = log.read_text().splitlines()
    log.unlink()
    assert not [line for line in lines if line.startswith(WRONG)]
    return lines


def kinds(lines: list[str]) -> set[str]:
    return {line.split()[-1].partition("-")[0] for line in lines}


def test_lock_out_of_order_is_found(host: Host, watched: tuple[str, ...], log: Path, tmp_path: Path) -> None:
    """This tests the tests below."""
    program = tmp_path / "program.py"
    program.write_text(
        "from cnihook.protocol import locks\n"
        "def take(*those):\n"
        "    if those:\n"
        "        with those[0]: take(*those[1:])\n"
        "take(locks.container('c1', 'x'), locks.network('n', 'x', shared=True), locks.nft('x'))\n"
        "take(locks.nft('x'), locks.bridge('b', 'x'))\n"
        "take(locks.network('n', 'x'), locks.network('m', 'x'))\n"
        "take(locks.container('c1', 'x'), locks.container('c2', 'x'))\n"
        "take(locks.container('c1', 'x'), locks.container('c2', 'x', locks.PATIENCE))\n"
        "take(locks.nft('x'), locks.container('c1', 'x', 0))\n"
    )
    host.run(*watched, str(program))

    assert [line for line in log.read_text().splitlines() if line.startswith(WRONG)] == [
        f"{WRONG}nft bridge-b",
        f"{WRONG}network-n network-m",
        f"{WRONG}container-c1 container-c2",
    ]


def test_hook_gc_and_repair_take_locks_in_order(
    host: Host, watched: tuple[str, ...], log: Path, bundle: Path
) -> None:
    """Two containers on two networks.  The second takes the port of the first, which was killed."""
    containers = {name: host.container(process=True) for name in ("c1", "c2", "c3")}

    def hook(event: str, name: str) -> list[str]:
        outcome = call_hook(
            host, event, state_of(containers[name], name, bundle), *OPTIONS, launcher=watched
        )
        assert outcome.returncode == 0, outcome
        return taken(log)

    def command(*arguments: str) -> list[str]:
        outcome = host.run(*watched, CNIHOOK, *arguments, check=False)
        assert outcome.returncode == 0, outcome
        return taken(log)

    up = hook("createRuntime", "c1")
    assert kinds(up) == {"container", "network", "names", "netns", "bridge", "nft"}
    assert "container-c1 network-full nft" in up and "container-c1 network-second bridge-br-second" in up

    containers["c1"].destroy()
    wait_for(lambda: not host.exists(f"/proc/{containers['c1'].pid}"), "the end of the container")
    up = hook("createRuntime", "c2")
    assert "container-c2 container-c1 network-full nft" in up and "container-c2 container-c1 names" in up

    host.run("nft", "flush", "ruleset")
    repaired = command("repair", "--all")
    assert "container-c2 network-full nft" in repaired
    containers["c2"].run("ip", "link", "delete", "eth0")
    assert "container-c2 network-full bridge-br-full" in command("repair", "c2")
    command("check", "--container", "c2")

    assert "network-full nft" in command("gc", "full")
    containers["c2"].destroy()
    wait_for(lambda: not host.exists(f"/proc/{containers['c2'].pid}"), "the end of the container")
    assert "container-c2 network-full nft" in command("gc")

    hook("createRuntime", "c3")
    assert "container-c3 names" in hook("poststop", "c3")


def test_library_and_wrapper_take_locks_in_order(
    host: Host, watched: tuple[str, ...], log: Path, bundle: Path
) -> None:
    container = host.container(process=True)
    host.write(f"{NET_D}/30-loopback.conf", '{"cniVersion": "1.0.0", "name": "lo", "type": "loopback"}')

    for command in ("add", "check", "del"):
        check = host.run(*watched, CNIHOOK, command, "full", container.path, check=False)
        assert check.returncode == 0, check
        assert "network-full" in " ".join(taken(log))
    run = str(Path(CNIHOOK).with_name("priv-net-run"))
    host.run(*watched, run, "--network=full,second", "--publish=8080:80", "--hostname=web", "true")
    assert kinds(taken(log)) == {"container", "ending", "network", "names", "netns", "bridge", "nft"}
