# SPDX-License-Identifier: Apache-2.0
"""
nftables: transactions through libnftables, and the few questions that it answers too slowly asked directly.

libnftables in this process costs 0.5 ms to load and 0.2 ms for a transaction; the `nft` program, which
serves where the library is missing, costs 2 ms a call.  Two costs do not show there.  A transaction that the
kernel refuses takes it 10 to 20 ms, so nothing here finds out by being refused.  And one that removes
anything, if only by "flush", makes the next close of a netfilter socket wait as long, for an RCU grace
period, the close at the process's end included.  So: look first, remove only what must go, and do it before
something else that waits anyway.

Reading one element through libnftables means reading all of its set (3 ms with 2,000 of them); the kernel
itself can be asked for one.  <linux/netfilter/nf_tables.h> has the messages.
"""

import errno
import os
import struct

from cnihook.lean import ffi
from cnihook.linux.netlink import (
    NETLINK_NETFILTER,
    NLM_F_DUMP,
    Netlink,
    NetlinkError,
    attr,
    attributes,
    nested,
    read_text,
    text,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

FAMILIES = {"inet": 1, "ip": 2, "bridge": 7, "ip6": 10}

_SUBSYSTEM = 10 << 8  # NFNL_SUBSYS_NFTABLES
_GETCHAIN, _GETRULE, _GETSETELEM = _SUBSYSTEM | 4, _SUBSYSTEM | 7, _SUBSYSTEM | 13
_CHAIN_TABLE, _CHAIN_NAME, _CHAIN_USE = 1, 3, 6
_RULE_TABLE, _RULE_CHAIN, _RULE_HANDLE, _RULE_USERDATA = 1, 2, 3, 7
_LIST_TABLE, _LIST_SET, _LIST_ELEMENTS, _LIST_ELEM = 1, 2, 3, 1
_ELEM_KEY, _ELEM_DATA, _ELEM_USERDATA, _DATA_VALUE = 1, 2, 6, 1
_UDATA_COMMENT = 0  # libnftnl's number for it


class NftError(OSError):
    """The kernel or libnftables refused a transaction, and nothing of it was done."""


class _Libnftables:
    def __init__(self) -> None:
        library = ffi.Library("libnftables.so.1")
        self._run: Callable[..., Any] = library.function(
            "nft_run_cmd_from_buffer", ffi.Int, ffi.Pointer, ffi.CString
        )
        self._error: Callable[..., Any] = library.function(
            "nft_ctx_get_error_buffer", ffi.CString, ffi.Pointer
        )
        self._context = library.function("nft_ctx_new", ffi.Pointer, ffi.Int)(0)
        library.function("nft_ctx_buffer_error", ffi.Int, ffi.Pointer)(self._context)

    def run(self, commands: str) -> "str | None":
        """None if all was done, else the reason."""
        if self._run(self._context, commands.encode()) == 0:
            return None
        return (self._error(self._context) or b"").decode(errors="replace")


class _Program:
    """The nft program, for machines without the library."""

    def __init__(self) -> None:
        folders = os.environ.get("PATH", os.defpath).split(":")
        found = [f"{folder}/nft" for folder in folders if os.access(f"{folder}/nft", os.X_OK)]
        if not found:
            raise NftError(errno.ENOENT, "neither libnftables.so.1 nor the nft program is installed")
        self._nft = found[0]

    def run(self, commands: str) -> "str | None":
        from cnihook.lean import process

        outcome = process.run(self._nft, ["nft", "-f", "-"], dict(os.environ), commands.encode(), 30.0)
        return None if outcome.status == 0 else outcome.stderr.decode(errors="replace")


_backend: "_Libnftables | _Program | None" = None
_socket: "Netlink | None" = None  # kept, since closing it may have to wait


def run(commands: str, what: str) -> None:
    """Do all of the commands or none.  Raises NftError, with `what` in words as its subject."""
    global _backend
    if not _backend:
        try:
            _backend = _Libnftables()
        except OSError:
            _backend = _Program()
    reason = _backend.run(commands)
    if reason is not None:
        first = reason.strip().partition("\n")[0].removeprefix("Error: ")
        raise NftError(errno.EIO, f"{what}: {first or 'nftables gave no reason'}")


def chains(family: str, table: str) -> "dict[str, int]":
    """The chains of a table, each with its use count: its rules, and the jumps to it."""
    found = {}
    for body in _ask(_GETCHAIN, NLM_F_DUMP, family, b"", f"list the chains of table {family} {table}"):
        chain = attributes(body, 4)
        if read_text(chain.get(_CHAIN_TABLE)) == table:
            found[read_text(chain.get(_CHAIN_NAME))] = struct.unpack(">I", chain.get(_CHAIN_USE, bytes(4)))[
                0
            ]
    return found


def rules(family: str, table: str, chain: str) -> "list[tuple[int, str]]":
    """(handle, comment) of every rule of a chain, in order; none if it does not exist."""
    body = text(_RULE_TABLE, table) + text(_RULE_CHAIN, chain)
    found = []
    for answer in _ask(_GETRULE, NLM_F_DUMP, family, body, f"list the rules of chain {chain}"):
        rule = attributes(answer, 4)
        if read_text(rule.get(_RULE_TABLE)) == table and read_text(rule.get(_RULE_CHAIN)) == chain:
            handle = struct.unpack(">Q", rule[_RULE_HANDLE])[0]
            found.append((handle, _comment(rule.get(_RULE_USERDATA, b""))))
    return found


def comment_of(family: str, table: str, container: str, key: bytes) -> "str | None":
    """The comment of one element of a set or map; empty if it has none, None if there is no such element."""
    found = entry_of(family, table, container, key)
    return found[1] if found else None


def entry_of(family: str, table: str, container: str, key: bytes) -> "tuple[bytes, str] | None":
    """(value, comment) of one element of a map; None if there is no such element.

    Each part of a key or value that has several fills whole words of four bytes.
    """
    elem = nested(_LIST_ELEM, nested(_ELEM_KEY, attr(_DATA_VALUE, key)))
    body = text(_LIST_TABLE, table) + text(_LIST_SET, container) + nested(_LIST_ELEMENTS, elem)
    try:
        answer = _ask(_GETSETELEM, 0, family, body, f"look up an element of {container}")
    except NetlinkError as error:
        if error.errno == errno.ENOENT:
            return None
        raise
    return next(((value, comment) for _key, value, comment in _elements(answer)), None)


def elements(family: str, table: str, container: str) -> "list[tuple[bytes, str]]":
    """(key, comment) of every element of a set or map; none if it does not exist."""
    return [(key, comment) for key, _value, comment in entries(family, table, container)]


def entries(family: str, table: str, container: str) -> "list[tuple[bytes, bytes, str]]":
    """(key, value, comment) of every element of a map; none if it does not exist.  A verdict is no value."""
    body = text(_LIST_TABLE, table) + text(_LIST_SET, container)
    try:
        return _elements(_ask(_GETSETELEM, NLM_F_DUMP, family, body, f"list the elements of {container}"))
    except NetlinkError as error:
        if error.errno == errno.ENOENT:
            return []
        raise


def _ask(kind: int, flags: int, family: str, body: bytes, what: str) -> "list[bytes]":
    global _socket
    if not _socket:
        _socket = Netlink(NETLINK_NETFILTER)
    return _socket.request(kind, flags, struct.pack("=BBH", FAMILIES[family], 0, 0) + body, what)


def _elements(bodies: "list[bytes]") -> "list[tuple[bytes, bytes, str]]":
    found = []
    for body in bodies:
        data = attributes(body, 4).get(_LIST_ELEMENTS, b"")
        offset = 0
        while offset + 4 <= len(data):  # a list: every attribute in it has the same type
            length = struct.unpack_from("=H", data, offset)[0]
            elem = attributes(data[offset + 4 : offset + length])
            key = attributes(elem.get(_ELEM_KEY, b"")).get(_DATA_VALUE, b"")
            value = attributes(elem.get(_ELEM_DATA, b"")).get(_DATA_VALUE, b"")
            found.append((key, value, _comment(elem.get(_ELEM_USERDATA, b""))))
            offset += (length + 3) & ~3
    return found


def _comment(userdata: bytes) -> str:
    offset = 0
    while offset + 2 <= len(userdata):
        kind, length = userdata[offset], userdata[offset + 1]
        if kind == _UDATA_COMMENT:
            return read_text(userdata[offset + 2 : offset + 2 + length])
        offset += 2 + length
    return ""
