# SPDX-License-Identifier: Apache-2.0
"""priv-net-run: namespaces that stay, and namespaces that exist already."""

import os
import re
import signal
import subprocess

import pytest

from tests.e2e.test_priv_net_run_options import FOR_EVER, RUN, addresses, refused
from tests.support.host.host import Host
from tests.support.plugins.cni import CHECKOUT
from tests.support.runtimes.oci import (
    CNIHOOK,
    LOOPBACK,
    MYNET,
    NET_D,
    PASS_ON,
    RESULTS,
    bridge,
    configure,
    external,
    kill,
    leases,
    wait_for,
)
from tests.support.skip import need


@pytest.fixture
def mynet(host: Host) -> Host:
    configure(host, **{"10-mynet.conf": MYNET, "99-loopback.conf": LOOPBACK})
    return host


def test_named_namespace_stays_with_its_networks_and_is_joined(mynet: Host) -> None:
    first = addresses(mynet, "--netns", "lab")
    assert first["eth0"] == ["10.22.0.2"]

    assert addresses(mynet, "--netns", "lab") == first
    mynet.run("ip", "netns", "exec", "lab", "ping", "-c1", "-W30", "10.22.0.1")
    mynet.run(CNIHOOK, "gc")
    assert leases(mynet) == ["10.22.0.2"], "the attachment is live without a process"
    mynet.run(RUN, "--netns", "lab", "--delete")
    assert (leases(mynet), mynet.listdir(RESULTS), mynet.listdir("/run/netns")) == ([], [], [])


def test_name_is_shown_and_is_unique(mynet: Host) -> None:
    """A second command, or a container, must not take the networks of the first."""
    running = mynet.popen(RUN, "--network", "mynet", "--name", "job", "sh", "-c", f"echo up; {FOR_EVER}")
    assert running.stdout and running.stdout.readline() == "up\n"
    assert mynet.run(CNIHOOK, "ps", "--format", "{container} {addresses}").stdout == "job 10.22.0.2/16\n"
    assert "attached to mynet as eth0 10.22.0.2/16" in mynet.run(CNIHOOK, "logs", "job").stdout
    assert "job" in mynet.run(CNIHOOK, "graph").stdout

    line = refused(mynet, "--name", "job", "true")
    assert re.search(r"--name job: process \d+ has it, on network mynet", line)
    mynet.container("made")
    assert "another namespace /run/netns/made" in refused(mynet, "--name", "made", "true")
    assert "cannot be combined" in refused(mynet, "--name", "a", "--netns", "b", "true")
    assert "invalid" in refused(mynet, "--name", "../x", "true")
    assert leases(mynet) == ["10.22.0.2"]
    os.kill(running.inside, signal.SIGKILL)
    running.communicate(timeout=20)
    wait_for(lambda: leases(mynet) == [], "the end of the killed command")
    assert mynet.run(RUN, "--name", "job", "echo", "again").stdout == "again\n"


def test_kept_namespace_is_detached_like_a_container(mynet: Host) -> None:
    mynet.run(RUN, "--netns", "lab", "true")
    mynet.run(CNIHOOK, "detach", "lab")

    assert (leases(mynet), mynet.listdir("/run/netns")) == ([], [])


def test_namespace_of_ip_netns_is_joined_and_not_changed(mynet: Host) -> None:
    container = mynet.container("made")

    assert addresses(mynet, "--netns", "made") == {"lo": []}
    assert addresses(mynet, "--netns", container.path) == {"lo": []}


def test_networks_for_an_existing_namespace_stay_until_the_command_ends(mynet: Host) -> None:
    configure(mynet, bridge("extra", "10.9.0.0/24"))
    mynet.run(RUN, "--netns", "lab", "--network", "mynet", "true")

    with_both = addresses(mynet, "--netns", "lab", "--network", "extra")
    assert (with_both["eth0"], with_both["eth1"]) == (["10.22.0.2"], ["10.9.0.2"])
    assert set(addresses(mynet, "--netns", "lab")) == {"lo", "eth0"}
    assert leases(mynet, "extra") == []
    mynet.run(RUN, "--netns", "lab", "--delete")


def test_name_servers_of_a_kept_namespace_are_those_of_its_networks(host: Host) -> None:
    configure(host, bridge("one", "10.1.0.0/24", dns={"nameservers": ["10.1.0.1"]}))
    host.write("/etc/resolv.conf", "nameserver 192.0.2.1\n")
    host.leaves("file /etc/resolv.conf")

    for _ in range(2):
        outcome = host.run(RUN, "--netns", "lab", "cat", "/etc/resolv.conf")
        assert outcome.stdout == "nameserver 10.1.0.1\n"
    host.run(RUN, "--netns", "lab", "--delete")


def test_timeout_in_a_joined_namespace_ends_no_other_process(mynet: Host) -> None:
    mynet.run(RUN, "--netns", "lab", "true")
    other = mynet.popen(RUN, "--netns", "lab", "cat", stdin=subprocess.PIPE)
    wait_for(lambda: "cat" in mynet.run("ps", "-eo", "args").stdout.splitlines(), "the other process")

    outcome = mynet.run(RUN, "--netns", "lab", "--timeout", "0.2", "sh", "-c", FOR_EVER, check=False)
    assert outcome.returncode == 124
    assert other.communicate("alive", timeout=30) == ("alive", "")
    mynet.run(RUN, "--netns", "lab", "--delete")


def test_failing_network_leaves_no_name(host: Host) -> None:
    folder = external(host, "refuses", 'test $CNI_COMMAND = DEL || { echo "is broken" >&2; exit 1; }')
    failing = {"cniVersion": "1.0.0", "name": "two", "plugins": [{"type": "refuses"}]}
    configure(host, bridge("one", "10.1.0.0/24"), failing)

    assert "is broken" in refused(host, "--netns", "lab", "--cni-path", folder, "true")
    assert (leases(host, "one"), host.listdir("/run/netns"), host.listdir(RESULTS)) == ([], [], [])


def test_two_runs_that_create_one_name_at_once_share_it(host: Host) -> None:
    """Neither may remove the other's networks as those of an earlier container with that ID."""
    wait = f"test $CNI_COMMAND = DEL || until test -e /run/.host/go; do sleep 0.02; done; {PASS_ON}"
    folder = external(host, "slow", wait)
    network = bridge("one", "10.1.0.0/24", dns={"nameservers": ["10.1.0.1"]})
    network["plugins"].append({"type": "slow"})
    configure(host, network)
    first = host.popen(RUN, "--netns", "lab", "--cni-path", folder, "cat", stdin=subprocess.PIPE)
    wait_for(lambda: leases(host, "one"), "the first's address")

    second = host.run(RUN, "--netns", "lab", "true", check=False)
    assert second.returncode == 0, "the second run has joined"
    host.write("/run/.host/go", "")
    assert first.communicate("alive", timeout=30) == ("alive", "")
    assert leases(host, "one") == ["10.1.0.2"]
    host.run(RUN, "--netns", "lab", "--delete", "--cni-path", folder)


def test_name_taken_by_another_process_at_the_last_moment_stays(mynet: Host) -> None:
    script = """\
import subprocess, sys
sys.path.insert(0, sys.argv[1])
from cnihook.cli.privnet.netns import Named
from cnihook.linux.netns import NetNS
named = Named("lab")
assert not named.joined
subprocess.run(["ip", "netns", "add", "lab"], check=True)
named.keep(NetNS.create())
"""
    outcome = mynet.run("/usr/bin/python3", "-IS", "-c", script, str(CHECKOUT), check=False)
    assert "UsageError" in outcome.stderr
    mynet.run("ip", "netns", "del", "lab")


def test_killed_run_does_not_change_a_kept_namespace(mynet: Host) -> None:
    """The namespace and the command in it continue."""
    running = mynet.popen(RUN, "--netns", "lab", "sh", "-c", f"echo $$; {FOR_EVER}")
    assert running.stdout
    pid = running.stdout.readline().strip()
    os.kill(running.inside, signal.SIGKILL)
    running.wait(30)

    assert addresses(mynet, "--netns", "lab")["eth0"] == ["10.22.0.2"]
    mynet.run("kill", pid)
    mynet.run(RUN, "--netns", "lab", "--delete")
    running.communicate()


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--netns", "/run/no-such-file", "true"], "/run/no-such-file"),
        (["--netns", "/etc/passwd", "true"], "not a network namespace"),
        (["--netns", "a b", "true"], "a b"),
        (["--netns", "..", "true"], ".."),
        (["--netns", "/proc/1/ns/net", "true"], "the caller is in it already"),
        (["--netns", "", "true"], "--netns"),
        (["--netns", "made", "--ip", "10.22.0.9", "true"], "10.22.0.9"),
        (["--delete"], "--netns"),
        (["--netns", "made", "--delete", "true"], "--delete"),
        (["--netns", "made", "--delete"], "ip netns delete made"),
        (["--netns", "absent", "--delete"], "absent"),
        (["--netns", "/run/netns/made", "--delete"], "/run/netns/made"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_namespace_that_cannot_be_used_is_refused(mynet: Host, argv: list[str], message: str) -> None:
    mynet.container("made")

    assert message in refused(mynet, *argv)


def test_running_container_is_joined_but_not_deleted(mynet: Host) -> None:
    running = mynet.popen(RUN, "sh", "-c", "ip netns identify $$; cat", stdin=subprocess.PIPE)
    assert running.stdout
    name = running.stdout.readline().strip()

    assert addresses(mynet, "--netns", name)["eth0"] == ["10.22.0.2"]
    assert "runs" in refused(mynet, "--netns", name, "--delete")
    assert running.communicate("alive", timeout=30) == ("alive", "")


def test_kept_namespace_is_deleted_without_its_configuration(mynet: Host) -> None:
    mynet.run(RUN, "--netns", "lab", "true")
    mynet.run("rm", f"{NET_D}/10-mynet.conf")
    mynet.run(RUN, "--netns", "lab", "--delete")

    assert leases(mynet) == []


def test_path_that_does_not_exist_is_refused_with_a_reason(mynet: Host) -> None:
    result = mynet.run(RUN, "--netns", "a/b", "true", check=False)

    assert result.returncode == 125
    assert (
        result.stderr
        == "priv-net-run: --netns a/b: there is no such file; a new namespace needs a name without /\n"
    )


def test_process_that_outlives_its_networks_is_reported_on_a_terminal(mynet: Host) -> None:
    """tmux and the like continue in the background, and --netns keeps their networks."""
    need("script")
    command = "setsid sleep 60 < /dev/null > /dev/null 2>&1 & echo $! >> pids"
    mynet.leaves("file /run/.host/pids")
    words = f"{RUN} --network mynet sh -c '{command}'"

    quiet = mynet.run("env", "-C", "/run/.host", "sh", "-c", words)
    shown = mynet.run("env", "-C", "/run/.host", "script", "-qec", words, "/dev/null")

    pids = mynet.read("/run/.host/pids").split()
    for pid in pids:
        kill(mynet, int(pid))
    assert quiet.stderr == quiet.stdout == ""
    message = f"priv-net-run: still running, without networks: sleep ({pids[1]}); to keep the networks, "
    assert shown.stdout.splitlines() == [f"{message}run it with --netns NAME"]
