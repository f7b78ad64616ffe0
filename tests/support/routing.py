# SPDX-License-Identifier: Apache-2.0
"""Containers in two networks, each with a router that leads everywhere; and chains that sort out which."""

import json
from typing import Any

from tests.support.cni import with_previous_result
from tests.support.host import ACCEPT_DAD, Container, Host

# The same machine for both networks, were it one: what is sent to it tells which router it took.
FAR, FAR6 = "192.0.2.1", "2001:db8:ffff::1"

FILTERED = ("fe80:", "ff00:")  # what every link has by itself


def subnet(number: int, version: int = 4) -> str:
    return f"10.{number}.0.0/24" if version == 4 else f"2001:db8:{number}::/64"


def router(number: int, version: int = 4) -> str:
    return f"10.{number}.0.1" if version == 4 else f"2001:db8:{number}::1"


def address(number: int, version: int = 4) -> str:
    """What the first container of a network gets."""
    return f"10.{number}.0.2" if version == 4 else f"2001:db8:{number}::2"


def network(number: int, *versions: int, version: str = "1.0.0", **keys: Any) -> dict[str, Any]:
    """A bridge of its own, and a default route for each IP version, 4 if none is given."""
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
    """The router of a network and, behind it, the machine that is everywhere: FAR and FAR6.

    It asks the containers of its network from these addresses, and knows no other.
    """
    made = host.container(f"far{number}")
    made.run("sh", "-c", f"echo 0 > {ACCEPT_DAD}")
    host.run("ip", "-batch", "-", input=f"""\
link add br{number} address 02:00:00:00:00:0{number} type bridge
link set br{number} up
link add far{number} index {1000 + number} type veth peer name eth0 index {2000 + number} netns {made.name}
link set far{number} master br{number} up
""")  # fmt: skip
    made.run("ip", "-batch", "-", input=f"""\
link set lo up
link set eth0 up
address add {FAR}/32 dev lo
address add {FAR6}/128 dev lo nodad
address add {router(number)}/32 dev eth0
address add {router(number, 6)}/128 dev eth0 nodad
route add {subnet(number)} dev eth0 src {FAR}
""")  # fmt: skip
    made.run("ip", "-6", "route", "add", subnet(number, 6), "dev", "eth0", "src", FAR6)
    host.save_state()
    return made


class Chain:
    """Plugins one after the other, as a runtime calls them; all are of one network, and of its version."""

    def __init__(self, host: Host, container: Container, ifname: str, first: dict[str, Any]) -> None:
        self.host = host
        self.container = container
        self.ifname = ifname
        self.shared = {key: first[key] for key in ("cniVersion", "name")}
        self.confs: list[dict[str, Any]] = []
        self.result: Any = None

    def then(self, conf: dict[str, Any]) -> "Chain":
        """ADD of one more plugin."""
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
    """A chain, after its ADD."""
    made = Chain(host, container, ifname, confs[0])
    for conf in confs:
        made.then(conf)
    return made


def quick(host: Host) -> Container:
    """A container for which the reference need not wait two seconds, to see if IPv6 addresses are unique."""
    made = host.container()
    made.run("sh", "-c", f"echo 0 > {ACCEPT_DAD}")
    return made


def shown(container: Container, *words: str) -> list[Any]:
    """What `ip` says in both families; a table that nobody uses has nothing, which it calls an error."""
    answers = [container.run("ip", f"-{v}", "-j", *words, check=False) for v in (4, 6)]
    texts = [answer.stdout for answer in answers if answer.returncode == 0]
    return [item for text in texts if text.strip() for item in json.loads(text)]


def rules(container: Container) -> dict[str, list[str]]:
    """Addresses, and the tables that are looked in for what these send."""
    found: dict[str, list[str]] = {}
    for rule in shown(container, "rule"):
        if rule["src"] != "all":
            found.setdefault(rule["src"], []).append(rule["table"])
    return found


def table(container: Container, name: str) -> set[tuple[str, str | None, str]]:
    """Destination, gateway and link of the routes in a table."""
    found = [route for route in shown(container, "route", "show", "table", name)]
    return {
        (route["dst"], hop.get("gateway"), hop["dev"])
        for route in found
        for hop in route.get("nexthops", [route])
        if not route["dst"].startswith(FILTERED)
    }


def all_of(container: Container) -> list[Any]:
    """Rules and routes, to be compared.

    Of rules without a source the kernel makes one more with the first VRF, and keeps it.
    """
    routes = shown(container, "route", "show", "table", "all")
    return [rules(container), *(route for route in routes if not route["dst"].startswith(FILTERED))]


def routed(number: int, version: int = 4, ifname: str = "eth0") -> set[tuple[str, str | None, str]]:
    """What a network's interface has in its table."""
    return {
        (subnet(number, version), None, ifname),
        ("default", router(number, version), ifname),
    }
