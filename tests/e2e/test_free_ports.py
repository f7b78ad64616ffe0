# SPDX-License-Identifier: Apache-2.0
"""Host ports that cnihook chooses: each container gets one, and none waits for another's plugins."""

import json
import subprocess
from typing import Any

from tests.support.host.host import Container, Host
from tests.support.host.leaks import compare
from tests.support.runtimes.oci import (
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

# A plugin that waits until the test creates the file.
WAIT = f"while [ $CNI_COMMAND = ADD ] && [ ! -e /run/.host/go ]; do sleep 0.02; done\n{PASS_ON}"
PORTMAP = {"type": "portmap", "capabilities": {"portMappings": True}}


def state_of(container: Container, network: str, pid: int | None) -> dict[str, Any]:
    annotations = {"cnihook.networks": network, "cnihook.publish": "8000-8001:80"}
    return {"ociVersion": "1.0", "id": container.name, "pid": pid, "bundle": "/", "annotations": annotations}


def published(host: Host, network: str, container: Container) -> int:
    record = json.loads(host.read(f"{RESULTS}/{network}-{container.name}-eth0"))
    port: int = record["capabilityArgs"]["portMappings"][0]["hostPort"]
    return port


def test_slow_plugin_does_not_delay_another_container(host: Host) -> None:
    """The first container has chosen 8000 but not published it yet.  The second one chooses 8000 too."""
    slow, quick = bridge("slow", "10.6.0.0/24"), bridge("quick", "10.7.0.0/24")
    slow["plugins"] += [{"type": "slow"}, PORTMAP]
    quick["plugins"].append(PORTMAP)
    configure(host, slow, quick)
    path = external(host, "slow", WAIT)
    first, second = host.container("c1", process=True), host.container("c2", process=True)

    hook = ("/usr/bin/python3", "-IS", CNIHOOK, "createRuntime", "--cni-path", path)
    with host.popen(*hook, stdin=subprocess.PIPE) as process:
        assert process.stdin
        process.stdin.write(json.dumps(state_of(first, "slow", first.pid)))
        process.stdin.close()
        process.stdin = None
        wait_for(lambda: calls(host) == ["slow ADD"], "the slow plugin")
        assert published(host, "slow", first) == 8000
        assert call_hook(host, "createRuntime", state_of(second, "quick", second.pid)).returncode == 0
        host.write("/run/.host/go", "")
        _, stderr = process.communicate(timeout=30)

    assert (process.returncode, stderr) == (0, "")
    assert (published(host, "slow", first), published(host, "quick", second)) == (8001, 8000)
    for container in (first, second):
        container.destroy()
        wait_for(lambda: not host.exists(f"/proc/{container.pid}"), "the end of the container")  # noqa: B023
    assert host.run(CNIHOOK, "gc", "--cni-path", path).returncode == 0
    host.leaves("sysctl *", "file /run/cnihook/log/*", "dir /run/cnihook*")
    compare(host.before, host.state, host.stay)


def test_no_free_port_is_an_error_that_leaves_nothing(host: Host) -> None:
    network = bridge("quick", "10.7.0.0/24")
    network["plugins"].append(PORTMAP)
    configure(host, network)
    containers = [host.container(f"c{number}", process=True) for number in range(3)]

    results = [call_hook(host, "createRuntime", state_of(one, "quick", one.pid)) for one in containers]
    assert [one.returncode for one in results] == [0, 0, 1]
    assert "no free port from 8000 to 8001" in results[2].stderr
    assert host.listdir(RESULTS) == ["quick-c0-eth0", "quick-c1-eth0"]
    for one in containers:
        host.run(CNIHOOK, "detach", one.name, check=False)
    host.leaves("sysctl *", "file /run/cnihook/log/*", "dir /run/cnihook*")
