# SPDX-License-Identifier: Apache-2.0
"""
The firewall of the host: a port that only members may use, and forwarding where another program drops it.

A VXLAN device accepts every packet that reaches its port, so any machine that can send to the port could
send packets to containers.  A table of its own drops what does not come from the address of a member:

    table inet cnihook-vx-wide {
        set members4 { type ipv4_addr; elements = { 172.16.0.2, 172.16.0.3 } }
        set members6 { type ipv6_addr }
        chain port-4789 { type filter hook input priority raw;
            udp dport 4789 ip saddr != @members4 drop
            udp dport 4789 ip6 saddr != @members6 drop }
    }

The source of a packet can be false, where the network between the hosts does not check it.  WireGuard's port
needs no such rule, because it takes packets of known keys only.
"""

import _struct as struct
import threading

from cnihook.fast.address import Address, IPNet
from cnihook.linux import nft, nft_objects, nft_sets
from cnihook.linux.nft_objects import Rule
from cnihook.nftables import iptables_forward
from cnihook.protocol import locks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cnihook.linux.nft_objects import Message

_FAMILY = "inet"
_SETS = {4: ("members4", nft_objects.IPV4_ADDR), 6: ("members6", nft_objects.IPV6_ADDR)}
_UDP = 17
_ADMIN = "CNI-ADMIN"  # the default of the plugin firewall
_one = threading.RLock()  # the agents of several networks are threads, and have one socket for nftables


def _table(device: str) -> str:
    return f"cnihook-{device}"


def close_port(device: str, port: int, members: "set[Address]", *, may_delete: bool) -> None:
    """Admit to the UDP port of this device only these hosts; without `may_delete`, add to those that may."""
    with _one:
        _close_port(device, port, members, may_delete=may_delete)


def _close_port(device: str, port: int, members: "set[Address]", *, may_delete: bool) -> None:
    name = _table(device)
    present: set[Address] = set()
    messages: list[Message] = []
    if is_closed(device, port):
        for set_name, _type in _SETS.values():
            present |= {Address(key) for key, _comment in nft.elements(_FAMILY, name, set_name)}
    else:
        messages += _declared(name, port, exists=bool(nft.chains(_FAMILY, name)))
    messages += [nft.add_element(name, _set(one), one, "") for one in members - present]
    if may_delete:
        messages += [nft.delete_element(name, _set(one), one) for one in present - members]
    nft.change(_FAMILY, messages, f"admit the members of the network to UDP port {port}")


def _set(address: Address) -> str:
    return _SETS[address.version][0]


def _declared(name: str, port: int, *, exists: bool) -> "Iterator[Message]":
    if exists:
        yield nft_objects.delete_table(name)
    yield nft_objects.table(name)
    for set_name, kind in _SETS.values():
        yield nft_objects.value_set(name, set_name, kind)
    chains = _chains(port)
    hook = (nft_objects.INPUT, nft_objects.RAW)
    yield from nft_sets.filter_chains(name, chains, dict.fromkeys(chains, hook))


def _chains(port: int) -> "dict[str, list[Rule]]":
    return {f"port-{port}": [_drop_others(port, version) for version in _SETS]}


def _drop_others(port: int, version: int) -> Rule:
    def expressions() -> bytes:
        return (
            nft_sets.of_protocol(_UDP)
            + nft_sets.load_transport(2, 2)
            + nft_sets.equals(struct.pack(">H", port))
            + nft_objects.source(version)
            + nft_sets.is_in(_SETS[version][0], inverted=True)
            + nft_objects.verdict(nft_objects.DROP)
        )

    return Rule(expressions)


def is_closed(device: str, port: int) -> bool:
    """Return True if the rules about the port are as close_port() made them."""
    with _one:
        return nft.chains(_FAMILY, _table(device)) == nft_objects.use_counts(_chains(port))


def open_port(device: str) -> None:
    """Remove the table of the device, if it is there."""
    with _one:
        if nft.chains(_FAMILY, _table(device)):
            nft.change(_FAMILY, [nft_objects.delete_table(_table(device))], f"remove the table of {device}")


def accept_forwarded(network: str, end: "str | IPNet", subnets: "Iterable[IPNet]") -> None:
    """Accept what is forwarded from `end`, a device or a subnet, where iptables would drop it (Docker).

    What containers of this host send is accepted by the plugin firewall, or because it is from the subnet.
    """
    versions = {subnet.address.version for subnet in subnets}
    comment = _comment(network)
    with _one:
        tables = iptables_forward.tables_needing_rules(versions, _ADMIN)
        missing = [table for table in tables if not iptables_forward.is_set(table, _ADMIN, comment)]
        if missing:
            with locks.nft(f"accept what network {network} forwards"):
                for table in missing:
                    iptables_forward.add(table, _ADMIN, end, comment)


def stop_forwarding(network: str) -> None:
    """Remove the rules of accept_forwarded()."""
    with _one, locks.nft(f"remove what network {network} forwards"):
        iptables_forward.delete(_comment(network))


def _comment(network: str) -> str:
    return f"cnihook cluster {network}"
