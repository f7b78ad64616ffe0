# SPDX-License-Identifier: Apache-2.0
"""publish, unpublish, update: ports of a container that runs; its connections continue."""

import json
import socket

import pytest

from tests.support.commands.repair import WEB, WebContainer, cnihook, detach
from tests.support.host.echo import echo, expect_undisturbed
from tests.support.host.host import Host, Outside
from tests.support.runtimes.oci import RESULTS, configure
from tests.support.wait import patience

RECORD = f"{RESULTS}/web-c1-eth0"


@pytest.fixture
def outside(host: Host) -> Outside:
    host.leaves("dir /run/cni", "dir /run/cni/tuning")
    return host.outside()


@pytest.fixture
def web(host: Host, outside: Outside) -> WebContainer:
    configure(host, WEB)
    return WebContainer(host, outside, "c1", publish="8080:80")


def change(host: Host, *argv: str, code: int = 0) -> list[str]:
    """Run a command, which must print nothing on stderr, and return its lines."""
    process = cnihook(host, *argv)
    assert (process.returncode, process.stderr) == (code, "")
    return process.stdout.splitlines()


def answers(web: WebContainer, port: int, *, expected: bool = True, target: int = 80) -> bool:
    """Return True if a machine outside reaches the container by a port of the host."""
    with web.space.socket() as listener, web.outside.socket() as client:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("", target))
        listener.listen()
        client.settimeout(patience(expected))
        try:
            client.connect((Outside.HOST, port))
        except OSError:
            return False
    return True


def own(host: Host) -> dict[str, object]:
    """Return what the record has under the key of cnihook, without the identity of the process."""
    record = json.loads(host.read(RECORD))
    return {key: record["cnihook"].get(key) for key in ("revision", "pending", "until", "previous")}


def test_ports_change_under_an_established_connection(host: Host, web: WebContainer) -> None:
    """Also that of a port that is unpublished, until --cut ends it."""
    second = WebContainer(host, web.outside, "c2", publish="9090:80")
    outside = web.outside
    with (
        echo(outside, web.space, Outside.HOST, 8080) as first,
        echo(outside, second.space, Outside.HOST, 9090) as other,
    ):
        target = f"{web.address}:80"
        assert change(host, "publish", "c1", "8081:80") == [f"published 8081/tcp -> {target}"]
        assert change(host, "publish", "c1", "8081:80") == []
        assert change(host, "unpublish", "c1", "8080") == ["unpublished 8080/tcp"]
        assert change(host, "unpublish", "c1", "8080", "8080/udp") == []
        moved = change(host, "update", "c1", "--publish-rm", "8081", "--publish-add", "127.0.0.1:8081:81")
        assert moved == ["unpublished 8081/tcp", f"published 127.0.0.1:8081/tcp -> {web.address}:81"]
        assert change(host, "publish", "c1", "8080:80") == [f"published 8080/tcp -> {target}"]
    expect_undisturbed(first, other)

    assert answers(web, 8080) and not answers(web, 8081, expected=False)
    assert cnihook(host, "port", "c1").stdout == "81/tcp -> 127.0.0.1:8081\n80/tcp -> 0.0.0.0:8080\n"
    assert own(host) == {"revision": 4, "pending": None, "until": None, "previous": None}
    assert cnihook(host, "check", "c1").stdout == "well c1 web eth0\n"
    detach(web, second)


def test_cut_ends_the_connections_of_the_port_only(host: Host, web: WebContainer) -> None:
    change(host, "publish", "c1", "8081:80", "8080:80/udp")
    with (
        echo(web.outside, web.space, Outside.HOST, 8080) as cut,
        echo(web.outside, web.space, Outside.HOST, 8081) as kept,
    ):
        assert change(host, "unpublish", "c1", "8080", "--cut") == ["unpublished 8080/tcp"]
    assert "reset" in cut.error.lower()
    assert (kept.lost, kept.error) == (0, "")
    detach(web)


def test_flows_of_udp_are_forgotten(host: Host, web: WebContainer) -> None:
    """A flow lives as long as packets come: its client would go on with a port that is unpublished."""
    change(host, "publish", "c1", "53:53/udp")
    with web.space.socket(socket.SOCK_DGRAM) as server, web.outside.socket(socket.SOCK_DGRAM) as client:
        server.bind(("", 53))
        server.settimeout(patience())
        client.connect((Outside.HOST, 53))
        client.send(b"question")
        assert server.recv(16) == b"question"
        change(host, "unpublish", "c1", "53/udp")
        client.settimeout(patience(False))
        client.send(b"again")
        with pytest.raises(OSError):
            client.recv(16)
        change(host, "publish", "c1", "53:53/udp")
        client.send(b"once more")
        assert server.recv(16) == b"once more"
    detach(web)


def test_taken_port_is_rejected_and_changes_nothing(host: Host, web: WebContainer) -> None:
    host.leaves("file /run/cnihook/log/c1")  # a failure is kept
    second = WebContainer(host, web.outside, "c2", publish="9090:80")
    record, ruleset = host.read(RECORD), host.run("nft", "list", "ruleset").stdout
    with host.socket() as listener:
        listener.bind(("0.0.0.0", 7070))
        listener.listen()
        for port, why in (
            ("9090", "host port 9090/tcp is taken: container c2 has it"),
            ("7070", "listens on"),
        ):
            process = cnihook(host, "update", "c1", "--publish-rm=8080", f"--publish-add={port}:80")
            assert process.returncode == 1 and why in process.stderr and process.stderr.count("\n") == 1
    process = cnihook(host, "publish", "c1", "8080:81")
    assert "host port 8080/tcp leads to port 80 of it already" in process.stderr
    assert "`cnihook update c1 --publish-rm 8080/tcp --publish-add 8080:81/tcp` moves it" in process.stderr
    now = json.loads(host.read(RECORD))
    assert now == json.loads(record)
    assert host.run("nft", "list", "ruleset").stdout == ruleset
    detach(web, second)


def test_open_port_of_the_host_is_chosen_once(host: Host, web: WebContainer) -> None:
    """A request that a published port serves already changes nothing."""
    assert change(host, "publish", "c1", "80", "9000-9010:80") == [f"published 9000/tcp -> {web.address}:80"]
    (line,) = change(host, "publish", "c1", "81")
    assert line.endswith(f" -> {web.address}:81")
    assert change(host, "publish", "c1", "81") == []
    detach(web)


def test_dry_run_shows_the_differences_by_its_exit_code(host: Host, web: WebContainer) -> None:
    record = host.read(RECORD)
    lines = change(host, "publish", "c1", "8081:80", "--dry-run", code=2)
    assert lines == [f"would publish 8081/tcp -> {web.address}:80"]
    assert change(host, "publish", "c1", "8080:80", "--dry-run") == []
    assert host.read(RECORD) == record
    listed = json.loads("\n".join(change(host, "unpublish", "c1", "8080", "--json")))
    assert listed == [
        {
            "container": "c1",
            "network": "web",
            "ifname": "eth0",
            "change": "unpublished",
            "value": "8080/tcp",
        }
    ]
    detach(web)


def test_unknown_container_gets_no_log(host: Host, web: WebContainer) -> None:
    on_record = "no network of this container is on record; containers on record: c1"
    for command, option in (("publish", "80"), ("unpublish", "80"), ("update", "--quota=none")):
        process = cnihook(host, command, "nosuch", option)
        assert (process.returncode, process.stderr) == (1, f"cnihook: {command} nosuch: {on_record}\n")
    assert not host.exists("/run/cnihook/log/nosuch")
    assert cnihook(host, "update", "c1", "--publish-add", "9090:80", "--bandwidth=none").returncode == 0
    assert "web eth0: published 9090/tcp -> " in cnihook(host, "logs", "c1").stdout
    detach(web)
