# SPDX-License-Identifier: Apache-2.0
"""All changes of one running container, of any runtime, under connections in all directions."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.support.commands.apply import ACCEPT
from tests.support.commands.repair import cnihook
from tests.support.host.echo import Echo, echo, expect_undisturbed
from tests.support.host.host import Host, Outside
from tests.support.host.namespace import Namespace
from tests.support.policies import LEAVES, NO_BR_NETFILTER, Sandbox, apply, network, policy
from tests.support.runtimes.oci import NET_D

ATTACH = ("--network", "front", "--publish", "8080:80", "--bandwidth", "in=50M,out=50M")
_POLICY = {"name": "front", "select": {}, "egress": {"allow": [{"to": ["all"], "ports": ["7"]}]}}
_LEAVES = ("dir /run/cni", "dir /run/cni/tuning", "file /run/cnihook/log/*", "dir /run/cnihook*",
           f"file {NET_D}/*")  # fmt: skip


def _front() -> dict[str, Any]:
    front = network()
    front["plugins"] += [
        {"type": "bandwidth", "capabilities": {"bandwidth": True}}, {"type": "firewall"}, {"type": "tuning"}
    ]  # fmt: skip
    return front


def configure_live(host: Host) -> None:
    """Write the networks, of which ATTACH names one."""
    host.leaves(*LEAVES, *_LEAVES)
    host.run("sh", "-c", NO_BR_NETFILTER)
    _write(host, _front())
    host.write(f"{NET_D}/20-back.conflist", json.dumps(network(name="back", number=8)))


def _write(host: Host, front: dict[str, Any]) -> None:
    host.write(f"{NET_D}/10-front.conflist", json.dumps(front))


def by_pid(host: Host, pid: int, name: str) -> Namespace:
    """Return the network namespace of a process of the host."""
    return Namespace(host.holder, f"{host.root}/proc/{pid}/ns/net", name)


@contextmanager
def _connections(
    host: Host, outside: Namespace, space: Namespace, neighbour: Sandbox
) -> Iterator[dict[str, Echo]]:
    """Yield connections of a container that ATTACH has attached, and expect that all go on undisturbed."""
    with (
        echo(outside, space, Outside.HOST, 8080) as incoming,
        echo(space, outside, Outside.ADDRESS, 7, port=7) as outgoing,
        echo(space, neighbour.space, neighbour.v4, 7, port=7) as between,
        echo(host, host, "127.0.0.1", 77, port=77) as other,
    ):
        talks = {"incoming": incoming, "outgoing": outgoing, "between": between}
        yield talks
        for talk in talks.values():
            talk.wait(2)
    for talk in talks.values():
        expect_undisturbed(talk, other)


def change_all(host: Host, outside: Namespace, space: Namespace, name: str) -> None:
    """Make every kind of change of the container `name`; its connections lose nothing, and are not late."""
    neighbour = Sandbox(host, "neighbour")

    def run(*argv: str) -> None:
        process = cnihook(host, *argv)
        assert process.returncode == 0 and process.stdout, process

    with _connections(host, outside, space, neighbour) as talks:
        run("publish", name, "8081:81", "5353:53/udp")
        run("unpublish", name, "8081", "5353/udp")
        limits, names = ("--bandwidth", "in=20M,out=10M"), ("--alias-add=db", "--dns=192.0.2.53")
        keys = ("--mtu=9000", "--route-add", "192.0.2.0/24=10.7.0.1", "--sysctl", f"{ACCEPT}=1")
        run("update", name, *limits, *names, *keys)
        limits, names = ("--bandwidth", "in=200M,out=100M"), ("--alias-rm=db", "--dns=none")
        keys = ("--mtu=1400", "--route-rm", "192.0.2.0/24", "--sysctl", f"{ACCEPT}=none")
        run("update", name, *limits, *names, *keys)
        run("connect", "back", name)
        run("disconnect", "back", name)
        talks["between"].wait(5)
        apply(host, _POLICY)
        talks["between"].wait(5)
        run("update", name, "--egress", "host", "--ingress", "none")
        talks["between"].wait(5)
        run("update", name, "--egress", "all", "--ingress", "all")
        policy(host, "delete", "front")
        front = _front()
        front["plugins"][1]["conditionsV4"] = ["ip saddr 0.0.0.0/0"]
        front["plugins"][3]["forwardPolicy"] = "published"
        front["plugins"][4]["sysctl"] = {ACCEPT: "1"}
        front["plugins"][0]["ipam"]["ranges"].pop()  # of new containers only
        for edited in (front, _front()):
            _write(host, edited)
            run("apply", "front")
        assert cnihook(host, "diff").stdout == ""
    assert cnihook(host, "check", name).stdout.startswith("well ")
    neighbour.stop()
