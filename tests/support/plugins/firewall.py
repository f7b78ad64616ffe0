# SPDX-License-Identifier: Apache-2.0
"""Containers behind the firewall plugin, and other firewalls of a host."""

from typing import Any

from tests.support.host.host import Container, Host, Outside
from tests.support.plugins import bridge, cni

NET, NET6 = "10.9.0.0/24", "2001:db8:9::/64"
BRIDGED = "net/bridge/bridge-nf-call-iptables"


def conf(version: str = "1.0.0", name: str = "net1", **keys: Any) -> dict[str, Any]:
    """Return the plugin's configuration.  A key that is None is left out."""
    raw = {"cniVersion": version, "name": name, "type": "firewall", **keys}
    return {key: value for key, value in raw.items() if value is not None}


def gc_conf(*attached: "Attached") -> dict[str, Any]:
    """Return the configuration for GC, with the list of valid attachments."""
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
        """Call DEL of the firewall plugin; with keep="" without the result, as if it had been lost."""
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
    """Attach a new container to bridge `link`, with an address of each subnet.

    `keys`: of the firewall plugin.  `port`: further keys of the bridge plugin.
    """
    network = bridge.network(
        *(subnets or (NET,)), name=name, bridge=link, isDefaultGateway=True, **(port or {})
    )
    container, result = bridge.add(host, network, container)
    sent = cni.with_previous_result(conf(name=name, **keys), result)
    return Attached(host, container, host.cni("ADD", sent, container), sent)


def routed_outside(host: Host) -> Outside:
    """Return a machine outside that has routes to the containers."""
    outside = host.outside()
    outside.run("ip", "route", "add", "10.0.0.0/8", "via", Outside.HOST)
    outside.run("ip", "-6", "route", "add", "2001:db8:9::/48", "via", Outside.HOST6)
    return outside


def publish(host: Host, port: int, address: str, *, masquerade: bool = False) -> None:
    """Forward a port of this host to a container, by a DNAT rule of the test's own.

    `masquerade`: for clients on the container's own bridge, whose answers would not pass the host otherwise.
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
    """Drop forwarded packets, as an administrator does, or Docker when it enables forwarding."""
    for program in programs.split():
        host.run(program, "-P", "FORWARD", "DROP")
    # The counters change with each forwarded packet, so the leak check skips these tables; tests check them.
    host.leaves("nft: table ip filter*", "nft: table ip6 filter*", "file /run/xtables.lock")


def like_docker(host: Host) -> None:
    """Add the chains of dockerd 20.10 that concern containers of other programs."""
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
    """Let the leak check accept what the reference never removes; tests of that are marked LEAVES_RULES."""
    assert host.implementation
    if host.implementation.name == "reference":
        host.leaves("nft: table ip filter*", "nft: table ip6 filter*")


def rules(host: Host, chain: str, program: str = "iptables") -> list[str]:
    """Return the rules of a chain as iptables lists them; none if the chain does not exist."""
    listed = host.run(program, "-S").stdout.splitlines()
    return [line.removeprefix(f"-A {chain} ") for line in listed if line.startswith(f"-A {chain} ")]
