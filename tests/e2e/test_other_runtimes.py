# SPDX-License-Identifier: Apache-2.0
"""Attachments of other runtimes, such as CRI-O: check, repair and doctor agree on them."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support.host.host import Container, Host
from tests.support.runtimes.oci import CNIHOOK, RESULTS, bridge, call_hook, configure

POD = "0ec02c95e0d70f6d0ec02c95e0d70f6d0ec02c95e0d70f6d0ec02c95e0d70f6d"
ARGS = f"IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-7;K8S_POD_INFRA_CONTAINER_ID={POD}"
REFERENCE = "/usr/lib/cni"
BRIDGE = "br-pods"
NETWORK = bridge("pods", "10.85.0.0/24", isGateway=True, ipMasq=True)


def cnihook(host: Host, *words: str) -> subprocess.CompletedProcess[str]:
    outcome = host.run(CNIHOOK, *words, check=False)
    assert "Traceback" not in outcome.stderr
    return outcome


def attach(
    host: Host, container: Container, container_id: str, *words: str, without: tuple[str, ...] = ("cnihook",)
) -> None:
    """Attach as a runtime with libcni does: the record has no process, and before 1.2 no namespace."""
    env = ("env", f"CNI_ARGS={ARGS}")
    host.run(*env, CNIHOOK, "add", "pods", container.path, "--container-id", container_id, *words)
    (name,) = [name for name in host.listdir(RESULTS) if container_id in name]
    record = json.loads(host.read(f"{RESULTS}/{name}"))
    for key in without:
        del record[key]
    host.write(f"{RESULTS}/{name}", json.dumps(record), 0o600)


@pytest.fixture
def configured(host: Host) -> Host:
    configure(host, NETWORK)
    host.leaves("dir /run/crun")  # made by a runtime that doctor asks for its version
    return host


@pytest.fixture
def pods(configured: Host) -> list[Container]:
    host = configured
    containers = [host.container(), host.container()]
    attach(host, containers[0], POD)
    attach(host, containers[1], "second", without=("cnihook", "netns"))  # libcni before 1.2
    return containers


def end(host: Host) -> None:
    """Detach as that runtime does."""
    cnihook(host, "gc", "pods", "--all")
    assert host.listdir(RESULTS) == []


def findings(host: Host, *words: str) -> list[dict[str, Any]]:
    listed = json.loads(cnihook(host, "doctor", "--json", *words).stdout)
    return [one for one in listed if one["kind"].startswith("attachment")]


def test_check_doctor_and_repair_find_nothing_wrong(host: Host, pods: list[Container]) -> None:
    checked = cnihook(host, "check", "--all")
    assert checked.returncode == 0 and checked.stdout.count("well ") == 2
    assert findings(host, "--verbose") == []
    repaired = cnihook(host, "repair", "--all")
    assert (repaired.returncode, repaired.stdout, repaired.stderr) == (0, "", "")
    end(host)


@pytest.mark.parametrize("words", [("--all",), (POD,)], ids=["all", "id"])
def test_check_and_doctor_find_what_is_missing_and_repair_restores_it(
    host: Host, pods: list[Container], words: tuple[str, ...]
) -> None:
    """The firewall was reloaded and a bridge is down; the runtime's record does not change."""
    (before,) = [host.read(f"{RESULTS}/{name}") for name in host.listdir(RESULTS) if POD in name]
    host.run("nft", "flush", "ruleset")
    host.run("ip", "link", "set", BRIDGE, "down")

    checked = cnihook(host, "check", "--all")
    assert checked.returncode == 1 and checked.stdout.count("different ") == 2
    broken = findings(host)
    assert {one["kind"] for one in broken} == {"attachment-broken"}
    assert {one["remedy"] for one in broken} == {"cnihook repair --all"}
    assert {one for finding in broken for one in finding["subjects"]} == {
        f"{container}, pods eth0" for container in (POD, "second")
    }
    repaired = cnihook(host, "repair", *words)
    assert repaired.returncode == 0 and f"repaired {POD}: pods eth0: " in repaired.stdout
    if words == (POD,):
        cnihook(host, "repair", "second")

    assert cnihook(host, "check", "--all").returncode == 0 and findings(host) == []
    (after,) = [host.read(f"{RESULTS}/{name}") for name in host.listdir(RESULTS) if POD in name]
    assert after == before
    end(host)


def test_missing_link_is_left_to_its_runtime(host: Host, pods: list[Container]) -> None:
    """The runtime's own state, which CRI-O for example keeps in memory, would not have the new link."""
    pods[0].run("ip", "link", "delete", "eth0")

    outcome = cnihook(host, "repair", "--all")
    assert outcome.returncode == 1 and outcome.stderr.count("\n") == 1
    assert "only the runtime that attached it" in outcome.stderr and POD in outcome.stderr
    assert cnihook(host, "check", "--all").returncode == 1
    assert [one["kind"] for one in findings(host)] == ["attachment-broken"]
    end(host)


def test_attachments_of_other_plugins_are_not_checked(configured: Host) -> None:
    """The plugins of cnihook would miss all that they set up themselves, and repair would add it."""
    host = configured
    attach(host, host.container(), POD, "--cni-path", REFERENCE)

    checked = cnihook(host, "check", "--all")
    assert checked.returncode == 2 and checked.stdout.startswith(
        "unknown shop/web-7 pods eth0: not checked: "
    )
    assert findings(host) == []
    assert [(one["kind"], one["note"]) for one in findings(host, "--verbose")] == [
        ("attachment-not-checked", True)
    ]
    ruleset = host.nft()
    outcome = cnihook(host, "repair", "--all")
    assert (outcome.returncode, outcome.stdout) == (0, "") and outcome.stderr.count("\n") == 1
    assert cnihook(host, "repair", POD).returncode == 1 and host.nft() == ruleset

    assert cnihook(host, "check", "--all", "--cni-path", REFERENCE).returncode == 0
    assert cnihook(host, "repair", "--all", "--cni-path", REFERENCE).stderr == ""
    cnihook(host, "gc", "pods", "--all", "--cni-path", REFERENCE)
    host.leaves("empty bridges", "nft: *", f"link {BRIDGE}*", f"address {BRIDGE}*")


def test_suggestion_for_a_deleted_pod_works(host: Host, pods: list[Container]) -> None:
    pods[0].destroy()
    checked = cnihook(host, "check", "--container", POD)
    assert checked.returncode == 1
    suggestion = checked.stdout.partition("`cnihook ")[2].partition("`")[0].split()
    assert cnihook(host, *suggestion).returncode == 0
    assert cnihook(host, "check", "--container", POD).returncode == 2  # nothing is on record
    end(host)


def test_gc_of_the_network_keeps_running_pods(host: Host, pods: list[Container]) -> None:
    """A record with a result of an old version shows no end of its pod, so nothing but --all releases it."""
    configure(host, NETWORK, NETWORK | {"name": "old", "cniVersion": "0.2.0"})
    old = host.container()
    host.run(CNIHOOK, "add", "old", old.path, "--container-id", "third")
    record = json.loads(host.read(f"{RESULTS}/old-third-eth0"))
    del record["cnihook"], record["netns"]
    host.write(f"{RESULTS}/old-third-eth0", json.dumps(record), 0o600)

    for network in ("pods", "old"):
        assert cnihook(host, "gc", network).stdout == ""
    checked = cnihook(host, "check", "--container", "third")
    assert checked.returncode == 2 and "does not name its namespace" in checked.stdout
    (note,) = [one for one in findings(host, "--verbose") if one["kind"] == "attachment-not-checked"]
    assert '"cniVersion": "0.3.0"' in note["remedy"]  # other plugins would not help
    assert cnihook(host, "repair", "--all").returncode == 0
    for pod in (*pods, old):
        pod.destroy()
    assert cnihook(host, "gc", "pods").stdout.count("released") == 2
    assert cnihook(host, "gc", "old").stdout == ""
    assert cnihook(host, "gc", "old", "--all").stdout.count("released") == 1
    end(host)


@pytest.mark.parametrize("is_disabled", [False, True], ids=["gc", "disableGC"])
def test_network_of_two_runtimes_is_found(host: Host, pods: list[Container], is_disabled: bool) -> None:
    """GC of the other runtime, with these executables, releases every attachment that it does not list."""
    plugins = "/run/.host/plugins"
    host.run(CNIHOOK, "install-plugins", plugins)
    if is_disabled:
        configure(host, NETWORK | {"disableGC": True})
    container = host.container("own", process=True)
    state = state_of(container)
    assert call_hook(host, "createRuntime", state).returncode == 0

    shared = [one for one in all_findings(host) if one["kind"] == "network-of-two-runtimes"]
    assert len(shared) == int(not is_disabled)
    if shared:
        assert POD in shared[0]["what"] and "own" in shared[0]["what"]
        assert "/etc/cni/net.d/10-net.conflist" in shared[0]["remedy"]
    cnihook(host, "gc", "pods", "--cni-path", plugins, "--keep", POD, "--keep", "second")
    assert [name for name in host.listdir(RESULTS) if "own" in name] == ["pods-own-eth0"] * int(is_disabled)

    container.destroy()
    assert call_hook(host, "poststop", state | {"status": "stopped"}).returncode == 0
    assert "network-of-two-runtimes" not in [one["kind"] for one in all_findings(host)]
    configure(host, NETWORK)
    end(host)


def state_of(container: Container) -> dict[str, Any]:
    """Return the state that the hook gets for a container."""
    bundle = "/run/.host/own"
    namespaces = {"linux": {"namespaces": [{"type": "network"}]}, "root": {"path": "rootfs"}}
    container.host.write(f"{bundle}/config.json", json.dumps(namespaces))
    return {"id": "own", "pid": container.pid, "bundle": bundle, "ociVersion": "1.0.2", "status": "created"}


def all_findings(host: Host) -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = json.loads(cnihook(host, "doctor", "--json").stdout)
    return listed


def test_pods_are_shown_by_name(host: Host, pods: list[Container], tmp_path: Path) -> None:
    lines = cnihook(host, "ps").stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["CONTAINER", "shop/web-7", "shop/web-7"]
    assert cnihook(host, "ps", "-q").stdout.split() == [POD, "second"]
    assert cnihook(host, "ps", "--format", "{pod} {container}").stdout.splitlines() == [
        f"shop/web-7 {POD}", "shop/web-7 second",
    ]  # fmt: skip
    assert "shop/web-7" in cnihook(host, "graph").stdout
    end(host)
