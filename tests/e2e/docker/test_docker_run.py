# SPDX-License-Identifier: Apache-2.0
"""docker-run with a real daemon.  Each test must leave no container, attachment, link or process."""

import json

import pytest

from tests.support.host.host import Host
from tests.support.plugins.cni import CHECKOUT
from tests.support.runtimes.docker import DOCKER_RUN, IMAGE, Docker, Terminal
from tests.support.runtimes.oci import (
    CNIHOOK,
    LOOPBACK,
    MYNET,
    NET_D,
    bridge,
    external,
    leases,
    wait_for,
)

FOR_EVER = ("sleep", "2147483647")


def test_container_is_attached_to_all_networks_by_default(docker: Docker, host: Host) -> None:
    """The watcher and both containers are gone when docker-run returns, because it waits for them."""
    host.write(f"{NET_D}/20-other.conflist", json.dumps(bridge("other", "10.23.0.0/24")))
    host.write(f"{NET_D}/99-loopback.conf", LOOPBACK)

    result = docker.run("--rm", IMAGE, "sh", "-c", "ip -o addr; ip route; ping -c1 -w30 10.22.0.1")

    assert docker.keepers() == [] and docker.containers() == []
    assert "eth0    inet 10.22.0.2/16" in result.stdout
    assert "eth1    inet 10.23.0.2/24" in result.stdout
    assert "default via 10.22.0.1 dev eth0" in result.stdout
    assert "1 packets received" in result.stdout


def test_network_option_chooses_networks_and_interface_names(docker: Docker, host: Host) -> None:
    """IPv6 works too, although docker disables it in its containers by default."""
    six = bridge("six", "fd00:22::/64")
    host.write(f"{NET_D}/20-six.conflist", json.dumps(six))

    result = docker.run(
        "--network",
        "six:net0",
        "--rm",
        "--net=mynet",
        IMAGE,
        "sh",
        "-c",
        "ip -o addr; ping -c1 -w30 fd00:22::1",
    )

    assert "net0    inet6 fd00:22::2/64" in result.stdout
    assert "eth0    inet 10.22.0.2/16" in result.stdout
    assert "1 packets received" in result.stdout


def test_names_and_servers_come_from_options_and_networks(docker: Docker, host: Host) -> None:
    """Docker rejects these options for a container that joins a network: the pause container gets them."""
    network = json.loads(MYNET) | {"dns": {"nameservers": ["10.22.0.1"], "search": ["lan"]}}
    host.write(f"{NET_D}/10-mynet.conf", json.dumps(network))
    show = (IMAGE, "sh", "-c", "hostname; cat /etc/hosts /etc/resolv.conf")

    from_options = docker.run(
        "--rm", "-hweb", "--domainname", "example.org", "--add-host=db:10.9.9.9", "--dns", "192.0.2.53",
        "--expose", "80", *show,
    ).stdout.splitlines()  # fmt: skip
    from_network = docker.run("--rm", *show).stdout.splitlines()

    assert from_options[0] == "web"
    assert [line for line in from_options if line.startswith("10.9.9.9\tdb\t")]
    assert {"nameserver 192.0.2.53", "search lan"} < set(from_options)
    assert [line for line in from_options if "\tweb.example.org web\t" in line][0].startswith("10.22.0.")
    assert [line for line in from_network if line.startswith("nameserver")] == ["nameserver 10.22.0.1"]


def test_host_name_is_sent_to_a_dhcp_server(docker: Docker, host: Host) -> None:
    """The plugin gets it in its configuration, as the reference's dhcp would."""
    answer = '{"cniVersion":"1.0.0","ips":[{"address":"10.9.0.2/24"}]}'
    script = f"""printf %s "$stdin" > /run/.host/conf; echo '{answer}'"""
    docker.env["CNI_PATH"] = external(host, "dhcp", script)
    network = {"cniVersion": "1.0.0", "name": "lan", "type": "bridge", "ipam": {"type": "dhcp"}}
    host.write(f"{NET_D}/20-lan.conf", json.dumps(network))
    try:
        docker.run("--rm", "--network", "lan", "--hostname", "app", IMAGE, "true")
        ipam = json.loads(host.read("/run/.host/conf"))["ipam"]
        assert ipam["provide"] == [{"option": "host-name", "value": "app"}]
        docker.expect_nothing()
    finally:
        del docker.env["CNI_PATH"]


def test_address_and_mac_options_reach_the_network(docker: Docker, host: Host) -> None:
    request = ("--ip", "10.22.0.9", "--mac-address=02:00:00:00:00:09", "--no-default-route")

    result = docker.run("--rm", *request, IMAGE, "sh", "-c", "ip addr show eth0; ip route")

    assert "inet 10.22.0.9/16" in result.stdout and "02:00:00:00:00:09" in result.stdout
    assert "default" not in result.stdout.split("inet ")[1]
    docker.expect_nothing()


def test_arguments_reach_the_command_unchanged(docker: Docker, host: Host) -> None:
    words = ["a b", "", "'", '"', "$HOME", "*", "two\nlines", "-p", "--network", "é", "\\"]

    result = docker.run("--rm", "-e", "X=a b=c", IMAGE, "sh", "-c", 'printf "%s|" "$X" "$@"', "sh", *words)

    assert result.stdout.split("|")[:-1] == ["a b=c", *words]


@pytest.mark.parametrize(
    ("words", "status"),
    [
        pytest.param([IMAGE, "sh", "-c", "exit 7"], 7, id="the command's own"),
        pytest.param(["--init", IMAGE, "sh", "-c", "kill -9 $$"], 137, id="killed"),
        pytest.param([IMAGE, "/bin"], 126, id="not executable"),
        pytest.param([IMAGE, "nothing-of-that-name"], 127, id="not found"),
        pytest.param(["--pull=never", "no-such-image"], 125, id="no image"),
        pytest.param(["--no-such-option", IMAGE, "true"], 125, id="no such option"),
        pytest.param(["--dns", "nonsense", IMAGE, "true"], 125, id="option of the pause container"),
    ],
)
def test_exit_status_is_docker_runs(docker: Docker, host: Host, words: list[str], status: int) -> None:
    result = docker.run("--rm", *words, check=False)

    assert result.returncode == status
    assert bool(result.stderr) == (status in (125, 126, 127))
    docker.expect_nothing()


def test_container_without_rm_stays_and_its_network_is_released(docker: Docker, host: Host) -> None:
    docker.run("--name", "kept", IMAGE, "true")

    assert docker.containers() == ["kept"]
    docker("rm", "kept")
    docker.expect_nothing()


def test_stdin_reaches_the_container(docker: Docker, host: Host) -> None:
    assert docker.run("-i", "--rm", IMAGE, "cat", input="one\ntwo").stdout == "one\ntwo"


def test_terminal_belongs_to_the_container(docker: Docker, host: Host) -> None:
    """Ctrl-C reaches the shell in the container, not docker-run."""
    terminal = Terminal(docker, "-it", "--rm", IMAGE, "sh")

    terminal.type("test -t 0 && echo a tty\n")
    terminal.expect("\na tty")
    terminal.type("sh -c 'echo sleeping; exec sleep 1000'\n")
    terminal.expect("\nsleeping")
    terminal.type("\x03")
    terminal.type("echo still here; exit 9\n")
    terminal.expect("\nstill here")

    assert terminal.status() == 9
    docker.expect_nothing()


def test_detached_container_keeps_its_network_until_it_ends(docker: Docker, host: Host) -> None:
    container = docker.run("-d", "--rm", "--name", "web", IMAGE, *FOR_EVER).stdout.strip()

    assert docker("inspect", "--format", "{{.Id}}", "web").stdout.strip() == container
    assert leases(host) == ["10.22.0.2"]
    host.run("ping", "-c1", "-W30", "10.22.0.2")
    docker("kill", "web")
    docker.expect_nothing()


def test_network_stays_after_detach_keys(docker: Docker, host: Host) -> None:
    terminal = Terminal(docker, "-it", "--rm", "--name", "web", IMAGE, "sh")
    terminal.type("echo up\n")
    terminal.expect("\nup")

    terminal.type("\x10\x11")

    assert terminal.status() == 0
    assert docker.state("web") == "running"
    host.run("ping", "-c1", "-W30", "10.22.0.2")
    docker("rm", "--force", "web")
    docker.expect_nothing()


def test_restarted_container_keeps_its_network(docker: Docker, host: Host) -> None:
    docker.run("-d", "--name", "web", IMAGE, *FOR_EVER)

    docker("restart", "--time=0", "web")

    host.run("ping", "-c1", "-W30", "10.22.0.2")
    assert docker("exec", "web", "ip", "-o", "addr").stdout.count("10.22.0.2/16") == 1
    docker("rm", "--force", "web")
    docker.expect_nothing()


def test_sticky_address_is_for_the_next_container_of_the_name(docker: Docker, host: Host) -> None:
    host.leaves("dir /var/lib/cnihook*")
    show = (IMAGE, "ip", "-o", "-4", "addr", "show", "eth0")
    printed = [
        docker.run("--rm", *sticky, *show).stdout.split()[3]
        for sticky in (["--sticky", "web"], [], ["--sticky=web"])
    ]

    assert printed == ["10.22.0.2/16", "10.22.0.3/16", "10.22.0.2/16"]
    assert host.run(CNIHOOK, "sticky", "rm", "web").stdout == "web\n"
    docker.expect_nothing()


def test_networks_survive_a_restart_of_the_daemon(docker: Docker, host: Host) -> None:
    """The second container ends while the daemon is down; its network is released afterwards."""
    docker.run("-d", "--name", "first", IMAGE, *FOR_EVER)
    docker.run("-d", "--name", "second", IMAGE, *FOR_EVER)
    pid = docker("inspect", "--format", "{{.State.Pid}}", "second").stdout.strip()

    docker.stop()
    host.run("ping", "-c1", "-W30", "10.22.0.2")
    host.run("kill", "-9", pid)
    docker.restart()

    wait_for(lambda: leases(host) == ["10.22.0.2"], "the end of the second's network")
    host.run("ping", "-c1", "-W30", "10.22.0.2")
    docker("rm", "--force", "first", "second")
    docker.expect_nothing()


ENDS_BY_SIGNAL = """trap "exit 5" INT TERM; echo ready; while :; do sleep 0.05; done"""


def test_ctrl_c_ends_the_container(docker: Docker, host: Host) -> None:
    terminal = Terminal(docker, "--rm", IMAGE, "sh", "-c", ENDS_BY_SIGNAL)
    terminal.expect("ready")

    terminal.type("\x03")

    assert terminal.status() == 5
    docker.expect_nothing()


def test_signal_to_docker_run_alone_reaches_the_container(docker: Docker, host: Host) -> None:
    process = docker.popen("--rm", IMAGE, "sh", "-c", ENDS_BY_SIGNAL)
    assert process.stdout and process.stdout.readline() == "ready\n"

    process.terminate()

    assert process.wait(30) == 5
    docker.expect_nothing()


def test_network_stays_after_docker_run_is_killed(docker: Docker, host: Host) -> None:
    """A killed docker client leaves its container running too.  The network is released when that ends."""
    process = docker.popen("--rm", "--name", "web", IMAGE, *FOR_EVER)
    docker.wait_until_running("web")

    process.kill()
    process.wait(30)

    wait_for(lambda: len(docker.keepers()) == 1, "the end of docker's client")
    host.run("ping", "-c1", "-W30", "10.22.0.2")
    docker("kill", "web")
    docker.expect_nothing()


@pytest.mark.parametrize("signum", [2, 15, 9])
def test_signal_during_add_rolls_back(docker: Docker, host: Host, signum: int) -> None:
    """A hanging plugin must not block docker-run, and nothing may be left when docker-run ends."""
    folder = external(host, "slow", "if [ $CNI_COMMAND = ADD ]; then echo > /run/.host/adding; sleep 60; fi")
    network = {"cniVersion": "1.0.0", "name": "slow", "plugins": [{"type": "slow"}]}
    host.write(f"{NET_D}/20-slow.conflist", json.dumps(network))
    docker.env["CNI_PATH"] = folder
    try:
        process = docker.popen("--rm", "--name", "web", IMAGE, *FOR_EVER)
        wait_for(lambda: host.exists("/run/.host/adding"), "the plugin")
        (host.root / "run/.host/adding").unlink()
        process.send_signal(signum)
        assert process.wait(30) == (128 + signum if signum != 9 else -9)
    finally:
        del docker.env["CNI_PATH"]
    docker.expect_nothing()
    # The plugin outlives its caller.  Its end during a later test would count as a change of the host.
    host.run("pkill", "-9", "-f", "^(/bin/sh .*/plugins/slow|sleep 60)$", check=False)


def test_closed_streams_and_ignored_signals_are_kept(docker: Docker, host: Host) -> None:
    """nohup ignores a signal; some daemons start commands with no stream open."""
    script = 'exec 0<&- 1>&- 2>&-; exec env --ignore-signal=HUP --ignore-signal=CHLD "$@"'
    process = docker.host.popen(
        "sh", "-c", script, "sh", DOCKER_RUN, "--rm", "--name", "web", IMAGE, *FOR_EVER, env=docker.env
    )
    docker.wait_until_running("web")

    process.send_signal(1)
    host.run("ping", "-c1", "-W30", "10.22.0.2")
    docker("kill", "web")

    assert process.wait(30) == 137
    docker.expect_nothing()


def test_networks_of_docker_are_passed_through(docker: Docker, host: Host) -> None:
    """Options that a CNI network would not support are passed through with them."""
    none = docker.run("--rm", "--network", "none", "--publish-all", IMAGE, "ip", "link")

    assert "lo:" in none.stdout and "eth0" not in none.stdout
    docker.run("-d", "--rm", "--name", "web", IMAGE, *FOR_EVER)
    joined = docker.run("--rm", "--network=container:web", IMAGE, "ip", "-o", "addr")
    assert "10.22.0.2/16" in joined.stdout
    docker("kill", "web")
    docker.expect_nothing()


def test_parallel_starts_share_one_pause_image(docker: Docker, host: Host) -> None:
    """The first one builds the image; the others neither build another nor find it half-built."""
    docker("rmi", "--force", "cnihook/pause:1")

    running = [docker.popen("--rm", IMAGE, "ip", "-o", "addr", "show", "eth0") for _ in range(4)]
    outputs = [process.communicate(timeout=30) for process in running]

    assert all(stdout for stdout, _ in outputs), outputs
    assert len({stdout.split()[3] for stdout, _ in outputs}) == 4, outputs
    assert docker("images", "--quiet", "--filter", "dangling=true").stdout == ""
    docker.expect_nothing()


def test_other_architectures_pause_with_busybox(docker: Docker, host: Host) -> None:
    script = (
        "import sys; sys.path.insert(0, sys.argv[1]); from cnihook.cli.docker import pause\n"
        "docker = pause.Docker(); pause.make_image(docker, 'riscv64')\n"
        "paused = pause.start(docker, 'other', []); assert paused.is_alive; pause.remove(docker, 'other')\n"
        "assert not paused.is_alive"
    )
    docker("rmi", "--force", "cnihook/pause:1")

    host.run("/usr/bin/python3", "-IS", "-c", script, str(CHECKOUT), env=docker.env)

    assert "busybox" in docker("inspect", "--format", "{{.Config.Entrypoint}}", "cnihook/pause:1").stdout
    docker("rmi", "cnihook/pause:1")
