# SPDX-License-Identifier: Apache-2.0
"""CNIHOOK_TIMING: the hook logs the time of each step.  No test asserts a duration."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.support.host.host import Container, Host
from tests.support.host.namespace import base_environment
from tests.support.runtimes.oci import CNIHOOK, bridge, call_hook, configure

TIMING = {"CNIHOOK_TIMING": "1"}
START = ["Python", "modules", "state"]
CHAIN = bridge("chain", "10.23.0.0/24", ipMasq=True)
CHAIN["plugins"] += [{"type": "firewall"}, {"type": "tuning", "sysctl": {"net.core.somaxconn": "500"}}]
UP = [
    *("request", "networks", "earlier records", "loopback", "record", "name of the namespace"),
    *("ADD bridge", "ADD host-local", "ADD firewall", "ADD tuning", "names", "the rest"),
]
DOWN = [
    *("record", "DEL tuning", "DEL firewall", "DEL bridge", "DEL host-local"),
    "the rest",
]


@pytest.fixture
def container(host: Host) -> Container:
    configure(host, CHAIN)
    host.leaves("dir /run/cni", "dir /run/cni/tuning")
    return host.container("c1", process=True)


def call(host: Host, event: str, container: Container, **variables: str) -> int:
    state = {"ociVersion": "1.0.2", "id": "c1", "pid": container.pid, "bundle": "/nowhere"}
    return call_hook(host, event, state, env=base_environment() | variables).returncode


def steps(host: Host, operation: str) -> "dict[str, float]":
    """Return the steps that `cnihook logs` shows, in ms, and under "took" the whole time."""
    text = host.run(CNIHOOK, "logs", "c1").stdout
    times = {name: float(ms) for name, ms in re.findall(r" step (.*): ([0-9.]+) ms\n", text)}
    (whole,) = re.findall(rf" {operation} took ([0-9.]+) ms since its process was started\n", text)
    return times | {"took": float(whole)}


def test_log_has_the_time_of_each_step(host: Host, container: Container) -> None:
    assert call(host, "createRuntime", container, **TIMING) == 0
    times = steps(host, "createRuntime")

    assert list(times) == [*START, *UP, "took"]
    took = times.pop("took")
    assert min(times.values()) >= 0 and sum(times.values()) == pytest.approx(took, abs=0.2), "rounded"
    assert call(host, "poststop", container) == 0


def test_log_of_an_ended_container_has_its_steps(host: Host, container: Container) -> None:
    assert call(host, "createRuntime", container) == 0
    container.destroy()
    assert call(host, "poststop", container, **TIMING) == 0

    assert list(steps(host, "poststop")) == [*START, *DOWN, "took"]


def test_failed_start_has_its_steps(host: Host, container: Container) -> None:
    configure(host, {**CHAIN, "plugins": [*CHAIN["plugins"][:1], {"type": "vrf", "vrfname": 7}]})
    host.leaves("file /run/cnihook/log/c1")
    assert call(host, "createRuntime", container, **TIMING) == 1

    assert {"ADD bridge", "ADD vrf", "DEL vrf", "DEL bridge"} <= steps(host, "createRuntime").keys()


def test_log_has_no_steps_without_the_variable(host: Host, container: Container) -> None:
    assert call(host, "createRuntime", container, CNIHOOK_TIMING="") == 0

    assert " step " not in host.run(CNIHOOK, "logs", "c1").stdout
    assert call(host, "poststop", container) == 0


def test_programs_read_steps_as_fields(host: Host, container: Container) -> None:
    assert call(host, "createRuntime", container, **TIMING) == 0
    log = host.read("/run/cnihook/log/c1")
    events: list[dict[str, Any]] = [json.loads(line) for line in re.findall(r"\t(\{.*)", log)]

    assert [event["step"] for event in events if event["event"] == "step"] == START + UP
    (whole,) = [event for event in events if event["event"] == "took"]
    assert whole["operation"] == "createRuntime" and float(whole["milliseconds"]) > 0
    assert call(host, "poststop", container) == 0


def test_inject_passes_the_variable_to_the_hook(host: Host, tmp_path: Path) -> None:
    """The hook has an environment of its own, so the variable of the runtime would not reach it."""
    (tmp_path / "config.json").write_text('{"ociVersion": "1.0.2", "process": {}, "root": {"path": "x"}}')

    def environment() -> "list[str]":
        config = json.loads((tmp_path / "config.json").read_text())
        variables: list[str] = config["hooks"]["poststop"][0]["env"]
        return variables

    host.run(CNIHOOK, "inject", str(tmp_path), env=base_environment() | TIMING)
    assert "CNIHOOK_TIMING=1" in environment()
    host.run(CNIHOOK, "inject", str(tmp_path))
    assert "CNIHOOK_TIMING=1" not in environment()
