# SPDX-License-Identifier: Apache-2.0
"""The networks of a docker daemon, by its bridges and by its file: their subnets are not chosen."""

import json

import pytest

from tests.support.commands.networks import create, refused, subnets
from tests.support.host.host import Host
from tests.support.runtimes.docker import Docker

NETWORKS: dict[str, str] = {}


@pytest.mark.root
@pytest.mark.needs("dockerd")
def test_subnet_of_docker_is_not_chosen(host: Host, docker: Docker) -> None:
    """Also after a boot, when the daemon has not made its bridges yet."""
    docker(
        "network", "create", "--subnet", "10.22.0.0/24", "--opt", "com.docker.network.bridge.name=dock0", "d"
    )

    assert subnets(create(host, "one")) == ["10.22.1.0/24"]
    assert "overlaps address 10.22.0.1/24 of dock0" in refused(
        host, "create", "x", "--subnet", "10.22.0.0/24"
    )

    host.run("ip", "link", "delete", "dock0")
    settings = {"data-root": f"{docker.folder}/data"}
    host.write("/etc/docker/daemon.json", json.dumps(settings))
    host.leaves("dir /etc/docker", "file /etc/docker/*")
    assert subnets(create(host, "two")) == ["10.22.2.0/24"]
    docker("network", "rm", "d")
