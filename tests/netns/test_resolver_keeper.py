# SPDX-License-Identifier: Apache-2.0
"""cnihook dns-keeper: how it starts and ends, and what happens to names while it does not run."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from cnihook.resolver import listing, message, service
from tests.support.commands.doctor import doctor, run
from tests.support.host.host import Host
from tests.support.services.resolving import (
    FOLDER,
    GATEWAY,
    GATEWAY6,
    KEEPER,
    NET,
    Sandbox,
    World,
    call,
    end_keeper,
    keepers,
    records_of,
)
from tests.support.wait import wait_for

pytestmark = pytest.mark.needs("dnsmasq")


@pytest.fixture(autouse=True)
def implementation() -> None:
    """Return no plugins: the tests here call none."""


@pytest.fixture
def world(host: Host, tmp_path: Path) -> Iterator[World]:
    world = World(host, tmp_path)
    world.serve(*records_of([("example.com", [f"{NET}.1"]), ("example.org", [f"{NET}.2"])]))
    yield world
    world.close()


def findings(host: Host) -> "list[str]":
    """Return what the doctor reports about the resolver."""
    return [line for line in doctor(host) if line.startswith("resolver")]


def test_keeper_starts_with_the_first_listing_and_ends_after_the_last(host: Host, world: World) -> None:
    one, two = Sandbox(host), Sandbox(host, 3, set="n-two")
    for sandbox in (one, two):
        sandbox.serve("example.com")
    (pid,) = keepers(host)
    assert one.ask("example.com").rcode == two.ask("example.com").rcode == 0
    one.ask("example.org")
    wait_for(one.denied, "the denial is recorded")

    # It holds nothing of the process that started it, and only root can use its files.
    own = host.run("sh", "-c", f"cd /proc/{pid}; readlink cwd fd/0 fd/1 fd/2 fd/*").stdout.splitlines()
    assert own[:4] == ["/", *["/dev/null"] * 3]
    assert [one for one in own[4:] if not one.startswith(("/dev/null", "socket:[", "anon_inode:["))] == []
    modes = {
        path: stat.S_IMODE(os.stat(host.root / FOLDER[1:] / path).st_mode)
        for path in ("socket", "containers", f"containers/{one.name}", "denied", f"denied/{one.name}")
    }
    assert set(modes.values()) == {0o600, 0o700} and modes["socket"] == 0o600

    one.forget()
    assert keepers(host) == [pid] and not one.denied() and two.ask("example.com").rcode == 0
    two.forget()
    wait_for(lambda: not keepers(host), "the keeper ends")
    assert host.listdir(FOLDER) == ["containers", "denied"]
    assert host.listdir(f"{FOLDER}/containers") == host.listdir(f"{FOLDER}/denied") == []
    assert "resolver" not in host.nft()


def test_killed_keeper_leaves_names_closed_until_a_repair(host: Host, world: World) -> None:
    sandbox, other = Sandbox(host), Sandbox(host, 3, set="n-two")
    sandbox.serve("example.com", "example.org")
    sandbox.ask("example.com")
    end_keeper(host)

    assert sandbox.reaches(f"{NET}.1") and not sandbox.reaches(f"{NET}.2")
    for tcp in (False, True):
        with pytest.raises(OSError):
            sandbox.ask("example.org", tcp=tcp, expected=False)
    (finding,) = findings(host)
    assert finding.startswith(f"resolver-down: container {sandbox.name}: ")
    assert finding.endswith(f"; remedy: cnihook repair {sandbox.name}")

    # The fix fails because another program has the port; doctor reports it like that of any finding.
    with host.socket() as taken:
        taken.bind((GATEWAY, listing.PORT))
        taken.listen()
        fixed = run(host, "--fix")
    assert f"doctor: cnihook repair {sandbox.name}: listen for names at {GATEWAY}" in fixed.stderr
    end_keeper(host)

    # Another program flushes all rules, too; the policy restores its own.
    host.run("nft", "flush", "ruleset")
    for each in (sandbox, other):
        each.enforce()
    printed = call(
        host, f"print(service.restore({sandbox.name!r}), service.restore({sandbox.name!r}))"
    ).stdout
    assert printed == (
        "['its questions did not reach the resolver of names', 'the resolver of names did not run'] []\n"
    )
    assert sandbox.ask("example.org").rcode == 0 and sandbox.reaches(f"{NET}.2")

    # The next container starts it for all.
    end_keeper(host)
    other.serve("example.com")
    assert sandbox.ask("example.org").rcode == other.ask("example.com").rcode == 0
    assert not findings(host)
    host.write("/etc/resolv.conf", "")
    (finding,) = findings(host)
    assert finding.startswith("resolver-servers: ")


def test_failed_start_leaves_nothing(host: Host, world: World) -> None:
    """Another program has the port, so the policy, and with it the container, cannot start."""
    sandbox = Sandbox(host)
    with host.socket() as taken:
        taken.bind((GATEWAY, listing.PORT))
        taken.listen()
        failed = sandbox.serve("example.com", check=False)
        assert failed.returncode == 1
        assert failed.stderr == (
            f"listen for names at {GATEWAY} port {listing.PORT}: Address already in use\n"
        )
        assert host.listdir(f"{FOLDER}/containers") == [] and "resolver" not in host.nft()
        wait_for(lambda: not keepers(host), "the keeper ends")
    sandbox.serve("example.com")
    assert sandbox.ask("example.com", at=GATEWAY6).rcode == 0


def test_damaged_listing_does_not_affect_others(host: Host, world: World) -> None:
    sandbox = Sandbox(host)
    sandbox.serve("example.com")
    end_keeper(host)
    host.write(f"{FOLDER}/containers/damaged", "{")
    host.write(f"{FOLDER}/containers/.partial", "{")
    call(host, f"service.restore({sandbox.name!r})")
    assert sandbox.ask("example.com").rcode == 0
    (finding,) = findings(host)
    assert (
        finding.startswith("resolver-listing: container damaged: ")
        and f"{FOLDER}/containers/damaged: " in finding
    )
    failed = call(host, "service.restore('damaged')", check=False)
    assert failed.returncode == 1 and len(failed.stderr.splitlines()) == 1
    host.run("/usr/bin/python3", "-IS", KEEPER[2], "gc")
    assert host.listdir(f"{FOLDER}/containers") == [".partial"], "neither container is on record"
    wait_for(lambda: not keepers(host), "the keeper ends")


LOAD = """\
import asyncio, shutil, socket
from cnihook.resolver import listing
from cnihook.resolver.daemon import Daemon

def write(container_id, *gateways):
    Listing(container_id, [], list(map(Address.parse, gateways)), []).write()

async def load():
    daemon = Daemon(socket.socket(socket.AF_UNIX))
    request = lambda container_id: daemon.do({"do": "load", "container": container_id})
    for container_id in ("c1", "c2"):
        write(container_id, "10.23.0.1")
    await asyncio.gather(request("c1"), request("c2"))
    write("c3", "10.24.0.1")
    for turns in range(8):
        task = asyncio.ensure_future(request("c3"))
        for _turn in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        await request("c3")
        listing.forget("c3")
        write("c4", "10.24.0.1")
        await asyncio.gather(request("c3"), request("c4"))
        listing.forget("c4")
        write("c3", "10.24.0.1")
        await request("c4")

asyncio.run(load())
shutil.rmtree("/run/cnihook/resolver")
"""


def test_requests_at_once_and_cancelled_requests_leave_the_port_free(host: Host) -> None:
    """A caller that ends cancels its request, and the next one must be able to listen."""
    call(host, "\n    ".join(LOAD.splitlines()))


def test_end_of_a_container_does_not_affect_one_that_starts(host: Host, world: World) -> None:
    """The listing of the second is written while the end of the first waits for the lock."""
    one = Sandbox(host)
    one.serve("example.com")
    one.ask("example.org")
    wait_for(one.denied, "the denial is recorded")
    call(host, "\n    ".join(START_WHILE_ENDING.replace("ONE", repr(one.name)).splitlines()))
    assert '10.22.0.9 comment "two" : jump resolver-to' in host.nft()


START_WHILE_ENDING = """\
import subprocess, threading, time
from cnihook.protocol import locks
from cnihook.resolver import denials
thread = threading.Thread(target=service.forget, args=(ONE,))
with locks.nft("test"):
    thread.start()
    while denials.read(ONE):
        time.sleep(0.01)
    time.sleep(0.3)
    Listing("two", [Address.parse("10.22.0.9")], [], []).write()
    element = '{ 10.22.0.9 comment "two" : jump resolver-to }'
    subprocess.run(["nft", "add", "element", "inet", "cnihook", "resolver-from4", element], check=True)
thread.join()
"""


def test_many_starts_at_once_have_one_keeper(host: Host, world: World) -> None:
    sandboxes = [Sandbox(host, number, set=f"n-{number}") for number in range(2, 8)]
    running = [sandbox.start("example.com") for sandbox in sandboxes]
    for process in running:
        assert process.communicate() == ("", "") and process.returncode == 0
    assert len(keepers(host)) == 1
    assert [sandbox.ask("example.com").rcode for sandbox in sandboxes] == [0] * 6


# As systemd passes the socket: as descriptor 3.
ACTIVATE = """\
import os, socket, sys
path, *command = sys.argv[1:]
os.makedirs(os.path.dirname(path), exist_ok=True)
listener = socket.socket(socket.AF_UNIX)
listener.bind(path)
listener.listen()
print(flush=True)
os.dup2(listener.fileno(), 3)
os.set_inheritable(3, True)
os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()))
os.execv(command[0], command)
"""


def test_systemd_may_hold_the_socket(host: Host, world: World) -> None:
    sandbox = Sandbox(host)
    keeper = host.popen(KEEPER[0], "-c", ACTIVATE, service.SOCKET, *KEEPER, "--linger", "3")
    assert keeper.stdout
    keeper.stdout.readline()
    sandbox.serve("example.com")
    assert keepers(host) == [keeper.inside_pid] and sandbox.ask("example.com").rcode == message.NOERROR
    sandbox.forget()
    keeper.communicate(timeout=30)
    assert keeper.returncode == 0 and host.exists(service.SOCKET)
