# SPDX-License-Identifier: Apache-2.0
"""The cost of policies: none without them, and the same for a start beside one container or beside many."""

import json
import re
from pathlib import Path

import pytest

from tests.support.host.host import Container, Host
from tests.support.policies import LEAVES, NO_BR_NETFILTER, Sandbox, apply, network
from tests.support.runtimes.oci import CNIHOOK, configure

KINDS = ("NEWSETELEM", "GETSETELEM", "GETCHAIN", "GETRULE")
PYTHON = ("/usr/bin/python3", "-IS")


def state(container: Container) -> str:
    fields = {
        "ociVersion": "1.0.2",
        "id": container.name,
        "pid": container.pid,
        "status": "creating",
        "bundle": "/",
    }
    return json.dumps(fields)


def test_start_without_policies_loads_no_module_of_them(host: Host) -> None:
    configure(host, network())
    container = host.container("one", process=True)

    process = host.run(*PYTHON, "-X", "importtime", CNIHOOK, "createRuntime", input=state(container))
    modules = re.findall(r"cnihook[.\w]*", process.stderr)
    container.destroy()
    host.run(*PYTHON, CNIHOOK, "poststop", input=state(container))

    assert "cnihook.container.attach" in modules or "cnihook.hook" in modules
    assert not [name for name in modules if name.startswith("cnihook.policy")]


@pytest.mark.needs("strace")
def test_messages_of_a_start_do_not_depend_on_the_number_of_containers(host: Host, tmp_path: Path) -> None:
    """One element for each map and each set that has the container: 16 containers cost as many as 2."""
    host.run("sh", "-c", NO_BR_NETFILTER)
    host.leaves(*LEAVES)
    configure(host, network("ptp"))
    rules = {"to": ["label:app=db", "outside"], "ports": ["80/tcp"]}
    apply(host, {"name": "all", "select": {}, "egress": {"allow": [rules]}, "ingress": {"allow": []}})

    def messages(name: str) -> "list[int]":
        """Return how many elements are added, looked up, and lists of chains and rules requested."""
        log = tmp_path / name
        container = host.container(name, process=True)
        argv = ("strace", "-f", "-qq", "-o", str(log), "-e", "trace=sendto", "-s", "65536")
        host.run(*argv, *PYTHON, CNIHOOK, "createRuntime", input=state(container))
        text = log.read_text()
        return [text.count(f"NFT_MSG_{kind}") for kind in KINDS]

    first = Sandbox(host, "first")
    few = messages("few")
    crowd = [Sandbox(host, f"c{number}") for number in range(12)]
    many = messages("many")

    assert many == few, (few, many)
    assert few[0] > 10, few
    for sandbox in (first, *crowd):
        sandbox.stop()
    for container in list(host.containers):
        container.destroy()
        host.run(*PYTHON, CNIHOOK, "poststop", input=state(container))
    host.run(*PYTHON, CNIHOOK, "policy", "delete", "all")
