# SPDX-License-Identifier: Apache-2.0
"""priv-net-run for an ordinary user: networks in the user's own namespaces, and access to the outside."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.host.host import Host, Outside
from tests.support.host.namespace import Process, base_environment
from tests.support.plugins.cni import CHECKOUT
from tests.support.runtimes.oci import LOOPBACK, MYNET, RESULTS, bridge, configure, wait_for
from tests.support.skip import need, skip_or_fail

RUN = str(CHECKOUT / "scripts" / "priv-net-run")
AS_USER = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
FOR_EVER = "exec sleep 2147483647"
TUN = "/dev/net/tun"
GATEWAY = "10.22.0.1"


@pytest.fixture
def mynet(host: Host) -> Host:
    if Path("/proc/self/uid_map").read_text().split() != ["0", "0", "4294967295"]:
        skip_or_fail("needs root of the initial user namespace, to become any user")
    configure(host, **{"10-mynet.conf": MYNET, "99-loopback.conf": LOOPBACK})
    return host


@pytest.fixture
def open_tun(mynet: Host) -> Host:
    """Return a host whose tap device is open to every user, as in distributions."""
    need("pasta", "slirp4netns")
    mynet.run("mknod", "-m", "666", "/run/.host/tun", "c", "10", "200")
    mynet.run("mount", "--bind", "/run/.host/tun", TUN)
    mynet.leaves(f"mount {TUN}", "dir /run/mount")
    return mynet


@pytest.fixture(params=["pasta", "slirp4netns"])
def user(request: pytest.FixtureRequest, open_tun: Host) -> Iterator[Host]:
    """Return a host with an uplink, and with only one of the two programs for access to the outside."""
    open_tun.outside()
    other = {"pasta": "slirp4netns", "slirp4netns": "pasta"}[request.param]
    hide(open_tun, f"/usr/bin/{other}")
    yield open_tun
    assert [line for line in processes(open_tun) if "pasta" in line or "slirp" in line] == []


def hide(host: Host, program: str) -> None:
    """Make a program unavailable: it is not executable, so it is not found."""
    host.write("/run/.host/hidden", "")
    host.run("mount", "--bind", "/run/.host/hidden", program)
    host.leaves(f"mount {os.path.realpath(program)}", "dir /run/mount")


def processes(host: Host) -> list[str]:
    return host.run("ps", "-eo", "args", "--no-headers").stdout.splitlines()


def start(host: Host, script: str) -> Process:
    running = host.popen(*AS_USER, RUN, "sh", "-c", f"echo up; {script}", stdin=subprocess.PIPE)
    assert running.stdout
    assert running.stdout.readline() == "up\n"
    return running


def refused(host: Host, *argv: str) -> str:
    outcome = host.run(*AS_USER, RUN, *argv, check=False)
    assert (outcome.returncode, outcome.stdout) == (125, "")
    assert outcome.stderr.startswith("priv-net-run: ") and outcome.stderr.count("\n") == 1, outcome.stderr
    return outcome.stderr


def test_command_is_on_the_networks_of_the_folder(user: Host) -> None:
    outcome = user.run(*AS_USER, RUN, "ip", "-j", "addr")

    assert outcome.stderr == ""
    assert {
        link["ifname"]: [address["local"] for address in link["addr_info"] if address["scope"] != "link"]
        for link in json.loads(outcome.stdout)
    } == {"lo": ["127.0.0.1", "::1"], "eth0": ["10.22.0.2"]}
    assert user.listdir(RESULTS) == []
    assert "cni0" not in user.links(), "links of the user's namespaces are not on the host"


def test_gateway_answers(user: Host) -> None:
    user.run(*AS_USER, RUN, "ping", "-c1", "-W30", GATEWAY)


def test_outside_sees_the_hosts_address(user: Host) -> None:
    script = "import socket; print(socket.create_connection(('198.51.100.2', 7777), 30).recv(16).decode())"
    listen = "import socket; s = socket.create_server(('198.51.100.2', 7777)); print('up', flush=True)"
    listen += "; s.settimeout(30); c, peer = s.accept(); c.sendall(peer[0].encode())"
    python = ("/usr/bin/python3", "-IS", "-c")
    outside = Outside(user, Outside.NAME, f"/run/netns/{Outside.NAME}")
    with outside.popen(*python, listen) as server:
        assert server.stdout and server.stdout.readline() == "up\n"
        assert user.run(*AS_USER, RUN, *python, script).stdout == f"{Outside.HOST}\n"


@pytest.mark.parametrize("folder", ["/etc", "/run/manager"])
def test_own_resolv_conf_stays_when_the_host_replaces_its(user: Host, folder: str) -> None:
    """This holds also behind a link into a folder of /run, which priv-net-run itself does not see."""
    path = f"{folder}/resolv.conf"
    user.write(path, "nameserver 192.0.2.1\n")
    if folder != "/etc":
        user.run("ln", "-sf", path, "/etc/resolv.conf")
    user.leaves("file /etc/resolv.conf", "* /run/manager*")
    script = "for i in $(seq 200); do grep -q 10.9.9.9 /etc/resolv.conf && break; sleep .05; done"
    script = f"cat /etc/resolv.conf; echo up; read go; {script}; cat /etc/resolv.conf"
    running = user.popen(*AS_USER, RUN, "--dns=10.9.9.9", "sh", "-c", script, stdin=subprocess.PIPE)
    assert running.stdout
    assert [running.stdout.readline() for _ in range(2)] == ["nameserver 10.9.9.9\n", "up\n"]
    user.run("sh", "-c", f"echo nameserver 192.0.2.2 > {path}.new; mv {path}.new {path}")
    assert running.communicate("\n", timeout=30) == ("nameserver 10.9.9.9\n", "")


@pytest.mark.parametrize("folder", ["/run/nscd", "/run/systemd/resolve"])
def test_sockets_of_the_hosts_resolvers_are_hidden(user: Host, folder: str) -> None:
    user.write(f"{folder}/socket", "")  # a file suffices: the folder is hidden
    user.leaves("* /run/nscd*", "* /run/systemd*")
    script = f"ls {folder}; echo up; read go; for i in $(seq 200); do test -e {folder}/socket || break; "
    script += f"sleep .05; done; test -d {folder}; ls {folder}"
    running = user.popen(*AS_USER, RUN, "sh", "-c", script, stdin=subprocess.PIPE)
    assert running.stdout and running.stdout.readline() == "up\n"
    user.run("rm", "-r", folder)
    user.write(f"{folder}/socket", "")
    assert running.communicate("\n", timeout=20) == ("", "")


def test_hosts_loopback_is_not_reached(user: Host) -> None:
    """No address that pasta or slirp4netns provides may lead there."""
    script = """\
import socket
for address in ("127.0.0.1", "198.51.100.2", "10.0.2.2", "10.22.0.1"):
    try:
        socket.create_connection((address, 7778), 1)
        print(address)
    except OSError:
        pass
"""
    listen = "import socket, time; s = socket.create_server(('127.0.0.1', 7778)); print('up', flush=True)"
    listen += "; time.sleep(60)"
    python = ("/usr/bin/python3", "-IS", "-c")
    server = user.popen(*python, listen)
    assert server.stdout and server.stdout.readline() == "up\n"

    assert user.run(*AS_USER, RUN, *python, script).stdout == ""
    server.terminate()
    server.communicate()


def test_command_has_the_users_environment_and_files(user: Host) -> None:
    """User, environment, folder and files in /run are as without priv-net-run; there is no capability."""
    user.write("/run/mine/file", "x\n")
    user.leaves("dir /run/mine", "file /run/mine/file")
    show = "id -u; id -g; pwd; env | sort; cat /run/mine/file; grep Cap /proc/self/status; umask"
    env = base_environment() | {"A": "b"}

    start = ("sh", "-c", 'umask 002; exec "$@"', "sh", *AS_USER)
    inside = user.run(*start, RUN, "sh", "-c", show, cwd="/usr", env=env)
    outside = user.run(*start, "sh", "-c", show, cwd="/usr", env=env)
    without_bounds = [line for line in inside.stdout.splitlines() if "CapBnd" not in line]
    assert without_bounds == [line for line in outside.stdout.splitlines() if "CapBnd" not in line]


def test_command_is_root_of_the_namespace_on_request(user: Host) -> None:
    outcome = user.run(
        *AS_USER, RUN, "--root", "sh", "-c", "id -u; ip link set eth0 mtu 1400; cat /sys/class/net/eth0/mtu"
    )

    assert outcome.stdout == "0\n1400\n"


@pytest.mark.parametrize(("script", "status"), [("exit 3", 3), ("kill -TERM $$", 143), ("no-such", 127)])
def test_exit_status_is_that_of_the_command(user: Host, script: str, status: int) -> None:
    assert user.run(*AS_USER, RUN, "sh", "-c", script, check=False).returncode == status


def test_signals_reach_the_command(user: Host) -> None:
    running = start(user, FOR_EVER)
    os.kill(running.inside, signal.SIGTERM)

    assert running.communicate(timeout=30) == ("", "")
    assert running.returncode == 143


def test_killed_run_leaves_no_process(user: Host) -> None:
    running = start(user, FOR_EVER)
    os.kill(running.inside, signal.SIGKILL)
    running.communicate(timeout=30)

    wait_for(lambda: len(processes(user)) == 2, "the end of all processes")  # the host's own, and ps


def test_capture_timeout_and_json_work(user: Host) -> None:
    user.run("mkdir", "-m", "777", "/run/.host/out")
    options = ("--json", "/run/.host/out/j", "--timeout", "0.5")
    assert user.run(*AS_USER, RUN, *options, "sh", "-c", FOR_EVER, check=False).returncode == 124
    assert json.loads(user.read("/run/.host/out/j").splitlines()[1]) == {"status": 124}

    user.run(*AS_USER, RUN, "--pcap", "/run/.host/out/c", "ping", "-qc2", "-i0.05", GATEWAY)
    assert user.run("stat", "-c", "%u", "/run/.host/out/c").stdout == "65534\n"
    need("tcpdump")
    assert len(user.run("tcpdump", "-nr", "/run/.host/out/c", "icmp").stdout.splitlines()) == 4


def test_several_networks_and_name_servers_are_used(open_tun: Host) -> None:
    dns = {"nameservers": ["10.1.0.1"]}
    configure(open_tun, bridge("one", "10.1.0.0/24", dns=dns), bridge("two", "10.2.0.0/24"))
    options = ("--network", "two", "--network", "one:data0")

    outcome = open_tun.run(*AS_USER, RUN, *options, "sh", "-c", "ls /sys/class/net; cat /etc/resolv.conf")
    assert outcome.stdout == "data0\neth0\nlo\nnameserver 10.1.0.1\n"


def test_stub_resolver_on_the_hosts_loopback_is_replaced(open_tun: Host) -> None:
    """The stub's servers are in a file in /run, which priv-net-run has covered with its own folder."""
    open_tun.write("/etc/resolv.conf", "nameserver 127.0.0.53\n")
    open_tun.write("/run/systemd/resolve/resolv.conf", "nameserver 192.0.2.7\n")
    open_tun.leaves("file /etc/resolv.conf", "* /run/systemd*")

    assert open_tun.run(*AS_USER, RUN, "cat", "/etc/resolv.conf").stdout == "nameserver 192.0.2.7\n"


def test_host_without_a_state_folder_is_supported(open_tun: Host) -> None:
    """The host has never used CNI, and only root could create the folder."""
    script = f"mount -t tmpfs t /var/lib && exec {' '.join(AS_USER)} {RUN} ls /sys/class/net"

    assert open_tun.run("unshare", "--mount", "sh", "-c", script).stdout == "eth0\nlo\n"


def test_two_runs_at_once_are_independent(user: Host) -> None:
    started = [start(user, "read end; hostname -I") for _ in range(2)]

    seen = [process.communicate("\n", timeout=30)[0].split()[0] for process in started]
    assert seen == ["10.22.0.2", "10.22.0.2"]


# Errors


def test_slirp4netns_is_used_without_a_default_route(open_tun: Host) -> None:
    """pasta copies the host's default route, and does not start if there is none."""
    open_tun.run(*AS_USER, RUN, "ping", "-c1", "-W30", GATEWAY)

    hide(open_tun, "/usr/bin/slirp4netns")
    assert "slirp4netns" in refused(open_tun, "true")


def test_device_that_cannot_be_opened_is_named(mynet: Host) -> None:
    """pasta would wait for ever, and ignore all signals except SIGKILL."""
    mynet.write("/run/.host/tun", "", 0o600)
    mynet.run("mount", "--bind", "/run/.host/tun", TUN)
    mynet.leaves(f"mount {TUN}", "dir /run/mount")

    line = refused(mynet, "true")
    assert f"chmod 666 {TUN}" in line and "sudo" in line


def test_all_that_is_missing_is_named_at_once(open_tun: Host) -> None:
    hide(open_tun, "/usr/bin/pasta")
    hide(open_tun, "/usr/bin/slirp4netns")
    open_tun.run("chmod", "600", "/run/.host/tun")

    line = refused(open_tun, "true")
    assert TUN in line and "passt" in line and "package slirp4netns" in line


def test_sysctl_that_forbids_namespaces_is_named(open_tun: Host) -> None:
    open_tun.write("/run/.host/switch", "0\n")
    switch = "/proc/sys/user/max_user_namespaces"
    script = f"mount --bind /run/.host/switch {switch} && exec {' '.join(AS_USER)} {RUN} true"

    outcome = open_tun.run("unshare", "--mount", "sh", "-c", script, check=False)
    assert (outcome.returncode, outcome.stderr.count("\n")) == (125, 1)
    assert "sysctl user.max_user_namespaces=" in outcome.stderr


def test_kernel_that_refuses_namespaces_is_quoted(open_tun: Host) -> None:
    """In a chroot, for example, the kernel allows no user namespace to any user."""
    open_tun.run("mkdir", "/run/.host/root")
    into = f"chroot /run/.host/root {' '.join(AS_USER)} {RUN} true"

    outcome = open_tun.run(
        "unshare", "--mount", "sh", "-c", f"mount --rbind / /run/.host/root && exec {into}", check=False
    )
    assert (outcome.returncode, outcome.stderr.count("\n")) == (125, 1)
    assert "user namespaces (Operation not permitted)" in outcome.stderr


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--user", "root", "true"], "--user"),
        (["--netns", "lab", "true"], "--netns"),
        (["--netns", "lab", "--delete"], "root"),
        (["--sticky", "web", "true"], "--sticky needs root"),
        (["--mdns", "true"], "--mdns needs root"),
        (["--publish", "8080:80/sctp", "true"], "--publish"),
        (["--network", "nowhere", "true"], "nowhere"),
        (["--pcap", "/etc/x", "true"], "/etc/x"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_option_that_needs_root_is_refused(open_tun: Host, argv: list[str], message: str) -> None:
    assert message in refused(open_tun, *argv)


def test_program_that_fails_is_quoted(open_tun: Host) -> None:
    open_tun.write("/run/.host/bin/slirp4netns", "#!/bin/sh\necho it is Friday >&2\nexit 1\n", 0o755)
    env = base_environment() | {"PATH": f"/run/.host/bin:{base_environment()['PATH']}"}

    outcome = open_tun.run(*AS_USER, RUN, "true", env=env, check=False)
    assert (outcome.returncode, outcome.stderr.count("\n")) == (125, 1)
    assert "slirp4netns has ended: it is Friday" in outcome.stderr
