# SPDX-License-Identifier: Apache-2.0
"""scripts/demo: what a stranger sees first works, says the truth, and goes away without a trace."""

import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.support.cni import CHECKOUT
from tests.support.hide import cover, hide, path_of
from tests.support.host import Host
from tests.support.namespace import Process, end
from tests.support.oci import LEAVES

DEMO = str(CHECKOUT / "scripts" / "demo")

# Two at a time would wait for each other: the containers' names are fixed.
pytestmark = [
    pytest.mark.needs("runc", "busybox", "flock"),
    pytest.mark.root,
    pytest.mark.xdist_group("demo"),
]


def run(host: Host) -> subprocess.CompletedProcess[str]:
    host.leaves(*LEAVES)
    return host.run(DEMO, check=False, timeout=120)


def start(host: Host, until: str) -> Process:
    """Start it, in a process group of its own as a shell would, and read on until it says so."""
    host.leaves(*LEAVES)
    process = host.popen("setsid", DEMO, stderr=subprocess.STDOUT)
    assert process.stdout
    for line in process.stdout:
        if until in line:
            return process
    raise AssertionError(f"{until!r} never came: exit {process.wait()}")


def finish(process: Process) -> tuple[int, str]:
    """Its exit code, and the rest of what it says."""
    try:
        output, _ = process.communicate(timeout=60)
        return process.returncode, output
    finally:
        end(process)


def test_the_tour_shows_what_it_promises(host: Host) -> None:
    """The README sends everybody here."""
    done = run(host)

    assert (done.returncode, done.stderr) == (0, "")
    for promise in (
        "nothing to install",
        "inet 10.213.100.2/24",
        "default via 10.213.100.1 dev eth0",
        "ok: the gateway answers",
        "ok: the first container answers the second",
        "attached to cnihook-demo as eth0 10.213.100.3/24",
        "ok: what leaves the network is masqueraded",
    ):
        assert promise in done.stdout
    assert done.stdout.count("as before") == 5
    assert host.sysctl("net/ipv4/ip_forward") == "0"


def test_what_the_machine_has_stays(host: Host) -> None:
    """A network in its first subnet, rules, forwarding, configurations, leases of somebody else."""
    host.run("ip", "link", "add", "br9", "type", "bridge")
    host.run("ip", "address", "add", "10.213.100.1/26", "dev", "br9")
    host.run("ip", "link", "set", "br9", "up")
    host.run("nft", "add table inet theirs; add chain inet theirs c; add rule inet theirs c counter drop")
    host.run("ip", "netns", "add", "theirs")
    host.run("sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
    host.write("/etc/cni/net.d/10-broken.conflist", "{")
    host.write("/var/lib/cni/networks/theirs/10.213.100.2", "c1\neth0")
    host.save_state()

    done = run(host)

    assert (done.returncode, done.stderr) == (0, "")
    assert "inet 10.213.101.2/24" in done.stdout
    assert "10-broken" not in done.stdout
    assert host.sysctl("net/ipv4/ip_forward") == "1"


def test_containers_reach_each_other_behind_a_firewall_that_drops(host: Host) -> None:
    """As on every machine where Docker runs."""
    host.run("iptables", "-P", "FORWARD", "DROP")
    host.save_state()

    done = run(host)

    assert (done.returncode, done.stderr) == (0, "")
    assert "ok: the first container answers the second" in done.stdout


def test_a_step_that_shows_something_else_fails_the_tour(host: Host) -> None:
    """It stops there, says which, and cleans up."""
    host.run(
        "nft",
        "add table inet block; add chain inet block in { type filter hook input priority 0; policy drop; }",
    )
    host.save_state()

    done = run(host)

    assert done.returncode == 1
    assert done.stderr == "demo: exit code 1 from: runc exec cnihook-demo1 ping -c 1 -W 5 10.213.100.1\n"
    assert "Another container" not in done.stdout


def test_a_trace_that_is_left_fails_the_tour(host: Host) -> None:
    """The comparison is one: what turns up meanwhile is found, and shown."""
    process = start(host, until="Seen from this machine")
    host.run("ip", "link", "add", "stray", "type", "bridge")
    code, output = finish(process)
    host.run("ip", "link", "delete", "stray")

    assert code == 1
    assert "\n+stray " in output
    assert "demo: that is not as it was before" in output


@pytest.mark.parametrize(
    ("step", "signum"),
    [
        ("A bundle", signal.SIGINT),
        ("A container", signal.SIGINT),
        ("Another container", signal.SIGINT),
        ("Another container", signal.SIGTERM),
        ("Seen from this machine", signal.SIGHUP),
    ],
)
def test_an_interrupt_leaves_nothing(host: Host, step: str, signum: signal.Signals) -> None:
    """Ctrl-C reaches all that runs in the foreground, the hook too; kill reaches the script alone."""
    process = start(host, until=step)
    if signum == signal.SIGINT:
        os.killpg(os.getpgid(process.inside), signum)
    else:
        process.send_signal(signum)
    code, _ = finish(process)

    assert code == 128 + signum


def test_a_killed_tour_is_cleaned_up_by_the_next(host: Host) -> None:
    """SIGKILL leaves its containers running; their names are the demo's own, so the next one ends them."""
    process = start(host, until="ok: the gateway answers")
    process.kill()
    finish(process)
    left = list(Path("/tmp").glob("cnihook-demo.*"))

    done = run(host)

    assert (done.returncode, done.stderr) == (0, "")
    assert [folder for folder in left if folder.exists()] == []


def test_only_what_is_missing_is_installed(host: Host) -> None:
    """apt-get is a stand-in here, which makes runc turn up again; all else is there already."""
    runc = path_of("runc")
    hide(host, "runc")
    script = f'echo "$*" >> /run/.host/apt; case $* in *install*) umount {runc} ;; esac'
    host.write("/run/.host/apt-get", f"#!/bin/sh\n{script}\n", 0o755)
    cover(host, "apt-get", "/run/.host/apt-get")

    done = run(host)

    assert (done.returncode, done.stderr) == (0, "")
    assert host.read("/run/.host/apt") == (
        "-qq update\n-qq -o DPkg::Lock::Timeout=60 install --no-install-recommends runc\n"
    )


def test_apts_own_words_are_shown_when_it_fails(host: Host) -> None:
    """They are kept back otherwise, being pages."""
    hide(host, "runc")
    host.write("/run/.host/apt-get", "#!/bin/sh\necho E: no space left >&2\nexit 100\n", 0o755)
    cover(host, "apt-get", "/run/.host/apt-get")

    done = run(host)

    assert done.returncode == 1
    assert "E: no space left\n" in done.stdout
    assert done.stderr == "demo: apt-get could not install: runc\n"


def test_without_apt_it_names_what_is_missing(host: Host) -> None:
    """In one line, and nothing is begun."""
    hide(host, "runc", "busybox", "apt-get")

    done = run(host)

    assert done.returncode == 1
    assert done.stderr == "demo: not installed, and there is no apt-get to do it: runc busybox-static\n"


def test_not_root_is_told_in_one_line(host: Host) -> None:
    """Before anything is made."""
    host.run("cp", DEMO, "/run/.host/demo")  # where an ordinary user can read it
    host.run("chmod", "-R", "a+rX", "/run/.host")

    done = host.run("setpriv", "--reuid=65534", "--clear-groups", "/run/.host/demo", check=False)

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "demo: only root can give a container a network; try: sudo /run/.host/demo\n"
