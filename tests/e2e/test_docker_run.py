# SPDX-License-Identifier: Apache-2.0
"""docker-run, against a real daemon.  After each test no container, attachment, link or process is left."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.docker import DOCKER_RUN, IMAGE, Docker, Terminal, daemon_with
from tests.support.host import Host
from tests.support.oci import (
    CNIHOOK,
    LOOPBACK,
    MYNET,
    NET_D,
    PASS_ON,
    RESULTS,
    bridge,
    external,
    leases,
    wait_for,
)

pytestmark = pytest.mark.xdist_group("docker")  # one daemon for all of them

FOR_EVER = ("sleep", "2147483647")


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Docker]:
    with daemon_with(tmp_path_factory.mktemp("docker"), {}) as made:
        yield made


@pytest.fixture
def host(daemon: Docker) -> Host:
    return daemon.begin_test({"10-mynet.conf": MYNET})


@pytest.fixture
def docker(daemon: Docker, host: Host) -> Iterator[Docker]:
    yield daemon
    daemon.end_test()


def gone(docker: Docker, host: Host) -> None:
    """All is put away, if not at once then as soon as the keeper is through."""
    docker.wait_until_left()
    assert docker.containers() == []
    assert leases(host) == host.listdir(RESULTS) == host.listdir("/run/netns") == []


def test_container_is_on_all_networks_of_the_folder(docker: Docker, host: Host) -> None:
    """Nothing else is there to see when docker-run returns: it has waited for all to be put away."""
    host.write(f"{NET_D}/20-other.conflist", json.dumps(bridge("other", "10.23.0.0/24")))
    host.write(f"{NET_D}/99-loopback.conf", LOOPBACK)

    done = docker.run("--rm", IMAGE, "sh", "-c", "ip -o addr; ip route; ping -c1 -w30 10.22.0.1")

    assert docker.keepers() == [] and docker.containers() == []
    assert "eth0    inet 10.22.0.2/16" in done.stdout
    assert "eth1    inet 10.23.0.2/24" in done.stdout
    assert "default via 10.22.0.1 dev eth0" in done.stdout
    assert "1 packets received" in done.stdout


def test_networks_and_interfaces_can_be_chosen(docker: Docker, host: Host) -> None:
    """IPv6 too, which docker switches off for whatever is in its containers by default."""
    six = bridge("six", "fd00:22::/64")
    host.write(f"{NET_D}/20-six.conflist", json.dumps(six))

    done = docker.run(
        "--network",
        "six:net0",
        "--rm",
        "--net=mynet",
        IMAGE,
        "sh",
        "-c",
        "ip -o addr; ping -c1 -w30 fd00:22::1",
    )

    assert "net0    inet6 fd00:22::2/64" in done.stdout
    assert "eth0    inet 10.22.0.2/16" in done.stdout
    assert "1 packets received" in done.stdout


def test_names_are_as_docker_and_the_networks_give_them(docker: Docker, host: Host) -> None:
    """These options docker refuses to a container that shares another's network: that one gets them."""
    network = json.loads(MYNET) | {"dns": {"nameservers": ["10.22.0.1"], "search": ["lan"]}}
    host.write(f"{NET_D}/10-mynet.conf", json.dumps(network))
    show = (IMAGE, "sh", "-c", "hostname; cat /etc/hosts /etc/resolv.conf")

    given = docker.run(
        "--rm", "-hweb", "--domainname", "example.org", "--add-host=db:10.9.9.9", "--dns", "192.0.2.53",
        "--expose", "80", *show,
    ).stdout.splitlines()  # fmt: skip
    from_network = docker.run("--rm", *show).stdout.splitlines()

    assert given[0] == "web"
    assert [line for line in given if line.startswith("10.9.9.9\tdb\t")]
    assert {"nameserver 192.0.2.53", "search lan"} < set(given)
    assert [line for line in given if "\tweb.example.org web\t" in line][0].startswith("10.22.0.")
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
        gone(docker, host)
    finally:
        del docker.env["CNI_PATH"]


def test_address_and_mac_are_the_networks_to_give(docker: Docker, host: Host) -> None:
    wish = ("--ip", "10.22.0.9", "--mac-address=02:00:00:00:00:09", "--no-default-route")

    done = docker.run("--rm", *wish, IMAGE, "sh", "-c", "ip addr show eth0; ip route")

    assert "inet 10.22.0.9/16" in done.stdout and "02:00:00:00:00:09" in done.stdout
    assert "default" not in done.stdout.split("inet ")[1]
    gone(docker, host)


def test_words_reach_the_command_as_they_are(docker: Docker, host: Host) -> None:
    words = ["a b", "", "'", '"', "$HOME", "*", "two\nlines", "-p", "--network", "é", "\\"]

    done = docker.run("--rm", "-e", "X=a b=c", IMAGE, "sh", "-c", 'printf "%s|" "$X" "$@"', "sh", *words)

    assert done.stdout.split("|")[:-1] == ["a b=c", *words]


@pytest.mark.parametrize(
    ("words", "status"),
    [
        pytest.param([IMAGE, "sh", "-c", "exit 7"], 7, id="its own"),
        pytest.param(["--init", IMAGE, "sh", "-c", "kill -9 $$"], 137, id="killed"),
        pytest.param([IMAGE, "/bin"], 126, id="not executable"),
        pytest.param([IMAGE, "nothing-of-that-name"], 127, id="not found"),
        pytest.param(["--pull=never", "no-such-image"], 125, id="no image"),
        pytest.param(["--no-such-option", IMAGE, "true"], 125, id="no such option"),
        pytest.param(["--dns", "nonsense", IMAGE, "true"], 125, id="option of the pause container"),
    ],
)
def test_exit_status_is_docker_runs(docker: Docker, host: Host, words: list[str], status: int) -> None:
    done = docker.run("--rm", *words, check=False)

    assert done.returncode == status
    assert bool(done.stderr) == (status in (125, 126, 127))
    gone(docker, host)


def test_without_rm_the_container_stays_and_its_network_goes(docker: Docker, host: Host) -> None:
    docker.run("--name", "kept", IMAGE, "true")

    assert docker.containers() == ["kept"]
    docker("rm", "kept")
    gone(docker, host)


def test_stdin_reaches_the_container(docker: Docker, host: Host) -> None:
    assert docker.run("-i", "--rm", IMAGE, "cat", input="one\ntwo").stdout == "one\ntwo"


def test_terminal_is_the_containers(docker: Docker, host: Host) -> None:
    """Ctrl-C there is the shell's in the container, not docker-run's."""
    terminal = Terminal(docker, "-it", "--rm", IMAGE, "sh")

    terminal.type("test -t 0 && echo a tty\n")
    terminal.expect("\na tty")
    terminal.type("sh -c 'echo sleeping; exec sleep 1000'\n")
    terminal.expect("\nsleeping")
    terminal.type("\x03")
    terminal.type("echo still here; exit 9\n")
    terminal.expect("\nstill here")

    assert terminal.status() == 9
    gone(docker, host)


def test_detached_container_keeps_its_network_until_it_ends(docker: Docker, host: Host) -> None:
    container = docker.run("-d", "--rm", "--name", "web", IMAGE, *FOR_EVER).stdout.strip()

    assert docker("inspect", "--format", "{{.Id}}", "web").stdout.strip() == container
    assert leases(host) == ["10.22.0.2"]
    host.run("ping", "-c1", "-W30", "10.22.0.2")
    docker("kill", "web")
    gone(docker, host)


def test_detach_keys_leave_the_container_its_network(docker: Docker, host: Host) -> None:
    terminal = Terminal(docker, "-it", "--rm", "--name", "web", IMAGE, "sh")
    terminal.type("echo up\n")
    terminal.expect("\nup")

    terminal.type("\x10\x11")

    assert terminal.status() == 0
    assert docker.state("web") == "running"
    host.run("ping", "-c1", "-W30", "10.22.0.2")
    docker("rm", "--force", "web")
    gone(docker, host)


def test_restarted_container_keeps_its_network(docker: Docker, host: Host) -> None:
    docker.run("-d", "--name", "web", IMAGE, *FOR_EVER)

    docker("restart", "--time=0", "web")

    host.run("ping", "-c1", "-W30", "10.22.0.2")
    assert docker("exec", "web", "ip", "-o", "addr").stdout.count("10.22.0.2/16") == 1
    docker("rm", "--force", "web")
    gone(docker, host)


def test_restarted_daemon_costs_no_container_its_network(docker: Docker, host: Host) -> None:
    """The container ends while nobody is there to ask about it, too."""
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
    gone(docker, host)


ENDS_BY_SIGNAL = """trap "exit 5" INT TERM; echo ready; while :; do sleep 0.05; done"""


def test_ctrl_c_ends_the_container(docker: Docker, host: Host) -> None:
    terminal = Terminal(docker, "--rm", IMAGE, "sh", "-c", ENDS_BY_SIGNAL)
    terminal.expect("ready")

    terminal.type("\x03")

    assert terminal.status() == 5
    gone(docker, host)


def test_signal_to_docker_run_alone_reaches_the_container(docker: Docker, host: Host) -> None:
    process = docker.popen("--rm", IMAGE, "sh", "-c", ENDS_BY_SIGNAL)
    assert process.stdout and process.stdout.readline() == "ready\n"

    process.terminate()

    assert process.wait(30) == 5
    gone(docker, host)


def test_killed_docker_run_leaves_the_container_its_network(docker: Docker, host: Host) -> None:
    """As a killed docker client leaves the container.  Its network still goes when it ends."""
    process = docker.popen("--rm", "--name", "web", IMAGE, *FOR_EVER)
    docker.wait_until_running("web")

    process.kill()
    process.wait(30)

    wait_for(lambda: len(docker.keepers()) == 1, "the end of docker's client")
    host.run("ping", "-c1", "-W30", "10.22.0.2")
    docker("kill", "web")
    gone(docker, host)


@pytest.mark.parametrize("signum", [2, 15, 9])
def test_signal_during_add_takes_all_back(docker: Docker, host: Host, signum: int) -> None:
    """A plugin that hangs must not make docker-run hang, nor may its end leave anything."""
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
    gone(docker, host)
    # The plugin outlives its caller.  Its end within a later test would count as a change of the host.
    host.run("pkill", "-9", "-f", "^(/bin/sh .*/plugins/slow|sleep 60)$", check=False)


def test_failing_network_is_125_and_one_line(docker: Docker, host: Host) -> None:
    """The one before it is taken down again, and the image's command never runs."""
    host.write(f"{NET_D}/20-bad.conflist", json.dumps(bridge("bad", "10.24.0.0/24", mtu=-1)))

    done = docker.run("--rm", IMAGE, "echo", "started", check=False)

    assert (done.returncode, done.stdout) == (125, "")
    assert done.stderr.startswith("docker-run: ") and done.stderr.count("\n") == 1
    assert '"mtu"' in done.stderr
    gone(docker, host)


@pytest.mark.parametrize(
    "words",
    [
        ["-p", "80:80"],
        ["-itp80:80"],
        ["-P"],
        ["--publish=80"],
        ["--link", "db"],
        ["--link-local-ip", "169.254.1.1"],
        ["--restart=always"],
        ["--network", "name=mynet,driver-opt=x=y"],
        ["--network", "nothing-of-that-name"],
    ],
    ids=" ".join,
)
def test_what_cannot_be_had_is_refused_with_advice(docker: Docker, host: Host, words: list[str]) -> None:
    done = docker.run(*words, IMAGE, "true", check=False)

    assert done.returncode == 125
    assert done.stderr.startswith("docker-run: ") and done.stderr.count("\n") == 1
    assert "; " in done.stderr, "and what to do instead"


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--rm", "--name"],
        ["--network", "mynet:a/b", IMAGE],
        ["--network", "", IMAGE],
        ["--network", "none", "--network", "mynet", IMAGE],
        ["--network", "mynet:eth0", "--network", "cnihook:eth0", IMAGE],
    ],
    ids=" ".join,
)
def test_senseless_words_are_125_and_one_line(docker: Docker, host: Host, words: list[str]) -> None:
    done = docker.run(*words, check=False)

    assert done.returncode == 125
    assert done.stderr.startswith("docker-run: ") and done.stderr.count("\n") == 1
    gone(docker, host)


def test_unreachable_daemon_is_125_and_one_line(docker: Docker, host: Host) -> None:
    env = docker.env | {"DOCKER_HOST": "unix:///run/nothing"}

    done = host.run(DOCKER_RUN, IMAGE, "true", env=env, check=False)

    assert (done.returncode, done.stderr.count("\n")) == (125, 1)
    assert done.stderr.startswith("docker-run: Cannot connect to the Docker daemon at unix:///run/nothing.")


def test_daemon_on_another_machine_is_refused(docker: Docker, host: Host) -> None:
    """Its containers' process numbers mean nothing here, or somebody else."""
    with Host() as here:
        done = here.run(DOCKER_RUN, IMAGE, "true", env=docker.env, check=False)

        assert (done.returncode, done.stderr.count("\n")) == (125, 2)  # one is on the default network
        assert "the docker daemon runs its containers elsewhere" in done.stderr
        here.check_leaks()
    gone(docker, host)


def test_users_without_privilege_are_told(docker: Docker, host: Host) -> None:
    done = host.run(
        *"setpriv --reuid=65534 --regid=65534 --clear-groups".split(), DOCKER_RUN, IMAGE, check=False
    )

    assert (done.returncode, done.stderr) == (
        125,
        "docker-run: networks need root; try `sudo docker-run ...`\n",
    )


def test_what_cannot_be_detached_is_told_and_stays_on_record(docker: Docker, host: Host) -> None:
    """The command's exit status is its own nevertheless, and gc finds what is left."""
    refuse = (
        """if [ $CNI_COMMAND = DEL ]; then echo '{"code": 100, "msg": "the moon is full"}'; exit 1; fi"""
    )
    docker.env["CNI_PATH"] = external(host, "moody", f"{refuse}\n{PASS_ON}")
    network = {"cniVersion": "1.0.0", "name": "moody", "plugins": [{"type": "moody"}]}
    host.write(f"{NET_D}/20-moody.conflist", json.dumps(network))
    try:
        done = docker.run("--rm", IMAGE, "sh", "-c", "exit 7", check=False)

        assert (done.returncode, done.stderr.count("\n")) == (7, 1)
        assert done.stderr.startswith("docker-run: ") and "the moon is full" in done.stderr
        assert docker.containers() == leases(host) == []
        external(host, "moody", PASS_ON)
        assert "moody" in host.run(CNIHOOK, "gc", env=docker.env).stdout
    finally:
        del docker.env["CNI_PATH"]
    gone(docker, host)
    host.leaves("file /run/cnihook/log/*")  # of a failure, to be looked into


def test_closed_streams_and_ignored_signals_are_the_callers_will(docker: Docker, host: Host) -> None:
    """nohup, and daemons that start commands with nothing open."""
    script = 'exec 0<&- 1>&- 2>&-; exec env --ignore-signal=HUP --ignore-signal=CHLD "$@"'
    process = docker.host.popen(
        "sh", "-c", script, "sh", DOCKER_RUN, "--rm", "--name", "web", IMAGE, *FOR_EVER, env=docker.env
    )
    docker.wait_until_running("web")

    process.send_signal(1)
    host.run("ping", "-c1", "-W30", "10.22.0.2")
    docker("kill", "web")

    assert process.wait(30) == 137
    gone(docker, host)


def test_networks_that_are_dockers_pass_straight_through(docker: Docker, host: Host) -> None:
    """Together with options that a CNI network would not take."""
    none = docker.run("--rm", "--network", "none", "--publish-all", IMAGE, "ip", "link")

    assert "lo:" in none.stdout and "eth0" not in none.stdout
    docker.run("-d", "--rm", "--name", "web", IMAGE, *FOR_EVER)
    joined = docker.run("--rm", "--network=container:web", IMAGE, "ip", "-o", "addr")
    assert "10.22.0.2/16" in joined.stdout
    docker("kill", "web")
    gone(docker, host)


def test_many_at_once_share_one_image(docker: Docker, host: Host) -> None:
    """Made anew by the first of them: the others neither make another nor find half of one."""
    docker("rmi", "--force", "cnihook/pause:1")

    running = [docker.popen("--rm", IMAGE, "ip", "-o", "addr", "show", "eth0") for _ in range(4)]
    outputs = [process.communicate(timeout=30) for process in running]

    assert all(stdout for stdout, _ in outputs), outputs
    assert len({stdout.split()[3] for stdout, _ in outputs}) == 4, outputs
    assert docker("images", "--quiet", "--filter", "dangling=true").stdout == ""
    gone(docker, host)


def test_machines_of_other_languages_pause_by_busybox(docker: Docker, host: Host) -> None:
    script = (
        "import sys; sys.path.insert(0, sys.argv[1]); from cnihook.cli import docker_pause as pause\n"
        "docker = pause.Docker(); pause.make_image(docker, 'riscv64')\n"
        "made = pause.start(docker, 'other', []); assert made.is_alive; pause.remove(docker, 'other')\n"
        "assert not made.is_alive"
    )
    docker("rmi", "--force", "cnihook/pause:1")

    host.run("/usr/bin/python3", "-IS", "-c", script, str(Path(__file__).parents[2]), env=docker.env)

    assert "busybox" in docker("inspect", "--format", "{{.Config.Entrypoint}}", "cnihook/pause:1").stdout
    docker("rmi", "cnihook/pause:1")
