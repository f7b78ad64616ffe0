# SPDX-License-Identifier: Apache-2.0
"""Starts that do not complete: a slow or failing network, a killed hook."""

import pytest

from tests.support.host.host import Host
from tests.support.host.namespace import Failed
from tests.support.runtimes.oci import (
    CNIHOOK,
    MYNET,
    PASS_ON,
    RESULTS,
    Runtime,
    bridge,
    calls,
    configure,
    external,
    last_pid,
    leases,
    wait_for,
)

REFUSE = """if [ $CNI_COMMAND = ADD ]; then echo '{"code": 100, "msg": "the moon is full"}'; exit 1; fi"""


def test_failing_second_network_rolls_back_the_first(host: Host, runtime: Runtime) -> None:
    """The hook itself must roll back, because crun runs no poststop after a failed createRuntime hook."""
    path = external(host, "refuses", REFUSE)
    second = bridge("second", "10.23.0.0/24")
    second["plugins"].append({"type": "refuses"})
    configure(host, MYNET, second)

    with pytest.raises(Failed) as refusal:
        runtime.run("c1", "--cni-path", path)

    assert not runtime.knows("c1")
    assert calls(host) == ["refuses ADD", "refuses DEL"]
    assert leases(host) == leases(host, "second") == host.listdir(RESULTS) == []
    assert "the moon is full" in host.run(CNIHOOK, "logs", "c1").stdout
    if runtime.name == "runc":  # crun discards what its hooks print
        assert "failed (add): the moon is full" in refusal.value.stderr
    host.leaves("file /run/cnihook/log/c1")


SLOW = "if [ $CNI_COMMAND = ADD ]; then sleep 60; fi"


def with_slow_network(host: Host) -> str:
    second = bridge("second", "10.23.0.0/24")
    second["plugins"].append({"type": "slow"})
    configure(host, MYNET, second)
    return external(host, "slow", SLOW)


def test_killed_createruntime_leaves_nothing_after_poststop_or_gc(host: Host, runtime: Runtime) -> None:
    """runc runs poststop afterwards; crun does not, so gc has to find what is left."""
    path = with_slow_network(host)
    runtime.bundle("c1", "--cni-path", path)
    starting = runtime.start("c1")
    wait_for(lambda: calls(host) == ["slow ADD"], "the slow plugin")
    plugin = last_pid(host)
    hook_process = host.read(f"/proc/{plugin}/status").partition("PPid:")[2].split()[0]

    host.run("kill", "-9", hook_process)
    with pytest.raises(Failed):
        runtime.started("c1", starting)
    # The whole group of the plugin, because the hook is no longer there to end it.
    host.run("kill", "-9", "--", f"-{plugin}")

    if runtime.name == "crun":
        assert host.listdir(RESULTS) == ["mynet-c1-eth0", "second-c1-eth1"]
        assert "released c1: mynet eth0 10.22.0.2/16\n" in host.run(CNIHOOK, "gc").stdout
    assert leases(host) == leases(host, "second") == host.listdir(RESULTS) == []


def test_hook_gives_up_before_the_runtime_kills_it(host: Host, runtime: Runtime) -> None:
    """The runtime would kill the hook half-way, without a message.  crun would not call poststop either."""
    path = with_slow_network(host)

    with pytest.raises(Failed) as refusal:
        runtime.run("c1", "--cni-path", path, timeout=2)

    log = host.run(CNIHOOK, "logs", "c1").stdout
    assert "the time allowed for it is over" in log
    if runtime.name == "runc":
        assert "the time allowed for it is over" in refusal.value.stderr
    assert leases(host) == leases(host, "second") == host.listdir(RESULTS) == []
    host.leaves("file /run/cnihook/log/c1")


def test_background_child_of_a_plugin_blocks_no_start(host: Host, runtime: Runtime) -> None:
    """A helper that a plugin leaves running keeps stdout and stderr open; runc waits until both close."""
    path = external(host, "helper", f"sleep 60 &\necho $! > /run/.host/helper\n{PASS_ON}")
    second = bridge("second", "10.23.0.0/24")
    second["plugins"].append({"type": "helper"})
    configure(host, second)

    runtime.run("c1", "--cni-path", path)
    host.run("kill", "-9", host.read("/run/.host/helper").strip())
    runtime.delete("c1")
    host.run("kill", "-9", host.read("/run/.host/helper").strip())
