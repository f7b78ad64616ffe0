# SPDX-License-Identifier: Apache-2.0
"""scripts/bench: a short run, and the end of one that is interrupted.  No test asserts a duration."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from glob import glob
from pathlib import Path

import pytest

from tests.support.plugins.cni import CHECKOUT
from tests.support.skip import need, need_root, skip_or_fail
from tests.support.wait import wait_for

BENCH = str(CHECKOUT / "scripts" / "bench")


@pytest.fixture(autouse=True)
def programs() -> None:
    need_root()
    need("busybox", "ip", "nft", "runc", "setpriv", "strace", "unshare")
    if not os.path.exists("/usr/lib/cni/bridge"):
        skip_or_fail("not installed: containernetworking-plugins")


def left_behind(pid: int) -> "list[str]":
    """Return what a run with this PID has left: links, names of namespaces, cgroups.

    Other tests may run at the same time, so only names of the benchmark count.
    """
    places = ["/sys/class/net/bench*", "/sys/class/net/hand*"]
    places += [f"/run/netns/{name}" for name in ("guest", "stays", "hand", "other*")]
    places += [f"/sys/fs/cgroup/cnihook-bench-{pid}", f"/sys/fs/cgroup/*/cnihook-bench-{pid}"]
    return [path for place in places for path in glob(place)]


def descendants(pid: int) -> Iterator[int]:
    """Yield the processes of a run: they have its PID in their environment."""
    mark = f"CNIHOOK_BENCH=cnihook-bench-{pid}\0".encode()
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if mark in path.read_bytes():
                yield int(path.parent.name)
        except OSError:
            pass  # it has ended


def test_short_run_prints_each_program_and_leaves_nothing() -> None:
    argv = [BENCH, "--only", "plain,runtimes,steps", "--rounds", "1", "--json"]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    output, errors = process.communicate(timeout=200)
    assert process.returncode == 0, errors
    rows = {(row["group"], row["row"]): row["programs"] for row in json.loads(output)["rows"]}

    assert set(rows["plain", "ADD"]) == set(rows["plain", "DEL"]) == {"cnihook", "reference"}
    assert {"cnihook", "no hook"} <= set(rows["runtimes", "runc run true, only container"])
    assert all(program["median"] > 0 for program in rows["plain", "ADD"].values())
    assert set(rows["steps", "ADD bridge"]) == {"took", "imports", "kernel", "system calls"}
    assert left_behind(process.pid) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_interrupted_run_leaves_nothing(number: signal.Signals) -> None:
    argv = [BENCH, "--only", "growth", "--attached", "5,500", "--rounds", "1"]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr
    while "5 attached" not in process.stderr.readline():
        assert process.poll() is None
    assert len(list(descendants(process.pid))) > 5, "its containers"

    process.send_signal(number)
    output, errors = process.communicate(timeout=60)
    assert process.returncode in (130, 143, -signal.SIGKILL) and output == "" and "Traceback" not in errors
    wait_for(lambda: not list(descendants(process.pid)), "the end of all processes")
    assert left_behind(process.pid) == []
