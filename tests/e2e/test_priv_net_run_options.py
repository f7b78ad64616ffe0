# SPDX-License-Identifier: Apache-2.0
"""priv-net-run: the user of the command, its time limit, reports and captures, namespaces that stay."""

import json
import os
import signal
from typing import Any

import pytest

from tests.support.host.host import Host
from tests.support.host.namespace import base_environment
from tests.support.plugins.cni import CHECKOUT
from tests.support.runtimes.oci import (
    LOOPBACK,
    MYNET,
    RESULTS,
    configure,
    leases,
    wait_for,
)

RUN = str(CHECKOUT / "scripts" / "priv-net-run")
FOR_EVER = "exec sleep 2147483647"
WHO = 'echo "$(id -u) $(id -g) $(id -G)"; echo "$HOME $USER $LOGNAME"; grep CapEff /proc/self/status'
NO_CAPABILITIES = "CapEff:\t0000000000000000"


@pytest.fixture
def mynet(host: Host) -> Host:
    configure(host, **{"10-mynet.conf": MYNET, "99-loopback.conf": LOOPBACK})
    return host


@pytest.fixture
def user(mynet: Host) -> Host:
    """Return a host with an ordinary user, `alice`, that is also in a second group."""
    for name, line in (
        ("passwd", "alice:x:4321:4322::/home/alice:/bin/sh"),
        ("group", "alice:x:4322:\nfriends:x:4400:alice"),
    ):
        mynet.write(f"/etc/{name}", f"{mynet.read(f'/etc/{name}')}{line}\n")
        mynet.leaves(f"file /etc/{name}")
    return mynet


def sudo(**variables: str) -> dict[str, str]:
    """Return the environment that sudo gives a command."""
    called = {"SUDO_UID": "4321", "SUDO_GID": "4322", "SUDO_USER": "alice", "SUDO_COMMAND": RUN}
    return base_environment() | {"HOME": "/root", "USER": "root", "LOGNAME": "root"} | called | variables


def addresses(host: Host, *options: str) -> dict[str, list[str]]:
    """Return the addresses of each interface that a command sees."""
    return {
        link["ifname"]: [
            f"{address['local']}" for address in link["addr_info"] if address["scope"] != "link"
        ]
        for link in json.loads(host.run(RUN, *options, "ip", "-j", "addr").stdout)
    }


def refused(host: Host, *argv: str, env: dict[str, str] | None = None) -> str:
    """Return the only line of a run that fails before its command."""
    outcome = host.run(RUN, *argv, env=env, check=False)
    assert (outcome.returncode, outcome.stdout) == (125, "")
    assert outcome.stderr.startswith("priv-net-run: ") and outcome.stderr.count("\n") == 1, outcome.stderr
    return outcome.stderr


# The user of the command


def test_command_under_sudo_runs_as_the_caller(user: Host) -> None:
    """Root makes the network; the user has not requested root for the command."""
    outcome = user.run(RUN, "sh", "-c", WHO, env=sudo())

    assert outcome.stdout.splitlines() == [
        "4321 4322 4322 4400",
        "/home/alice alice alice",
        NO_CAPABILITIES,
    ]


@pytest.mark.parametrize(
    ("options", "env"),
    [(["--root"], {}), (["--user", "root"], {}), ([], {"SUDO_UID": "0", "SUDO_GID": "0"})],
    ids=["--root", "--user root", "sudo of root"],
)
def test_command_runs_as_root_on_request(user: Host, options: list[str], env: dict[str, str]) -> None:
    outcome = user.run(RUN, *options, "sh", "-c", WHO, env=sudo(**env))

    assert outcome.stdout.splitlines()[:2] == ["0 0 0", "/root root root"]
    assert NO_CAPABILITIES not in outcome.stdout


@pytest.mark.parametrize(
    ("user_option", "expected"),
    [
        ("alice", ["4321 4322 4322 4400", "/home/alice alice alice"]),
        ("4321", ["4321 4322 4322 4400", "/home/alice alice alice"]),
        ("alice:friends", ["4321 4400 4400", "/home/alice alice alice"]),
        ("alice:17", ["4321 17 17", "/home/alice alice alice"]),
        ("98765:17", ["98765 17 17", "/ 98765 98765"]),
    ],
)
def test_command_runs_as_another_user_on_request(user: Host, user_option: str, expected: list[str]) -> None:
    outcome = user.run(RUN, "--user", user_option, "sh", "-c", WHO, env=sudo())

    assert outcome.stdout.splitlines() == [*expected, NO_CAPABILITIES]


@pytest.mark.parametrize(
    ("options", "env", "message"),
    [
        (["--user", "no-such-user"], {}, "no-such-user"),
        (["--user", "98765"], {}, "98765:GID"),
        (["--user", "alice:no-such-group"], {}, "no-such-group"),
        (["--user", "alice", "--root"], {}, "--root"),
        ([], {"SUDO_UID": "x"}, "SUDO_UID"),
        ([], {"SUDO_UID": "98765", "SUDO_GID": ""}, "98765"),
    ],
)
def test_unknown_user_is_refused(user: Host, options: list[str], env: dict[str, str], message: str) -> None:
    assert message in refused(user, *options, "true", env=sudo(**env))


def test_command_without_root_can_ping(user: Host) -> None:
    """A new namespace allows no group to open ICMP sockets, which ping needs if it has no capability."""
    script = "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP)"
    user.run(RUN, "--user", "alice", "/usr/bin/python3", "-IS", "-c", script)


def test_networks_of_a_users_command_are_removed(user: Host) -> None:
    running = user.popen(RUN, "sh", "-c", f"echo up; {FOR_EVER}", env=sudo())
    assert running.stdout
    assert running.stdout.readline() == "up\n"
    os.kill(running.inside, signal.SIGTERM)

    assert running.communicate(timeout=30) == ("", "")
    assert running.returncode == 143
    user.wait_for_endings()
    assert leases(user) == [] and user.listdir(RESULTS) == []


def test_variables_are_added_and_replaced(user: Host) -> None:
    """Each variable overrides the user's own; the command is searched on the new PATH."""
    user.write("/run/.host/bin/hello", '#!/bin/sh\necho "$A-$HOME"\n', 0o755)
    options = ("--env", "A=x=y z", "--env=HOME=/elsewhere", "--env", "PATH=/run/.host/bin:/bin")

    assert user.run(RUN, *options, "hello", env=sudo()).stdout == "x=y z-/elsewhere\n"
    assert "KEY=VALUE" in refused(user, "--env", "A", "true")


def test_user_without_a_mapping_is_refused(host: Host) -> None:
    """The user namespace maps only root."""
    script = f"mount -t tmpfs t /run && mount -t tmpfs t /var/lib/cni && {RUN} --user 4321:4322 true"

    outcome = host.run("unshare", "-Urmn", "sh", "-c", script, check=False)
    host.leaves("dir /run/mount")  # made by mount
    assert outcome.returncode == 125
    assert outcome.stderr.splitlines()[-1].startswith("priv-net-run: the command cannot run as 4321: ")


# The time limit


def test_timeout_ends_the_command_and_its_children(mynet: Host) -> None:
    """A shell that is killed alone would leave its children behind, in a network that is removed."""
    script = "sleep 2147483647 & sleep 2147483647; echo never"

    outcome = mynet.run(RUN, "--timeout", "0.3", "sh", "-c", script, check=False)
    assert (outcome.returncode, outcome.stdout, outcome.stderr) == (124, "", "")
    assert leases(mynet) == []


def test_timeout_lets_the_command_clean_up(mynet: Host) -> None:
    script = "trap 'echo put in order; exit 3' TERM; echo up; while :; do sleep 0.05; done"

    outcome = mynet.run(RUN, "--timeout", "0.5", "bash", "-c", script, check=False)
    assert (outcome.returncode, outcome.stdout) == (124, "up\nput in order\n")


def test_timeout_kills_a_command_that_ignores_the_signal(mynet: Host) -> None:
    script = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(2147483647)"
    argv = ("/usr/bin/python3", "-IS", "-c", script)

    assert mynet.run(RUN, "--timeout", "0.3", *argv, check=False).returncode == 124


def test_timeout_leaves_a_shorter_command_alone(mynet: Host) -> None:
    assert mynet.run(RUN, "--timeout", "600", "sh", "-c", "exit 5", check=False).returncode == 5


@pytest.mark.parametrize("text", ["0", "-1", "soon", "nan", ""])
def test_malformed_timeout_is_refused(mynet: Host, text: str) -> None:
    assert "--timeout" in refused(mynet, "--timeout", text, "true")


# Captures and reports


def packets(host: Host, path: str, *words: str) -> list[str]:
    return host.run("tcpdump", "-n", "-r", path, *words).stdout.splitlines()


@pytest.mark.needs("tcpdump")
def test_capture_has_every_packet_from_the_first(mynet: Host) -> None:
    """The first packet is the kernel's duplicate address detection, before any command runs."""
    capture = "/run/.host/ping.pcapng"
    mynet.run(RUN, "--pcap", capture, "ping", "-c5", "-i0.05", "10.22.0.1")

    assert len(packets(mynet, capture, "icmp[icmptype] == icmp-echo")) == 5
    assert len(packets(mynet, capture, "icmp[icmptype] == icmp-echoreply")) == 5
    assert packets(mynet, capture, "arp and src host 10.22.0.2 and dst host 10.22.0.1")  # once, or again


@pytest.mark.needs("tcpdump")
def test_capture_has_the_last_packets_of_the_command(mynet: Host) -> None:
    script = """\
import socket
sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for number in range(2000):
    sender.sendto(b"last", ("127.0.0.1", 9))
    sender.sendto(b"last", ("10.22.0.1", 9))
"""
    capture = "/run/.host/end.pcapng"
    outcome = mynet.run(RUN, "--pcap", capture, "/usr/bin/python3", "-IS", "-c", script)

    assert outcome.stderr == ""
    assert len(packets(mynet, capture, "udp and dst host 10.22.0.1 and dst port 9")) == 2000
    assert len(packets(mynet, capture, "udp and dst host 127.0.0.1 and dst port 9")) == 2000


@pytest.mark.needs("tcpdump")
def test_capture_of_a_killed_run_can_be_read(mynet: Host) -> None:
    capture = "/run/.host/killed.pcapng"
    script = f"ping -qc2 -i0.05 10.22.0.1 > /dev/null; echo up; {FOR_EVER}"
    running = mynet.popen(RUN, "--pcap", capture, "sh", "-c", script)
    assert running.stdout
    assert running.stdout.readline() == "up\n"
    os.kill(running.inside, signal.SIGKILL)
    running.communicate(timeout=30)

    wait_for(lambda: len(packets(mynet, capture, "icmp")) == 4, "the packets")
    wait_for(lambda: leases(mynet) == [], "the guardian's work")


def test_capture_belongs_to_the_caller_of_sudo(user: Host) -> None:
    user.run(RUN, "--pcap", "x.pcapng", "true", cwd="/run/.host", env=sudo())

    assert user.run("stat", "-c", "%u %g", "/run/.host/x.pcapng").stdout == "4321 4322\n"


def test_capture_that_cannot_be_written_is_an_error_before_the_command(mynet: Host) -> None:
    line = refused(mynet, "--pcap", "/no/such/folder/x", "touch", "/run/.host/ran")

    assert "/no/such/folder/x" in line and not mynet.exists("/run/.host/ran")


def test_full_disk_of_a_capture_is_reported_and_the_command_continues(mynet: Host) -> None:
    script = "ping -qc1 10.22.0.1 > /dev/null; echo ran"
    outcome = mynet.run(RUN, "--pcap", "/dev/full", "sh", "-c", script, check=False)

    assert (outcome.returncode, outcome.stdout) == (125, "ran\n")
    assert "No space left" in outcome.stderr and outcome.stderr.count("\n") == 1


def lines(text: str) -> list[Any]:
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.parametrize("where", ["a descriptor", "stdout", "a file"])
def test_json_reports_networks_and_exit_status(mynet: Host, where: str) -> None:
    """One line is written before the command runs, and one after its end."""
    file = "/run/.host/report"
    words = {"a descriptor": f"--json 7 7> {file}", "stdout": "--json 1", "a file": f"--json {file}"}[where]
    script = f"{RUN} {words} sh -c 'ls -l /proc/self/fd/7; exit 3' > /run/.host/stdout 2> /run/.host/stderr"
    assert mynet.run("sh", "-c", script, check=False).returncode == 3

    up, ended = lines(mynet.read("/run/.host/stdout" if where == "stdout" else file))
    assert [(one["network"], one["ifname"], one["addresses"]) for one in up["networks"]] == [
        ("mynet", "eth0", ["10.22.0.2/16"]),
        ("loopback", "lo", ["127.0.0.1/8", "::1/128"]),
    ]
    assert up["networks"][0]["result"]["ip4"]["gateway"] == "10.22.0.1"
    assert up["id"].startswith("priv-") and up["netns"] == f"/proc/{up['pid']}/ns/net"
    assert ended == {"status": 3}
    assert "No such file" in mynet.read("/run/.host/stderr"), "the command does not inherit the descriptor"


def test_json_has_the_pid_of_the_command(mynet: Host) -> None:
    report = "/run/.host/report"
    outcome = mynet.run(RUN, "--json", report, "sh", "-c", f"echo $$; cat {report}")

    pid, line = outcome.stdout.splitlines()
    assert json.loads(line)["pid"] == int(pid)


@pytest.mark.parametrize("number", ["77", "99999999999999999999"])
def test_json_to_a_closed_descriptor_is_refused(mynet: Host, number: str) -> None:
    assert number in refused(mynet, "--json", number, "true")


def test_command_does_not_run_if_the_report_cannot_be_written(mynet: Host) -> None:
    line = refused(mynet, "--json", "/dev/full", "touch", "/run/.host/ran")

    assert "--json" in line and not mynet.exists("/run/.host/ran")
    assert leases(mynet) == []
