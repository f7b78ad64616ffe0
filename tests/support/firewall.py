# SPDX-License-Identifier: Apache-2.0
"""Containers behind the firewall plugin, and the firewalls that they meet on a host."""

from typing import Any

from tests.support import bridge, cni
from tests.support.host import Container, Host, Outside

NET, NET6 = "10.9.0.0/24", "2001:db8:9::/64"
BRIDGED = "net/bridge/bridge-nf-call-iptables"


def conf(version: str = "1.0.0", name: str = "net1", **keys: Any) -> dict[str, Any]:
    """The plugin's configuration; a key that is None is left out."""
    raw = {"cniVersion": version, "name": name, "type": "firewall", **keys}
    return {key: value for key, value in raw.items() if value is not None}


def gc_conf(*attached: "Attached") -> dict[str, Any]:
    """For GC, with the list of what is to be kept."""
    keep = [{"containerID": each.container.name, "ifname": "eth0"} for each in attached]
    return conf("1.1.0") | {"cni.dev/valid-attachments": keep}


class Attached:
    """A container on a bridge that has the firewall plugin after it in its chain."""

    def __init__(self, host: Host, container: Container, result: Any, sent: Any) -> None:
        self.host = host
        self.container = container
        self.result = result
        self.sent = sent  # to the firewall plugin

    def address(self, index: int = 0) -> str:
        return bridge.address(self.result, index)

    def delete(self, *, keep: str = "prevResult", **env: str) -> None:
        """DEL of the firewall plugin; with keep="" as a runtime sends it that has lost the result."""
        sent = self.sent if keep else {k: v for k, v in self.sent.items() if k != "prevResult"}
        self.host.cni("DEL", sent, self.container, **env)

    def check(self) -> None:
        self.host.cni("CHECK", self.sent, self.container)


def attach(
    host: Host,
    *subnets: str,
    container: Container | None = None,
    link: str = "cni0",
    name: str = "net1",
    port: dict[str, Any] | None = None,
    **keys: Any,
) -> Attached:
    """A new container on bridge `link`, with an address of each subnet; `keys` are the firewall plugin's.

    `port`, further keys of the bridge plugin.
    """
    network = bridge.network(
        *(subnets or (NET,)), name=name, bridge=link, isDefaultGateway=True, **(port or {})
    )
    container, result = bridge.add(host, network, container)
    sent = cni.with_previous_result(conf(name=name, **keys), result)
    return Attached(host, container, host.cni("ADD", sent, container), sent)


def routed_outside(host: Host) -> Outside:
    """The outside world, with routes to the containers."""
    outside = host.outside()
    outside.run("ip", "route", "add", "10.0.0.0/8", "via", Outside.HOST)
    outside.run("ip", "-6", "route", "add", "2001:db8:9::/48", "via", Outside.HOST6)
    return outside


def publish(host: Host, port: int, address: str, *, masquerade: bool = False) -> None:
    """Send what comes to a port of this host on to a container, by a DNAT of the test's own.

    Masqueraded if it may come from a neighbour of the container, so that the answer comes back this way.
    """
    family = "ip6" if ":" in address else "ip"
    host.run(
        "nft",
        "-f",
        "-",
        input=f"""\
add table inet publish
add chain inet publish prerouting {{ type nat hook prerouting priority dstnat ; }}
add rule inet publish prerouting fib daddr type local tcp dport {port} dnat {family} to {address}
add chain inet publish postrouting {{ type nat hook postrouting priority srcnat ; }}
{"add rule inet publish postrouting ct status dnat masquerade" if masquerade else ""}
""",
    )
    host.leaves("nft: table inet publish*")


def drop_forwarded(host: Host, programs: str = "iptables ip6tables") -> None:
    """As an administrator does it, or Docker when it switches on forwarding."""
    for program in programs.split():
        host.run(program, "-P", "FORWARD", "DROP")
    # Their counters change with all that is forwarded; what a plugin leaves there, tests look for it.
    host.leaves("nft: table ip filter*", "nft: table ip6 filter*", "file /run/xtables.lock")


def like_docker(host: Host) -> None:
    """The chains of dockerd 20.10, as far as they matter for who is not Docker's."""
    drop_forwarded(host)
    for words in (
        "-N DOCKER-USER",
        "-A DOCKER-USER -j RETURN",
        "-N DOCKER-ISOLATION-STAGE-1",
        "-A DOCKER-ISOLATION-STAGE-1 -j RETURN",
        "-A FORWARD -j DOCKER-USER",
        "-A FORWARD -j DOCKER-ISOLATION-STAGE-1",
        "-A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
        "-A FORWARD -i docker0 ! -o docker0 -j ACCEPT",
    ):
        host.run("iptables", *words.split())


def leave_to_reference(host: Host) -> None:
    """What the reference never removes; the tests that look for it are marked LEAVES_RULES."""
    assert host.implementation
    if host.implementation.name == "reference":
        host.leaves("nft: table ip filter*", "nft: table ip6 filter*")


def rules(host: Host, chain: str, program: str = "iptables") -> list[str]:
    """The rules of a chain as iptables lists them; none where there is no such chain."""
    listed = host.run(program, "-S").stdout.splitlines()
    return [line.removeprefix(f"-A {chain} ") for line in listed if line.startswith(f"-A {chain} ")]
