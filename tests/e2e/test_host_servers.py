# SPDX-License-Identifier: Apache-2.0
"""The resolv.conf of running containers after the host has moved to another network."""

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from tests.support.host.host import Host
from tests.support.plugins.cni import CHECKOUT
from tests.support.runtimes.oci import CNIHOOK, Running, Runtime, bridge, configure, make_rootfs

HOME = "nameserver 192.0.2.1\nsearch home\n"
WORK = "nameserver 198.51.100.1\nnameserver 2001:db8::53\nsearch work\noptions edns0\n"
SERVERS = "nameserver 198.51.100.1\nnameserver 2001:db8::53\n"
UNIT = CHECKOUT / "cnihook" / "systemd" / "cnihook-resolv-conf.service"


@pytest.fixture
def laptop(host: Host) -> Host:
    """Return a host with servers of its own, which moves by move()."""
    configure(host, bridge("front", "10.1.0.0/24"), bridge("named", "10.2.0.0/24", dns={"search": ["x"]}))
    host.leaves("file /etc/resolv.conf", "* /run/systemd*")
    move(host, HOME)
    return host


def move(host: Host, text: str) -> None:
    """Replace the host's file as NetworkManager does: another file gets its name."""
    host.write("/etc/resolv.conf.new", text)
    host.run("mv", "/etc/resolv.conf.new", "/etc/resolv.conf")


def start(runtime: Runtime, tmp_path: Path, container_id: str, *arguments: str) -> Running:
    """Start a container with a root file system of its own, which is mounted read-only."""
    runtime.rootfs = make_rootfs(tmp_path / container_id)
    return runtime.run(container_id, *arguments)


def lines(container: Running) -> str:
    """Return the file without the comments."""
    text = container.exec("cat", "/etc/resolv.conf")
    return "".join(line for line in text.splitlines(keepends=True) if line[0] != "#")


def repair(host: Host, *arguments: str) -> list[str]:
    return host.run(CNIHOOK, "repair", *(arguments or ("--all", "--name-servers"))).stdout.splitlines()


def findings(host: Host) -> list[Any]:
    """Return the containers of the finding, and its remedy."""
    findings = json.loads(host.run(CNIHOOK, "doctor", "--json", check=False).stdout)
    return [(one["subjects"], one["remedy"]) for one in findings if "former name servers" in one["what"]]


def test_running_containers_get_the_new_servers(laptop: Host, runtime: Runtime, tmp_path: Path) -> None:
    """Only servers of the host are replaced, in place, and not in a file that was edited."""
    plain = start(runtime, tmp_path, "plain", "--network", "front")
    search = start(runtime, tmp_path, "search", "--network", "front", "--dns-search", "a.test")
    named = start(runtime, tmp_path, "named", "--network", "named", "--dns-option", "ndots:2")
    own = start(runtime, tmp_path, "own", "--network", "front", "--dns", "192.0.2.9")
    edited = start(runtime, tmp_path, "edited", "--network", "front")
    path = tmp_path / "edited" / "etc" / "resolv.conf"
    path.write_text(path.read_text() + "options rotate\n")
    inode = (tmp_path / "plain" / "etc" / "resolv.conf").stat().st_ino
    assert lines(plain) == HOME and repair(laptop) == findings(laptop) == []

    move(laptop, WORK)
    assert findings(laptop) == [(["named", "plain", "search"], "cnihook repair --all --name-servers")]
    (command,) = [line for line in UNIT.read_text().splitlines() if line.startswith("ExecStart=")]
    argv = shlex.split(command.removeprefix("ExecStart=").replace("/usr/local/bin/cnihook", CNIHOOK))
    servers = "its /etc/resolv.conf has the host's new name servers: 198.51.100.1, 2001:db8::53"
    assert laptop.run(*argv).stdout.splitlines() == [
        f"repaired {container}: {servers}" for container in ("named", "plain", "search")
    ]
    assert lines(plain) == WORK
    assert lines(search) == f"search a.test\n{SERVERS}"
    assert lines(named) == f"search x\n{SERVERS}options ndots:2\n"
    assert lines(own) == "nameserver 192.0.2.9\n"
    assert lines(edited) == f"{HOME}options rotate\n"
    assert (tmp_path / "plain" / "etc" / "resolv.conf").stat().st_ino == inode
    assert repair(laptop) == findings(laptop) == [] and servers in plain.log

    move(laptop, "nameserver 127.0.0.1\n")  # no network: the former servers stay
    assert repair(laptop) == findings(laptop) == [] and lines(plain) == WORK
    move(laptop, HOME)
    assert len(repair(laptop, "plain")) == 1 and lines(plain) == HOME
    runtime.delete("edited")
    runtime.rootfs = tmp_path / "edited"
    assert lines(runtime.run("edited", "--network", "front")) == f"{HOME}options rotate\n"


def test_servers_of_a_host_that_was_offline_are_written_later(
    laptop: Host, runtime: Runtime, tmp_path: Path
) -> None:
    """Also those behind systemd-resolved, whose own server no container can reach."""
    move(laptop, "nameserver 127.0.0.53\n")
    container = start(runtime, tmp_path, "c1", "--network", "front")
    assert "no name servers" in container.log and repair(laptop) == []

    laptop.write("/run/systemd/resolve/resolv.conf", WORK)
    assert len(repair(laptop)) == 1 and lines(container) == WORK


def test_file_that_a_container_made_read_only_is_reported(
    laptop: Host, runtime: Runtime, tmp_path: Path
) -> None:
    """The servers in it are wrong, so `repair` fails, in one line; the other containers get new servers."""
    mounted = tmp_path / "own"
    mounted.write_text("")
    runtime.rootfs = make_rootfs(tmp_path / "rootfs")
    runtime.bundle("c1", "--network", "front")
    runtime.mount("c1", ("/etc/resolv.conf", str(mounted)))
    container = runtime.started("c1", runtime.start("c1"))
    other = start(runtime, tmp_path, "c2", "--network", "front")
    laptop.leaves("file /run/cnihook/log/c1")  # of a container with a failure
    laptop.run("chattr", "+i", str(mounted), check=False)
    move(laptop, WORK)
    outcome = laptop.run(CNIHOOK, "repair", "--all", "--name-servers", check=False)
    laptop.run("chattr", "-i", str(mounted), check=False)

    assert (outcome.returncode, outcome.stderr.count("\n")) == (1, 1)
    assert "/etc/resolv.conf of c1" in outcome.stderr
    assert (lines(container), lines(other)) == (HOME, WORK)
