# SPDX-License-Identifier: Apache-2.0
"""cni-runc under a real docker daemon, which knows nothing of hooks."""

import shlex
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.cni import CHECKOUT
from tests.support.docker import IMAGE, Docker, daemon_with
from tests.support.host import Host
from tests.support.oci import FOR_EVER, MYNET, RESULTS, kill, leases, wait_for

pytestmark = pytest.mark.xdist_group("docker")


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Docker]:
    with daemon_with(
        tmp_path_factory.mktemp("docker"), {"cni": str(CHECKOUT / "scripts" / "cni-runc")}
    ) as made:
        yield made


@pytest.fixture
def host(daemon: Docker) -> Host:
    return daemon.begin_test({"10-mynet.conf": MYNET})


@pytest.fixture
def docker(daemon: Docker, host: Host) -> Iterator[Docker]:
    yield daemon
    daemon.end_test()


def asking(**words: str) -> tuple[str, ...]:
    """The options of a container that asks for this."""
    sysctls = [word for name, text in words.items() for word in ("--sysctl", f"net.cnihook.{name}={text}")]
    return ("--runtime", "cni", "--network", "none", *sysctls)


def pid(docker: Docker, name: str) -> int:
    return int(docker("inspect", "--format", "{{.State.Pid}}", name).stdout)


def address(docker: Docker, name: str) -> Any:
    return docker("exec", name, "ip", "-4", "-o", "addr", "show", "eth0").stdout


def attached(host: Host) -> list[str]:
    """The container IDs on record, and the leases."""
    return host.listdir(RESULTS) + leases(host)


def test_network_is_up_before_the_first_instruction(docker: Docker, host: Host) -> None:
    done = docker("run", "--rm", *asking(networks="mynet"), IMAGE, "ip", "-4", "-o", "addr")

    assert "eth0    inet 10.22.0.2/16" in done.stdout
    assert attached(host) == []


def test_annotation_requests_the_same(docker: Docker, host: Host) -> None:
    if "--annotation" not in docker("run", "--help").stdout:
        pytest.skip("docker has --annotation from version 24 on")
    runtime = ("--runtime", "cni", "--network", "none")

    done = docker("run", "--rm", *runtime, "--annotation", "cnihook.ip=10.22.0.9", IMAGE, "ip", "-o", "addr")

    assert "eth0    inet 10.22.0.9/16" in done.stdout
    assert attached(host) == []


def test_what_it_wants_is_nowhere_to_be_seen_in_it(docker: Docker, host: Host) -> None:
    """Nor for `docker exec` and health checks, nor in an image of it: who reads it could use it again."""
    wish = asking(networks="mynet:net5", ip="10.22.0.55")
    docker("run", "--detach", "--name", "c1", *wish, IMAGE, *FOR_EVER)

    shown = docker("exec", "c1", "sh", "-c", "set; cat /proc/1/environ; ip -o addr").stdout
    docker("commit", "c1", "copy")
    copy = docker("run", "--rm", "--runtime", "cni", "--network", "none", "copy", "ip", "-o", "addr")
    docker("rm", "--force", "c1")
    docker("rmi", "copy")

    assert "cnihook" not in shown.lower()
    assert "net5    inet 10.22.0.55/16" in shown
    assert "net5" not in copy.stdout


def test_an_image_cannot_ask_for_networks(docker: Docker, host: Host) -> None:
    """By nothing that is its own: variables and labels."""
    words = ("cnihook.networks=mynet", "net.cnihook.networks=mynet", "CNIHOOK_WANTS=mynet")
    changes = [f"--change={kind} {word}" for word in words for kind in ("ENV", "LABEL")]
    rootfs = docker.folder / "rootfs"
    host.run(
        "sh", "-c", f"tar -C {rootfs} -c . | docker import {shlex.join(changes)} - greedy", env=docker.env
    )

    done = docker("run", "--rm", "--runtime", "cni", "--network", "none", "greedy", "ip", "-o", "addr")
    docker("rmi", "greedy")

    assert "inet 127.0.0.1" in done.stdout and "eth0" not in done.stdout


def test_another_runtime_refuses_what_asks(docker: Docker, host: Host) -> None:
    """Rather than to run it without its networks."""
    wish = asking(networks="mynet")

    done = docker("run", "--rm", *wish, "--runtime", "runc", IMAGE, "echo", "started", check=False)

    assert done.returncode != 0 and done.stdout == ""
    assert "net/cnihook/networks" in done.stderr


def test_detached_exec_and_stop(docker: Docker, host: Host) -> None:
    docker("run", "--detach", "--name", "c1", *asking(networks="mynet"), IMAGE, *FOR_EVER)

    assert "inet 10.22.0.2/16" in address(docker, "c1")
    host.run("ping", "-c1", "-W30", "10.22.0.2")
    docker("stop", "--time", "0", "c1")
    assert attached(host) == host.listdir("/run/netns") == []
    docker("start", "c1")
    assert "inet 10.22.0.3/16" in address(docker, "c1")
    docker("rm", "--force", "c1")


def test_a_restart_is_a_new_attachment_of_the_same_container(docker: Docker, host: Host) -> None:
    """The ID stays, the process and its namespace do not; the old attachment is gone, its address free."""
    docker("run", "--detach", "--name", "c1", *asking(networks="mynet"), IMAGE, *FOR_EVER)
    before, (record, lease) = pid(docker, "c1"), attached(host)

    docker("restart", "--time", "0", "c1")

    assert pid(docker, "c1") != before
    after, new_lease = attached(host)
    assert (after, lease, new_lease) == (record, "10.22.0.2", "10.22.0.3")
    assert "inet 10.22.0.3/16" in address(docker, "c1")
    host.run("ping", "-c1", "-W30", "10.22.0.3")
    docker("rm", "--force", "c1")


def test_docker_restarts_what_has_died_with_its_network(docker: Docker, host: Host) -> None:
    options = ("--detach", "--restart", "always", "--name", "c1")
    docker("run", *options, *asking(networks="mynet"), IMAGE, *FOR_EVER)
    before = pid(docker, "c1")

    kill(host, before)
    wait_for(lambda: pid(docker, "c1") not in (0, before), "the restart")

    wait_for(lambda: docker.state("c1") == "running", "the container")
    assert len(attached(host)) == 2
    assert "inet 10.22.0.3/16" in address(docker, "c1")
    docker("rm", "--force", "c1")


def test_all_networks_of_the_folder_by_an_empty_wish(docker: Docker, host: Host) -> None:
    """No network is named: all there are.  An annotation has to be there, or it would not be asking."""
    done = docker("run", "--rm", *asking(hostname="web"), IMAGE, "ip", "-4", "-o", "addr")

    assert "eth0    inet 10.22.0.2/16" in done.stdout


def test_what_does_not_ask_is_dockers_own(docker: Docker, host: Host) -> None:
    done = docker("run", "--rm", "--runtime", "cni", "--network", "none", IMAGE, "ip", "-o", "addr")

    assert "eth0" not in done.stdout


def test_a_failure_is_shown_by_docker(docker: Docker, host: Host) -> None:
    """The hook's own: no such network."""
    done = docker("run", "--rm", *asking(networks="nonet"), IMAGE, "true", check=False)

    assert done.returncode != 0 and "no network 'nonet'" in done.stderr
    assert attached(host) == []
    host.leaves("file /run/cnihook/log/*")


def test_containerd_alone_needs_no_sysctl(docker: Docker, host: Host) -> None:
    """It hands on annotations.  The one here was started by the docker daemon."""
    containerd = ("ctr", "--address", str(docker.folder / "exec/containerd/containerd.sock"), "run", "--rm")
    runtime = ("--runc-binary", str(CHECKOUT / "scripts" / "cni-runc"), "--cgroup", "")
    rootfs = ("--rootfs", str(docker.folder / "rootfs"))
    show = ("c1", "/bin/ip", "-4", "-o", "addr")

    asks = host.run(*containerd, *runtime, "--annotation", "cnihook.networks=mynet", *rootfs, *show)
    does_not = host.run(*containerd, *runtime, *rootfs, *show)

    assert "eth0    inet 10.22.0.2/16" in asks.stdout
    assert "eth0" not in does_not.stdout
    assert attached(host) == []
