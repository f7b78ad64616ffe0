# SPDX-License-Identifier: Apache-2.0
"""README.md: its network, its runc container and its program work exactly as written."""

import json
import re
from typing import Any

import pytest

from tests.support import pages
from tests.support.host.host import Host
from tests.support.pages import Part, Step
from tests.support.plugins.cni import CHECKOUT
from tests.support.runtimes.oci import LEAVES, NET_D

README = (CHECKOUT / "README.md").read_text()


def section(title: str) -> str:
    return README.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def network() -> dict[str, Any]:
    """Return the first network of the page."""
    shown = section("A network of your own").partition("10-mynet.conflist\n")[2].partition("```")[0]
    conf: dict[str, Any] = json.loads(shown)
    return conf


@pytest.mark.root
def test_runc_container_is_started_seen_and_deleted(host: Host) -> None:
    commands = re.findall("^# (.*)$", section("A runc container in ten lines"), re.MULTILINE)
    part = Part("README", "a runc container")
    prepare = [
        f"mkdir -p {NET_D} && echo '{json.dumps(network())}' > {NET_D}/10-mynet.conflist",
    ]
    part.steps = [Step(command, hidden=True) for command in (*prepare, *commands)]
    outputs = dict(zip((*prepare, *commands), pages.run(part, host), strict=True))

    assert len(commands) <= 10
    assert "web" in outputs["cnihook ps"] and "10.22.0.2/16" in outputs["cnihook ps"]
    assert "8080->80/tcp" in outputs["cnihook ps"]
    assert "attached to mynet as eth0 10.22.0.2/16" in outputs["cnihook logs web"]
    host.run("rm", f"{NET_D}/10-mynet.conflist")


@pytest.mark.root
def test_first_network_is_created_by_one_command(host: Host) -> None:
    """The new file has the subnet and the plugins of the one that the page shows."""
    command, answer = re.findall(r"^# (cnihook network .*)\n(.*)$", README, re.MULTILINE)[0]
    host.leaves(f"file {NET_D}/*")

    assert host.run(str(CHECKOUT / "scripts" / "cnihook"), *command.split()[1:]).stdout == f"{answer}\n"

    created = json.loads(host.read(f"{NET_D}/90-{answer}.conflist"))
    shown = network()
    assert created["name"] == shown["name"] and created["cniVersion"] == shown["cniVersion"]
    assert created["plugins"][0]["ipam"]["ranges"] == [[{"subnet": shown["plugins"][0]["ipam"]["subnet"]}]]
    assert all(plugin in created["plugins"] for plugin in shown["plugins"][1:])


@pytest.mark.root
def test_program_attaches_a_namespace_and_detaches_it(host: Host) -> None:
    (program,) = re.findall("```python\n(.*?)```", section("In a program"), re.DOTALL)
    host.write(f"{NET_D}/10-mynet.conflist", json.dumps(network()))
    host.leaves(*LEAVES)
    container = host.container("c1")

    outcome = host.run(
        "/usr/bin/python3", "-c", program, env={"PYTHONPATH": str(CHECKOUT), "PATH": "/usr/sbin:/usr/bin"}
    )

    assert outcome.stdout == "10.22.0.2/16\n"
    assert container.links() == {"lo"}
    host.run("rm", f"{NET_D}/10-mynet.conflist")
