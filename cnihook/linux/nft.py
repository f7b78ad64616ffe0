# SPDX-License-Identifier: Apache-2.0
"""
nftables: transactions and requests as messages to the kernel, and the program nft for rules of the user.

libnftables is not used.  It ends the process (exit code 3) if it gets no socket, and crashes it if it gets
no memory, in the middle of any change.  The program costs 2 ms a call, as much as loading the library.

Two costs are easy to miss.  A transaction that the kernel refuses takes it 10 to 20 ms, so nothing here
learns the state from a refusal.  And a transaction that removes anything, even by "flush", or adds a chain
that exists already, makes the next close of a netfilter socket wait as long, for an RCU grace period.  The
close at the end of the process counts, too.  So: look first, declare and remove only what is necessary, and
do it before something else that waits anyway.

The program reads all of a set to read one element (3 ms with 2,000 of them); the kernel can be asked for one
element.  <linux/netfilter/nf_tables.h> has the messages.
"""

import _struct as struct
import errno
import os

from cnihook.linux.netlink import (
    NLM_F_CREATE,
    NLM_F_DUMP,
    NetlinkError,
    attr,
    attributes,
    nested,
    netfilter,
    read_text,
    text,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

FAMILIES = {"inet": 1, "ip": 2, "netdev": 5, "bridge": 7, "ip6": 10}

SUBSYSTEM = 10 << 8  # NFNL_SUBSYS_NFTABLES, in the upper half of each message's type
_GETCHAIN, _GETRULE, _GETSET = SUBSYSTEM | 4, SUBSYSTEM | 7, SUBSYSTEM | 10
_NEWSETELEM, _GETSETELEM, _DELSETELEM = SUBSYSTEM | 12, SUBSYSTEM | 13, SUBSYSTEM | 14
_CHAIN_TABLE, _CHAIN_NAME, _CHAIN_HOOK, _CHAIN_POLICY, _CHAIN_USE = 1, 3, 4, 5, 6
_HOOK_DEVICE = 3
_RULE_TABLE, _RULE_CHAIN, _RULE_HANDLE, _RULE_USERDATA = 1, 2, 3, 7
_LIST_TABLE, _LIST_SET, _LIST_ELEMENTS, _LIST_ELEM = 1, 2, 3, 1
_SET_TABLE, _SET_NAME = 1, 2
_ELEM_KEY, _ELEM_DATA, _ELEM_USERDATA, _DATA_VALUE, _DATA_VERDICT = 1, 2, 6, 1, 2
_ELEM_TIMEOUT, _ELEM_EXPIRATION = 4, 5  # milliseconds
_VERDICT_CODE, _VERDICT_CHAIN, _JUMP = 1, 2, -3
_UDATA_COMMENT = 0  # libnftnl's number for it

_TIMEOUT = 30.0  # seconds for the program
_MANY = 256  # keys: 8 ms of requests


class NftError(OSError):
    """The program nft refused a transaction; none of its commands took effect."""


def run(commands: str, what: str) -> None:
    """Run all of the commands of nft or none.  Raises NftError, whose text begins with `what`."""
    from cnihook.process import child

    program = _find_program(what)
    outcome = child.run(program, ["nft", "-f", "-"], dict(os.environ), commands.encode(), _TIMEOUT)
    if outcome.status != 0:
        reason = outcome.stderr.decode(errors="replace").strip().partition("\n")[0].removeprefix("Error: ")
        raise NftError(errno.EIO, f"{what}: {reason or f'{program} ended with status {outcome.status}'}")


def _find_program(what: str) -> str:
    folders = [*os.environ.get("PATH", os.defpath).split(":"), "/usr/sbin", "/sbin"]
    for folder in folders:
        if os.access(f"{folder}/nft", os.X_OK):
            return f"{folder}/nft"
    raise NftError(errno.ENOENT, f"{what}: the program nft is not installed")


def chains(family: str, table: str) -> "dict[str, int]":
    """Return the chains of a table with their use counts: the rules of the chain, and the jumps to it."""
    uses = {}
    for body in ask(_GETCHAIN, NLM_F_DUMP, family, b"", f"list the chains of table {family} {table}"):
        chain = attributes(body, 4)
        if read_text(chain.get(_CHAIN_TABLE)) == table:
            uses[read_text(chain.get(_CHAIN_NAME))] = struct.unpack(">I", chain.get(_CHAIN_USE, bytes(4)))[0]
    return uses


def chain_devices(family: str, table: str) -> "dict[str, str]":
    """Return the interface of each chain of a table that is called for one; empty if that is gone."""
    devices = {}
    for body in ask(_GETCHAIN, NLM_F_DUMP, family, b"", f"list the chains of table {family} {table}"):
        chain = attributes(body, 4)
        if read_text(chain.get(_CHAIN_TABLE)) == table and _CHAIN_HOOK in chain:
            hook = attributes(chain[_CHAIN_HOOK])
            devices[read_text(chain.get(_CHAIN_NAME))] = read_text(hook.get(_HOOK_DEVICE))
    return devices


def chain_policy(family: str, table: str, chain: str) -> "str | None":
    """Return drop or accept; empty for a chain that no hook calls, None if the chain does not exist."""
    body = text(_CHAIN_TABLE, table) + text(_CHAIN_NAME, chain)
    try:
        (answer,) = ask(_GETCHAIN, 0, family, body, f"look up chain {chain} of table {family} {table}")
    except NetlinkError as error:
        if error.errno == errno.ENOENT:
            return None
        raise
    policy = attributes(answer, 4).get(_CHAIN_POLICY)
    return "" if policy is None else "accept" if any(policy) else "drop"


def rules(family: str, table: str, chain: str) -> "list[dict[int, bytes]]":
    """Return the rules of a chain in order, each as its attributes; none if the chain does not exist."""
    body = text(_RULE_TABLE, table) + text(_RULE_CHAIN, chain)
    try:
        answers = ask(_GETRULE, NLM_F_DUMP, family, body, f"list the rules of {family} {table} {chain}")
    except NetlinkError as error:
        if error.errno == errno.ENOENT:
            return []
        raise
    all_rules = [attributes(answer, 4) for answer in answers]
    return [  # older kernels list those of all chains
        rule
        for rule in all_rules
        if read_text(rule.get(_RULE_TABLE)) == table and read_text(rule.get(_RULE_CHAIN)) == chain
    ]


def commented_rules(family: str, table: str, chain: str) -> "list[tuple[int, str]]":
    """Return (handle, comment) of every rule of a chain."""
    return [
        (struct.unpack(">Q", rule[_RULE_HANDLE])[0], read_comment(rule.get(_RULE_USERDATA, b"")))
        for rule in rules(family, table, chain)
    ]


def comment_of(family: str, table: str, container: str, key: bytes) -> "str | None":
    """Return the comment of one element of a set or map; empty without comment, None without element."""
    entry = entry_of(family, table, container, key)
    return entry[1] if entry else None


def entry_of(family: str, table: str, container: str, key: bytes) -> "tuple[bytes, str] | None":
    """Return (value, comment) of one element of a map; None if it does not exist.

    In a key or value of several parts, each part fills whole words of four bytes.
    """
    body = _element(table, container, nested(_ELEM_KEY, attr(_DATA_VALUE, key)))
    try:
        answer = ask(_GETSETELEM, 0, family, body, f"look up an element of {container}")
    except NetlinkError as error:
        if error.errno == errno.ENOENT:
            return None
        raise
    return next(((value, comment) for _key, value, comment in _elements(answer)), None)


def remaining(family: str, table: str, container: str, key: bytes) -> "float | None":
    """Return the seconds until an element expires; None if it does not exist.

    The set must have elements with a timeout; 0 for an element without one.
    """
    body = _element(table, container, nested(_ELEM_KEY, attr(_DATA_VALUE, key)))
    try:
        (answer,) = ask(_GETSETELEM, 0, family, body, f"look up an element of {container}")
    except NetlinkError as error:
        if error.errno == errno.ENOENT:
            return None
        raise
    (elem,) = listed(attributes(answer, 4).get(_LIST_ELEMENTS, b""))
    return int.from_bytes(elem.get(_ELEM_EXPIRATION, b""), "big") / 1000


def entries_of(
    family: str, table: str, container: str, keys: "Collection[bytes]"
) -> "dict[bytes, tuple[bytes, str]]":
    """Return (value, comment) of those elements of a map that exist, by their keys.

    A request for one costs as much as six elements of a list.  So for many keys, all elements are listed.
    """
    if len(keys) > _MANY:
        chosen = set(keys)
        return {
            key: (value, comment)
            for key, value, comment in entries(family, table, container)
            if key in chosen
        }
    present = {}
    for key in keys:
        entry = entry_of(family, table, container, key)
        if entry:
            present[key] = entry
    return present


def elements(family: str, table: str, container: str) -> "list[tuple[bytes, str]]":
    """Return (key, comment) of every element of a set or map; none if it does not exist."""
    return [(key, comment) for key, _value, comment in entries(family, table, container)]


def entries(family: str, table: str, container: str) -> "list[tuple[bytes, bytes, str]]":
    """Return (key, value, comment) of every element of a map; none if it does not exist.

    The value is empty in a map of verdicts.
    """
    body = text(_LIST_TABLE, table) + text(_LIST_SET, container)
    try:
        return _elements(ask(_GETSETELEM, NLM_F_DUMP, family, body, f"list the elements of {container}"))
    except NetlinkError as error:
        if error.errno == errno.ENOENT:
            return []
        raise


def jumps(family: str, table: str, container: str) -> "list[tuple[bytes, str, str]]":
    """Return (key, comment, chain) of every element of a map of verdicts; in a set, the chain is empty."""
    body = text(_LIST_TABLE, table) + text(_LIST_SET, container)
    answers = _ask_or_none(_GETSETELEM, NLM_F_DUMP, family, body, f"list the elements of {container}")
    return [_jump(elem) for body in answers for elem in listed(attributes(body, 4).get(_LIST_ELEMENTS, b""))]


def jump_of(family: str, table: str, container: str, key: bytes) -> "tuple[str, str] | None":
    """Return (comment, chain) of one element; None if it does not exist."""
    body = _element(table, container, nested(_ELEM_KEY, attr(_DATA_VALUE, key)))
    for answer in _ask_or_none(_GETSETELEM, 0, family, body, f"look up an element of {container}"):
        for elem in listed(attributes(answer, 4).get(_LIST_ELEMENTS, b"")):
            return _jump(elem)[1:]
    return None


def _jump(elem: "dict[int, bytes]") -> "tuple[bytes, str, str]":
    key = attributes(elem.get(_ELEM_KEY, b"")).get(_DATA_VALUE, b"")
    verdict = attributes(attributes(elem.get(_ELEM_DATA, b"")).get(_DATA_VERDICT, b""))
    return key, read_comment(elem.get(_ELEM_USERDATA, b"")), read_text(verdict.get(_VERDICT_CHAIN))


def sets(family: str, table: str) -> "list[str]":
    """Return the names of the sets and maps of a table; none if it does not exist."""
    what = f"list the sets of {family} {table}"
    answers = _ask_or_none(_GETSET, NLM_F_DUMP, family, text(_SET_TABLE, table), what)
    each = (attributes(body, 4) for body in answers)
    return [read_text(one.get(_SET_NAME)) for one in each if read_text(one.get(_SET_TABLE)) == table]


def _ask_or_none(kind: int, flags: int, family: str, body: bytes, what: str) -> "list[bytes]":
    """Do what ask() does; return an empty list if the object does not exist."""
    try:
        return ask(kind, flags, family, body, what)
    except NetlinkError as error:
        if error.errno == errno.ENOENT:
            return []
        raise


def add_element(
    table: str,
    container: str,
    key: bytes,
    comment: str,
    *,
    value: bytes = b"",
    jump: str = "",
    timeout: float = 0,
) -> "tuple[int, int, bytes]":
    """Return the message for change() that adds an element.

    It is for a set, or for a map, which needs a value or a chain to jump to.  `timeout`: seconds until the
    kernel removes the element.
    """
    elem = nested(_ELEM_KEY, attr(_DATA_VALUE, key))
    if jump:
        verdict = attr(_VERDICT_CODE, struct.pack(">i", _JUMP)) + text(_VERDICT_CHAIN, jump)
        elem += nested(_ELEM_DATA, nested(_DATA_VERDICT, verdict))
    elif value:
        elem += nested(_ELEM_DATA, attr(_DATA_VALUE, value))
    if timeout:
        elem += attr(_ELEM_TIMEOUT, struct.pack(">Q", int(timeout * 1000)))
    if comment:
        elem += attr(_ELEM_USERDATA, userdata(comment))
    return _NEWSETELEM, NLM_F_CREATE, _element(table, container, elem)


def delete_element(table: str, container: str, key: bytes) -> "tuple[int, int, bytes]":
    """Return the message for change() that deletes an element.

    The element must exist, and the next close waits (see above).
    """
    return _DELSETELEM, 0, _element(table, container, nested(_ELEM_KEY, attr(_DATA_VALUE, key)))


def _element(table: str, container: str, elem: bytes) -> bytes:
    return (
        text(_LIST_TABLE, table)
        + text(_LIST_SET, container)
        + nested(_LIST_ELEMENTS, nested(_LIST_ELEM, elem))
    )


def ask(kind: int, flags: int, family: str, body: bytes, what: str) -> "list[bytes]":
    """Send one request to the kernel.  `body` is what follows the header that all requests have."""
    return netfilter().request(kind, flags, _header(family) + body, what)


def change(family: str, messages: "list[tuple[int, int, bytes]]", what: str) -> None:
    """Do all of the messages (type, flags, body) or none.

    This is faster than the program nft, which reads the whole ruleset before it adds anything.
    """
    header = _header(family)
    netfilter().transaction(
        SUBSYSTEM >> 8, [(kind, flags, header + body) for kind, flags, body in messages], what
    )


def _header(family: str) -> bytes:
    return struct.pack("=BBH", FAMILIES[family], 0, 0)


def _elements(bodies: "list[bytes]") -> "list[tuple[bytes, bytes, str]]":
    entries = []
    for body in bodies:
        for elem in listed(attributes(body, 4).get(_LIST_ELEMENTS, b"")):
            key = attributes(elem.get(_ELEM_KEY, b"")).get(_DATA_VALUE, b"")
            value = attributes(elem.get(_ELEM_DATA, b"")).get(_DATA_VALUE, b"")
            entries.append((key, value, read_comment(elem.get(_ELEM_USERDATA, b""))))
    return entries


def listed(data: bytes) -> "list[dict[int, bytes]]":
    """Return the attributes of a list, which are all of one type, each as its own attributes."""
    members, offset = [], 0
    while offset + 4 <= len(data):
        length = struct.unpack_from("=H", data, offset)[0]
        if length < 4:
            break
        members.append(attributes(data[offset + 4 : offset + length]))
        offset += (length + 3) & ~3
    return members


def userdata(comment: str) -> bytes:
    """Return a comment as userdata, in the form that libnftables and iptables read."""
    data = comment.encode()[:253] + b"\0"
    return bytes((_UDATA_COMMENT, len(data))) + data


def read_comment(userdata: bytes) -> str:
    offset = 0
    while offset + 2 <= len(userdata):
        kind, length = userdata[offset], userdata[offset + 1]
        if kind == _UDATA_COMMENT:
            return read_text(userdata[offset + 2 : offset + 2 + length])
        offset += 2 + length
    return ""
