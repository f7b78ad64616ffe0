# SPDX-License-Identifier: Apache-2.0
"""Ports that cnihook chooses: no container waits for another's plugins, and each gets a port of its own."""

import json
import subprocess
from typing import Any

from tests.support.facts import compare
from tests.support.host import Container, Host
from tests.support.oci import (
    CNIHOOK,
    PASS_ON,
    RESULTS,
    bridge,
    call_hook,
    calls,
    configure,
    external,
    wait_for,
)

# A plugin that waits until the test lets it go on.
WAIT = f"while [ $CNI_COMMAND = ADD ] && [ ! -e /run/.host/go ]; do sleep 0.02; done\n{PASS_ON}"
PORTMAP = {"type": "portmap", "capabilities": {"portMappings": True}}


def state_of(container: Container, network: str, pid: int | None) -> dict[str, Any]:
    annotations = {"cnihook.networks": network, "cnihook.publish": "8000-8001:80"}
    return {"ociVersion": "1.0", "id": container.name, "pid": pid, "bundle": "/", "annotations": annotations}


def published(host: Host, network: str, container: Container) -> int:
    record = json.loads(host.read(f"{RESULTS}/{network}-{container.name}-eth0"))
    port: int = record["capabilityArgs"]["portMappings"][0]["hostPort"]
    return port


def test_slow_plugin_of_another_container_is_not_waited_for(host: Host) -> None:
    """The first has chosen 8000, and is not as far as to publish it; the second chooses the same."""
    slow, quick = bridge("slow", "10.6.0.0/24"), bridge("quick", "10.7.0.0/24")
    slow["plugins"] += [{"type": "slow"}, PORTMAP]
    quick["plugins"].append(PORTMAP)
    configure(host, slow, quick)
    path = external(host, "slow", WAIT)
    first, second = host.container("c1", process=True), host.container("c2", process=True)

    hook = ("/usr/bin/python3", "-IS", CNIHOOK, "createRuntime", "--cni-path", path)
    with host.popen(*hook, stdin=subprocess.PIPE) as begun:
        assert begun.stdin
        begun.stdin.write(json.dumps(state_of(first, "slow", first.pid)))
        begun.stdin.close()
        begun.stdin = None
        wait_for(lambda: calls(host) == ["slow ADD"], "the slow plugin")
        assert published(host, "slow", first) == 8000
        assert call_hook(host, "createRuntime", state_of(second, "quick", second.pid)).returncode == 0
        host.write("/run/.host/go", "")
        _, said = begun.communicate(timeout=30)

    assert (begun.returncode, said) == (0, "")
    assert (published(host, "slow", first), published(host, "quick", second)) == (8001, 8000)
    for container in (first, second):
        container.destroy()
        wait_for(lambda: not host.exists(f"/proc/{container.pid}"), "its end")  # noqa: B023
    assert host.run(CNIHOOK, "gc", "--cni-path", path).returncode == 0
    host.leaves("sysctl *", "file /run/cnihook/log/*", "dir /run/cnihook*")
    compare(host.before, host.facts, host.stay)


def test_no_free_port_is_an_error_that_leaves_nothing(host: Host) -> None:
    network = bridge("quick", "10.7.0.0/24")
    network["plugins"].append(PORTMAP)
    configure(host, network)
    containers = [host.container(f"c{number}", process=True) for number in range(3)]

    done = [call_hook(host, "createRuntime", state_of(one, "quick", one.pid)) for one in containers]
    assert [one.returncode for one in done] == [0, 0, 1]
    assert "no free port from 8000 to 8001" in done[2].stderr
    assert host.listdir(RESULTS) == ["quick-c0-eth0", "quick-c1-eth0"]
    for one in containers:
        host.run(CNIHOOK, "detach", one.name, check=False)
    host.leaves("sysctl *", "file /run/cnihook/log/*", "dir /run/cnihook*")
