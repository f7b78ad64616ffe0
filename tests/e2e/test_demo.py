# SPDX-License-Identifier: Apache-2.0
"""scripts/demo: it runs, its text matches what it shows, and it leaves nothing behind."""

import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.support.host.hidden_programs import cover, hide, path_of
from tests.support.host.host import Host
from tests.support.host.namespace import Process, end
from tests.support.plugins.cni import CHECKOUT
from tests.support.runtimes.oci import LEAVES

DEMO = str(CHECKOUT / "scripts" / "demo")

# Two runs at a time would wait for each other, because the containers' names are fixed.
pytestmark = [
    pytest.mark.needs("runc", "busybox", "flock"),
    pytest.mark.root,
    pytest.mark.xdist_group("demo"),
]


def run(host: Host) -> subprocess.CompletedProcess[str]:
    host.leaves(*LEAVES)
    return host.run(DEMO, check=False, timeout=120)


def start(host: Host, until: str) -> Process:
    """Start the demo in a process group of its own, as a shell would; read until it prints `until`."""
    host.leaves(*LEAVES)
    process = host.popen("setsid", DEMO, stderr=subprocess.STDOUT)
    assert process.stdout
    for line in process.stdout:
        if until in line:
            return process
    raise AssertionError(f"{until!r} never came: exit {process.wait()}")


def finish(process: Process) -> tuple[int, str]:
    """Return the exit code and the rest of the output."""
    try:
        output, _ = process.communicate(timeout=60)
        return process.returncode, output
    finally:
        end(process)


def test_demo_shows_what_it_promises(host: Host) -> None:
    """The README sends every new reader here."""
    result = run(host)

    assert (result.returncode, result.stderr) == (0, "")
    for promise in (
        "nothing to install",
        "inet 10.213.100.2/24",
        "default via 10.213.100.1 dev eth0",
        "ok: the gateway answers",
        "ok: the first container answers the second",
        "attached to cnihook-demo as eth0 10.213.100.3/24",
        "ok: what leaves the network is masqueraded",
    ):
        assert promise in result.stdout
    assert result.stdout.count("as before") == 5
    assert host.sysctl("net/ipv4/ip_forward") == "0"


def test_existing_state_of_the_machine_stays(host: Host) -> None:
    """A bridge in the demo's first subnet, another program's rules, forwarding, configurations, leases."""
    host.run("ip", "link", "add", "br9", "type", "bridge")
    host.run("ip", "address", "add", "10.213.100.1/26", "dev", "br9")
    host.run("ip", "link", "set", "br9", "up")
    host.run("nft", "add table inet other; add chain inet other c; add rule inet other c counter drop")
    host.run("ip", "netns", "add", "other")
    host.set_sysctl("net/ipv4/ip_forward", "1")
    host.write("/etc/cni/net.d/10-broken.conflist", "{")
    host.write("/var/lib/cni/networks/other/10.213.100.2", "c1\neth0")
    host.save_state()

    result = run(host)

    assert (result.returncode, result.stderr) == (0, "")
    assert "inet 10.213.101.2/24" in result.stdout
    assert "10-broken" not in result.stdout
    assert host.sysctl("net/ipv4/ip_forward") == "1"


def test_containers_reach_each_other_behind_a_firewall_that_drops(host: Host) -> None:
    """Docker sets this policy on every machine where it runs."""
    host.run("iptables", "-P", "FORWARD", "DROP")
    host.save_state()

    result = run(host)

    assert (result.returncode, result.stderr) == (0, "")
    assert "ok: the first container answers the second" in result.stdout


def test_failing_step_ends_the_demo(host: Host) -> None:
    """The demo stops there, names the command and cleans up."""
    host.run(
        "nft",
        "add table inet block; add chain inet block in { type filter hook input priority 0; policy drop; }",
    )
    host.save_state()

    result = run(host)

    assert result.returncode == 1
    assert result.stderr == "demo: exit code 1 from: runc exec cnihook-demo1 ping -c 1 -W 5 10.213.100.1\n"
    assert "Another container" not in result.stdout


def test_demo_fails_if_something_is_left(host: Host) -> None:
    """The comparison is real: a link that appears during the demo is found and shown."""
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
def test_interrupted_demo_leaves_nothing(host: Host, step: str, signum: signal.Signals) -> None:
    """Ctrl-C reaches the whole foreground process group, the hook too; kill reaches the script alone."""
    host.leaves("file /run/cnihook/log/*")  # of a hook that was interrupted
    process = start(host, until=step)
    if signum == signal.SIGINT:
        os.killpg(os.getpgid(process.inside), signum)
    else:
        process.send_signal(signum)
    code, _ = finish(process)

    assert code == 128 + signum


def test_next_demo_cleans_up_after_a_killed_one(host: Host) -> None:
    """SIGKILL leaves the containers running.  Only the demo uses their names, so the next run ends them."""
    process = start(host, until="ok: the gateway answers")
    process.kill()
    finish(process)
    left = list(Path("/tmp").glob("cnihook-demo.*"))

    result = run(host)

    assert (result.returncode, result.stderr) == (0, "")
    assert [folder for folder in left if folder.exists()] == []


def test_only_missing_programs_are_installed(host: Host) -> None:
    """A stand-in for apt-get uncovers runc; all other programs are already installed."""
    runc = path_of("runc")
    hide(host, "runc")
    script = f'echo "$*" >> /run/.host/apt; case $* in *install*) umount {runc} ;; esac'
    host.write("/run/.host/apt-get", f"#!/bin/sh\n{script}\n", 0o755)
    cover(host, "apt-get", "/run/.host/apt-get")

    result = run(host)

    assert (result.returncode, result.stderr) == (0, "")
    assert host.read("/run/.host/apt") == (
        "-qq update\n-qq -o DPkg::Lock::Timeout=60 install --no-install-recommends runc\n"
    )


def test_output_of_apt_is_shown_if_it_fails(host: Host) -> None:
    """The demo hides the output otherwise, because it is pages long."""
    hide(host, "runc")
    host.write("/run/.host/apt-get", "#!/bin/sh\necho E: no space left >&2\nexit 100\n", 0o755)
    cover(host, "apt-get", "/run/.host/apt-get")

    result = run(host)

    assert result.returncode == 1
    assert "E: no space left\n" in result.stdout
    assert result.stderr == "demo: apt-get could not install: runc\n"


def test_missing_programs_are_named_without_apt(host: Host) -> None:
    """The demo prints one line and starts nothing."""
    hide(host, "runc", "busybox", "apt-get")

    result = run(host)

    assert result.returncode == 1
    assert result.stderr == "demo: not installed, and there is no apt-get to do it: runc busybox-static\n"


def test_demo_without_root_prints_one_line(host: Host) -> None:
    """The demo prints it before it creates anything."""
    host.run("cp", DEMO, "/run/.host/demo")  # where a user without root can read it
    host.run("chmod", "-R", "a+rX", "/run/.host")

    result = host.run("setpriv", "--reuid=65534", "--clear-groups", "/run/.host/demo", check=False)

    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == "demo: only root can give a container a network; try: sudo /run/.host/demo\n"
