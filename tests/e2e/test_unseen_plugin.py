# SPDX-License-Identifier: Apache-2.0
"""A plugin's file that cannot be read for a moment: nothing is lost, at any time."""

import pytest

from tests.support.host.faults import fault
from tests.support.host.host import Host
from tests.support.plugins.cni import CHECKOUT
from tests.support.runtimes.oci import RESULTS, bridge, call_hook, configure, leases

FIREWALL = f"{CHECKOUT}/cnihook/plugins/firewall.py"
STRACE = "/run/strace"


@pytest.mark.needs("strace")
@pytest.mark.parametrize("sysctl", ["net.core.somaxconn", "net.core.nonsense"], ids=["good", "failing"])
def test_plugin_that_cannot_be_read_leaves_nothing_behind(host: Host, sysctl: str) -> None:
    """This includes a rollback: an ADD that is not undone stays on record."""
    network = bridge("mynet", "10.22.0.0/24", ipMasq=True)
    network["plugins"] += [
        {"type": "firewall", "ingressPolicy": "isolated"},
        {"type": "tuning", "sysctl": {sysctl: "500"}},
    ]
    configure(host, network)
    container = host.container("c1", process=True)
    state = {"id": "c1", "pid": container.pid, "bundle": "/nowhere"}
    host.leaves("file /run/cnihook/log/*", "file /var/log/cnihook/*", "dir /run/cni", "dir /run/cni/tuning")
    host.leaves(f"file {STRACE}")

    failures = 0
    for number in range(1, 15):
        launcher = fault("newfstatat", f"error=EIO:when={number}", FIREWALL, STRACE)
        outcome = call_hook(host, "createRuntime", state, launcher=launcher)
        failures += f"{FIREWALL}: Input/output error" in outcome.stderr
        assert outcome.stderr.count("\n") == (outcome.returncode != 0), outcome.stderr

        assert call_hook(host, "poststop", state).returncode == 0
        assert leases(host) == []
        assert host.run("sh", "-c", f"ls {RESULTS} || true").stdout == ""
        assert "cni0" not in host.links()
        if "(INJECTED)" not in host.read(STRACE):  # there are fewer such calls
            break
    assert failures > 2


@pytest.mark.needs("strace")
def test_result_that_cannot_be_stored_is_rolled_back(host: Host) -> None:
    """The disk is full after all is attached, and then a plugin cannot be read."""
    network = bridge("mynet", "10.22.0.0/24")
    network["plugins"] += [{"type": "firewall", "ingressPolicy": "isolated"}]
    configure(host, network)
    container = host.container("c1", process=True)
    state = {"id": "c1", "pid": container.pid, "bundle": "/nowhere"}
    host.leaves("file /run/cnihook/log/*", "file /var/log/cnihook/*", f"file {STRACE}")
    paths = ("-P", f"{RESULTS}/.c1.new", "-P", FIREWALL)
    full = ("-e", "trace=write,newfstatat", "-e", "inject=write:error=ENOSPC:when=2")

    for number in range(1, 13):
        unseen = ("-e", f"inject=newfstatat:error=EIO:when={number}")
        launcher = ("strace", "-qq", "-o", STRACE, *paths, *full, *unseen)
        outcome = call_hook(host, "createRuntime", state, launcher=launcher)
        assert (outcome.returncode, outcome.stderr.count("\n")) == (1, 1), outcome

        assert call_hook(host, "poststop", state).returncode == 0
        assert leases(host) == []
        assert host.run("sh", "-c", f"ls {RESULTS} || true").stdout == ""
        assert "cni0" not in host.links()
        if not any("newfstatat" in line and "(INJECTED)" in line for line in host.read(STRACE).splitlines()):
            break
    assert number > 2, "no plugin was unseen"
