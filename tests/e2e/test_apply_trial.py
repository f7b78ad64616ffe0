# SPDX-License-Identifier: Apache-2.0
"""apply --try: confirmed, not confirmed, and with each process killed that could undo it."""

import json
import re
import signal
import time

import pytest

from tests.support.commands.apply import ARP, edited, record, run, sysctl
from tests.support.commands.repair import WEB, WebContainer, cnihook, detach
from tests.support.host.host import Host
from tests.support.host.namespace import Process
from tests.support.runtimes.oci import CNIHOOK, RESULTS, configure, kill
from tests.support.wait import wait_for

RECORD = f"{RESULTS}/web-c1-eth0"
NEW = edited(tuning={"sysctl": {ARP: "0"}})


@pytest.fixture
def web(host: Host) -> WebContainer:
    host.leaves(
        *("dir /run/cni", "dir /run/cni/tuning", "file /run/cnihook/temporary-*"),
        *("file /run/cnihook/log/*", "file /run/cnihook/lock/temporary-*", "dir /run/cnihook*"),
    )
    configure(host, WEB)
    web = WebContainer(host, host.outside(), "c1", publish="8080:80")
    configure(host, NEW)
    return web


def begin(host: Host, seconds: int) -> Process:
    """Start a trial, and return the process that waits for a confirmation."""
    waiting = host.popen(CNIHOOK, "apply", "--try", str(seconds))
    wait_for(lambda: "trial" in record(host)["cnihook"], "the change")
    wait_for(lambda: background(host), "the background")
    return waiting


def background(host: Host) -> int | None:
    """Return the process that undoes the change.  The files of one that was killed stay."""
    lock = host.run("sh", "-c", "cat /run/cnihook/lock/temporary-*", check=False).stdout.split()
    if len(lock) < 2 or host.run("kill", "-0", lock[1], check=False).returncode:
        return None
    return int(lock[1])


def is_as_before(host: Host, web: WebContainer) -> bool:
    own = record(host)["cnihook"]
    return sysctl(web, ARP) == "1" and not own.keys() & {"trial", "until", "previous", "pending"}


def kill_background(host: Host) -> None:
    pid = background(host)
    assert pid is not None
    kill(host, pid)


def make_overdue(host: Host) -> None:
    now = record(host)
    now["cnihook"]["until"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - 60))
    host.write(RECORD, json.dumps(now), 0o600)


def test_confirmed_change_stays(host: Host, web: WebContainer) -> None:
    waiting = begin(host, 60)
    assert sysctl(web, ARP) == "0"
    # Nothing else is applied before the answer, and no other temporary change is made.
    for argv in (["apply"], ["publish", "c1", "9090:80", "--for", "1h"]):
        process = cnihook(host, *argv)
        assert process.returncode == 1 and re.search("trial|temporary change", process.stderr)
    assert run(host, "apply", "--confirm") == ["kept c1 web eth0, revision 1"]
    stdout, stderr = waiting.communicate(timeout=20)
    assert waiting.returncode == 0
    assert stdout.splitlines() == [
        f"{outcome} c1 web eth0, revision 1: tuning.sysctl.{ARP}" for outcome in ("changed", "kept")
    ]
    assert "`cnihook apply --confirm` keeps the change" in stderr
    assert sysctl(web, ARP) == "0" and "until" not in record(host)["cnihook"]
    assert run(host, "diff") == []
    assert cnihook(host, "apply", "--confirm").returncode == 1
    detach(web)


def test_change_without_an_answer_is_undone(host: Host, web: WebContainer) -> None:
    """The end of its input, such as that of a service, is not an answer; Ctrl-C is: no."""
    process = cnihook(host, "apply", "--try", "2")
    assert process.returncode == 1
    assert process.stdout.splitlines()[-1].startswith("undone c1 web eth0, revision 2")
    assert "not confirmed in time" in process.stderr
    assert is_as_before(host, web)

    waiting = begin(host, 60)
    waiting.send_signal(signal.SIGINT)
    stdout, _stderr = waiting.communicate(timeout=20)
    assert waiting.returncode == 1 and "undone c1" in stdout
    assert is_as_before(host, web)
    detach(web)


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGKILL])
def test_change_is_undone_after_the_end_of_the_session(
    host: Host, web: WebContainer, number: signal.Signals
) -> None:
    waiting = begin(host, 3)
    waiting.send_signal(number)
    waiting.communicate(timeout=20)
    assert sysctl(web, ARP) == "0"
    wait_for(lambda: is_as_before(host, web), "the change is undone")
    assert run(host, "diff", code=2)
    detach(web)


def test_next_operation_undoes_the_change_if_everything_was_killed(host: Host, web: WebContainer) -> None:
    for argv in (["repair", "c1"], ["gc"], ["apply", "--confirm"], ["publish", "c1", "8080:80"]):
        waiting = begin(host, 600)
        waiting.kill()
        waiting.communicate(timeout=20)
        kill_background(host)
        make_overdue(host)
        assert sysctl(web, ARP) == "0"
        process = cnihook(host, *argv)
        assert process.returncode == (1 if argv[0] == "apply" else 0), process
        assert is_as_before(host, web)
    detach(web)


@pytest.mark.needs("strace")
def test_killed_apply_is_undone_and_can_be_repeated(host: Host, web: WebContainer) -> None:
    """The signal comes between the change of the container and that of its record."""
    fault = ("strace", "-qq", "-o", "/dev/null", "-e", "trace=rename", "-e")
    for trial in ((), ("--try", "60")):
        process = host.run(
            *(*fault, "inject=rename:signal=KILL:when=4"),
            *("/usr/bin/python3", "-IS", CNIHOOK, "apply", *trial),
            check=False,
        )
        assert process.returncode in (-9, 137), process
        assert "pending" in record(host)["cnihook"]
        run(host, "repair", "c1")
        assert is_as_before(host, web)
    run(host, "apply")
    assert sysctl(web, ARP) == "0"
    assert run(host, "check", "c1") == ["well c1 web eth0"]
    detach(web)
