# SPDX-License-Identifier: Apache-2.0
"""cnihook ps: the containers on each network, as they start, end and crash."""

import json
import re

import pytest

from tests.support.commands.listings import populated, shown, shown_json
from tests.support.host.host import Host
from tests.support.runtimes.oci import (
    CNIHOOK,
    MYNET,
    Runtime,
    bridge,
    calls,
    configure,
    external,
    kill,
    last_pid,
    wait_for,
)


def test_containers_are_listed_from_start_to_end(host: Host, runtime: Runtime) -> None:
    """A container is dead until its runtime has noticed its end; then it is no longer listed."""
    configure(host, MYNET, bridge("back", "10.31.0.0/24"))
    first = runtime.run("c1")
    runtime.run("c2", "--network", "mynet")

    rows = [line.split() for line in shown(host, "ps").splitlines()]
    assert [row[:-1] for row in rows] == [
        "CONTAINER PID STATE NETWORK IFNAME ADDRESSES PORTS".split(),
        ["c1", str(first.pid), "attached", "mynet", "eth0", "10.22.0.2/16", "-"],
        ["c1", str(first.pid), "attached", "back", "eth1", "10.31.0.2/24", "-"],
        ["c2", rows[3][1], "attached", "mynet", "eth0", "10.22.0.3/16", "-"],
    ]
    assert rows[0][-1] == "AGE" and all(re.fullmatch(r"\d+s", row[-1]) for row in rows[1:])
    first.kill()
    rows_after = shown_json(host, "ps")
    assert [(one["container"], one["alive"], one["state"]) for one in rows_after] == [
        ("c1", False, "dead"), ("c1", False, "dead"), ("c2", True, "attached"),
    ]  # fmt: skip
    runtime.delete("c1")
    assert shown(host, "ps", "--quiet") == "c2\n"
    runtime.delete("c2")
    assert shown(host, "ps", "--quiet") == ""


def test_killed_attach_is_listed_as_retry(host: Host) -> None:
    """While ADD runs, the state is "attaching"."""
    folder = external(host, "slow", "[ $CNI_COMMAND = DEL ] || exec sleep 60")
    network = bridge("mynet", "10.30.0.0/24")
    network["plugins"].append({"type": "slow"})
    configure(host, network)
    container = host.container("c1", process=True)
    words = ["add", "mynet", str(container.pid), "--container-id", "c1", "--cni-path", folder]

    with host.popen(CNIHOOK, *words) as adding:
        wait_for(lambda: calls(host) == ["slow ADD"], "the slow plugin")
        assert shown(host, "ps", "--format", "{container} {state}") == "c1 attaching\n"
        adding.kill()
        adding.wait(30)
    wait_for(lambda: "retry" in shown(host, "ps", "--format", "{state}"), "the end of ADD")
    kill(host, last_pid(host))
    host.run(CNIHOOK, "detach", "c1")
    assert shown(host, "ps", "--quiet") == ""
    host.leaves("file /run/cnihook/lock/*")


def test_each_line_has_the_same_columns(host: Host) -> None:
    """No cell is empty, and none contains a space, so awk and cut can be used."""
    with populated(host):
        lines = shown(host, "ps").splitlines()

    assert {len(line.split()) for line in lines} == {8}
    assert [line.split()[0] for line in lines[1:]] == ["db", "job", "web", "web"]
    assert lines[3].split()[5:7] == ["10.30.0.2/24", "8080->80/tcp"]


def test_one_network_can_be_selected(host: Host) -> None:
    with populated(host):
        assert shown(host, "ps", "--network", "back", "--quiet") == "db\nweb\n"
        assert shown(host, "ps", "--network", "nosuch", "--quiet") == ""


def test_template_has_every_name_of_the_json(host: Host) -> None:
    with populated(host):
        (attachment,) = [
            one for one in shown_json(host, "ps", "--network", "front") if one["container"] == "web"
        ]
        template = "|".join(f"{{{name}}}" for name in attachment)
        line = shown(host, "ps", "--network", "front", "--format", template).splitlines()[1]
        tabs = shown(host, "ps", "--network", "front", "--format", r"{container:>6}\t{ports}")

    values = dict(zip(attachment, line.split("|"), strict=True))
    assert values["container"] == "web" and values["alive"] == "yes" and values["ports"] == "8080->80/tcp"
    assert int(values["pid"]) == attachment["pid"] and values["addresses"] == ",".join(
        attachment["addresses"]
    )
    assert tabs == "   job\t\n   web\t8080->80/tcp\n"


@pytest.mark.parametrize(
    ("mapping", "text"),
    [
        ({"hostPort": 80, "containerPort": 8080}, "80->8080/tcp"),
        ({"hostPort": 53, "containerPort": 53, "protocol": "udp"}, "53->53/udp"),
        ({"hostPort": 80, "containerPort": 80, "hostIP": "127.0.0.1"}, "127.0.0.1:80->80/tcp"),
        ({"hostPort": 80, "containerPort": 80, "hostIP": "2001:db8::1"}, "[2001:db8::1]:80->80/tcp"),
    ],
)
def test_ports_are_printed_as_engines_print_them(host: Host, mapping: object, text: str) -> None:
    record = {
        "kind": "cniCacheV1", "containerId": "c1", "ifName": "eth0", "networkName": "n", "config": "e30=",
        "capabilityArgs": {"portMappings": [mapping]},
    }  # fmt: skip
    host.write("/var/lib/cni/results/n-c1-eth0", json.dumps(record))
    host.leaves("file /var/lib/cni/results/n-c1-eth0")

    assert shown(host, "ps", "--format", "{ports}") == f"{text}\n"


def test_record_of_another_runtime_has_no_process(host: Host) -> None:
    """libcni's records have no process, so the namespace decides if the container is alive."""
    with populated(host):
        path = "/var/lib/cni/results/back-db-eth0"
        record = json.loads(host.read(path))
        del record["cnihook"]
        host.write(path, json.dumps(record))
        (attachment,) = [one for one in shown_json(host, "ps") if one["container"] == "db"]
        assert (attachment["pid"], attachment["alive"], attachment["state"]) == (None, True, "attached")
