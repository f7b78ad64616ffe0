# SPDX-License-Identifier: Apache-2.0
"""No ADD or DEL loads libnftables, which ends the process if it gets no socket."""

import json
from typing import Any

import pytest

from tests.support.host.host import Host
from tests.support.runtimes.oci import CNIHOOK, RESULTS, bridge, configure, leases

NOT_USED: dict[str, Any] = {}
CONDITIONS = {"conditionsV4": ["!", "-s", "192.0.2.0/24"]}


def network(spoof_check: bool, conditions: dict[str, Any]) -> dict[str, Any]:
    raw = bridge("mynet", "10.22.0.0/24", ipMasq=True, macspoofchk=spoof_check)
    raw["plugins"] += [
        {"type": "portmap", "capabilities": {"portMappings": True}} | conditions,
        {"type": "firewall", "ingressPolicy": "same-bridge"},
    ]
    return raw


def ports(number: int) -> str:
    return json.dumps({"portMappings": [{"hostPort": number, "containerPort": 80, "protocol": "tcp"}]})


def add(host: Host, *launcher: str) -> Any:
    command = ("/usr/bin/python3", "-IS", CNIHOOK, "add", "mynet", "c1")
    return host.run(*launcher, *command, "--capability-args", ports(8080), check=False)


def sockets(host: Host, path: str) -> list[str]:
    """Return the calls that open a socket as libnftables does: without SOCK_CLOEXEC."""
    return [line for line in host.read(path).splitlines() if "SOCK_CLOEXEC" not in line]


@pytest.mark.needs("strace")
def test_full_chain_does_not_load_libnftables(host: Host) -> None:
    configure(host, network(False, NOT_USED))
    host.container("c1")
    host.container("c2")
    host.leaves("file /run/strace")
    host.run(
        CNIHOOK, "add", "mynet", "c2", "--capability-args", ports(8081)
    )  # creates the chains that all ports use

    outcome = add(host, "strace", "-qq", "-e", "trace=socket", "-o", "/run/strace")
    host.run(CNIHOOK, "del", "mynet", "c1")

    host.run(CNIHOOK, "del", "mynet", "c2")
    assert outcome.returncode == 0, outcome.stderr
    assert sockets(host, "/run/strace") == []


@pytest.mark.needs("strace")
@pytest.mark.parametrize("fault", ["error=ENOBUFS", "error=EMFILE", "error=EINTR", "error=ENOMEM"])
@pytest.mark.parametrize(
    ("spoof_check", "conditions"),
    [(False, NOT_USED), (True, NOT_USED), (False, CONDITIONS)],
    ids=["ports", "spoof check", "conditions"],
)
def test_failing_socket_is_an_error_that_leaves_nothing_behind(
    host: Host, spoof_check: bool, conditions: dict[str, Any], fault: str
) -> None:
    """The error is injected in each process that takes part, such as the program nft."""
    configure(host, network(spoof_check, conditions))
    container = host.container("c1")
    host.leaves("file /run/strace")
    assert add(host, "strace", "-f", "-qq", "-e", "trace=socket", "-o", "/run/strace").returncode == 0
    host.run(CNIHOOK, "del", "mynet", "c1")
    calls = host.read("/run/strace").splitlines()

    for number in range(1, len(calls) + 1):
        injected = ("-e", "trace=socket", "-e", f"inject=socket:{fault}:when={number}")
        outcome = add(host, "strace", "-f", "-qq", "-o", "/dev/null", *injected)

        if outcome.returncode == 0:  # the call is optional
            host.run(CNIHOOK, "del", "mynet", "c1")
        else:
            assert outcome.returncode == 1, (number, outcome.stderr)
            assert outcome.stderr.count("\n") == 1, (number, outcome.stderr)
        assert "eth0" not in container.run("ip", "link").stdout
        assert leases(host) == []
        assert host.run("sh", "-c", f"ls {RESULTS} || true").stdout == ""
        assert "cnihook" not in host.nft()
