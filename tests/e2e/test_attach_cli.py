# SPDX-License-Identifier: Apache-2.0
"""cnihook attach, detach, gc and logs, on containers that real runtimes run."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.host import sockets
from tests.support.host.host import Host
from tests.support.runtimes.oci import (
    CNIHOOK,
    LOOPBACK,
    MYNET,
    NET_D,
    RESULTS,
    Running,
    Runtime,
    bridge,
    calls,
    configure,
    external,
    last_pid,
    leases,
    wait_for,
)

NO_HOOKS: dict[str, Any] = {}


@pytest.fixture
def container(host: Host, runtime: Runtime) -> Iterator[Running]:
    """Start a container without a network and without hooks."""
    configure(host, MYNET)
    yield runtime.run("c1", hooks=NO_HOOKS)


def cnihook(host: Host, *argv: str) -> subprocess.CompletedProcess[str]:
    result = host.run(CNIHOOK, *argv, check=False)
    assert "Traceback" not in result.stderr, result.stderr
    return result


def succeeds(host: Host, *argv: str) -> str:
    result = cnihook(host, *argv)
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout


def refused(host: Host, *argv: str, status: int = 1) -> str:
    """Return the one line on stderr of a command that fails."""
    result = cnihook(host, *argv)
    assert result.returncode == status, result
    assert result.stdout == "" and result.stderr.count("\n") == 1, result
    assert result.stderr.startswith(f"cnihook: {argv[0]}")
    return result.stderr


# attach


def test_running_container_is_attached_and_detached(host: Host, container: Running) -> None:
    """The result has the shape of the configuration's CNI version.  Detach releases the address at once."""
    result = json.loads(succeeds(host, "attach", "c1"))

    assert result == {
        "cniVersion": "0.2.0",
        "ip4": {"ip": "10.22.0.2/16", "gateway": "10.22.0.1", "routes": [{"dst": "0.0.0.0/0"}]},
        "dns": {},
    }
    assert sockets.connect(container, host, "10.22.0.1") == "10.22.0.2"
    assert succeeds(host, "detach", "c1") == ""
    assert leases(host) == host.listdir(RESULTS) == []
    assert container.links() == {"lo"}


def test_attach_to_several_networks_prints_list_in_order(host: Host, container: Running) -> None:
    configure(
        host, **{"20-other.conflist": json.dumps(bridge("other", "10.23.0.0/24")), "99-lo.conf": LOOPBACK}
    )

    attachments = json.loads(succeeds(host, "attach", "c1"))

    assert [(one["network"], one["ifname"]) for one in attachments] == [
        ("mynet", "eth0"), ("other", "eth1"), ("loopback", "lo"),
    ]  # fmt: skip
    assert attachments[1]["result"]["cniVersion"] == "1.0.0"
    assert attachments[1]["result"]["interfaces"][2]["sandbox"] == "/run/netns/c1"
    succeeds(host, "detach", "c1")


def test_networks_are_attached_and_detached_one_by_one(host: Host, container: Running) -> None:
    """Each network gets the first free interface name; a name is reused after detach."""
    configure(host, **{"20-other.conflist": json.dumps(bridge("other", "10.23.0.0/24"))})

    succeeds(host, "attach", "c1", "--network", "other")
    succeeds(host, "attach", "c1", "--network=mynet:net5")
    assert container.links() == {"lo", "eth0", "net5"}
    assert refused(host, "attach", "c1", "--network", "other").startswith(
        "cnihook: attach c1: container c1 is on network other already, as eth0"
    )
    succeeds(host, "detach", "c1", "--network", "other")
    assert container.links() == {"lo", "net5"}
    assert leases(host, "other") == [] and leases(host) == ["10.22.0.2"]
    succeeds(host, "attach", "c1", "--network", "other")
    assert container.links() == {"lo", "eth0", "net5"}
    succeeds(host, "detach", "c1", "--network", "other", "--network", "mynet")
    assert container.links() == {"lo"}
    host.leaves("file /run/cnihook/log/c1")  # the log of a failure is kept


def test_network_option_overrides_annotation(host: Host, runtime: Runtime) -> None:
    configure(host, MYNET, bridge("other", "10.23.0.0/24"))
    container = runtime.run("c1", hooks=NO_HOOKS, annotations={"cnihook.networks": "other:net7"})

    succeeds(host, "attach", "c1")
    assert container.links() == {"lo", "net7"}
    succeeds(host, "attach", "c1", "--network", "mynet")
    assert container.links() == {"lo", "net7", "eth0"}
    succeeds(host, "detach", "c1")


def test_poststop_releases_networks_attached_later(host: Host, runtime: Runtime) -> None:
    configure(host, MYNET, bridge("other", "10.23.0.0/24"))
    runtime.run("c1", "--network", "mynet")
    succeeds(host, "attach", "c1", "--network", "other")
    assert host.listdir(RESULTS) == ["mynet-c1-eth0", "other-c1-eth1"]

    runtime.delete("c1")

    assert host.listdir(RESULTS) == []


def test_failing_network_rolls_back_earlier_networks(host: Host, container: Running) -> None:
    path = external(
        host, "refuses", """[ $CNI_COMMAND = DEL ] || { echo '{"msg": "the moon is full"}'; exit 1; }"""
    )
    second = bridge("second", "10.23.0.0/24")
    second["plugins"].append({"type": "refuses"})
    configure(host, MYNET, second)

    assert "the moon is full" in refused(host, "attach", "c1", "--cni-path", path)
    assert container.links() == {"lo"}
    assert leases(host) == leases(host, "second") == host.listdir(RESULTS) == []
    assert "the moon is full" in succeeds(host, "logs", "c1")
    host.leaves("file /run/cnihook/log/c1")


def test_sigterm_rolls_back_attach(host: Host, container: Running) -> None:
    path = external(host, "slow", "[ $CNI_COMMAND = DEL ] || sleep 60")
    second = bridge("second", "10.23.0.0/24")
    second["plugins"].append({"type": "slow"})
    configure(host, MYNET, second)

    with host.popen(CNIHOOK, "attach", "c1", "--cni-path", path) as process:
        wait_for(lambda: calls(host) == ["slow ADD"], "the slow plugin")
        process.terminate()
        _, stderr = process.communicate(timeout=30)

    assert process.returncode == 1
    assert "interrupted by signal 15" in stderr and stderr.count("\n") == 1
    assert not host.exists(f"/proc/{last_pid(host)}")
    assert container.links() == {"lo"}
    host.leaves("file /run/cnihook/log/c1")


# Which container


def test_unknown_container_is_refused(host: Host, container: Running) -> None:
    message = refused(host, "attach", "c2")

    assert "no running container of this ID: runc says " in message and "crun says " in message
    assert "no network" in refused(host, "detach", "c2")


def test_stopped_container_is_refused(host: Host, container: Running, runtime: Runtime) -> None:
    container.kill()

    assert "stopped" in refused(host, "attach", "c1", "--runtime", runtime.name)


def test_container_in_host_namespace_is_refused(host: Host, runtime: Runtime) -> None:
    configure(host, MYNET)
    runtime.run("c1", hooks=NO_HOOKS, network=None)

    message = refused(host, "attach", "c1")
    assert "shares the host's network namespace" in message
    assert 'add {"type": "network"} to linux.namespaces in ' in message
    host.leaves("file /run/cnihook/log/c1")


def test_container_id_under_two_runtimes_needs_runtime_option(
    host: Host, container: Running, runtime: Runtime, rootfs: Path
) -> None:
    other = Runtime(host, "crun" if runtime.name == "runc" else "runc", rootfs)
    twin = other.run("c1", hooks=NO_HOOKS)

    assert "name one of them with --runtime" in refused(host, "attach", "c1")
    succeeds(host, "attach", "c1", "--runtime", other.name)
    assert twin.links() == {"lo", "eth0"}
    assert container.links() == {"lo"}
    succeeds(host, "detach", "c1")
    other.delete_all()
    other.close()


def test_root_option_finds_container_in_other_root(host: Host, runtime: Runtime) -> None:
    """Every engine passes a --root of its own to the runtime."""
    configure(host, MYNET)
    runtime.bundle("c1", hooks=NO_HOOKS)
    runtime.root = "/run/.host/root"
    container = runtime.started("c1", runtime.start("c1"))

    assert "--root" in refused(host, "attach", "c1")
    program = host.run("sh", "-c", f"command -v {runtime.name}").stdout.strip()
    succeeds(host, "attach", "c1", "--root", runtime.root, "--runtime", program)
    assert container.address == "10.22.0.2"
    succeeds(host, "detach", "c1")


@pytest.mark.parametrize(
    "runtime_name", ["nosuch", "/nosuch", "/etc/passwd", "/usr/bin/false", "/usr/bin/true"]
)
def test_program_that_is_not_a_runtime_is_refused(host: Host, runtime_name: str) -> None:
    assert "no running container of this ID" in refused(host, "attach", "c1", "--runtime", runtime_name)


# gc


def test_gc_releases_stale_attachments_only(host: Host, container: Running, runtime: Runtime) -> None:
    """Live attachments stay.  With --dry-run, gc prints what it would release."""
    other = runtime.run("c2")
    succeeds(host, "attach", "c1")
    container.kill()
    runtime.delete("c1")

    assert succeeds(host, "gc", "--dry-run") == "would release c1: mynet eth0 10.22.0.3/16\n"
    assert sorted(leases(host)) == ["10.22.0.2", "10.22.0.3"]
    assert succeeds(host, "gc") == "released c1: mynet eth0 10.22.0.3/16\n"
    assert leases(host) == ["10.22.0.2"]
    assert succeeds(host, "gc") == ""
    assert other.address == "10.22.0.2"


def test_gc_continues_after_a_failed_release(host: Host, runtime: Runtime) -> None:
    """The failure is printed, the record stays, and the next gc tries again."""
    path = external(
        host,
        "stubborn",
        "[ $CNI_COMMAND = ADD ] || [ -e /run/.host/go ] || exit 1; [ $CNI_COMMAND = DEL ] || prev",
    )
    odd = bridge("odd", "10.23.0.0/24")
    odd["plugins"].append({"type": "stubborn"})
    configure(host, MYNET, odd)
    for name, network in (("c1", "odd"), ("c2", "mynet")):
        container = runtime.run(name, hooks=NO_HOOKS)
        succeeds(host, "attach", name, "--network", network, "--cni-path", path)
        container.kill()
        runtime.delete(name)

    result = cnihook(host, "gc")
    assert result.returncode == 1
    assert result.stdout == "released c2: mynet eth0 10.22.0.2/16\n"
    assert (
        result.stderr.count("\n") == 1
        and 'plugin type="stubborn" name="odd" failed (delete)' in result.stderr
    )
    assert host.listdir(RESULTS) == ["odd-c1-eth0"]
    host.write("/run/.host/go", "")
    assert succeeds(host, "gc").startswith("released c1: odd eth0")
    host.leaves("file /run/cnihook/log/c1")


def test_detach_needs_neither_runtime_nor_container(
    host: Host, container: Running, runtime: Runtime
) -> None:
    succeeds(host, "attach", "c1")
    runtime.delete("c1")
    host.run("rm", f"{NET_D}/10-net.conflist")

    succeeds(host, "detach", "c1")
    assert leases(host) == host.listdir(RESULTS) == []


# logs


def test_logs_report_attach_and_detach(host: Host, runtime: Runtime) -> None:
    """crun discards what a hook prints.  runc discards it if the hook succeeds."""
    configure(host, MYNET)
    runtime.run("c1")
    runtime.run("c2")

    assert "attached to mynet as eth0 10.22.0.2/16" in succeeds(host, "logs", "c1")
    lines = succeeds(host, "logs").splitlines()
    assert list(dict.fromkeys(line.split()[1] for line in lines)) == ["c1", "c2"]
    runtime.delete("c1")
    assert "detached from mynet, eth0" in succeeds(host, "logs", "c1")
    assert "there is no log of container c3; there are logs of c1, c2" in refused(host, "logs", "c3")


def test_log_is_one_history_across_detach_and_attach(host: Host, container: Running) -> None:
    """A failure in between is selected by --failed, the newest events by --tail and --since."""
    configure(host, MYNET, '{"cniVersion": "1.0.0", "name": "bad", "plugins": [{"type": "nosuch"}]}')
    succeeds(host, "attach", "c1", "--network", "mynet")
    succeeds(host, "detach", "c1")
    assert host.listdir("/var/log/cnihook") == ["c1"]
    succeeds(host, "attach", "c1", "--network", "mynet")
    refused(host, "attach", "c1", "--network", "bad")
    host.leaves("file /run/cnihook/log/c1")

    lines = succeeds(host, "logs", "c1").splitlines()
    kinds = [word for line in lines for word in ("attached to", "detached from", "failed") if word in line]
    assert kinds == ["attached to", "detached from", "attached to", "failed"]
    assert succeeds(host, "logs", "--tail", "2", "c1").splitlines() == lines[-2:]
    assert succeeds(host, "logs", "c1", "--failed").splitlines() == [
        line for line in lines if "failed" in line
    ]
    assert succeeds(host, "logs", "c1", "--since", "1h").splitlines() == lines
    assert succeeds(host, "logs", "c1", "--since", lines[-1][:23]).splitlines() == lines[-1:]
    assert succeeds(host, "logs", "--since", "2999-01-01") == ""
    events = [json.loads(line) for line in succeeds(host, "logs", "c1", "--json").splitlines()]
    assert [f"{one['time']} {one['milliseconds']:7.1f} ms  {one['text']}" for one in events] == lines
    assert events[-1]["fields"]["event"] == "failed" and events[-1]["container"] == "c1"
    for words in ("--since soon", "--tail -1", "--tail many"):
        assert host.run(CNIHOOK, "logs", *words.split(), check=False).returncode == 2
    succeeds(host, "detach", "c1")


def test_log_of_a_failure_outlives_its_container(host: Host, runtime: Runtime) -> None:
    configure(host, '{"name": "mynet", "type": "nosuch"}')
    with pytest.raises(AssertionError):
        runtime.run("c1")

    assert 'failed to find plugin "nosuch"' in succeeds(host, "logs", "c1")
    host.leaves("file /run/cnihook/log/c1")


# The options of the commands


@pytest.mark.parametrize(
    "words",
    [
        "attach",
        "attach c1 c2",
        "attach ../c1",
        "attach c1 --network",
        "attach c1 --network ../x",
        "attach c1 --network a:b:c",
        "attach c1 --netw mynet",
        "detach",
        "detach c1 --network mynet:eth0",
        "detach -x",
        "gc --all",
        "gc --dry",
        "logs a/b/c",
        "logs c1 c2",
    ],
)
def test_wrong_arguments_are_a_usage_error(host: Host, words: str) -> None:
    message = refused(host, *words.split(), status=2)

    assert message.endswith(f" see `cnihook {words.split()[0]} --help`\n")


@pytest.mark.parametrize("command", ["attach", "detach", "gc", "logs"])
def test_help_begins_with_usage(host: Host, command: str) -> None:
    text = succeeds(host, command, "--help")

    assert text.startswith(f"usage: cnihook {command} ")
    assert max(map(len, text.splitlines())) <= 110
