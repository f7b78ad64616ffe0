# SPDX-License-Identifier: Apache-2.0
"""A container that publishes ten thousand ports, as servers of media and games do."""

import json

import pytest

from tests.support.host.host import Container, Host
from tests.support.plugins.cni import CHECKOUT
from tests.support.runtimes.oci import CNIHOOK, bridge, call_hook, configure
from tests.support.runtimes.system_calls import count
from tests.support.wait import wait_for

PYTHON = ("/usr/bin/python3", "-IS")
PORTS = "20000-29999:20000-29999/udp"


@pytest.fixture(autouse=True)
def mynet(host: Host) -> None:
    network = bridge("mynet", "10.22.0.0/16", ipMasq=True)
    network["plugins"].append({"type": "portmap", "capabilities": {"portMappings": True}})
    configure(host, network)


def published(host: Host) -> int:
    return host.nft().count("udp . 2")


def state(container: Container) -> str:
    fields = {"ociVersion": "1.0.2", "id": container.name, "status": "creating", "pid": container.pid}
    return json.dumps(fields | {"bundle": "/"})


def test_hook_publishes_and_releases_them(host: Host) -> None:
    container = host.container(process=True)

    assert call_hook(host, "createRuntime", state(container), "--publish", PORTS).returncode == 0
    assert published(host) == 10000
    assert call_hook(host, "poststop", state(container)).returncode == 0
    assert published(host) == 0


def test_gc_releases_them(host: Host) -> None:
    container = host.container(process=True)
    call_hook(host, "createRuntime", state(container), "--publish", PORTS)

    container.destroy()
    host.run(*PYTHON, CNIHOOK, "gc")

    assert published(host) == 0


def test_port_of_another_container_refuses_all(host: Host) -> None:
    first, second = host.container(process=True), host.container(process=True)
    call_hook(host, "createRuntime", state(first), "--publish", "29999:1/udp")

    refusal = call_hook(host, "createRuntime", state(second), "--publish", PORTS)

    assert refusal.returncode == 1
    assert "host port 29999/udp is taken: container c1 has it" in refusal.stderr
    assert published(host) == 1
    call_hook(host, "poststop", state(first))
    host.leaves("file /run/cnihook/log/c2")


def test_command_publishes_and_releases_them(host: Host) -> None:
    count = "nsenter --net=/proc/1/ns/net nft list map inet cnihook ports4 | grep -o 'udp . 2' | wc -l"
    launcher = str(CHECKOUT / "scripts" / "priv-net-run")

    run = host.run(*PYTHON, launcher, "--network", "mynet", "-p", PORTS, "--", "sh", "-c", count)

    assert run.stdout.strip() == "10000"
    assert published(host) == 0


def test_number_of_requests_does_not_grow_with_them(host: Host) -> None:
    """The ports are looked up in lists and change in one transaction: only the lists become longer."""
    stays, container = host.container(process=True), host.container(process=True)
    call_hook(host, "createRuntime", state(stays))
    wait_for(lambda: host.link("br-mynet")["operstate"] == "UP", "the bridge")  # else an ADD looks once more

    def requests(ports: str) -> list[int]:
        runs = (("createRuntime", "--publish", ports), ("poststop",))
        return [
            count(host, *PYTHON, CNIHOOK, *words, input=state(container)).counts["sendto"] for words in runs
        ]

    assert requests("20000-20999:20000-20999/udp") == requests(PORTS)
    call_hook(host, "poststop", state(stays))
