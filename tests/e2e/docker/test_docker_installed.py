# SPDX-License-Identifier: Apache-2.0
"""`cnihook install --with docker` beside a docker daemon that runs, and the runtime that it registers."""

import json
from collections.abc import Iterator

import pytest

from tests.support.host.host import Host
from tests.support.host.machine_files import changes, overlay
from tests.support.runtimes.docker import IMAGE, Docker
from tests.support.runtimes.oci import CNIHOOK, FOR_EVER, RESULTS, leases, make_rootfs, wait_for

PLACES = ("/usr", "/etc")
RUNTIME = ("--runtime", "cni", "--network", "none", "--sysctl", "net.cnihook.networks=mynet")
INSTALLED = "/usr/local/bin/cnihook"


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Docker]:
    """Yield a daemon that reads /etc/docker/daemon.json, on a host whose /usr can be written."""
    folder = tmp_path_factory.mktemp("docker")
    with Host() as host:
        overlay(host, "/usr")
        docker = Docker(host, folder, make_rootfs(folder / "rootfs"))
        yield docker
        docker.close()


def runtimes(docker: Docker) -> dict[str, dict[str, str]]:
    listed: dict[str, dict[str, str]] = json.loads(docker("info", "--format", "{{json .Runtimes}}").stdout)
    return listed


def test_installed_runtime_attaches_containers_until_it_is_uninstalled(docker: Docker, host: Host) -> None:
    before = changes(host, *PLACES)
    lines = host.run(CNIHOOK, "install", "--with", "docker").stdout.splitlines()
    assert lines[-1] == "next: systemctl reload docker"
    docker.reload()
    wait_for(lambda: "cni" in runtimes(docker), "the runtime in the daemon")
    assert runtimes(docker)["cni"]["path"] == "/usr/local/bin/cni-runc"

    docker("run", "-d", "--name", "web", *RUNTIME, IMAGE, *FOR_EVER)
    address = docker("exec", "web", "ip", "-4", "-o", "address", "show", "eth0").stdout
    assert "eth0    inet 10.22.0.2/16" in address
    assert "  10.22.0.2/16  " in host.run(INSTALLED, "ps").stdout
    refused = host.run(INSTALLED, "uninstall", check=False)
    assert refused.returncode == 1 and "containers are attached: " in refused.stderr
    docker("rm", "--force", "web")
    assert host.listdir(RESULTS) == leases(host) == []

    assert "docker lists the runtime cni until its next restart" in host.run(INSTALLED, "uninstall").stdout
    assert changes(host, *PLACES) == before
    assert docker("run", "--rm", *RUNTIME, IMAGE, "true", check=False).returncode != 0
    docker.stop()
    docker.restart()
    assert "cni" not in runtimes(docker)
