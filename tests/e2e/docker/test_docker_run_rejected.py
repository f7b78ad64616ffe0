# SPDX-License-Identifier: Apache-2.0
"""docker-run when it cannot run a container: one line on stderr, and nothing is left."""

import json

import pytest

from tests.support.host.host import Host
from tests.support.runtimes.docker import DOCKER_RUN, IMAGE, Docker
from tests.support.runtimes.oci import (
    CNIHOOK,
    NET_D,
    PASS_ON,
    bridge,
    external,
    leases,
)


def test_failing_network_is_125_and_one_line(docker: Docker, host: Host) -> None:
    """The network before it is released again, and the image's command never runs."""
    host.write(f"{NET_D}/20-bad.conflist", json.dumps(bridge("bad", "10.24.0.0/24", mtu=-1)))

    result = docker.run("--rm", IMAGE, "echo", "started", check=False)

    assert (result.returncode, result.stdout) == (125, "")
    assert result.stderr.startswith("docker-run: ") and result.stderr.count("\n") == 1
    assert '"mtu"' in result.stderr
    docker.expect_nothing()


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
def test_unsupported_option_is_refused_with_advice(docker: Docker, host: Host, words: list[str]) -> None:
    result = docker.run(*words, IMAGE, "true", check=False)

    assert result.returncode == 125
    assert result.stderr.startswith("docker-run: ") and result.stderr.count("\n") == 1
    assert "; " in result.stderr, "the advice"


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
def test_wrong_arguments_are_125_and_one_line(docker: Docker, host: Host, words: list[str]) -> None:
    result = docker.run(*words, check=False)

    assert result.returncode == 125
    assert result.stderr.startswith("docker-run: ") and result.stderr.count("\n") == 1
    docker.expect_nothing()


def test_unreachable_daemon_is_125_and_one_line(docker: Docker, host: Host) -> None:
    env = docker.env | {"DOCKER_HOST": "unix:///run/nothing"}

    result = host.run(DOCKER_RUN, IMAGE, "true", env=env, check=False)

    assert (result.returncode, result.stderr.count("\n")) == (125, 1)
    assert result.stderr.startswith(
        "docker-run: Cannot connect to the Docker daemon at unix:///run/nothing."
    )


def test_daemon_on_another_machine_is_refused(docker: Docker, host: Host) -> None:
    """The PIDs of its containers are not valid here, or belong to other processes."""
    with Host() as here:
        result = here.run(DOCKER_RUN, IMAGE, "true", env=docker.env, check=False)

        assert (result.returncode, result.stderr.count("\n")) == (125, 2)  # one is on the default network
        assert "the docker daemon runs its containers elsewhere" in result.stderr
        here.check_leaks()
    docker.expect_nothing()


def test_user_without_root_gets_a_hint(docker: Docker, host: Host) -> None:
    result = host.run(
        *"setpriv --reuid=65534 --regid=65534 --clear-groups".split(), DOCKER_RUN, IMAGE, check=False
    )

    assert (result.returncode, result.stderr) == (
        125,
        "docker-run: networks need root; try `sudo docker-run ...`\n",
    )


def test_failed_detach_is_reported_and_stays_on_record(docker: Docker, host: Host) -> None:
    """The exit status is still the command's own, and gc finds what is left."""
    refuse = (
        """if [ $CNI_COMMAND = DEL ]; then echo '{"code": 100, "msg": "the moon is full"}'; exit 1; fi"""
    )
    docker.env["CNI_PATH"] = external(host, "moody", f"{refuse}\n{PASS_ON}")
    network = {"cniVersion": "1.0.0", "name": "moody", "plugins": [{"type": "moody"}]}
    host.write(f"{NET_D}/20-moody.conflist", json.dumps(network))
    try:
        result = docker.run("--rm", IMAGE, "sh", "-c", "exit 7", check=False)

        assert (result.returncode, result.stderr.count("\n")) == (7, 1)
        assert result.stderr.startswith("docker-run: ") and "the moon is full" in result.stderr
        assert docker.containers() == leases(host) == []
        external(host, "moody", PASS_ON)
        assert "moody" in host.run(CNIHOOK, "gc", env=docker.env).stdout
    finally:
        del docker.env["CNI_PATH"]
    docker.expect_nothing()
    host.leaves("file /run/cnihook/log/*")  # the log of a failure is kept
