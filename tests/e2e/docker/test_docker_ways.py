# SPDX-License-Identifier: Apache-2.0
"""docker-run's features, each with the runtime cni-runc and with a pause container."""

import json
import shutil
from collections.abc import Iterator
from typing import cast

import pytest

from tests.support.host.host import Host, Outside
from tests.support.host.namespace import Namespace
from tests.support.plugins.bandwidth import check_limit
from tests.support.plugins.cni import CHECKOUT
from tests.support.plugins.ports import reached, seen
from tests.support.runtimes.docker import DOCKER_RUN, IMAGE, Docker, Terminal
from tests.support.runtimes.oci import FOR_EVER, NET_D, RESULTS, kill, leases, wait_for

RUNTIMES = {"other": "runc", "x-cni": str(CHECKOUT / "scripts" / "cni-runc")}


def network(name: str, *subnets: str) -> str:
    """Return a network that supports every option."""
    ipam = {
        "type": "host-local",
        "ranges": [[{"subnet": subnet}] for subnet in subnets],
        "routes": [{"dst": "::/0" if ":" in subnet else "0.0.0.0/0"} for subnet in subnets],
    }
    plugins = [
        {"type": "bridge", "bridge": f"br-{name}", "isGateway": True, "ipMasq": True, "ipam": ipam},
        {"type": "portmap", "capabilities": {"portMappings": True}},
        {"type": "bandwidth", "capabilities": {"bandwidth": True}},
    ]
    return json.dumps({"cniVersion": "1.0.0", "name": name, "plugins": plugins})


NETWORKS = {
    "10-front.conflist": network("front", "10.22.0.0/16", "fd00:22::/64"),
    "20-back.conflist": network("back", "10.23.0.0/16"),
}


@pytest.fixture(scope="module", autouse=True)
def outside(daemon: Docker) -> Outside:
    return daemon.host.outside()


@pytest.fixture
def docker(docker: Docker, host: Host) -> Iterator[Docker]:
    yield docker
    docker.wait_until_left()
    assert attached(host) == []
    assert host.listdir("/run/netns") == [Outside.NAME]


def attached(host: Host) -> list[str]:
    """Return the records and the leases."""
    return host.listdir(RESULTS) + leases(host, "front") + leases(host, "back")


class Way:
    """One of the two ways.  The daemon has the runtime cni-runc; `--runtime=runc` selects the other way."""

    def __init__(self, name: str, docker: Docker) -> None:
        self.is_runtime = name == "runtime"
        self.docker = docker
        self.options = () if self.is_runtime else ("--runtime=runc",)

    def start(self, name: str, *words: str) -> Namespace:
        """Start a container that sleeps."""
        container_id = self.docker.run(
            *self.options, "-d", "--name", name, *words, IMAGE, *FOR_EVER
        ).stdout.strip()
        assert len(container_id) == 64
        assert bool(self.docker.keepers()) != self.is_runtime
        return self.inside(name)

    def inside(self, name: str) -> Namespace:
        host = self.docker.host
        return Namespace(host.holder, f"{host.root}/proc/{pid(self.docker, name)}/ns/net", name)

    def exec(self, name: str, *words: str, check: bool = True) -> str:
        return self.docker("exec", name, *words, check=check).stdout

    def remove(self, *names: str) -> None:
        self.docker("rm", "--force", *names)
        self.docker.wait_until_left()


@pytest.fixture(params=["runtime", "pause"])
def way(request: pytest.FixtureRequest, docker: Docker) -> Way:
    return Way(cast(str, request.param), docker)


def pid(docker: Docker, name: str) -> int:
    return int(docker("inspect", "--format", "{{.State.Pid}}", name).stdout)


def test_options_of_each_network_take_effect(way: Way, host: Host) -> None:
    """Options in docker's long form and in cnihook's; one without a network applies to the first."""
    inside = way.start(
        "c1",
        *("--network", "name=front,ip=10.22.0.9,mac-address=02:00:00:00:00:09"),
        *("--network", "back:data0", "--ip6", "fd00:22::9"),
        *("--route", "192.0.2.0/24=10.22.0.7", "--no-default-route"),
    )

    assert inside.addresses("eth0") == ["10.22.0.9/16", "fd00:22::9/64"]
    assert inside.link("eth0")["address"] == "02:00:00:00:00:09"
    assert inside.addresses("data0") == ["10.23.0.2/16"]
    assert ("192.0.2.0/24", "10.22.0.7", "eth0") in inside.routes()
    assert not [route for route in (*inside.routes(4), *inside.routes(6)) if route[0] == "default"]
    host.run("ping", "-c1", "-W30", "10.22.0.9")
    host.run("ping", "-c1", "-W30", "fd00:22::9")
    way.remove("c1")


def test_published_ports_are_reachable_from_outside_and_the_host(
    way: Way, host: Host, outside: Outside
) -> None:
    ports = ("-p", "8080:80", "--publish=published=5353,target=53,protocol=udp", "-p127.0.0.1:8443:443")
    inside = way.start("c1", "--network", "front", *ports)

    assert seen(outside, inside, Outside.HOST, 8080) == Outside.ADDRESS
    assert seen(outside, inside, Outside.HOST6, 8080) == Outside.ADDRESS6
    assert seen(outside, inside, Outside.HOST, 5353, 53, protocol="udp") == Outside.ADDRESS
    assert seen(host, inside, Outside.HOST, 8080)
    assert seen(host, inside, "127.0.0.1", 8443, 443)
    assert not reached(outside, inside, Outside.HOST, 8443, 443)
    way.remove("c1")


def test_bandwidth_is_limited(way: Way, host: Host) -> None:
    inside = way.start("c1", "--network", "front", "--bandwidth", "in=20M,out=40M")

    check_limit(host, inside, "10.22.0.2", 20_000_000, 2_000_000)
    check_limit(inside, host, "10.22.0.1", 40_000_000, 4_000_000)
    way.remove("c1")


def test_containers_resolve_each_other_by_every_name(way: Way, host: Host) -> None:
    """The names of a container are removed when it has ended."""
    way.start("my_db", "--network", "front", "--hostname", "db1", "--network-alias", "store")
    names = ("--add-host", "gate:host-gateway", "--add-host", "far=192.0.2.7", "--domainname", "example.org")
    servers = ("--dns", "192.0.2.53", "--dns-search", "lan", "--dns-option", "ndots:3")
    way.start("web", "--network", "name=front,alias=www", "-hweb1", *names, *servers)

    for name, address in (
        *(("my_db", "10.22.0.2"), ("db1", "10.22.0.2"), ("store", "10.22.0.2"), ("gate", "10.22.0.1")),
        *(("web1", "10.22.0.3"), ("web1.example.org", "10.22.0.3"), ("www", "10.22.0.3")),
    ):
        assert f"({address})" in way.exec("web", "ping", "-c1", "-W30", name)
    for name in ("web", "web1", "www"):
        assert "(10.22.0.3)" in way.exec("my_db", "ping", "-c1", "-W30", name)
    assert "192.0.2.7\tfar" in way.exec("web", "cat", "/etc/hosts")
    assert way.exec("web", "cat", "/etc/hostname", "/proc/sys/kernel/hostname") == "web1\nweb1\n"
    resolv = way.exec("web", "cat", "/etc/resolv.conf").splitlines()
    assert {"nameserver 192.0.2.53", "search lan", "options ndots:3"} <= set(resolv)
    assert sum(line.startswith("nameserver") for line in resolv) == 1
    way.docker("rm", "--force", "my_db")
    wait_for(lambda: "db1" not in way.exec("web", "cat", "/etc/hosts"), "the end of the other's names")
    way.remove("web")


def test_names_work_in_read_only_containers(way: Way, host: Host) -> None:
    """Docker mounts its own files read-only in such a container; cnihook writes them nevertheless."""
    way.start("one", "--network", "front", "--read-only")
    way.start("two", "--network", "front", "--read-only", "--dns", "192.0.2.53")

    assert "(10.22.0.2)" in way.exec("two", "ping", "-c1", "-W30", "one")
    assert "(10.22.0.3)" in way.exec("one", "ping", "-c1", "-W30", "two")
    assert "nameserver 192.0.2.53" in way.exec("two", "cat", "/etc/resolv.conf")
    way.remove("one", "two")


def test_alias_of_another_container_is_refused(way: Way, host: Host) -> None:
    way.start("one", "--network", "front", "--hostname", "web")
    for alias, reason in (("web", "it is the host name of container"), ("localhost", "is reserved")):
        words = ("--rm", "--network", "front", "--network-alias", alias)
        refused = way.docker.run(*way.options, *words, IMAGE, "true", check=False)
        assert refused.returncode == 125 and reason in refused.stderr
    way.remove("one")
    host.leaves("file /run/cnihook/log/*")


def test_container_restarted_by_docker_is_attached_again(way: Way, host: Host, outside: Outside) -> None:
    """After `docker restart` and after a crash: names and ports are back, the old attachment is released."""
    way.start("other", "--network", "front")
    way.start("c1", "--network", "front", "-p", "8080:80", "--restart", "on-failure")
    assert len(attached(host)) == 6, "a record and two leases each"
    before = pid(way.docker, "c1")

    way.docker("restart", "--time", "0", "c1")
    assert seen(outside, way.inside("c1"), Outside.HOST, 8080) == Outside.ADDRESS
    kill(host, pid(way.docker, "c1"))
    wait_for(lambda: way.docker.state("c1") == "running" and pid(way.docker, "c1"), "the restart")

    inside = way.inside("c1")
    assert pid(way.docker, "c1") != before
    assert seen(outside, inside, Outside.HOST, 8080) == Outside.ADDRESS
    (address,) = [each for each in inside.addresses("eth0") if "." in each]
    assert f"({address.removesuffix('/16')})" in way.exec("other", "ping", "-c1", "-W30", "c1")
    assert way.exec("other", "cat", "/etc/hosts").count("c1 ") <= 2, "one line for each version of IP"
    assert len(attached(host)) == 6
    way.remove("c1", "other")


def test_network_stays_after_detach_keys(way: Way, host: Host, outside: Outside) -> None:
    words = (*way.options, "--network", "front", "-p", "8080:80")
    terminal = Terminal(way.docker, *words, "-it", "--rm", "--name", "c1", IMAGE, "sh")
    terminal.type("echo up\n")
    terminal.expect("\nup")

    terminal.type("\x10\x11")

    assert terminal.status() == 0
    assert seen(outside, way.inside("c1"), Outside.HOST, 8080) == Outside.ADDRESS
    way.remove("c1")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--network cnihook", "docker-run: no network 'cnihook' in /etc/cni/net.d; there are: back, front"),
        ("--network nonet", "docker-run: no network 'nonet' in /etc/cni/net.d; there are: "),
        ("--ip 10.22.0.9", "docker-run: address 10.22.0.9: the container is on 2 networks; "),
        ("--network front --ip 10.99.0.9", "10.99.0.9"),
        ("-p 70000:80", "docker-run: port '70000:80': a port is from 1 to 65535"),
        ("--network front --dns nonsense", "docker-run: DNS server 'nonsense'"),
    ],
)
def test_failure_is_125_with_a_reason(way: Way, host: Host, words: str, message: str) -> None:
    """docker-run prints one line.  If only the hook can detect the failure, docker's message contains it."""
    result = way.docker.run(*way.options, "--rm", *words.split(), IMAGE, "echo", "started", check=False)

    assert (result.returncode, result.stdout) == (125, "")
    line = result.stderr.splitlines()[0]
    is_dockers = line.startswith("docker: Error response from daemon: ")  # one line from docker 26 on
    assert message in line and (is_dockers or line.startswith("docker-run: "))
    assert is_dockers or len(result.stderr.splitlines()) == 1
    host.leaves("file /run/cnihook/log/*")


@pytest.mark.parametrize(
    ("words", "status"),
    [(("sh", "-c", "exit 7"), 7), (("/bin",), 126), (("nothing-of-that-name",), 127)],
)
def test_exit_status_is_docker_runs(docker: Docker, host: Host, words: tuple[str, ...], status: int) -> None:
    """This covers the runtime; test_docker_run.py covers the pause container."""
    assert docker.run("--rm", IMAGE, *words, check=False).returncode == status


def test_restart_policy_stop_and_start_work_with_the_runtime(docker: Docker, host: Host) -> None:
    """No process of cnihook runs: docker alone stops, starts and restarts the container."""
    way = Way("runtime", docker)
    way.start("c1", "--network", "front", "--restart", "always")

    docker("stop", "--time", "0", "c1")
    assert attached(host) == []
    docker("start", "c1")
    assert "10.22.0." in way.exec("c1", "ip", "-o", "addr", "show", "eth0")
    killed = pid(docker, "c1")
    kill(host, killed)
    wait_for(lambda: docker.state("c1") == "running" and pid(docker, "c1") not in (0, killed), "the restart")
    assert "10.22.0." in way.exec("c1", "ip", "-o", "addr", "show", "eth0")
    way.remove("c1")


def test_all_networks_are_the_default(way: Way, host: Host) -> None:
    """The networks are up before the container's first instruction."""
    result = way.docker.run(*way.options, "--rm", IMAGE, "ip", "-4", "-o", "addr")

    assert "eth0    inet 10.22.0.2/16" in result.stdout and "eth1    inet 10.23.0.2/16" in result.stdout


def test_runtime_works_for_users_with_access_to_docker(docker: Docker, host: Host) -> None:
    """The daemon has root's rights.  The user here has another UID, but may open the socket."""
    user = "setpriv --reuid=65534 --clear-groups --inh-caps=+dac_override --ambient-caps=+dac_override"
    show = ("--network", "front", IMAGE, "ip", "-o", "addr")

    result = host.run(*user.split(), DOCKER_RUN, "--rm", *show, env=docker.env)
    refused = host.run(*user.split(), DOCKER_RUN, "--runtime=other", *show, env=docker.env, check=False)

    assert "10.22.0.2/16" in result.stdout
    assert (refused.returncode, refused.stderr) == (
        125,
        "docker-run: networks need root; try `sudo docker-run ...`\n",
    )


def test_bounds_apply_to_the_runtime_only(way: Way, host: Host) -> None:
    """The runtime gets options as annotations.  With a pause container they are flags, set by root."""
    text = '{"annotations": {"allow": ["networks", "publish"], "networks": ["front"], "ports": "8000-8999"}}'
    host.write("/etc/cnihook/config.json", text)
    try:
        _assert_bounds_apply(way)
    finally:
        shutil.rmtree(host.root / "etc/cnihook")  # the other tests have the same host
    host.leaves("file /run/cnihook/log/*")


def _assert_bounds_apply(way: Way) -> None:
    show = (IMAGE, "ip", "-4", "-o", "addr")
    allowed = ("--network", "front", "-p", "8000:80")
    assert "10.22.0." in way.docker.run(*way.options, "--rm", *allowed, *show).stdout
    for option, value in (("publish", "22:22"), ("bandwidth", "in=10M")):
        words = ("--network", "front", f"--{option}", value)
        result = way.docker.run(*way.options, "--rm", *words, *show, check=False)
        if way.is_runtime:
            assert result.returncode == 125 and f"annotation cnihook.{option}=" in result.stderr
            assert "/etc/cnihook/config.json allows" in result.stderr
        else:
            assert "10.22.0." in result.stdout
    result = way.docker.run(*way.options, "--rm", *show)  # all networks
    assert ("10.23.0." in result.stdout) is not way.is_runtime


def test_networks_of_another_folder_use_the_pause_container(docker: Docker, host: Host) -> None:
    """The hook does not see this NETCONFPATH, because its environment is the daemon's."""
    host.write("/run/.host/net.d/10-own.conflist", network("own", "10.24.0.0/16"))
    env = docker.env | {"NETCONFPATH": "/run/.host/net.d"}

    result = host.run(DOCKER_RUN, "--rm", IMAGE, "ip", "-o", "addr", env=env)

    assert "10.24.0.2/16" in result.stdout and "10.22." not in result.stdout
    shutil.rmtree(host.root / "run/.host/net.d")


def test_bridge_is_dockers_network_unless_cni_has_one(docker: Docker, host: Host) -> None:
    """The daemon here has no bridge of its own."""
    show = ("--network", "bridge", IMAGE, "ip", "-o", "addr")

    without = docker.run("--rm", *show, check=False)
    host.write(f"{NET_D}/30-bridge.conflist", network("bridge", "10.25.0.0/16"))
    with_cni = docker.run("--rm", *show)

    assert "docker-run" not in without.stderr and "eth0" not in without.stdout
    assert "10.25.0.2/16" in with_cni.stdout
