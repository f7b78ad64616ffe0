# SPDX-License-Identifier: Apache-2.0
"""Names in policies: what a container may look up is open when it gets the answer, and nothing else is."""

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cnihook.resolver import message
from tests.support.host.host import Host
from tests.support.services.resolving import (
    GATEWAY,
    GATEWAY6,
    NET,
    NET6,
    PORT,
    Answer,
    Sandbox,
    World,
    exchange,
    query,
    records_of,
)
from tests.support.wait import SILENCE, wait_for

pytestmark = pytest.mark.needs("dnsmasq")

CDN = "--cname=www.example.com,edge.cdn.example"
NAMES = records_of(
    [
        ("example.com", [f"{NET}.1", f"{NET6}1"]),
        ("a.b.example.org", [f"{NET}.2"]),
        ("example.org", [f"{NET}.3"]),
        ("edge.cdn.example", [f"{NET}.4"]),
        ("other.example", [f"{NET}.5"]),
        ("bad.example.com", [f"{NET}.6", "127.0.0.1"]),
        ("metadata.example.com", ["169.254.169.254"]),
    ]
)


@pytest.fixture(autouse=True)
def implementation() -> None:
    """Return no plugins: the tests here call none."""


@pytest.fixture
def world(host: Host, tmp_path: Path) -> Iterator[World]:
    world = World(host, tmp_path)
    world.serve(*NAMES, CDN)
    yield world
    world.close()


def test_listed_name_is_open_when_it_is_answered(host: Host, world: World) -> None:
    sandbox = Sandbox(host)
    sandbox.serve("example.com", "*.example.org", "www.example.com")
    assert not sandbox.reaches(f"{NET}.1") and not sandbox.reaches(f"{NET6}1")

    for kind, at, tcp, address in (
        (message.A, GATEWAY, False, f"{NET}.1"),
        (message.AAAA, GATEWAY6, True, f"{NET6}1"),
        (message.A, GATEWAY6, False, f"{NET}.1"),
        (message.AAAA, GATEWAY, True, f"{NET6}1"),
    ):
        answer = sandbox.ask("example.com", kind, at=at, tcp=tcp)
        assert (answer.rcode, answer.addresses) == (message.NOERROR, [address])
        assert answer.ttls == {60}, "the server's TTL is 3600"
        assert sandbox.reaches(address)
    assert sandbox.elements()[f"{NET}.1"]["timeout"] == 3600
    assert sandbox.elements()[f"{NET}.1"]["comment"] == "example.com"

    assert sandbox.ask("A.b.Example.ORG").addresses == [f"{NET}.2"] and sandbox.reaches(f"{NET}.2")
    assert sandbox.ask("missing.example.org").rcode == message.NXDOMAIN
    alias = sandbox.ask("www.example.com")
    assert alias.addresses == [f"{NET}.4"] and sandbox.reaches(f"{NET}.4")
    assert [record.target for record in alias.records][:1] == [(b"edge", b"cdn", b"example")]
    with sandbox.open(tcp=True) as client:  # two queries, one connection
        assert [exchange(client, "example.com", message.A, tcp=True).rcode for _ in range(2)] == [0, 0]
    assert sandbox.denied() == []


def test_other_names_are_refused_and_recorded(host: Host, world: World) -> None:
    sandbox = Sandbox(host)
    sandbox.serve("*.example.com", "www.example.com")

    for name in ("other.example", "example.com", "edge.cdn.example", "data.other.example"):
        for tcp in (False, True):
            answer = sandbox.ask(name, tcp=tcp)
            assert (answer.rcode, answer.records) == (message.REFUSED, [])
        assert not world.was_asked(name), "the name would leave the host"
    assert b"not listed in the policy" in answer.data
    assert b"not listed" not in sandbox.ask("other.example", edns=False).data
    with sandbox.open() as client:  # a label that contains a dot
        client.sendall(query("a").replace(b"\1a\0", b"\x0bexample.com\0"))
        assert Answer(client.recv(512)).rcode == message.REFUSED

    for kind in (message.CNAME, 16, 15, 33, 65, 255):  # TXT, MX, SRV, HTTPS, ANY
        answer = sandbox.ask("www.example.com", kind)
        assert (answer.rcode, answer.records) == (message.NOERROR, [])
    assert not world.was_asked("www.example.com")

    answer = sandbox.ask("bad.example.com")
    assert answer.addresses == [f"{NET}.6"] and list(sandbox.elements()) == [f"{NET}.6"]
    assert sandbox.ask("metadata.example.com").records == []
    wait_for(lambda: len(sandbox.denied()) == 7, "the names are recorded")
    denied = {one.name: (one.count, one.reason) for one in sandbox.denied()}
    assert denied["other.example"] == (3, "not listed") and denied["example\\046com"] == (1, "not listed")
    assert denied["bad.example.com"] == (1, "its address 127.0.0.1 is never opened")
    assert denied["metadata.example.com"] == (1, "its address 169.254.169.254 is never opened")
    assert not sandbox.reaches(f"{NET}.5") and not sandbox.reaches(GATEWAY, 22)


def test_first_connection_after_the_first_answer_always_works(host: Host, world: World) -> None:
    """200 names: a resolver that answered before it opened the address would lose some of them."""
    world.serve(*records_of((f"n{number}.example.net", [f"{NET}.{number}"]) for number in range(1, 201)))
    sandbox = Sandbox(host)
    sandbox.serve("*.example.net")

    for number in range(1, 201):
        with sandbox.container.socket() as connection, sandbox.open() as client:
            (address,) = exchange(client, f"n{number}.example.net", message.A, tcp=False).addresses
            connection.connect((address, PORT))
    assert len(sandbox.elements()) == 200


def test_end_of_an_address_closes_it_for_new_connections_only(host: Host, world: World) -> None:
    sandbox = Sandbox(host)
    sandbox.serve("example.com")
    address = f"{NET}.1"
    sandbox.ask("example.com")
    with sandbox.container.socket() as connection:
        connection.connect((address, PORT))
        host.run("nft", "delete", "element", "inet", "cnihook", "n-test4", f"{{ {address} }}")
        host.run("nft", "add", "element", "inet", "cnihook", "n-test4", f"{{ {address} timeout 500ms }}")
        wait_for(lambda: not sandbox.reaches(address), "the kernel removes the element")
        connection.sendall(b"y")
        assert connection.recv(1) == b"y"

        # An element that exists, but ends too early for the answer, is renewed.
        host.run("nft", "add", "element", "inet", "cnihook", "n-test4", f"{{ {address} timeout 20s }}")
        sandbox.ask("example.com")
        assert sandbox.elements()[address]["expires"] > 3500 and sandbox.reaches(address)
        # Another program may empty the set.
        host.run("nft", "flush", "set", "inet", "cnihook", "n-test4")
        assert not sandbox.reaches(address)
        sandbox.ask("example.com")
        assert sandbox.reaches(address)


def test_short_ttl_keeps_an_address_open_for_five_minutes(host: Host, world: World) -> None:
    world.serve(*NAMES, "--local-ttl=2")
    sandbox = Sandbox(host)
    sandbox.serve("example.com")

    assert sandbox.ask("example.com").ttls == {2}
    assert sandbox.elements()[f"{NET}.1"]["timeout"] == 300


def test_server_of_the_host_on_port_53_gets_no_question(host: Host, world: World) -> None:
    """The server listens at all addresses, and answers containers without a listing as before."""
    sandbox, other = Sandbox(host), Sandbox(host, 3, set="n-other")
    host.run("nft", "flush", "chain", "inet", "cnihook", f"input-{other.name}")  # it has no policy
    host.save_state()
    host.popen(
        *("dnsmasq", "--conf-file=/dev/null", "--no-hosts", "--no-resolv", "--keep-in-foreground"),
        *("--user=root", "--pid-file=", "--log-facility=-", *records_of([("other.example", [f"{NET}.9"])])),
    )
    wait_for(lambda: ":53 " in host.run("ss", "-lun").stdout, "the host's server listens")
    sandbox.serve("example.com")

    for tcp in (False, True):
        assert other.ask("other.example", tcp=tcp).addresses == [f"{NET}.9"]
        assert sandbox.ask("other.example", tcp=tcp).rcode == message.REFUSED
        assert sandbox.ask("example.com", tcp=tcp).addresses == [f"{NET}.1"]
        assert sandbox.ask("example.com", at=GATEWAY6, tcp=tcp).addresses == [f"{NET}.1"]

    sandbox.forget()
    with sandbox.open() as client:  # now the policy's own rule rejects it
        client.settimeout(SILENCE)
        with pytest.raises(OSError):
            exchange(client, "other.example", message.A, tcp=False)


def test_two_containers_have_lists_of_their_own(host: Host, world: World) -> None:
    one, two = Sandbox(host), Sandbox(host, 3, set="n-two")
    one.serve("example.com")
    two.serve("example.org")

    assert [one.ask(name).rcode for name in ("example.com", "example.org")] == [0, 5]
    assert [two.ask(name).rcode for name in ("example.com", "example.org")] == [5, 0]
    assert one.reaches(f"{NET}.1") and not two.reaches(f"{NET}.1") and not one.reaches(f"{NET}.3")
    one.serve("example.org")  # its policy has changed
    assert [one.ask(name).rcode for name in ("example.com", "example.org")] == [5, 0]


def test_name_with_many_addresses_keeps_the_newest(host: Host, world: World) -> None:
    """A pattern opens at most 256 addresses, and an answer has at most 64."""
    names = [(f"n{number}.example.net", [f"{NET}.{number}"]) for number in range(1, 250)]
    names += [(f"m{number}.example.net", [f"{NET6}{number:x}"]) for number in range(1, 12)]
    all_addresses = [f"{NET6}a{number:x}" for number in range(16, 116)]
    world.serve(*records_of(names), *records_of([("all.example", all_addresses)]))
    sandbox = Sandbox(host)
    sandbox.serve("*.example.net", "all.example", "n1.example.net")

    answer = sandbox.ask("all.example", message.AAAA, tcp=True)
    assert len(answer.addresses) == 64 and set(sandbox.elements(6)) == set(answer.addresses)
    assert sandbox.ask("all.example", message.AAAA).is_cut
    host.run("nft", "flush", "set", "inet", "cnihook", "n-test6")
    for name, (address,) in names:
        sandbox.ask(name, message.AAAA if ":" in address else message.A)
    assert len(sandbox.elements(6)) == 11
    # These four are the oldest, and the first one is listed by its name, too.
    is_open = sandbox.elements()
    closed = [address for _name, (address,) in names[:249] if address not in is_open]
    assert closed == [f"{NET}.2", f"{NET}.3", f"{NET}.4"]
    log = host.read(f"/run/cnihook/log/{sandbox.name}")
    assert log.count("*.example.net has too many addresses; only the newest are open") == 1


def test_hundreds_of_queries_at_once_are_answered(host: Host, world: World) -> None:
    world.serve(*records_of((f"n{number}.example.net", [f"{NET}.{number}"]) for number in range(1, 101)))
    sandboxes = [Sandbox(host), Sandbox(host, 3, set="n-two")]
    for sandbox in sandboxes:
        sandbox.serve("*.example.net")
    clients = [sandbox.open() for sandbox in sandboxes for _ in range(100)]
    try:
        for ident, client in enumerate(clients):
            client.sendall(query(f"n{ident % 100 + 1}.example.net", ident=ident))
        for ident, client in enumerate(clients):
            answer = Answer(client.recv(512))
            assert answer.question.ident == ident
            assert answer.addresses == [f"{NET}.{ident % 100 + 1}"]
    finally:
        for client in clients:
            client.close()
    assert all(len(sandbox.elements()) == 100 for sandbox in sandboxes)


def test_c_library_of_a_container_resolves_by_it(host: Host, world: World) -> None:
    """The library asks for IPv4 and IPv6 at a time.  The refusal of a search domain does not disturb it."""
    sandbox = Sandbox(host)
    sandbox.serve("example.com")
    host.write("/run/resolv.conf", f"search corp.example\noptions ndots:2\nnameserver {GATEWAY}\n")
    script = "mount --bind /run/resolv.conf /etc/resolv.conf; getent ahosts"
    began = time.monotonic()
    for name in ("example.com", "example.com."):
        listed = sandbox.container.run("unshare", "-m", "sh", "-c", f"{script} {name}")
        assert {line.split()[0] for line in listed.stdout.splitlines()} == {f"{NET}.1", f"{NET6}1"}
    other = sandbox.container.run("unshare", "-m", "sh", "-c", f"{script} other.example.", check=False)
    assert other.returncode == 2 and time.monotonic() - began < 4


def test_audit_answers_every_name_and_records_it(host: Host, world: World) -> None:
    """A policy in the mode audit lets everything through, so other types are relayed, too."""
    world.serve(*NAMES, "--txt-record=other.example,hello", f"--txt-record=long.example,{'x' * 200}")
    sandbox = Sandbox(host)
    sandbox.serve("example.com", audit=True)

    assert sandbox.ask("example.com").rcode == sandbox.ask("other.example").rcode == message.NOERROR
    assert list(sandbox.elements()) == [f"{NET}.1"], "the policy lets the other address through"
    for name, text in (("other.example", b"hello"), ("Long.example", b"x" * 200)):
        answer = sandbox.ask(name, 16)
        assert text in answer.data and answer.rcode == message.NOERROR
    assert sandbox.ask("missing.example", 16, tcp=True).rcode == message.NXDOMAIN
    wait_for(lambda: len(sandbox.denied()) == 3, "the names are recorded")
    assert [one.name for one in sandbox.denied()] == ["other.example", "long.example", "missing.example"]


def test_sender_without_a_listing_gets_no_answer(host: Host, world: World) -> None:
    """The host itself, and an address that only pretends to be in the subnet."""
    sandbox = Sandbox(host)
    sandbox.serve("example.com")
    with host.socket(socket.SOCK_DGRAM) as client:
        client.settimeout(SILENCE)
        client.sendto(query("example.com"), (GATEWAY, 585))
        with pytest.raises(TimeoutError):
            client.recv(512)
    with host.socket() as client:
        client.connect((GATEWAY, 585))
        assert client.recv(1) == b""
