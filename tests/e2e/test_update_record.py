# SPDX-License-Identifier: Apache-2.0
"""The record of a change: interrupted, temporary, by the library, through executables of others."""

import json
import sys
import time
from typing import Any

import pytest

from tests.support.commands.repair import WEB, WebContainer, cnihook, detach
from tests.support.host.host import Host
from tests.support.plugins.cni import CHECKOUT
from tests.support.runtimes.oci import (
    CNIHOOK,
    RESULTS,
    bridge,
    call_hook,
    calls,
    configure,
    external,
    kill,
    wait_for,
)

RECORD = f"{RESULTS}/web-c1-eth0"
KEYS = ("revision", "pending", "until", "previous")


@pytest.fixture
def web(host: Host) -> WebContainer:
    host.leaves("dir /run/cni", "dir /run/cni/tuning", "file /run/cnihook/log/*", "dir /run/cnihook*")
    configure(host, WEB)
    return WebContainer(host, host.outside(), "c1", publish="8080:80")


def own(host: Host) -> dict[str, Any]:
    record = json.loads(host.read(RECORD))["cnihook"]
    return {key: record[key] for key in KEYS if key in record}


def killed(host: Host, *argv: str) -> None:
    """Run a command that is killed when it writes its record again, after the plugins have run."""
    fault = ("strace", "-qq", "-o", "/dev/null", "-e", "trace=rename", "-e")
    process = host.run(
        *fault, "inject=rename:signal=KILL:when=2", "/usr/bin/python3", "-IS", CNIHOOK, *argv, check=False
    )
    assert process.returncode in (-9, 137), process


def inspected(host: Host) -> str:
    return host.run(sys.executable, CNIHOOK, "inspect", "c1").stdout


def end_keeper(host: Host) -> None:
    """Kill the process that ends temporary changes, and wait until it is gone."""
    lock = host.run("sh", "-c", "cat /run/cnihook/lock/temporary-*").stdout
    kill(host, int(lock.split()[1]))
    host.leaves("file /run/cnihook/temporary-*", "file /run/cnihook/lock/temporary-*")


def ports(host: Host) -> list[str]:
    """Return the ports of the host that are published, by nftables."""
    elements = json.loads(host.run("nft", "-j", "list", "map", "inet", "cnihook", "ports4").stdout)
    published = elements["nftables"][1]["map"].get("elem", [])
    return sorted(str(one[0]["elem"]["val"]["concat"][1]) for one in published)


def names(host: Host) -> list[str]:
    """Return the names of the container on its network, by the file of names.entries."""
    return host.read("/run/cnihook/names/web/c1").split()


@pytest.mark.needs("strace")
def test_killed_change_is_undone_by_the_next_operation(host: Host, web: WebContainer) -> None:
    """check and doctor report it, and libcni's fields hold what was before."""
    change = ("update", "c1", "--publish-rm=8080", "--publish-add=8081:80", "--mtu=1400", "--alias-add=db")
    repairs = (("repair", "c1"), ("gc",), ("publish", "c1", "9090:80"))
    for number, argv in enumerate(repairs):
        killed(host, *change)
        assert (ports(host), web.space.link("eth0")["mtu"], "db" in names(host)) == (["8081"], 1400, True)
        record = json.loads(host.read(RECORD))
        assert [one["hostPort"] for one in record["capabilityArgs"]["portMappings"]] == [8080]
        assert [
            one["hostPort"] for one in record["cnihook"]["pending"]["capabilityArgs"]["portMappings"]
        ] == [8081]
        if not number:
            check = cnihook(host, "check", "c1")
            assert check.returncode == 1 and "a change of the attachment was interrupted" in check.stdout
            kinds = [one["kind"] for one in json.loads(cnihook(host, "doctor", "--json").stdout)]
            assert "change-interrupted" in kinds
            assert "a change is under way, or was interrupted" in inspected(host)
        process = cnihook(host, *argv)
        assert process.returncode == 0 and not process.stderr, process
        if argv[0] == "repair":
            assert process.stdout == "repaired c1: web eth0: an interrupted change is undone\n"
        assert ports(host) == (["8080", "9090"] if argv[0] == "publish" else ["8080"])
        assert (web.space.link("eth0")["mtu"], "db" in names(host)) == (1500, False)
        assert "pending" not in own(host)
        assert cnihook(host, "check", "c1").stdout == "well c1 web eth0\n"
    detach(web)


@pytest.mark.needs("strace")
def test_del_takes_down_what_a_killed_change_has_set_up(host: Host, web: WebContainer) -> None:
    killed(host, "publish", "c1", "8081:80")
    web.space.destroy()
    process = call_hook(
        host, "poststop", {"ociVersion": "1.0.2", "id": "c1", "pid": 0, "bundle": "/", "status": "stopped"}
    )
    assert process.returncode == 0
    wait_for(lambda: not host.exists(RECORD), "the end of the record")
    assert "inet cnihook" not in host.run("nft", "list", "tables").stdout


def test_temporary_change_ends_by_itself(host: Host, web: WebContainer) -> None:
    """A change without a time stays.  Another temporary change extends the time."""
    assert cnihook(host, "publish", "c1", "8081:80", "--for", "1h").returncode == 0
    first = own(host)["until"]
    assert cnihook(host, "publish", "c1", "9090:80").returncode == 0
    assert own(host)["until"] == first
    assert "the last change is undone at" in inspected(host)
    assert cnihook(host, "publish", "c1", "8082:80", "--for", "2s").returncode == 0
    assert ports(host) == ["8080", "8081", "8082", "9090"]
    wait_for(lambda: "until" not in own(host), "the end of the temporary change")
    assert ports(host) == ["8080", "9090"]
    wait_for(
        lambda: not host.run("sh", "-c", "ls /run/cnihook | grep temporary- || :").stdout,
        "the end of the process",
    )
    assert "a temporary change has ended" in cnihook(host, "logs", "c1").stdout

    assert cnihook(host, "publish", "c1", "8081:80", "--for", "1h").returncode == 0
    assert cnihook(host, "publish", "c1", "8081:80").returncode == 0
    assert "until" not in own(host) and "previous" not in own(host)
    detach(web)


def test_overdue_change_is_ended_by_repair(host: Host, web: WebContainer) -> None:
    """The process that ends temporary changes may be killed."""
    assert cnihook(host, "publish", "c1", "8081:80", "--for", "1h").returncode == 0
    end_keeper(host)
    record = json.loads(host.read(RECORD))
    record["cnihook"]["until"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - 60))
    host.write(RECORD, json.dumps(record), 0o600)

    assert "a temporary change has not ended in time" in cnihook(host, "check", "c1").stdout
    assert "change-overdue" in cnihook(host, "doctor").stdout
    assert cnihook(host, "repair", "c1").stdout == "repaired c1: web eth0: a temporary change has ended\n"
    assert ports(host) == ["8080"]
    detach(web)


LIBRARY = """
import sys
sys.path.insert(0, {checkout!r})
from cnihook import CNI, CniError
one = CNI().attachment("web", "c1")
ports = one.record.capability_args["portMappings"]
print(one.update({{"portMappings": [*ports, {{"hostPort": 8081, "containerPort": 80, "protocol": "tcp"}}]}}))
print(one.update({{"portMappings": one.record.capability_args["portMappings"]}}))
one.check()
other = one.record.config.replace(b'"cni0"', b'"cni1"')
for args, config in (({{"ips": ["10.22.0.9"]}}, None), ({{}}, other)):
    try:
        one.update(args, config=config)
    except CniError as error:
        print(error)
print(one.update({{"portMappings": None}}), one.record.capability_args)
"""


def test_library_changes_an_attachment(host: Host, web: WebContainer) -> None:
    """The identity of its network and of its interface cannot be changed."""
    program = LIBRARY.format(checkout=str(CHECKOUT))
    lines = host.run("/usr/bin/python3", "-IS", "-", input=program).stdout.splitlines()

    assert lines[:2] == ["True", "False"]
    assert "none of its plugins has the capability ips" in lines[2]
    assert "plugin bridge cannot be changed while the container runs" in lines[3]
    assert lines[4] == "True {}"
    assert own(host) == {"revision": 2}
    detach(web)


def test_executable_of_others_is_removed_and_added_again(host: Host) -> None:
    """CNI has no operation for a change.  The first plugin of a chain is never made again."""
    host.leaves("file /run/cnihook/log/*", "dir /run/cnihook*")
    script = 'if [ $CNI_COMMAND = ADD ]; then prev | jq \'.interfaces += [{"name": "extra"}]\'; fi'
    folder = external(host, "own-ports", script)
    network = bridge("web", "10.22.0.0/24")
    network["plugins"].append({"type": "own-ports", "capabilities": {"portMappings": True}})
    configure(host, network)
    web = WebContainer(host, host.outside(), "c1", plugins=folder, publish="8080:80")
    process = cnihook(host, "publish", "c1", "8081:80")

    assert process.stdout == f"published 8081/tcp -> {web.address}:80\n"
    assert process.stderr == (
        "cnihook: plugin own-ports cannot be changed: it was removed and added again\n"
    )
    assert calls(host) == ["own-ports ADD", "own-ports DEL", "own-ports ADD"]
    interfaces = json.loads(host.read(RECORD))["result"]["interfaces"]
    assert [one["name"] for one in interfaces].count("extra") == 1
    detach(web)
