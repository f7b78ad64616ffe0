# SPDX-License-Identifier: Apache-2.0
"""The work of a start and of an end does not grow with the number of containers that are attached.

System calls and bytes are counted, so that a busy machine changes nothing.
"""

import json
from typing import Any

import pytest

from tests.support.host.host import Container, Host
from tests.support.plugins.cni import CHECKOUT
from tests.support.runtimes.crowd import Crowd
from tests.support.runtimes.oci import CNIHOOK, RESULTS, bridge, configure
from tests.support.runtimes.system_calls import Calls, count
from tests.support.wait import wait_for

HOOK = ("/usr/bin/python3", "-IS", CNIHOOK)
MANY = 1000  # of the 1,023 ports that a bridge can have
RATES: dict[str, Any] = dict.fromkeys(("ingressRate", "egressRate"), 10**7)
RATES |= dict.fromkeys(("ingressBurst", "egressBurst"), 10**6)
CHAIN: list[dict[str, Any]] = [
    {"type": "portmap", "capabilities": {"portMappings": True}},
    {"type": "firewall", "ingressPolicy": "same-bridge"},
    {"type": "tuning", "sysctl": {"net.core.somaxconn": "500"}},
    {"type": "bandwidth", **RATES},
]


def hook(host: Host, event: str, container: Container, port: int) -> Calls:
    """Run the hook as a runtime does.  `port`: a port of the host to publish; 0: none."""
    fields = {"ociVersion": "1.0.2", "id": container.name, "status": "creating", "pid": container.pid}
    publish = ("--publish", f"{port}:80") if port else ()
    # Without --wait, a process in the background may find that another one has done its work.
    options = publish if event == "createRuntime" else ("--wait",)
    return count(host, *HOOK, event, *options, input=json.dumps(fields | {"bundle": "/"}))


def command(host: Host, port: int) -> Calls:
    """Run a command in a network, from start to end."""
    launcher = str(CHECKOUT / "scripts" / "priv-net-run")
    options = ("-p", f"{port}:80") if port else ()
    return count(host, *HOOK[:2], launcher, *options, "true", input="")


@pytest.mark.parametrize("kind", ["plain", "chain"])
def test_number_of_system_calls_does_not_grow(host: Host, kind: str) -> None:
    host.leaves("*")
    port = 8000 if kind == "chain" else 0
    network = bridge("mynet", "10.22.0.0/16", ipMasq=True)
    network["plugins"] += CHAIN if port else []
    configure(host, network)
    stays, guest = (host.container(name, process=True) for name in ("stays", "guest"))
    hook(host, "createRuntime", stays, port)

    def attach_and_detach() -> list[Calls]:
        return [hook(host, event, guest, port and port + 1) for event in ("createRuntime", "poststop")]

    wait_for(lambda: host.link("br-mynet")["operstate"] == "UP", "the bridge")  # else an ADD looks once more
    attach_and_detach()  # what a first time does once
    few, command_with_few = attach_and_detach(), command(host, port and port + 2)
    Crowd(host, "stays", "mynet", "br-mynet").attach(MANY)
    many, command_with_many = attach_and_detach(), command(host, port and port + 2)

    # A command's namespace ends while its networks are detached, so the number of requests is not the same.
    # A list of all ports has 2 MB.
    assert abs(command_with_many.received - command_with_few.received) < 1 << 15
    listed = f"getdents64 {RESULTS}"  # by libcni's rules, a record cannot be looked up by its container
    for before, after in zip(few, many, strict=True):
        assert after.counts[listed] < 3 * before.counts[listed]
        del before.counts[listed], after.counts[listed]
        assert after.counts == before.counts
        assert abs(after.received - before.received) < 4096  # the first part of a dump, which may be filled
    hook(host, "poststop", stays, port)
