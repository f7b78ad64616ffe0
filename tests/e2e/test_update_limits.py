# SPDX-License-Identifier: Apache-2.0
"""update --bandwidth, --emulate and --quota under an echo connection, and the commands that show quotas."""

import copy
import json
from typing import Any

import pytest

from cnihook.linux import netem
from cnihook.linux.rtnl import Rtnl
from tests.support.commands.listings import shown
from tests.support.commands.repair import WEB, WebContainer, cnihook, detach, repair
from tests.support.host.echo import echo, expect_undisturbed
from tests.support.host.host import Host, Outside
from tests.support.plugins.bandwidth import limits, qdiscs
from tests.support.plugins.cni import CHECKOUT
from tests.support.runtimes.oci import RESULTS, configure
from tests.support.wait import wait_for

RECORD = f"{RESULTS}/web-c1-eth0"
PRIV_NET_RUN = str(CHECKOUT / "scripts" / "priv-net-run")
NOTES = f"""
import json, sys
sys.path.insert(0, {str(CHECKOUT)!r})
from cnihook.doctor import kernel
from cnihook.doctor.finding import Host
from cnihook.runtime.settings import Settings
findings = kernel.check(Host(Settings.from_environment({{}})), False)
print(json.dumps([finding.to_json() for finding in findings if finding.note and "netem" in finding.kind]))
"""
LIMITS = dict.fromkeys(("bandwidth", "emulate", "quota"), True)


def network() -> dict[str, Any]:
    conf = copy.deepcopy(WEB)
    conf["plugins"][2]["capabilities"] = LIMITS
    return conf


@pytest.fixture
def outside(host: Host) -> Outside:
    host.leaves("dir /run/cni", "dir /run/cni/tuning")
    return host.outside()


def change(host: Host, *argv: str, code: int = 0) -> list[str]:
    process = cnihook(host, "update", "c1", *argv)
    assert (process.returncode, process.stderr) == (code, "")
    return process.stdout.splitlines()


def output(host: Host, *argv: str) -> str:
    process = cnihook(host, *argv)
    assert (process.returncode, process.stderr) == (0, "")
    return process.stdout


def used(host: Host, key: str = "out") -> int:
    """Return the bytes of a quota that are used, by `stats`."""
    (sample,) = json.loads(output(host, "stats", "--json"))
    return int(sample["quota"][key]["used"])


def rates(host: Host) -> list[int]:
    return sorted(options["rate"] * 8 for options in limits(host).values())


def test_limits_change_under_a_connection(host: Host, outside: Outside) -> None:
    configure(host, network())
    web = WebContainer(host, outside, "c1", publish="8080:80", bandwidth="in=50M,out=50M")
    with (
        echo(outside, web.space, Outside.HOST, 8080) as connection,
        echo(outside, host, Outside.HOST, 81, port=81) as other,
    ):
        assert change(host, "--bandwidth", "in=20M,out=10M") == ["limited eth0 on web to in=20M,out=10M"]
        assert rates(host) == [10_000_000, 20_000_000]
        assert change(host, "--bandwidth", "in=20M,out=10M") == []
        change(host, "--bandwidth", "in=2M,out=30M")
        assert change(host, "--bandwidth", "in=1M,out=1M", "--for", "1s") == [
            "limited eth0 on web to in=1M,out=1M"
        ]
        assert rates(host) == [1_000_000, 1_000_000]
        wait_for(lambda: "until" not in json.loads(host.read(RECORD))["cnihook"], "the end of the limit")
        assert rates(host) == [2_000_000, 30_000_000]
    expect_undisturbed(connection, other)

    with echo(outside, web.space, Outside.HOST, 8080) as connection:
        assert change(host, "--bandwidth", "in=5M") == ["limited eth0 on web to in=5M"]
        assert rates(host) == [5_000_000]
        assert change(host, "--bandwidth", "none", "--dry-run", code=2) == [
            "would no longer limit eth0 on web"
        ]
        assert change(host, "--bandwidth", "none") == ["no longer limited: eth0 on web"]
        assert qdiscs(host) == set()
        change(host, "--bandwidth", "out=5M")
        assert cnihook(host, "check", "c1").returncode == 0
    # The first and the last limit of a link replace its queue: the kernel drops packets for milliseconds.
    assert (connection.lost, connection.error) == (0, "")
    detach(web)


def test_quota_is_shown_raised_reset_and_kept_by_repair(host: Host, outside: Outside) -> None:
    configure(host, network())
    web = WebContainer(host, outside, "c1", publish="8080:80", quota="out=100M,total=1G")
    web.space.run("ping", "-qc10", "-i0.01", "-s1372", Outside.ADDRESS)
    before = used(host)
    assert before >= 10 * 1400 and used(host, "total") >= 2 * 10 * 1400
    assert "total=" in output(host, "stats") and "bytes used" in shown(host, "inspect", "c1")
    metrics = output(host, "metrics")  # it saves the count
    assert 'cnihook_quota_bytes{container="c1",network="web",ifname="eth0",kind="out"} 100000000' in metrics

    host.run("nft", "flush", "ruleset")
    assert any("bandwidth" in line for line in repair(host, "c1"))
    assert used(host) >= before
    web.space.run("ip", "link", "delete", "eth0")
    assert repair(host, "c1")
    assert used(host) >= before
    with echo(outside, web.space, Outside.HOST, 8080) as connection:
        assert change(host, "--quota", "out=1G") == ["set the quota of eth0 on web to out=1G"]
        assert used(host) >= before
        assert change(host, "--quota", "out=1000M") == []
        assert change(host, "--quota", "reset") == ["reset the quota of eth0 on web"]
        assert used(host) < before
    assert (connection.lost, connection.error) == (0, "")

    assert change(host, "--quota", "in=1") == ["set the quota of eth0 on web to in=1"]
    assert not web.reaches_outside(expected=False)
    doctor = cnihook(host, "doctor").stdout
    assert "quota-used-up: container c1, web eth0: the 1 bytes that it may receive are used up" in doctor
    assert change(host, "--quota", "none") == ["removed the quota of eth0 on web"]
    assert web.reaches_outside()
    detach(web)


def test_burst_below_a_full_packet_is_reported(host: Host, outside: Outside) -> None:
    configure(host, network())
    web = WebContainer(host, outside, "c1")
    process = cnihook(host, "update", "c1", "--bandwidth", "in=1M,in-burst=8k,out=1M")
    assert (process.returncode, process.stderr.count("\n")) == (0, 1)
    assert "can pass: it has 1514 bytes, and the burst is 1000 bytes" in process.stderr
    detach(web)


def test_failed_reset_of_a_quota_keeps_the_count(host: Host, outside: Outside) -> None:
    host.leaves("file /run/cnihook/log/c1")  # a failure is kept
    configure(host, network())
    web = WebContainer(host, outside, "c1", quota="out=100M")
    web.space.run("ping", "-qc10", "-i0.01", "-s1372", Outside.ADDRESS)
    before = used(host)
    (outer,) = [link["ifname"] for link in host.ip("link") if link.get("ifalias") == "web c1 eth0"]
    host.run(*f"tc qdisc add dev {outer} root handle 7: pfifo".split())
    process = cnihook(host, "update", "c1", "--quota", "reset", "--bandwidth", "in=5M")
    assert process.returncode == 1 and "which has a qdisc of another program" in process.stderr
    assert used(host) >= before >= 10 * 1400
    change(host, "--quota", "none")
    process = cnihook(host, "update", "c1", "--quota", "out=1G", "--bandwidth", "in=5M")
    assert process.returncode == 1 and not host.exists("/run/cnihook/quota")
    host.run(*f"tc qdisc delete dev {outer} root".split())
    detach(web)


def test_request_that_the_network_cannot_serve_changes_nothing(host: Host, outside: Outside) -> None:
    host.leaves("file /run/cnihook/log/c1")  # a failure is kept
    configure(host, WEB)
    web = WebContainer(host, outside, "c1")
    record = json.loads(host.read(RECORD))
    process = cnihook(host, "update", "c1", "--emulate", "delay=80ms")
    assert process.returncode == 1 and process.stderr.count("\n") == 1
    assert "none of its plugins takes a network to emulate" in process.stderr
    assert 'add "capabilities": {"emulate": true} to its plugin bandwidth' in process.stderr
    assert json.loads(host.read(RECORD)) == record
    detach(web)


def test_kernel_without_netem_is_refused(host: Host, outside: Outside) -> None:
    if not host.inside(lambda: netem.is_missing(Rtnl())):
        pytest.skip("this kernel has netem: tests/vm/guest/test_emulation.py emulates networks")
    host.leaves("file /run/cnihook/log/c1")
    configure(host, network())
    web = WebContainer(host, outside, "c1", bandwidth="in=10M")
    process = cnihook(host, "update", "c1", "--emulate", "delay=80ms", "--bandwidth", "none")
    assert process.returncode == 1 and process.stderr.count("\n") == 1
    assert "this kernel has no netem" in process.stderr and "modprobe sch_netem" in process.stderr
    assert rates(host) == [10_000_000]
    assert "pending" not in json.loads(host.read(RECORD))["cnihook"]
    for options in (["--emulate", "delay=80ms"], ["--emulate", "delay=80"], ["--quota", "out=1G"]):
        command = host.run(PRIV_NET_RUN, "--network", "web", *options, "true", check=False)
        if options[0] == "--quota":
            assert (command.returncode, command.stderr) == (0, "")
        else:
            assert command.returncode and command.stderr.count("\n") == 1
            assert "this kernel has no netem" in command.stderr or "'80' is not a time" in command.stderr
    (note,) = json.loads(host.run("/usr/bin/python3", "-c", NOTES).stdout)
    assert note["remedy"] == "modprobe -a sch_netem"
    assert note["why"] == "network web (bandwidth) offers it; a container that requests it cannot start"
    detach(web)
