# SPDX-License-Identifier: Apache-2.0
"""Plugins that print or run without end: memory and time stay bounded."""

import json
from typing import Any

import pytest

from tests.support.host.host import Host
from tests.support.runtimes.oci import call_hook, configure

PLUGINS = "/run/plugins"
MEMORY = 256 << 20  # bytes of address space; a hook has 60 MB
ENDLESS = {
    "stdout": "exec yes",
    "stderr": "exec yes >&2",
    "one line": "exec tr '\\0' x < /dev/zero",
}
# Each leaves a background process that keeps the output open.
TIRELESS = {
    "runs": "echo $$ > /run/pid; sleep 300 & wait",
    "ignores SIGTERM": "trap '' TERM; echo $$ > /run/pid; sleep 300 & while :; do wait; done",
}


@pytest.fixture(autouse=True)
def implementation() -> None:
    """Run each test once, without the reference plugins: only cnihook's runtime is tested."""


def install(host: Host, script: str) -> dict[str, Any]:
    """Write the plugin `bad`, which runs `script` on ADD; return the state of a container on its network."""
    host.write(f"{PLUGINS}/bad", f"#!/bin/sh\ncat > /dev/null\n[ $CNI_COMMAND = DEL ] && exit\n{script}\n")
    host.run("chmod", "755", f"{PLUGINS}/bad")
    configure(host, {"cniVersion": "1.0.0", "name": "mynet", "plugins": [{"type": "bad"}]})
    host.leaves("file /run/cnihook/log/*", "* /run/plugins*", "file /run/pid", "* /run/bundle*")
    process = host.container("c1", process=True)
    arguments = ["python3", "cnihook", "createRuntime"]
    hooks = {"createRuntime": [{"path": "/usr/bin/python3", "args": arguments, "timeout": 2}]}
    namespaces = {"linux": {"namespaces": [{"type": "network"}]}}
    host.write("/run/bundle/config.json", json.dumps({"hooks": hooks, **namespaces}))
    return {"id": "c1", "pid": process.pid, "bundle": "/run/bundle"}


@pytest.mark.parametrize("script", ENDLESS)
def test_plugin_that_prints_without_end_is_killed(host: Host, script: str) -> None:
    state = install(host, ENDLESS[script])

    launcher = ("env", f"CNI_PATH={PLUGINS}", "prlimit", f"--as={MEMORY}")
    outcome = call_hook(host, "createRuntime", state, launcher=launcher)

    lines = [line for line in outcome.stderr.splitlines() if line.startswith("cnihook: ")]
    assert outcome.returncode == 1
    assert f"{PLUGINS}/bad: ADD printed more than 16 MiB and was killed" in lines[-1], outcome.stderr[-500:]
    assert len(outcome.stderr) < 1 << 20


@pytest.mark.parametrize("script", TIRELESS)
def test_plugin_that_never_ends_is_killed(host: Host, script: str) -> None:
    """The hook kills the plugin's processes and ends before the runtime would kill the hook."""
    state = install(host, TIRELESS[script])

    outcome = call_hook(host, "createRuntime", state, launcher=("env", f"CNI_PATH={PLUGINS}"))

    assert outcome.returncode == 1
    assert outcome.stderr.count("\n") == 1 and "container c1" in outcome.stderr, outcome.stderr
    group = host.read("/run/pid").strip()
    assert host.run("pgrep", "-g", group, check=False).stdout == ""
