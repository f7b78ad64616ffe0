# SPDX-License-Identifier: Apache-2.0
"""The state of a network namespace, read from the kernel by a thread that is in it.

Every test reads it for its host and for each container, before and after.  With ip and nft that would take
three processes each time, a third of the processor time of all tests.
"""

import re
import socket
import struct
import sys
from collections.abc import Container, Iterator
from ipaddress import ip_address

ROUTE, NETFILTER = 0, 12  # NETLINK_*
GETLINK, GETADDR, GETROUTE, GETRULE = 18, 22, 26, 34  # RTM_*
GETTABLE = 10 << 8 | 1  # NFNL_SUBSYS_NFTABLES, NFT_MSG_GETTABLE
REQUEST_DUMP = 0x301  # NLM_F_REQUEST | NLM_F_DUMP
ERROR, DONE = 2, 3  # NLMSG_*
CLONED = 0x200  # RTM_F_CLONED

HEADERS = {GETLINK: 16, GETADDR: 8, GETROUTE: 12, GETRULE: 12, GETTABLE: 4}  # bytes before the attributes
FLAGS = ((0x200, "allmulti"), (0x100, "promisc"), (0x1, "up"))
IFF_UP, IFF_LOWER_UP = 0x1, 0x10000
DADFAILED, TENTATIVE = 0x08, 0x40  # IFA_F_*
UNKNOWN, UP = 0, 6  # IF_OPER_*
LOCAL = 2  # RTN_LOCAL
LINKDOWN = 0x10  # RTNH_F_LINKDOWN
TYPES = {1: "ether", 772: "loopback"}
KINDS = " unicast local broadcast anycast multicast blackhole unreachable prohibit throw nat".split(" ")
TABLES = {253: "default", 254: "main", 255: "local"}

Attributes = dict[int, bytes]


class NetnsState:
    """A snapshot of links, addresses, routes and rules, taken when it is created."""

    def __init__(self) -> None:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, ROUTE) as netlink:
            self._links = list(_dump(netlink, GETLINK))
            self._addresses = list(_dump(netlink, GETADDR))
            families = (socket.AF_INET, socket.AF_INET6)
            self._routes = [route for family in families for route in _dump(netlink, GETROUTE, family)]
            self._rules = [rule for family in families for rule in _dump(netlink, GETRULE, family)]
        self.nftables = _has_tables()

        self._names = {_index(header): _text(link[3]) for header, link in self._links}  # IFLA_IFNAME

    @property
    def bridges(self) -> set[str]:
        """The names of the bridges without a port."""
        ports_of = {_number(link[10]) for _, link in self._links if 10 in link}  # IFLA_MASTER
        return {
            self._names[_index(header)]
            for header, link in self._links
            if _kind(header, link) == "bridge" and _index(header) not in ports_of
        }

    @property
    def pending(self) -> list[str]:
        """Work that the kernel has not finished: activate links, detect duplicates, set local routes.

        Link-local addresses do not count, because lines() leaves them out.
        """
        ready, pending = set(), []
        for header, link in self._links:
            (flags,) = struct.unpack_from("=I", header, 8)
            state = link[16][0] if 16 in link else UNKNOWN  # IFLA_OPERSTATE
            if flags & IFF_UP and flags & IFF_LOWER_UP:
                ready.add(_index(header))
                if state != UP and (state != UNKNOWN or _kind(header, link) == "veth"):
                    pending.append(f"link {self._names[_index(header)]} has a carrier and operstate {state}")
        for header, route in self._routes:
            (flags,) = struct.unpack_from("=I", header, 8)
            if flags & LINKDOWN and 4 in route and _number(route[4]) in ready:
                pending.append(f"route of {self._names[_number(route[4])]} is marked as without a carrier")
        local = {route.get(1) for header, route in self._routes if header[7] == LOCAL}
        for header, address in self._addresses:
            flags = _number(address[8]) if 8 in address else header[2]  # IFA_FLAGS
            (index,) = struct.unpack_from("=I", header, 4)
            if len(address[1]) == 4 or ip_address(address[1]).is_link_local or index not in ready:
                continue
            if not flags & DADFAILED and (flags & TENTATIVE or address[1] not in local):
                pending.append(
                    f"address {ip_address(address[1])} of {self._names[index]} cannot be used yet"
                )
        return pending

    def lines(self, leave_out: Container[str] = ()) -> list[str]:
        """Return a line for each link, address, route and rule, except those that the kernel adds itself."""
        lines = []
        for header, link in self._links:
            name = self._names[_index(header)]
            if name in leave_out:
                continue
            (flags,) = struct.unpack_from("=I", header, 8)
            words = " ".join(word for flag, word in FLAGS if flags & flag)
            mac = link[1].hex(":") if link.get(1) else None  # IFLA_ADDRESS
            master = f" in {self._names.get(_number(link[10]))}" if 10 in link else ""
            mtu = _number(link[4])
            lines.append(f"link {name} {_kind(header, link)} {words} mtu {mtu} mac {mac}{master}")
        for header, address in self._addresses:
            name = self._names.get(struct.unpack_from("=I", header, 4)[0], "-")
            local = str(ip_address(address.get(2) or address[1]))  # IFA_LOCAL, or IFA_ADDRESS
            if name not in leave_out and not local.startswith(("fe80:", "127.", "::1")):
                lines.append(f"address {name} {local}/{header[1]}")
        lines += filter(None, (self._route(*route, leave_out) for route in self._routes))
        for header, rule in self._rules:
            if header[
                2
            ]:  # those from everywhere are the kernel's own; one comes with the first VRF, and stays
                source = _prefix(rule.get(2), header[2])  # FRA_SRC
                priority = _number(rule[6]) if 6 in rule else 0  # FRA_PRIORITY
                lines.append(f"rule {priority} from {source} table {_table(header, rule)}")
        return lines

    def _route(self, header: bytes, route: Attributes, leave_out: Container[str]) -> str | None:
        length, kind, flags = header[1], KINDS[header[7]], struct.unpack_from("=I", header, 8)[0]
        device = self._names.get(_number(route[4]), "-") if 4 in route else "-"  # RTA_OIF
        destination = _prefix(route.get(1), length) if length else "default"  # RTA_DST
        # Some of the kernel's own routes come and go with IPv6's duplicate address detection.
        if destination.startswith(("fe80:", "ff00:", "127.", "::1")) or device in leave_out:
            return None
        if kind in ("anycast", "multicast") or flags & CLONED:
            return None
        words = [device, kind, destination]
        if 5 in route:  # RTA_GATEWAY
            words.append(f"gateway {ip_address(route[5])}")
        words.append(f"table {_table(header, route)}")
        if 6 in route:  # RTA_PRIORITY
            words.append(f"metric {_number(route[6])}")
        return f"route {' '.join(words)}"


def _dump(netlink: socket.socket, kind: int, family: int = 0) -> Iterator[tuple[bytes, Attributes]]:
    """Yield the fixed header and the attributes of each object."""
    size = HEADERS[kind]
    netlink.send(struct.pack("=IHHIIB", 16 + size, kind, REQUEST_DUMP, 1, 0, family) + bytes(size - 1))
    while True:
        answer = netlink.recv(1 << 16)
        at = 0
        while at < len(answer):
            length, message = struct.unpack_from("=IH", answer, at)
            if message == DONE:
                return
            if message == ERROR:
                raise OSError(-struct.unpack_from("=i", answer, at + 16)[0], f"netlink message {kind}")
            yield answer[at + 16 : at + 16 + size], _attributes(answer[at + 16 + size : at + length])
            at += length + 3 & ~3


def _attributes(message: bytes) -> Attributes:
    attributes, at = {}, 0
    while at + 4 <= len(message):
        length, kind = struct.unpack_from("=HH", message, at)
        attributes[kind & 0x3FFF] = message[at + 4 : at + length]
        at += max(length + 3 & ~3, 4)
    return attributes


def _has_tables() -> bool:
    """Return True if there is an nftables table."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETFILTER) as netlink:
        return any(True for _ in _dump(netlink, GETTABLE))


def _kind(header: bytes, link: Attributes) -> str:
    info = _attributes(link.get(18, b""))  # IFLA_LINKINFO
    if 1 in info:  # IFLA_INFO_KIND
        return _text(info[1])
    (kind,) = struct.unpack_from("=H", header, 2)
    return TYPES.get(kind, str(kind))


def _index(header: bytes) -> int:
    return int(struct.unpack_from("=i", header, 4)[0])


def _table(header: bytes, attributes: Attributes) -> str:
    table = _number(attributes[15]) if 15 in attributes else header[4]  # RTA_TABLE, FRA_TABLE
    return TABLES.get(table, str(table))


def _prefix(packed: bytes | None, length: int) -> str:
    address = ip_address(packed or bytes(4))
    return str(address) if length == address.max_prefixlen else f"{address}/{length}"


def _number(packed: bytes) -> int:
    return int.from_bytes(packed, sys.byteorder)


def _text(packed: bytes) -> str:
    return packed.rstrip(b"\0").decode()


def nft_lines(text: str) -> list[str]:
    """Return what `nft list ruleset` prints, each line with the blocks that it is in."""
    lines, blocks = [], ["nft"]
    for line in map(str.strip, text.splitlines()):
        if line == "}":
            blocks.pop()
        elif opening := re.fullmatch(r"(.*) \{(?: # progname .*)?", line):  # nft 1.1 names a table's owner
            blocks.append(opening[1].strip())
            lines.append(": ".join([blocks[0], " / ".join(blocks[1:])]))
        elif line:
            lines.append(f"{blocks[0]}: {' / '.join([*blocks[1:], line])}")
    return lines
