# SPDX-License-Identifier: Apache-2.0
"""The network `web`, edited, for tests of diff and apply."""

import copy
import json
from typing import Any

from tests.support.commands.repair import WEB, WebContainer, cnihook
from tests.support.host.host import Host
from tests.support.runtimes.oci import RESULTS

ARP = "net.ipv4.conf.IFNAME.arp_filter"
ACCEPT = "net.ipv4.conf.IFNAME.accept_local"


def edited(**keys: dict[str, Any]) -> dict[str, Any]:
    """Return the network with further keys of its plugins, by their types."""
    network = copy.deepcopy(WEB)
    for plugin in network["plugins"]:
        plugin |= keys.get(plugin["type"].replace("-", "_"), {})
    return network


def record(host: Host, name: str = "c1") -> dict[str, Any]:
    value: dict[str, Any] = json.loads(host.read(f"{RESULTS}/web-{name}-eth0"))
    return value


def run(host: Host, *argv: str, code: int = 0) -> list[str]:
    """Run a command, which must print nothing on stderr, and return its lines."""
    process = cnihook(host, *argv)
    assert (process.returncode, process.stderr) == (code, ""), (process.stdout, process.stderr)
    return process.stdout.splitlines()


def _path(name: str) -> str:
    return name.replace("IFNAME", "eth0").replace(".", "/")


def sysctl(web: WebContainer, name: str) -> str:
    return web.space.sysctl(_path(name))


def set_sysctl(web: WebContainer, name: str, value: str) -> None:
    web.space.run("sh", "-c", f"echo {value} > /proc/sys/{_path(name)}")
