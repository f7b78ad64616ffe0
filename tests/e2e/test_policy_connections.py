# SPDX-License-Identifier: Apache-2.0
"""Connections that exist while policies begin, change and end."""

import socket
from typing import Any

import pytest

from tests.support.host.echo import Echo, echo, expect_undisturbed
from tests.support.host.host import Host, Outside
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
    with (
        echo(one.space, two.space, two.v4, 7, port=7) as v4,
        echo(one.space, two.space, two.v6, 7, port=7) as v6,
        echo(stage, stage, "127.0.0.1", 77, port=77) as other,
    ):
        talks = [v4, v6]
        proceed(talks, 20)
        assert apply(stage, rules) == [
            "new policy front: all",
            "bridge br-front: connections between its containers that the policies do not allow end, "
            "because the host did not see them before",
        ]
        proceed(talks, 30)
        assert not tcp(one.space, two.space, two.v4, 99, expected=False)
        kept = "2 established connections are denied from now on, and kept; --cut ends them"
        assert apply(stage, closed)[-1] == kept
        assert apply(stage, closed)[-1] == kept
        proceed(talks, 30)
        assert policy(stage, "delete", "front") == ["removed policy front"]
        proceed(talks, 30)
        assert tcp(one.space, two.space, two.v4, 99, expected=True)
    for talk in talks:
        expect_undisturbed(talk, other)

    apply(stage, rules)
    with (
        echo(one.space, two.space, two.v4, 7, port=7) as v4,
        echo(one.space, two.space, two.v6, 7, port=7) as v6,
    ):
        proceed([v4, v6], 10)
        apply(stage, closed, options=("--cut",))
        assert v4.is_dead() and v6.is_dead()
    policy(stage, "delete", "front")
    for each in (one, two):
        each.stop()


def test_cut_ends_a_connection_that_one_end_has_shut_down(stage: Host) -> None:
    """Count a half-closed connection as established: the other end can still send for ever."""
    configure(stage, network("ptp"))
    one = Sandbox(stage, "one")
    rules: dict[str, Any] = {"name": "one", "select": {}, "egress": {"allow": []}}
    outside = stage.outside()
    with outside.socket() as listener, one.space.socket() as client:
        listener.bind(("", 7))
        listener.listen()
        client.connect((Outside.ADDRESS, 7))
        server, _ = listener.accept()
        with server:
            client.shutdown(socket.SHUT_WR)
            assert server.recv(1) == b""
            ended = "1 established connection is denied from now on, and ended"
            assert apply(stage, rules, options=("--cut",))[-1] == ended
    policy(stage, "delete", "one")
    one.stop()


def proceed(talks: list[Echo], number: int) -> None:
    for talk in talks:
        talk.wait(number)
