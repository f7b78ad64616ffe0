# SPDX-License-Identifier: Apache-2.0
"""cni-runc under a real docker daemon, which does not support hooks."""

import shlex
from typing import Any

import pytest

from tests.support.host.host import Host
from tests.support.plugins.cni import CHECKOUT
from tests.support.runtimes.docker import IMAGE, Docker
from tests.support.runtimes.oci import FOR_EVER, RESULTS, kill, leases, wait_for

RUNTIMES = {"cni": str(CHECKOUT / "scripts" / "cni-runc")}


def asking(**words: str) -> tuple[str, ...]:
    """Return docker's options for a container that requests this."""
    sysctls = [word for name, text in words.items() for word in ("--sysctl", f"net.cnihook.{name}={text}")]
    return ("--runtime", "cni", "--network", "none", *sysctls)


def pid(docker: Docker, name: str) -> int:
    return int(docker("inspect", "--format", "{{.State.Pid}}", name).stdout)


def address(docker: Docker, name: str) -> Any:
    return docker("exec", name, "ip", "-4", "-o", "addr", "show", "eth0").stdout


def attached(host: Host) -> list[str]:
    """Return the container IDs on record and the leases."""
    return host.listdir(RESULTS) + leases(host)


def test_network_is_up_before_the_first_instruction(docker: Docker, host: Host) -> None:
    result = docker("run", "--rm", *asking(networks="mynet"), IMAGE, "ip", "-4", "-o", "addr")

    assert "eth0    inet 10.22.0.2/16" in result.stdout
    assert attached(host) == []


def test_annotation_is_a_request_too(docker: Docker, host: Host) -> None:
    if "--annotation" not in docker("run", "--help").stdout:
        pytest.skip("docker has --annotation from version 24 on")
    runtime = ("--runtime", "cni", "--network", "none")

    result = docker(
        "run", "--rm", *runtime, "--annotation", "cnihook.ip=10.22.0.9", IMAGE, "ip", "-o", "addr"
    )

    assert "eth0    inet 10.22.0.9/16" in result.stdout
    assert attached(host) == []


def test_request_is_not_visible_inside_the_container(docker: Docker, host: Host) -> None:
    """`docker exec` and an image of it do not show it either, because a reader could use it again."""
    request = asking(networks="mynet:net5", ip="10.22.0.55")
    docker("run", "--detach", "--name", "c1", *request, IMAGE, *FOR_EVER)

    shown = docker("exec", "c1", "sh", "-c", "set; cat /proc/1/environ; ip -o addr").stdout
    docker("commit", "c1", "copy")
    copy = docker("run", "--rm", "--runtime", "cni", "--network", "none", "copy", "ip", "-o", "addr")
    docker("rm", "--force", "c1")
    docker("rmi", "copy")

    assert "cnihook" not in shown.lower()
    assert "net5    inet 10.22.0.55/16" in shown
    assert "net5" not in copy.stdout


def test_image_cannot_request_networks(docker: Docker, host: Host) -> None:
    """Neither its variables nor its labels count as a request."""
    words = ("cnihook.networks=mynet", "net.cnihook.networks=mynet", "CNIHOOK_WANTS=mynet")
    changes = [f"--change={kind} {word}" for word in words for kind in ("ENV", "LABEL")]
    rootfs = docker.folder / "rootfs"
    host.run(
        "sh", "-c", f"tar -C {rootfs} -c . | docker import {shlex.join(changes)} - greedy", env=docker.env
    )

    result = docker("run", "--rm", "--runtime", "cni", "--network", "none", "greedy", "ip", "-o", "addr")
    docker("rmi", "greedy")

    assert "inet 127.0.0.1" in result.stdout and "eth0" not in result.stdout


def test_another_runtime_refuses_the_sysctls(docker: Docker, host: Host) -> None:
    """The container must not run without its networks."""
    request = asking(networks="mynet")

    result = docker("run", "--rm", *request, "--runtime", "runc", IMAGE, "echo", "started", check=False)

    assert result.returncode != 0 and result.stdout == ""
    assert "net/cnihook/networks" in result.stderr


def test_detached_exec_and_stop(docker: Docker, host: Host) -> None:
    docker("run", "--detach", "--name", "c1", *asking(networks="mynet"), IMAGE, *FOR_EVER)

    assert "inet 10.22.0.2/16" in address(docker, "c1")
    host.run("ping", "-c1", "-W30", "10.22.0.2")
    docker("stop", "--time", "0", "c1")
    assert attached(host) == host.listdir("/run/netns") == []
    docker("start", "c1")
    assert "inet 10.22.0.3/16" in address(docker, "c1")
    docker("rm", "--force", "c1")


def test_restart_attaches_the_same_container_again(docker: Docker, host: Host) -> None:
    """The ID stays; the process and its namespace are new.  The old attachment's address is released."""
    docker("run", "--detach", "--name", "c1", *asking(networks="mynet"), IMAGE, *FOR_EVER)
    before, (record, lease) = pid(docker, "c1"), attached(host)

    docker("restart", "--time", "0", "c1")

    assert pid(docker, "c1") != before
    after, new_lease = attached(host)
    assert (after, lease, new_lease) == (record, "10.22.0.2", "10.22.0.3")
    assert "inet 10.22.0.3/16" in address(docker, "c1")
    host.run("ping", "-c1", "-W30", "10.22.0.3")
    docker("rm", "--force", "c1")


def test_container_restarted_by_docker_gets_its_network(docker: Docker, host: Host) -> None:
    options = ("--detach", "--restart", "always", "--name", "c1")
    docker("run", *options, *asking(networks="mynet"), IMAGE, *FOR_EVER)
    before = pid(docker, "c1")

    kill(host, before)
    wait_for(lambda: pid(docker, "c1") not in (0, before), "the restart")

    wait_for(lambda: docker.state("c1") == "running", "the container")
    assert len(attached(host)) == 2
    assert "inet 10.22.0.3/16" in address(docker, "c1")
    docker("rm", "--force", "c1")


def test_request_without_network_means_all_networks(docker: Docker, host: Host) -> None:
    """At least one other option is needed: a container without any is not a request."""
    result = docker("run", "--rm", *asking(hostname="web"), IMAGE, "ip", "-4", "-o", "addr")

    assert "eth0    inet 10.22.0.2/16" in result.stdout


def test_container_without_request_is_left_to_docker(docker: Docker, host: Host) -> None:
    result = docker("run", "--rm", "--runtime", "cni", "--network", "none", IMAGE, "ip", "-o", "addr")

    assert "eth0" not in result.stdout


def test_docker_shows_the_failure(docker: Docker, host: Host) -> None:
    """Docker shows the hook's message: no such network."""
    result = docker("run", "--rm", *asking(networks="nonet"), IMAGE, "true", check=False)

    assert result.returncode != 0 and "no network 'nonet'" in result.stderr
    assert attached(host) == []
    host.leaves("file /run/cnihook/log/*")


def test_containerd_alone_needs_no_sysctl(docker: Docker, host: Host) -> None:
    """containerd passes annotations on.  This containerd was started by the docker daemon."""
    containerd = ("ctr", "--address", str(docker.folder / "exec/containerd/containerd.sock"), "run", "--rm")
    runtime = ("--runc-binary", str(CHECKOUT / "scripts" / "cni-runc"), "--cgroup", "")
    rootfs = ("--rootfs", str(docker.folder / "rootfs"))
    show = ("c1", "/bin/ip", "-4", "-o", "addr")

    asks = host.run(*containerd, *runtime, "--annotation", "cnihook.networks=mynet", *rootfs, *show)
    does_not = host.run(*containerd, *runtime, *rootfs, *show)

    assert "eth0    inet 10.22.0.2/16" in asks.stdout
    assert "eth0" not in does_not.stdout
    assert attached(host) == []
