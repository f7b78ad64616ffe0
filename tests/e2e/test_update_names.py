# SPDX-License-Identifier: Apache-2.0
"""`cnihook update` of names and name servers: the hosts files of all containers, and resolv.conf."""

import json
from pathlib import Path

import pytest

from tests.support.commands.repair import cnihook
from tests.support.host.host import Host
from tests.support.runtimes.oci import RESULTS, Running, Runtime, bridge, configure, make_rootfs, wait_for

KEEPS = "; a program that has read it keeps what it read"


def change(host: Host, *argv: str, code: int = 0) -> list[str]:
    """Run update of container c1, which must print nothing on stderr, and return its lines."""
    process = cnihook(host, "update", "c1", *argv)
    assert (process.returncode, process.stderr) == (code, ""), (process.stdout, process.stderr)
    return process.stdout.splitlines()


def well(host: Host) -> bool:
    return cnihook(host, "check", "c1").returncode == 0 and not cnihook(host, "repair", "c1").stdout


def lines(container: Running, name: str) -> list[str]:
    return container.exec("cat", f"/etc/{name}").splitlines()


def address_of(container: Running, name: str) -> str:
    """Return the address of a name in the container's hosts file, empty if it is not there."""
    return next((line.split()[0] for line in lines(container, "hosts") if name in line.split()[1:]), "")


@pytest.mark.parametrize("runtime", ["runc"], indirect=True)
def test_names_and_name_servers_change(host: Host, runtime: Runtime, tmp_path: Path) -> None:
    """The files of other containers change, too; a temporary change ends; what fails changes nothing."""
    host.leaves("file /run/cnihook/log/c1")  # a failure is kept
    network = bridge("front", "10.1.0.0/24", dns={"nameservers": ["10.1.0.53"], "search": ["a.test"]})
    configure(host, network, bridge("back", "10.2.0.0/24"))
    rootfs = runtime.rootfs = make_rootfs(tmp_path / "rootfs")
    networks = ("--network", "front", "--network", "back")
    one = runtime.run("c1", *networks, "--network-alias", "db", "--dns-option", "ndots:2")
    runtime.rootfs = make_rootfs(tmp_path / "other")
    two = runtime.run("c2", *networks, "--hostname", "web")

    assert change(
        host, "--alias-add", "store", "--alias-add", "cache", "--alias-rm", "db", "--dry-run", code=2
    )
    assert address_of(two, "store") == "" and address_of(two, "db") == "10.1.0.2"
    assert change(host, "--alias-add=store", "--alias-add=cache", "--alias-rm=db", "--network=front") == [
        "removed alias db on front", "added alias store on front", "added alias cache on front"
    ]  # fmt: skip
    assert change(host, "--alias-add", "STORE", "--alias-rm", "db", "--network", "front") == []
    for container in (one, two):
        assert [address_of(container, name) for name in ("store", "cache", "c1", "db")] == [
            "10.1.0.2", "10.1.0.2", "10.1.0.2", "10.2.0.2"
        ]  # fmt: skip
    refused = cnihook(host, "update", "c1", "--alias-add", "web", "--alias-add", "later")
    assert refused.returncode == 1 and "host name of container c2" in refused.stderr
    assert address_of(two, "later") == "" and address_of(one, "web") == "10.1.0.3"

    assert change(host, "--host-add", "mirror:192.0.2.7", "--host-add", "gate:host-gateway") == [
        "added host 192.0.2.7 mirror", "added host 10.1.0.1 gate"
    ]  # fmt: skip
    assert change(host, "--host-rm", "mirror", "--json")[0] == "["
    assert (address_of(one, "gate"), address_of(one, "mirror"), address_of(two, "gate")) == (
        "10.1.0.1",
        "",
        "",
    )

    assert lines(one, "resolv.conf")[1:] == ["search a.test", "nameserver 10.1.0.53", "options ndots:2"]
    assert change(host, "--dns", "192.0.2.53", "--dns", "192.0.2.54", "--dns-search", "b.test") == [
        f"set nameserver 192.0.2.53 192.0.2.54{KEEPS}", f"set search b.test{KEEPS}"
    ]  # fmt: skip
    assert lines(one, "resolv.conf")[1:] == [
        "search b.test", "nameserver 192.0.2.53", "nameserver 192.0.2.54", "options ndots:2"
    ]  # fmt: skip
    assert change(host, "--dns-search", "b.test") == []
    assert well(host)
    usual = f"set nameserver as its networks or the host have it{KEEPS}"
    assert change(host, "--dns", "none", "--alias-add", "soon", "--for", "1h")[-1] == usual
    assert lines(one, "resolv.conf")[1:] == ["search b.test", "nameserver 10.1.0.53", "options ndots:2"]
    assert address_of(two, "soon") == "10.1.0.2"
    assert change(host, "--dns", "none", "--alias-add", "soon", "--for", "1s") == []
    wait_for(
        lambda: (
            "until" not in json.loads(host.read(f"{RESULTS}/back-c1-eth1"))["cnihook"]
            and "until" not in json.loads(host.read(f"{RESULTS}/front-c1-eth0"))["cnihook"]
        ),
        "the end of the change",
    )
    assert "nameserver 192.0.2.54" in lines(one, "resolv.conf")
    assert address_of(two, "soon") == "" and address_of(two, "store") == "10.1.0.2"
    wait_for(
        lambda: not host.run("sh", "-c", "ls /run/cnihook | grep temporary- || :").stdout,
        "the end of the process",
    )

    assert len(change(host, "--dns=none", "--dns-search=none", "--dns-option=none")) == 3
    assert lines(one, "resolv.conf") == [
        "# cnihook: of the networks", "search a.test", "nameserver 10.1.0.53"
    ]  # fmt: skip
    (rootfs / "etc" / "resolv.conf").rename(rootfs / "etc" / "kept")
    (rootfs / "etc" / "resolv.conf").mkdir()
    refused = cnihook(host, "update", "c1", "--alias-add", "late", "--dns", "192.0.2.1")
    assert refused.returncode == 1 and "its /etc/resolv.conf: it is not a regular file" in refused.stderr
    assert address_of(two, "late") == ""
    (rootfs / "etc" / "resolv.conf").rmdir()
    (rootfs / "etc" / "kept").rename(rootfs / "etc" / "resolv.conf")
    usage = cnihook(host, "update", "c1", "--dns", "192.0.2.1", "--network", "front")
    assert usage.returncode == 2 and "without --network" in usage.stderr
    assert well(host)
    runtime.delete_all()
