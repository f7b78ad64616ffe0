# SPDX-License-Identifier: Apache-2.0
"""The command that an error suggests works in the state in which the error is printed."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.support.host.host import Container, Host
from tests.support.host.namespace import base_environment
from tests.support.plugins.cni import REFERENCE
from tests.support.runtimes.oci import CNIHOOK, NETWORKS, RESULTS, bridge, configure, leases

SMALL: dict[str, Any] = {"type": "host-local", "subnet": "10.22.0.0/30"}


def network(version: str) -> dict[str, Any]:
    raw = bridge("mynet", "10.22.0.0/24")
    raw["plugins"][0]["ipam"] = SMALL
    return raw | {"cniVersion": version}


def add(host: Host, container: Container) -> str:
    """Return stderr of an ADD, which is empty if it succeeds."""
    answer = host.run(CNIHOOK, "add", "mynet", container.path, check=False)
    assert (answer.returncode == 0) == (answer.stderr == ""), answer
    return answer.stderr


def suggested(text: str) -> list[list[str]]:
    commands = re.findall(r"`(cnihook [^`]*)`", text)
    assert commands, text
    return [command.split()[1:] for command in commands]


def stale_record(host: Host, container: Container, plugins: Path) -> None:
    """Make an attachment as libcni records it, whose namespace has ended."""
    host.run(CNIHOOK, "add", "mynet", container.path, "--cni-path", str(plugins))
    forget_process(host)
    container.destroy()


def forget_process(host: Host) -> None:
    """Remove cnihook's key from the record, so that it looks like one of libcni."""
    (name,) = host.listdir(RESULTS)
    record = json.loads(host.read(f"{RESULTS}/{name}"))
    del record["cnihook"]
    host.write(f"{RESULTS}/{name}", json.dumps(record), 0o600)


@pytest.mark.parametrize("version", ["1.0.0", "1.1.0"])
def test_range_full_of_stale_attachments_of_another_runtime_is_freed(host: Host, version: str) -> None:
    configure(host, network("1.0.0"))
    host.leaves("empty bridges", "nft: *", "link cni0*", "address cni0*")
    stale_record(host, host.container("stale"), REFERENCE)
    configure(host, network(version))
    container = host.container("c1")

    error = add(host, container)
    for command in suggested(error)[:1]:
        assert command == ["gc", "mynet"]
        host.run(CNIHOOK, *command)

    assert add(host, container) == ""
    host.run(CNIHOOK, "del", "mynet", container.path)


@pytest.mark.parametrize("version", ["1.0.0", "1.1.0"])
def test_range_full_of_leases_without_a_record_is_freed(host: Host, version: str) -> None:
    """Before 1.1.0 there is no GC for plugins, so doctor names the files."""
    configure(host, network(version))
    host.write(f"{NETWORKS}/mynet/10.22.0.2", "gone\r\neth0")
    container = host.container("c1")

    error = add(host, container)
    for command in suggested(error):
        answer = host.run(CNIHOOK, *command, check=False)
        for remedy in re.findall(r"remedy: (rm /\S+)", answer.stdout):
            host.run(*remedy.split())

    assert leases(host) == [] and add(host, container) == ""
    host.run(CNIHOOK, "del", "mynet", container.path)


def test_requested_address_of_a_stale_lease_is_freed(host: Host) -> None:
    configure(host, network("1.1.0"))
    host.write(f"{NETWORKS}/mynet/10.22.0.2", "gone\r\neth0")
    container = host.container("c1")
    env = base_environment() | {"CNI_ARGS": "IP=10.22.0.2"}

    error = host.run(CNIHOOK, "add", "mynet", container.path, env=env, check=False).stderr
    for command in suggested(error):
        host.run(CNIHOOK, *command)

    host.run(CNIHOOK, "add", "mynet", container.path, env=env)
    host.run(CNIHOOK, "del", "mynet", container.path)


def test_port_of_a_stale_attachment_of_another_runtime_is_freed(host: Host) -> None:
    conf = bridge("mynet", "10.22.0.0/24")
    conf["plugins"].append({"type": "portmap", "capabilities": {"portMappings": True}})
    configure(host, conf)
    ports = {"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]}
    env = base_environment() | {"CAP_ARGS": json.dumps(ports)}
    stale, container = host.container("stale"), host.container("c1")
    host.run(CNIHOOK, "add", "mynet", stale.path, env=env)
    forget_process(host)
    stale.destroy()

    error = host.run(CNIHOOK, "add", "mynet", container.path, env=env, check=False).stderr
    for command in suggested(error):
        host.run(CNIHOOK, *command)

    host.run(CNIHOOK, "add", "mynet", container.path, env=env)
    host.run(CNIHOOK, "del", "mynet", container.path)
