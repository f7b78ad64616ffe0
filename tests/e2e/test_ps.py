# SPDX-License-Identifier: Apache-2.0
"""cnihook ps: the containers on each network, as they start, end and crash."""

import json
import re
import subprocess

import pytest

from tests.support.commands.listings import (
    Screen,
    attach,
    on_screen,
    plain,
    populated,
    show,
    shown,
    shown_json,
)
from tests.support.host.host import Host
from tests.support.runtimes.oci import (
    CNIHOOK,
    LOOPBACK,
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
        outcome = show(host, "ps", "--network", "frnt")
        assert (outcome.returncode, outcome.stdout) == (1, "")
        assert outcome.stderr.endswith("no network 'frnt' in /etc/cni/net.d; did you mean front?\n")


def test_loopback_is_listed_only_for_a_container_without_another_network(host: Host) -> None:
    """Some runtimes attach it as a network; pictures leave it out, too."""
    configure(host, **{"10-mynet.conf": MYNET, "99-loopback.conf": LOOPBACK})
    listing = ("ps", "--format", "{container} {ifname}")
    for name, networks in {"new": ("loopback",), "web": ("loopback", "mynet")}.items():
        container = host.container(f"ns-{name}")
        for network in networks:
            ifname = "lo" if network == "loopback" else "eth0"
            host.run(
                "env",
                f"CNI_IFNAME={ifname}",
                CNIHOOK,
                "add",
                network,
                container.path,
                "--container-id",
                name,
            )

    assert shown(host, *listing) == "new lo\nweb eth0\n"
    assert shown(host, *listing, "--network", "loopback") == "new lo\nweb lo\n"
    assert shown(host, *listing, "web", "--filter", "ifname=lo") == "web lo\n"
    assert [one["ifname"] for one in shown_json(host, "stats", "web")] == ["eth0"]
    for name in ("new", "web"):
        host.run(CNIHOOK, "detach", name)


def test_containers_can_be_selected_and_sorted(host: Host) -> None:
    """Values of one name are alternatives; conditions on several names hold together."""
    with populated(host):
        for words, containers in {
            "web job": "web job",
            "--filter network=back": "db web",
            "--filter container=d* --filter container=job": "db job",
            "--filter network=front --filter addresses=10.30.0.2": "web",
            "--filter ports=8080": "web",
            "--filter state=dead": "",
            "--filter alive=yes --filter ifname=eth1": "web",
            "--sort pid": "web db job",
            "--sort network --reverse": "web job db",
            "--sort ports --filter network=front": "job web",
        }.items():
            assert shown(host, "ps", "-q", *words.split()).split() == containers.split(), words
        outcome = show(host, "ps", "nosuch")
        assert outcome.returncode == 1 and "containers on record: db, job, web" in outcome.stderr


def test_templates_of_docker_are_understood(host: Host) -> None:
    with populated(host):
        for template, lines in {
            "json": None,
            r"{{.Container}}\t{{ .Ports }}": ["web\t8080->80/tcp"],
            "{{json .Addresses}} {{.Alive}}": ['["10.30.0.2/24"] true'],
            r"table {{.Container}}\t{{.Ports}}": ["CONTAINER  PORTS", "web        8080->80/tcp"],
        }.items():
            printed = shown(host, "ps", "web", "--network", "front", "--format", template).splitlines()
            if lines is None:
                assert json.loads(*printed)["container"] == "web"
            else:
                assert printed == lines


def test_long_records_fit_or_are_shown_in_full(host: Host) -> None:
    with populated(host):
        screen = plain(on_screen(host, 30, "ps", "--network", "front"))
        whole = plain(on_screen(host, 30, "ps", "--network", "front", "--no-trunc"))

    assert "  ports      8080->80/tcp" in screen.splitlines()
    assert whole.split()[:8] == "CONTAINER PID STATE NETWORK IFNAME ADDRESSES PORTS AGE".split()


def test_watched_list_shows_changes(host: Host) -> None:
    """In a pipe, the list is printed again after a change; a terminal shows the present state."""
    with populated(host) as containers:
        screen = Screen(host, 80, "ps", "--watch", "--interval", "0.1")
        screen.wait_for("job ")
        with host.popen(
            CNIHOOK, "ps", "-q", "--watch", "--interval", "0.1", stdout=subprocess.PIPE
        ) as piped:
            assert piped.stdout
            assert [piped.stdout.readline() for _ in range(3)] == ["db\n", "job\n", "web\n"]
            host.run(CNIHOOK, "detach", "db")
            assert [piped.stdout.readline() for _ in range(2)] == ["job\n", "web\n"]
            piped.terminate()
        attach(host, "late", "front")
        screen.wait_for("late ")
        screen.type("q")
        screen.end()
        assert screen.process.returncode == 0
        containers["db"].destroy()


def test_ports_of_a_container_are_printed_as_docker_does(host: Host) -> None:
    with populated(host):
        assert shown(host, "port", "web") == "80/tcp -> 0.0.0.0:8080\n"
        assert shown(host, "port", "web", "80") == shown(host, "port", "web", "80/tcp") == "0.0.0.0:8080\n"
        (port,) = shown_json(host, "port", "web")
        assert port == {
            **{"network": "front", "host_ip": "0.0.0.0", "host_port": 8080},
            **{"container_port": 80, "protocol": "tcp"},
        }
        assert shown(host, "port", "db") == ""
        assert "has no published port" in on_screen(host, 80, "port", "db")
        for words in ("web 81", "web 80/udp", "nosuch"):
            assert show(host, "port", *words.split()).returncode == 1
        assert show(host, "port", "web", "http").returncode == 2


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
