# SPDX-License-Identifier: Apache-2.0
"""`policy apply` and starts that are killed or fail half-way: never open, and the next one completes it."""

import json
from typing import Any

import pytest

from tests.support.commands.repair import cnihook
from tests.support.host.faults import fault
from tests.support.host.host import Host, Outside
from tests.support.policies import (
    FOLDER,
    LEAVES,
    NO_BR_NETFILTER,
    Sandbox,
    apply,
    network,
    policy,
    refusal,
    tcp,
)
from tests.support.runtimes.oci import CNIHOOK, RESULTS, configure

# The calls of an apply: what it writes, and what it sends to the kernel.
POINTS = [("rename", 1), ("fsync", 1), *(("sendto", when) for when in (8, 16, 24, 32, 40, 48))]


def rules(port: int) -> dict[str, Any]:
    """Return a policy of all containers that allows one port."""
    return {"name": "all", "select": {}, "egress": {"allow": [{"to": ["all"], "ports": [f"{port}/tcp"]}]}}


@pytest.fixture
def stage(host: Host) -> Host:
    host.run("sh", "-c", NO_BR_NETFILTER)
    host.leaves(*LEAVES, f"file {FOLDER}/.*")
    return host


@pytest.mark.needs("strace")
def test_apply_that_is_killed_or_fails_leaves_no_gap(stage: Host) -> None:
    """A port that neither the old nor the new policy allows stays denied; the next apply completes it."""
    outside = stage.outside()
    configure(stage, network("ptp"))
    one = Sandbox(stage, "one")
    apply(stage, rules(80))
    stage.write("/run/.host/new.json", json.dumps(rules(81)))

    def is_closed() -> bool:
        return not tcp(one.space, outside, Outside.ADDRESS, 82, expected=False)

    for what in ("signal=KILL", "error=ENOMEM"):
        for syscall, when in POINTS:
            launcher = fault(syscall, f"{what}:when={when}")
            argv = ("/usr/bin/python3", "-IS", CNIHOOK, "policy", "apply", "/run/.host/new.json")
            process = stage.run(*launcher, *argv, check=False)
            assert "Traceback" not in process.stderr, (what, syscall, when)
            if what != "signal=KILL":
                assert process.returncode in (0, 1)
                assert (process.returncode == 1) == bool(process.stderr), process
                # "nothing is changed": neither the files nor the kernel
                assert policy(stage, "diff") == [], (what, syscall, when)
                shown = "\n".join(policy(stage, "show", "all"))
                assert ('"80/tcp"' in shown) == (process.returncode == 1), (what, syscall, when)
            assert is_closed(), (what, syscall, when)
            policy(stage, "apply")
            assert policy(stage, "diff") == []
            allowed = json.loads("\n".join(policy(stage, "show", "all")))["egress"]["allow"][0]["ports"]
            assert allowed in (["80/tcp"], ["81/tcp"])
            port = int(allowed[0].partition("/")[0])
            assert tcp(one.space, outside, Outside.ADDRESS, port, expected=True)
            apply(stage, rules(80))
    policy(stage, "delete", "all")
    one.stop()
    assert "policy-" not in stage.nft()


@pytest.mark.needs("strace")
def test_container_whose_record_cannot_be_read_keeps_its_policy(stage: Host) -> None:
    """Each command about policies fails with one line, and nothing is removed."""
    outside = stage.outside()
    configure(stage, network("ptp"))
    one = Sandbox(stage, "one")
    apply(stage, rules(80))
    stage.write("/run/.host/new.json", json.dumps(rules(81)))
    record = f"{RESULTS}/front-one-eth0"
    for command in ("apply /run/.host/new.json", "apply", "diff", "delete all"):
        argv = ("/usr/bin/python3", "-IS", CNIHOOK, "policy", *command.split())
        process = stage.run(*fault("read", "error=EIO", record), *argv, check=False)
        assert (process.returncode, process.stderr.count("\n")) == (1, 1), process
        assert record in process.stderr
        assert not tcp(one.space, outside, Outside.ADDRESS, 81, expected=False)
        assert tcp(one.space, outside, Outside.ADDRESS, 80, expected=True)
    assert policy(stage, "diff") == []
    policy(stage, "delete", "all")
    one.stop()


@pytest.mark.needs("strace")
def test_start_that_cannot_put_its_policy_in_force_fails(stage: Host) -> None:
    """The error of the kernel is in one line, the address is free again, and a later start works."""
    configure(stage, network("ptp"))
    stage.leaves("file /run/cnihook/log/*")
    stage.run("nft", "add", "table", "inet", "cnihook")
    stage.run("nft", "add", "set", "inet", "cnihook", "policy-out4", "{ type inet_service; }")

    assert "policies" in refusal(stage, "one", egress="none")
    stage.run("nft", "delete", "table", "inet", "cnihook")
    one = Sandbox(stage, "one2", egress="none")
    assert cnihook(stage, "check", "--all").returncode == 0
    one.stop()


def test_start_that_was_killed_keeps_its_bridge_guarded_and_leaves_no_rule(stage: Host) -> None:
    """Keep policy and bridge of a record without a result at an apply, and remove them at DEL."""
    configure(stage, network())
    one, two = Sandbox(stage, "one", egress="container:two:80/tcp"), Sandbox(stage, "two")
    (path,) = stage.run("sh", "-c", f"ls {RESULTS}/front-one-*").stdout.split()
    record = json.loads(stage.run("cat", path).stdout)
    del record["result"]
    stage.write(path, json.dumps(record))

    policy(stage, "apply")
    assert tcp(one.space, two.space, two.v4, 80, expected=True)
    assert tcp(one.space, two.space, two.v6, 80, expected=True)
    assert not tcp(one.space, two.space, two.v4, 81, expected=False)
    three = Sandbox(stage, "three", egress="none")
    one.stop()
    assert "front one eth0" not in stage.nft()
    for each in (two, three):
        each.stop()
    assert "policy-" not in stage.nft()


@pytest.mark.needs("strace")
def test_status_reports_a_kernel_that_cannot_enforce_policies(stage: Host) -> None:
    """Also one that cannot emulate networks, but that is for the container to request."""
    lan = {"type": "macvlan", "master": "lo", "ipam": {"type": "static", "addresses": []}}
    bandwidth = {"type": "bandwidth", "capabilities": {"emulate": True}}
    ptp = network("ptp") | {"cniVersion": "1.1.0"}
    ptp["plugins"][1] = bandwidth  # portmap asks the kernel itself
    configure(stage, ptp, {"cniVersion": "1.0.0", "name": "lan", "plugins": [lan]})
    process = cnihook(stage, "status", "front")
    assert process.returncode == 0
    if "netem" in process.stderr:  # this kernel has none
        assert "a container that requests emulate does not start; `modprobe -a sch_netem`" in process.stderr

    apply(stage, rules(80))
    strace, *argv = fault("sendto", "error=EOPNOTSUPP")
    for name, what in (
        ("front", "nftables for policies cannot"),
        ("lan", "nftables for policies in namespaces"),
    ):
        assert cnihook(stage, "status", name).returncode == 0
        process = stage.run(
            strace, "-f", *argv, "/usr/bin/python3", "-IS", CNIHOOK, "status", name, check=False
        )
        assert process.returncode == 1 and what in process.stderr, process
        assert "a container with a policy does not start" in process.stderr
    policy(stage, "delete", "all")


def test_failed_apply_keeps_a_malformed_file(stage: Host) -> None:
    """Restore it, because without it the containers that it refuses would start."""
    configure(stage, network("ptp"))
    stage.leaves("file /run/cnihook/log/*")
    one = Sandbox(stage, "one")
    stage.run("mkdir", "-p", FOLDER)
    stage.write(f"{FOLDER}/all.json", "{")
    stage.write("/run/.host/new.json", json.dumps(rules(80)))
    stage.run("nft", "add", "table", "inet", "cnihook")
    stage.run("nft", "add", "set", "inet", "cnihook", "policy-out4", "{ type inet_service; }")

    policy(stage, "apply", "/run/.host/new.json", status=1)
    assert stage.run("cat", f"{FOLDER}/all.json").stdout == "{"
    assert "all.json" in refusal(stage, "two")
    stage.run("nft", "delete", "table", "inet", "cnihook")
    policy(stage, "apply", "/run/.host/new.json")
    policy(stage, "delete", "all")
    one.stop()
