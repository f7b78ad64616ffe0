# SPDX-License-Identifier: Apache-2.0
"""
The tables of iptables, mostly `filter`: what they hold, and rules that iptables itself can read.

There are two kinds, and a machine may have both.  The first is a table of nftables, which iptables-nft, the
usual one today, keeps in a form of its own.  It is read and changed here by netlink.  Its rules must have
that form, or iptables refuses to list the table from then on.  So a connection's state is matched by the
match of xtables, which libnftables cannot express.  The second kind, of iptables-legacy, is a separate part
of the kernel.  It has no such interface, so the program is started, but only if there are such tables.
"""

import _struct as struct
import errno
import os

from cnihook.fast.address import Address, IPNet
from cnihook.linux import nft, nft_objects
from cnihook.linux.netlink import (
    NLM_F_APPEND,
    NLM_F_CREATE,
    NLM_F_EXCL,
    attr,
    attributes,
    nested,
    read_text,
    text,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

TABLE = "filter"
CHAIN_NAME_MAX = 28  # <linux/netfilter/x_tables.h> XT_EXTENSION_MAXNAMELEN less its closing zero

# <linux/netfilter/nf_tables.h>
_NEWCHAIN, _DELCHAIN = nft.SUBSYSTEM | 3, nft.SUBSYSTEM | 5
_NEWRULE, _DELRULE = nft.SUBSYSTEM | 6, nft.SUBSYSTEM | 8
_CHAIN_TABLE, _CHAIN_NAME = 1, 3
_RULE_TABLE, _RULE_CHAIN, _RULE_HANDLE, _RULE_EXPRESSIONS, _RULE_USERDATA = 1, 2, 3, 4, 7
_LIST_ELEM, _EXPR_NAME, _EXPR_DATA = 1, 1, 2
_DATA_VALUE, _DATA_VERDICT, _VERDICT_CODE, _VERDICT_CHAIN = 1, 2, 1, 2
_REG_VERDICT, _REG_1 = 0, 1
_META_DREG, _META_KEY, _META_IIFNAME, _META_OIFNAME = 1, 2, 6, 7
_CMP_SREG, _CMP_OP, _CMP_DATA, _CMP_EQ = 1, 2, 3, 0
_PAYLOAD_DREG, _PAYLOAD_BASE, _PAYLOAD_OFFSET, _PAYLOAD_LEN, _NETWORK_HEADER = 1, 2, 3, 4, 1
_BITWISE_SREG, _BITWISE_DREG, _BITWISE_LEN, _BITWISE_MASK, _BITWISE_XOR = 1, 2, 3, 4, 5
_IMMEDIATE_DREG, _IMMEDIATE_DATA = 1, 2
_JUMP, _ACCEPT = -3, 1
# <linux/netfilter/nf_tables_compat.h>
_MATCH_NAME, _MATCH_REV, _MATCH_INFO = 1, 2, 3
# <linux/netfilter/xt_conntrack.h>
_MTINFO3 = struct.Struct("=146x HHHH 14x")  # what to match, what to invert, states, status
_CONNTRACK_STATE, _ESTABLISHED, _RELATED, _DNAT = 0x1, 0x2, 0x4, 0x80

# Offset and length of a whole address in the header.
_ADDRESSES = {
    (struct.pack(">I", offset), struct.pack(">I", length))
    for offset, length in ((12, 4), (16, 4), (8, 16), (24, 16))
}

_TIMEOUT = 30.0  # seconds; the program waits for others of its kind


class Rule:
    """An existing rule: `target` is the chain that it jumps to, `place` identifies it for deletion.

    `address` is the only source or destination that it matches; None if it matches a network, or neither.
    """

    __slots__ = ("address", "comment", "place", "target")

    def __init__(self, comment: str, target: str, place: "Any", address: "Address | None" = None) -> None:
        self.comment = comment
        self.target = target
        self.place = place
        self.address = address


class Match:
    """A match for what is forwarded from a link or a network, or to it.

    With `known`, only connections match that another rule has admitted: answers, and what a DNAT sent here.
    """

    __slots__ = ("end", "incoming", "known")

    def __init__(self, end: "str | IPNet", *, incoming: bool, known: bool = False) -> None:
        self.end = end
        self.incoming = incoming
        self.known = known

    def text(self) -> str:
        """Return the match as arguments of iptables."""
        letters = ("-i", "-o") if isinstance(self.end, str) else ("-s", "-d")
        arguments = f"{letters[self.incoming]} {self.end}"
        return f"{arguments} -m conntrack --ctstate RELATED,ESTABLISHED,DNAT" if self.known else arguments

    def expressions(self) -> "Iterator[bytes]":
        """Yield the match as expressions of nftables, in the form of iptables-nft."""
        if isinstance(self.end, str):
            key = _META_OIFNAME if self.incoming else _META_IIFNAME
            yield _expression("meta", _number(_META_DREG, _REG_1), _number(_META_KEY, key))
            yield _compare(self.end.encode().ljust(16, b"\0"))
        else:
            yield from _compare_address(self.end, self.incoming)
        if self.known:
            states = _ESTABLISHED | _RELATED | _DNAT
            info = _MTINFO3.pack(_CONNTRACK_STATE, 0, states, 0)
            yield _expression(
                "match", text(_MATCH_NAME, "conntrack"), _number(_MATCH_REV, 3), attr(_MATCH_INFO, info)
            )


class Edits:
    """Changes that are made together."""

    def __init__(self) -> None:
        self.new_chains: list[str] = []
        self.new_rules: list[tuple[str, bool, Match | None, str, str]] = []
        self.old_rules: list[tuple[str, Rule]] = []
        self.old_chains: list[str] = []

    def __bool__(self) -> bool:
        return bool(self.new_chains or self.new_rules or self.old_rules or self.old_chains)

    def add_chain(self, chain: str) -> None:
        self.new_chains.append(chain)

    def accept(self, chain: str, match: Match, comment: str) -> None:
        """Add a rule that accepts, as the chain's last rule."""
        self.new_rules.append((chain, True, match, "", comment))

    def jump(self, chain: str, target: str, comment: str) -> None:
        """Add a jump, as the chain's first rule."""
        self.new_rules.append((chain, False, None, target, comment))

    def delete_rule(self, chain: str, rule: Rule) -> None:
        self.old_rules.append((chain, rule))

    def delete_chain(self, chain: str) -> None:
        """Delete a chain.  Its rules may be deleted by the same changes."""
        self.old_chains.append(chain)


class NftTable:
    """A table of iptables-nft, or of another program under the same name."""

    def __init__(self, version: int, table: str = TABLE) -> None:
        self.version = version
        self.table = table
        self._family = "ip" if version == 4 else "ip6"
        self.name = f"{self._family}tables-nft"

    def policy(self, chain: str) -> "str | None":
        """Return drop or accept; empty for a chain that no hook calls, None if the chain does not exist."""
        return nft.chain_policy(self._family, self.table, chain)

    def chains(self) -> "list[str]":
        return list(nft.chains(self._family, self.table))

    def add_forward(self) -> None:
        """Add the chain FORWARD, which iptables-nft makes for its first rule or policy, and keeps."""
        chain = nft_objects.chain(TABLE, "FORWARD", "filter", nft_objects.FORWARD, nft_objects.FILTER)
        nft.change(self._family, [chain], f"add chain FORWARD for {self.name}")

    def rules(self, chain: str) -> "list[Rule]":
        return [_read_rule(rule) for rule in nft.rules(self._family, self.table, chain)]

    def change(self, edits: Edits, what: str) -> None:
        messages = []
        for chain in edits.new_chains:
            body = text(_CHAIN_TABLE, self.table) + text(_CHAIN_NAME, chain)
            messages.append((_NEWCHAIN, NLM_F_CREATE | NLM_F_EXCL, body))
        for chain, last, match, target, comment in edits.new_rules:
            expressions = [
                *(match.expressions() if match else ()),
                _expression("counter"),
                _verdict(target),
            ]
            body = text(_RULE_TABLE, self.table) + text(_RULE_CHAIN, chain)
            body += nested(_RULE_EXPRESSIONS, *(nested(_LIST_ELEM, each) for each in expressions))
            body += attr(_RULE_USERDATA, nft.userdata(comment))
            messages.append((_NEWRULE, NLM_F_CREATE | (NLM_F_APPEND if last else 0), body))
        for chain, rule in edits.old_rules:
            body = text(_RULE_TABLE, self.table) + text(_RULE_CHAIN, chain) + attr(_RULE_HANDLE, rule.place)
            messages.append((_DELRULE, 0, body))
        for chain in edits.old_chains:
            messages.append((_DELCHAIN, 0, text(_CHAIN_TABLE, self.table) + text(_CHAIN_NAME, chain)))
        nft.change(self._family, messages, what)


def _number(kind: int, value: int) -> bytes:
    return attr(kind, struct.pack(">I", value & 0xFFFFFFFF))


def _expression(name: str, *data: bytes) -> bytes:
    return text(_EXPR_NAME, name) + nested(_EXPR_DATA, *data)


def _compare(value: bytes) -> bytes:
    data = nested(_CMP_DATA, attr(_DATA_VALUE, value))
    return _expression("cmp", _number(_CMP_SREG, _REG_1), _number(_CMP_OP, _CMP_EQ), data)


def _compare_address(net: IPNet, destination: bool) -> "Iterator[bytes]":
    size = len(net.address)
    first = 12 if size == 4 else 8  # where in the header the source is; the destination follows it
    yield _expression(
        "payload",
        _number(_PAYLOAD_DREG, _REG_1),
        _number(_PAYLOAD_BASE, _NETWORK_HEADER),
        _number(_PAYLOAD_OFFSET, first + (size if destination else 0)),
        _number(_PAYLOAD_LEN, size),
    )
    if net.prefix < net.address.bits:
        mask = ((1 << net.prefix) - 1 << net.address.bits - net.prefix).to_bytes(size, "big")
        yield _expression(
            "bitwise",
            _number(_BITWISE_SREG, _REG_1),
            _number(_BITWISE_DREG, _REG_1),
            _number(_BITWISE_LEN, size),
            nested(_BITWISE_MASK, attr(_DATA_VALUE, mask)),
            nested(_BITWISE_XOR, attr(_DATA_VALUE, bytes(size))),
        )
    yield _compare(net.first())


def _verdict(target: str) -> bytes:
    """Return a jump, or accept if there is no target."""
    verdict = [_number(_VERDICT_CODE, _JUMP if target else _ACCEPT)]
    if target:
        verdict.append(text(_VERDICT_CHAIN, target))
    data = nested(_IMMEDIATE_DATA, nested(_DATA_VERDICT, *verdict))
    return _expression("immediate", _number(_IMMEDIATE_DREG, _REG_VERDICT), data)


def _read_rule(rule: "dict[int, bytes]") -> Rule:
    comment = nft.read_comment(rule.get(_RULE_USERDATA, b""))
    target = ""
    place: tuple[bytes | None, bytes | None] | None = None
    address: Address | None = None
    for expression in nft.listed(rule.get(_RULE_EXPRESSIONS, b"")):
        name, data = read_text(expression.get(_EXPR_NAME)), attributes(expression.get(_EXPR_DATA, b""))
        if name == "immediate":
            verdict = attributes(attributes(data.get(_IMMEDIATE_DATA, b"")).get(_DATA_VERDICT, b""))
            target = read_text(verdict.get(_VERDICT_CHAIN))
        elif name == "match" and read_text(data.get(_MATCH_NAME)) == "comment":
            comment = read_text(data.get(_MATCH_INFO))  # the form in which iptables-restore writes it
        elif name == "payload":
            place = data.get(_PAYLOAD_OFFSET), data.get(_PAYLOAD_LEN)
        elif name == "bitwise":
            place = None  # a network: the address is masked before it is compared
        elif name == "cmp" and place in _ADDRESSES:
            address = Address(attributes(data.get(_CMP_DATA, b"")).get(_DATA_VALUE, b""))
    return Rule(comment, target, rule.get(_RULE_HANDLE, b""), address)


class LegacyTable:
    """A table of iptables-legacy.  All of it is read once, by `iptables -S`."""

    def __init__(self, version: int, table: str = TABLE) -> None:
        self.version = version
        self.table = table
        self.name = "iptables-legacy" if version == 4 else "ip6tables-legacy"
        self._program = "iptables" if version == 4 else "ip6tables"
        self._lines: list[str] | None = None

    def _listed(self) -> "list[str]":
        if self._lines is None:
            self._lines = self._run("", ["-w", "-t", self.table, "-S"], "", "list the rules").splitlines()
        return self._lines

    def policy(self, chain: str) -> "str | None":
        """Return drop or accept; empty for a chain of the user, None if the chain does not exist."""
        for line in self._listed():
            words = line.split()
            if words[:2] == ["-P", chain]:
                return words[2].lower()
            if words[:2] == ["-N", chain]:
                return ""
        return None

    def chains(self) -> "list[str]":
        return [line.split()[1] for line in self._listed() if line.startswith(("-P ", "-N "))]

    def add_forward(self) -> None:
        """Do nothing, because the chain FORWARD always exists."""

    def rules(self, chain: str) -> "list[Rule]":
        rules = []
        for line in self._listed():
            if line.startswith(f"-A {chain} "):
                spec = line.removeprefix("-A ")
                _, _, rest = spec.partition(" --comment ")
                comment = rest[1:].partition('"')[0] if rest.startswith('"') else rest.partition(" ")[0]
                target = spec.rpartition(" -j ")[2].partition(" ")[0]
                rules.append(Rule(comment, target, spec, _address_in(spec.split())))
        return rules

    def change(self, edits: Edits, what: str) -> None:
        lines = [f"*{self.table}", *(f":{chain} - [0:0]" for chain in edits.new_chains)]
        for chain, last, match, target, comment in edits.new_rules:
            words = [match.text()] if match else []
            words += [f'-m comment --comment "{comment}"', f"-j {target or 'ACCEPT'}"]
            lines.append(f"{'-A' if last else '-I'} {chain} {' '.join(words)}")
        lines += [f"-D {rule.place}" for _chain, rule in edits.old_rules]
        lines += [f"-X {chain}" for chain in edits.old_chains]
        self._run("-restore", ["-w", "-n"], "\n".join([*lines, "COMMIT", ""]), what)
        self._lines = None

    def _run(self, suffix: str, arguments: "list[str]", stdin: str, what: str) -> str:
        from cnihook.process import child

        program = _find_program(f"{self._program}-legacy{suffix}", f"{self._program}{suffix}")
        outcome = child.run(program, [program, *arguments], dict(os.environ), stdin.encode(), _TIMEOUT)
        if outcome.status != 0:
            reason = " ".join(outcome.stderr.decode(errors="replace").split()) or f"exit {outcome.status}"
            raise OSError(errno.EIO, f"{what}: {reason}", program)
        return outcome.stdout.decode(errors="replace")


def _find_program(*names: str) -> str:
    folders = [*os.environ.get("PATH", os.defpath).split(":"), "/usr/sbin", "/sbin"]
    for name in names:
        for folder in folders:
            if os.access(f"{folder}/{name}", os.X_OK):
                return f"{folder}/{name}"
    raise OSError(errno.ENOENT, f"iptables-legacy has rules, but there is no program {names[0]}")


def _address_in(arguments: "list[str]") -> "Address | None":
    """Return the only address after -s or -d in a rule of iptables."""
    for option, value in zip(arguments, arguments[1:], strict=False):
        if option in ("-s", "-d"):
            net = IPNet.parse(value)
            return net.address if net.prefix == net.address.bits else None
    return None


def filters(version: int, table: str = TABLE) -> "Sequence[NftTable | LegacyTable]":
    """Return the tables of this name on this host, of one IP version."""
    tables: list[NftTable | LegacyTable] = [NftTable(version, table)]
    try:
        with open(f"/proc/thread-self/net/{'ip' if version == 4 else 'ip6'}_tables_names") as file:
            if table in file.read().split():
                tables.append(LegacyTable(version, table))
    except OSError:
        pass  # the kernel has no iptables-legacy
    return tables
