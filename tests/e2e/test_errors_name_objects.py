# SPDX-License-Identifier: Apache-2.0
"""Failing system calls: the hook's error is one line that names the step and the object."""

import re

import pytest

from tests.support.host.host import Host
from tests.support.runtimes.oci import CNIHOOK, bridge, call_hook, configure, leases

# How the line continues after the name of the plugin or the container.
OBJECTS = {
    "flock": r"lock /\S+: ",
    "socket": r"open a (netlink )?socket( for D-Bus)?: ",
    "sendto": r"[a-z][^:]+: ",
}


@pytest.mark.needs("strace")
@pytest.mark.parametrize("error", ["ENOLCK", "ENOBUFS"])
@pytest.mark.parametrize("call", OBJECTS)
def test_error_of_failing_call_names_step_and_object(host: Host, call: str, error: str) -> None:
    network = bridge("mynet", "10.22.0.0/24", ipMasq=True)
    network["plugins"] += [{"type": "firewall", "ingressPolicy": "same-bridge"}]
    configure(host, network)
    container = host.container(process=True)
    host.leaves("file /run/cnihook/log/*", "file /var/log/cnihook/*", "file /run/strace")

    for number in range(2, 40, 9 if call == "sendto" else 2):
        state = {"id": f"c{number}", "pid": container.pid, "bundle": "/nowhere"}
        fault = ("-e", f"trace={call}", "-e", f"inject={call}:error={error}:when={number}")
        outcome = call_hook(
            host, "createRuntime", state, launcher=("strace", "-qq", "-o", "/run/strace", *fault)
        )

        if outcome.returncode == 0:  # the call was optional, or there were fewer of them
            host.run(CNIHOOK, "detach", f"c{number}")
            if "(INJECTED)" not in host.read("/run/strace"):
                assert number > 2, f"no call of {call} has failed"
                break
            continue
        (line,) = outcome.stderr.splitlines()
        assert re.search(rf"(container c{number}|failed \(add\)): {OBJECTS[call]}", line), line
        assert not re.search(r"Errno|Traceback|object at 0x", line), line
        assert leases(host) == []
        assert "eth0" not in container.run("ip", "link").stdout
