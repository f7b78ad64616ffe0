# SPDX-License-Identifier: Apache-2.0
"""Connections that exist while policies begin, change and end."""

import socket
from typing import Any

import pytest

from tests.support.host.host import Host
from tests.support.policies import (
    LEAVES,
    NO_BR_NETFILTER,
    WITH_BR_NETFILTER,
    Sandbox,
    apply,
    network,
    policy,
    tcp,
)
from tests.support.runtimes.oci import configure


@pytest.fixture
def stage(host: Host) -> Host:
    host.leaves(*LEAVES)
    return host


@pytest.mark.parametrize("setting", [NO_BR_NETFILTER, WITH_BR_NETFILTER], ids=["alone", "br_netfilter"])
def test_policy_on_and_off_keeps_the_connections_of_a_bridge(stage: Host, setting: str) -> None:
    """A connection with a message every 10 ms loses none, and no answer is late; --cut ends one."""
    stage.run("sh", "-c", setting)
    configure(stage, network())
    one, two = Sandbox(stage, "one"), Sandbox(stage, "two")
    allow = [{"to": ["network:front"], "ports": ["7"]}]
    rules: dict[str, Any] = {"name": "front", "select": {}, "egress": {"allow": allow}}
    closed = rules | {"egress": {"allow": []}}
    conversations = [Conversation(one, two, version) for version in (4, 6)]
    try:
        for talk in conversations:
            talk.wait(20)
        assert apply(stage, rules) == [
            "new policy front: all",
            "bridge br-front: connections between its containers that the policies do not allow end, "
            "because the host did not see them before",
        ]
        for talk in conversations:
            talk.wait(30)
        assert not tcp(one.space, two.space, two.v4, 99, expected=False)
        kept = "2 established connections are denied from now on, and kept; --cut ends them"
        assert apply(stage, closed)[-1] == kept
        assert apply(stage, closed)[-1] == kept
        for talk in conversations:
            talk.wait(30)
        assert policy(stage, "delete", "front") == ["removed policy front"]
        for talk in conversations:
            talk.wait(30)
        assert tcp(one.space, two.space, two.v4, 99, expected=True)
        for talk in conversations:
            assert talk.slowest() < 0.1
        apply(stage, rules)
        for talk in conversations:
            talk.wait(10)
        apply(stage, closed, options=("--cut",))
        for talk in conversations:
            assert talk.ends()
    finally:
        for talk in conversations:
            talk.close()
    policy(stage, "delete", "front")
    for each in (one, two):
        each.stop()


ECHO = """\
import socket, sys
listener = socket.create_server(("", 7), family=int(sys.argv[1]))
print("ready", flush=True)
one, _ = listener.accept()
while data := one.recv(64):
    one.sendall(data)
"""
TALK = """\
import socket, sys, time
one = socket.create_connection((sys.argv[1], 7), 10)
one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
while True:
    begin = time.monotonic()
    try:
        one.sendall(b"x")
        assert one.recv(1) == b"x"
    except OSError:
        print("end", flush=True)
        break
    print(time.monotonic() - begin, flush=True)
    time.sleep(0.01)
"""


class Conversation:
    """A message every 10 ms over one TCP connection, and the time until each answer."""

    def __init__(self, client: Sandbox, server: Sandbox, version: int) -> None:
        python = ("/usr/bin/python3", "-ISc")
        family = socket.AF_INET if version == 4 else socket.AF_INET6
        self._server = server.space.popen(*python, ECHO, str(int(family)))
        assert self._server.stdout and self._server.stdout.readline() == "ready\n"
        self._client = client.space.popen(*python, TALK, server.address(version))
        self.times: list[float] = []

    def wait(self, number: int) -> None:
        for _ in range(number):
            assert self._client.stdout
            self.times.append(float(self._client.stdout.readline()))

    def slowest(self) -> float:
        return max(self.times)

    def ends(self) -> bool:
        assert self._client.stdout
        return "end" in self._client.stdout.read().split()

    def close(self) -> None:
        for process in (self._client, self._server):
            process.kill()
            process.wait(10)
