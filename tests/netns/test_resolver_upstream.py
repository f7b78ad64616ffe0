# SPDX-License-Identifier: Apache-2.0
"""The resolver of names in policies and its servers: failures, cuts, and servers that lie."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from cnihook.fast.address import Address
from cnihook.resolver import message
from cnihook.resolver.message import Question, Record
from tests.support.host.host import Host
from tests.support.services.resolving import (
    NET,
    SERVER,
    SERVER6,
    Sandbox,
    World,
    keepers,
    received,
    records_of,
)
from tests.support.wait import wait_for

pytestmark = pytest.mark.needs("dnsmasq")

GOOD, WRONG = Address.parse(f"{NET}.1"), Address.parse(f"{NET}.66")
NAME = "example.com"

Reply = Callable[[Question, bytes], "list[bytes]"]


@pytest.fixture(autouse=True)
def implementation() -> None:
    """Return no plugins: the tests here call none."""


@pytest.fixture
def world(host: Host, tmp_path: Path) -> Iterator[World]:
    world = World(host, tmp_path)
    yield world
    world.close()


class Server:
    """A DNS server that sends what a function returns for each query."""

    def __init__(self, world: World, udp: Reply, tcp: Reply | None = None) -> None:
        self.queries: list[tuple[bytes, int]] = []
        self.world = world
        self.udp, self.tcp = udp, tcp
        self.sockets = [world.machine.socket(socket.SOCK_DGRAM), world.machine.socket()]
        for one in self.sockets:
            one.settimeout(None)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            one.bind((SERVER, 53))
        self.sockets[1].listen()
        self.threads = [threading.Thread(target=work) for work in (self._datagrams, self._connections)]

    def __enter__(self) -> "Server":
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        for one in self.sockets:
            try:
                one.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # UDP is not connected, and recvfrom() ends anyway
        for thread in self.threads:
            thread.join()
        for one in self.sockets:
            one.close()

    def _datagrams(self) -> None:
        while True:
            data, sender = self.sockets[0].recvfrom(4096)
            if not sender or not data:
                return
            self.queries.append((data, sender[1]))
            for reply in self.udp(message.read_question(data), data):
                self.sockets[0].sendto(reply, sender)

    def _connections(self) -> None:
        while True:
            try:
                connection, _peer = self.sockets[1].accept()
            except OSError:
                return
            with connection:
                data = received(connection)
                for reply in self.tcp(message.read_question(data), data) if self.tcp else ():
                    connection.sendall(reply)


def answer(question: Question, address: Address = GOOD, *, name: "message.Name | None" = None) -> bytes:
    return message.reply(question, 0, [Record(name or question.name, 5, address)], limit=512)


def test_false_answers_are_ignored(host: Host, world: World) -> None:
    """A machine that guesses must hit the port and the ID, and name the question."""

    def lies(question: Question, data: bytes) -> list[bytes]:
        other = Question(question.ident ^ 1, question.flags, question.name, question.kind)
        elsewhere = Question(question.ident, question.flags, (b"example", b"org"), question.kind)
        other_kind = Question(question.ident, question.flags, question.name, message.AAAA)
        with world.machine.socket(socket.SOCK_DGRAM) as stranger:  # another port
            stranger.bind((SERVER, 0))
            stranger.sendto(answer(question, WRONG), ("192.0.2.1", server.queries[-1][1]))
        with world.machine.socket(socket.SOCK_DGRAM) as stranger:  # another address
            stranger.bind((f"{NET}.7", 53))
            stranger.sendto(answer(question, WRONG), ("192.0.2.1", server.queries[-1][1]))
        return [
            *(answer(each, WRONG) for each in (other, elsewhere, other_kind)),
            *(data, b"", b"\0", answer(question)[:20]),
            answer(question),
        ]

    sandbox = Sandbox(host)
    sandbox.serve(NAME)
    with Server(world, lies) as server:
        for _time in range(20):
            assert sandbox.ask(NAME).addresses == [str(GOOD)]
    assert list(sandbox.elements()) == [str(GOOD)]
    assert len({port for _data, port in server.queries}) > 10, "each query has another port"
    assert len({data[:2] for data, _port in server.queries}) > 10, "and another ID"
    assert {data[12:] for data, _port in server.queries} == {message.query(question())[12:]}


def question() -> Question:
    return Question(0, message.RECURSION_DESIRED, (b"example", b"com"), message.A)


def _malformed(number: int, asked: Question, _data: bytes) -> "list[bytes]":
    good = answer(asked)
    begin = good[:6] + b"\0\1" + bytes(4) + good[12 : 12 + 17]
    forms = [
        begin,  # the record is missing
        begin + b"\xc0\x1d\0\1\0\1\0\0\0\5\0\4\1\2\3\4",  # a name that refers to itself
        begin + b"\xc0\x0c\0\1\0\1\0\0\0\5\xff\xff\1\2\3\4",
        begin + b"\xc0\x0c\0\1\0\1\0\0\0\5\0\5\1\2\3\4\5",
        good[:6] + b"\xff\xff" + good[8:],
    ]
    return forms[number : number + 1]


def test_malformed_answer_is_a_failure_and_opens_nothing(host: Host, world: World) -> None:
    sandbox = Sandbox(host)
    sandbox.serve(NAME)
    (keeper,) = keepers(host)
    for number in range(5):
        with Server(world, partial(_malformed, number)):
            assert sandbox.ask(NAME).rcode == message.SERVFAIL
    with Server(world, lambda asked, _data: [answer(asked, WRONG, name=(b"other", b"org"))]):
        assert (sandbox.ask(NAME).rcode, sandbox.ask(NAME).records) == (0, [])
    with Server(world, lambda asked, _data: [message.reply(asked, 0, _endless(), limit=4096)]):
        assert sandbox.ask(NAME).addresses == []
    assert sandbox.elements() == {} and keepers(host) == [keeper]
    with Server(world, lambda asked, _data: [answer(asked)]):
        assert sandbox.ask(NAME).addresses == [str(GOOD)]
    assert host.read(f"/run/cnihook/log/{sandbox.name}").count("names cannot be resolved") <= 5


def _endless() -> "list[Record]":
    """Return an alias for each name, up to one that has an address."""
    names: list[message.Name] = [(b"example", b"com"), *((b"%d" % number,) for number in range(30))]
    aliases = [Record(name, 5, target=target) for name, target in zip(names, names[1:], strict=False)]
    return [*aliases, Record(names[-1], 5, WRONG)]


def test_cut_answer_is_fetched_by_tcp(host: Host, world: World) -> None:
    def cut(asked: Question, _data: bytes) -> list[bytes]:
        return [message.reply(asked, 0, [Record(asked.name, 5, GOOD)] * 9, limit=40)]

    def whole(asked: Question, _data: bytes) -> list[bytes]:
        data = answer(asked)
        return [len(data).to_bytes(2, "big") + data[:5], data[5:]]

    sandbox = Sandbox(host)
    sandbox.serve(NAME)
    with Server(world, cut, whole):
        assert sandbox.ask(NAME).addresses == [str(GOOD)]
    for bad in (
        lambda _asked, _data: [b"\xff\xff\0\1"],
        lambda asked, _data: [b"\0\x02\0\1"],
        lambda asked, _data: [b"\0\x0c" + answer(asked)[:12]],
    ):
        with Server(world, cut, bad):
            assert sandbox.ask(NAME).rcode == message.SERVFAIL


def test_server_without_edns_is_asked_again(host: Host, world: World) -> None:
    def old(asked: Question, data: bytes) -> list[bytes]:
        if asked.counts[2]:
            return [message.refusal(asked.ident, asked.flags, message.FORMERR)]
        return [answer(asked)]

    sandbox = Sandbox(host)
    sandbox.serve(NAME)
    with Server(world, old):
        assert sandbox.ask(NAME).addresses == [str(GOOD)]


def test_next_server_is_asked_if_one_fails(host: Host, world: World) -> None:
    """One is silent, one is closed, one refuses.  Servers of IPv6 work, too."""
    world.serve(*records_of([(NAME, [str(GOOD)])]))
    sandbox = Sandbox(host)
    for first in ("192.0.2.99", "192.0.2.1", "not-an-address"):
        host.write("/etc/resolv.conf", f"nameserver {first}\nnameserver {SERVER6}\n")
        sandbox.serve(NAME)
        assert sandbox.ask(NAME).addresses == [str(GOOD)]
    host.write("/etc/resolv.conf", "")
    assert sandbox.ask(NAME).rcode == message.SERVFAIL
    assert "/etc/resolv.conf names no server" in host.read(f"/run/cnihook/log/{sandbox.name}")
    sandbox.serve(NAME, servers=[SERVER])
    assert sandbox.ask(NAME).addresses == [str(GOOD)]

    world.stop()
    host.run("nft", "flush", "set", "inet", "cnihook", "n-test4")
    host.save_state()
    with Server(world, lambda asked, _data: [message.reply(asked, message.REFUSED, limit=512)]):
        assert sandbox.ask(NAME).rcode == message.SERVFAIL


def test_silent_server_does_not_delay_other_names(host: Host, world: World) -> None:
    """A container gets a failure before its C library gives up, after 5 s."""

    def some(asked: Question, _data: bytes) -> list[bytes]:
        return [] if asked.name[0] == b"slow" else [answer(asked)]

    sandbox = Sandbox(host)
    sandbox.serve("*.example.com", NAME)
    with Server(world, some):
        began = time.monotonic()
        slow: list[int] = []
        thread = threading.Thread(target=lambda: slow.append(sandbox.ask("slow.example.com").rcode))
        thread.start()
        assert sandbox.ask(NAME).addresses == [str(GOOD)]
        assert time.monotonic() - began < 1 and not slow
        thread.join()
        assert slow == [message.SERVFAIL] and time.monotonic() - began < 5


@pytest.mark.parametrize("tcp", [False, True])
def test_malformed_query_is_rejected_or_dropped(host: Host, world: World, tcp: bool) -> None:
    """A container may send anything, also many bytes, and the next query is answered."""
    world.serve(*records_of([(NAME, [str(GOOD)])]))
    sandbox = Sandbox(host)
    sandbox.serve(NAME)
    good = message.query(question())
    rejected = {
        good[:12]: message.FORMERR,
        good[:4] + b"\0\2" + good[6:]: message.FORMERR,
        good[:6] + b"\0\1" + good[8:]: message.FORMERR,
        good[:12] + b"\xc0\x0c\0\1\0\1": message.FORMERR,
        good[:2] + b"\x28\0" + good[4:]: message.NOTIMP,  # an update
        good[:27] + b"\0\3" + good[29:]: message.REFUSED,  # another class
    }
    for data, rcode in rejected.items():
        with sandbox.open(tcp=tcp) as client:
            client.sendall((len(data).to_bytes(2, "big") if tcp else b"") + data)
            reply = received(client) if tcp else client.recv(512)
            assert message.read_head(reply)[1] & message.RCODE == rcode, data
    for data in (b"", b"\0", good[:2] + b"\x80\0" + good[4:], b"\xff" * 60000):
        with sandbox.open(tcp=tcp) as client:
            client.sendall((len(data).to_bytes(2, "big") if tcp else b"") + data)
            if tcp and data:
                assert client.recv(1) == b""
    waiting = [sandbox.open(tcp=True) for _ in range(40)]  # more than a container may have
    wait_for(lambda: sandbox.ask(NAME).addresses == [str(GOOD)], "the next query is answered")
    for client in waiting:
        client.close()
    wait_for(lambda: _answers(sandbox), "connections are free again")


def _answers(sandbox: Sandbox) -> bool:
    try:
        return sandbox.ask(NAME, tcp=True).addresses == [str(GOOD)]
    except (OSError, ValueError):
        return False
