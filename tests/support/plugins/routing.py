# SPDX-License-Identifier: Apache-2.0
"""Containers in two networks, each with a router to everywhere, and chains of plugins that choose one."""

import json
from typing import Any

from tests.support.host.host import ACCEPT_DAD, Container, Host
from tests.support.plugins.cni import with_previous_result

# Both networks have a machine with these addresses.  The one that gets a packet shows which router was used.
FAR, FAR6 = "192.0.2.1", "2001:db8:ffff::1"

FILTERED = ("fe80:", "ff00:")  # each link has these routes by itself


def subnet(number: int, version: int = 4) -> str:
    return f"10.{number}.0.0/24" if version == 4 else f"2001:db8:{number}::/64"


def router(number: int, version: int = 4) -> str:
    return f"10.{number}.0.1" if version == 4 else f"2001:db8:{number}::1"


def address(number: int, version: int = 4) -> str:
    """Return the address of a network's first container."""
    return f"10.{number}.0.2" if version == 4 else f"2001:db8:{number}::2"


def network(number: int, *versions: int, version: str = "1.0.0", **keys: Any) -> dict[str, Any]:
    """Return a network on a bridge of its own, with a default route for each IP version, 4 by default."""
    versions = versions or (4,)
    return {
        "cniVersion": version,
        "name": f"net{number}",
        "type": "bridge",
        "bridge": f"br{number}",
        "ipam": {
            "type": "host-local",
            "ranges": [[{"subnet": subnet(number, v), "gateway": router(number, v)}] for v in versions],
            "routes": [{"dst": "0.0.0.0/0" if v == 4 else "::/0"} for v in versions],
        },
    } | keys


def far_machine(host: Host, number: int) -> Container:
    """Create a network's router, which also has the addresses of a far machine: FAR and FAR6.

    It connects to the containers of its network from these addresses, and has no route to others.
    """
    far = host.container(f"far{number}")
    far.set_sysctl(ACCEPT_DAD, "0")
    host.run("ip", "-batch", "-", input=f"""\
link add br{number} address 02:00:00:00:00:0{number} type bridge
link set br{number} up
link add far{number} index {1000 + number} type veth peer name eth0 index {2000 + number} netns {far.name}
link set far{number} master br{number} up
""")  # fmt: skip
    far.run("ip", "-batch", "-", input=f"""\
link set lo up
link set eth0 up
address add {FAR}/32 dev lo
address add {FAR6}/128 dev lo nodad
address add {router(number)}/32 dev eth0
address add {router(number, 6)}/128 dev eth0 nodad
route add {subnet(number)} dev eth0 src {FAR}
""")  # fmt: skip
    far.run("ip", "-6", "route", "add", subnet(number, 6), "dev", "eth0", "src", FAR6)
    host.save_state()
    return far


class Chain:
    """A chain of plugins, called as a runtime does, with the name and version of one network."""

    def __init__(self, host: Host, container: Container, ifname: str, first: dict[str, Any]) -> None:
        self.host = host
        self.container = container
        self.ifname = ifname
        self.shared = {key: first[key] for key in ("cniVersion", "name")}
        self.confs: list[dict[str, Any]] = []
        self.result: Any = None

    def then(self, conf: dict[str, Any]) -> "Chain":
        """Call ADD of one more plugin."""
        conf = self.shared | conf
        sent = conf if self.result is None else conf | {"prevResult": self.result}
        self.result = self.host.cni("ADD", sent, self.container, self.ifname)
        self.confs.append(conf)
        return self

    def check(self) -> None:
        for conf in self.confs:
            sent = with_previous_result(conf, self.result)
            assert self.host.cni("CHECK", sent, self.container, self.ifname) is None

    def delete(self, **env: str) -> None:
        for conf in reversed(self.confs):
            sent = with_previous_result(conf, self.result)
            assert self.host.cni("DEL", sent, self.container, self.ifname, **env) is None


def attach(host: Host, container: Container, ifname: str, *confs: dict[str, Any]) -> Chain:
    """Return a chain after its ADD."""
    chain = Chain(host, container, ifname, confs[0])
    for conf in confs:
        chain.then(conf)
    return chain


def quick(host: Host) -> Container:
    """Return a container without IPv6's duplicate detection, for which the reference would wait 2 s."""
    container = host.container()
    container.set_sysctl(ACCEPT_DAD, "0")
    return container


def shown(container: Container, *words: str) -> list[Any]:
    """Return `ip`'s entries of both families; none for a table without routes, for which `ip` fails."""
    answers = [container.run("ip", f"-{v}", "-j", *words, check=False) for v in (4, 6)]
    texts = [answer.stdout for answer in answers if answer.returncode == 0]
    return [item for text in texts if text.strip() for item in json.loads(text)]


def rules(container: Container) -> dict[str, list[str]]:
    """Return the source addresses of rules, and the tables that these select."""
    tables: dict[str, list[str]] = {}
    for rule in shown(container, "rule"):
        if rule["src"] != "all":
            tables.setdefault(rule["src"], []).append(rule["table"])
    return tables


def table(container: Container, name: str) -> set[tuple[str, str | None, str]]:
    """Return destination, gateway and link of the routes in a table."""
    routes = [route for route in shown(container, "route", "show", "table", name)]
    return {
        (route["dst"], hop.get("gateway"), hop["dev"])
        for route in routes
        for hop in route.get("nexthops", [route])
        if not route["dst"].startswith(FILTERED)
    }


def all_of(container: Container) -> list[Any]:
    """Return rules and routes, to be compared.

    Rules without a source are left out, because the kernel adds one with the first VRF, and keeps it.
    """
    routes = shown(container, "route", "show", "table", "all")
    return [rules(container), *(route for route in routes if not route["dst"].startswith(FILTERED))]


def routed(number: int, version: int = 4, ifname: str = "eth0") -> set[tuple[str, str | None, str]]:
    """Return the routes that a network's interface must have in its table."""
    return {
        (subnet(number, version), None, ifname),
        ("default", router(number, version), ifname),
    }
