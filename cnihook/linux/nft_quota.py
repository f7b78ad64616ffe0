# SPDX-License-Identifier: Apache-2.0
"""
Quotas: objects of nftables that count bytes, and the maps that lead from a key to one.

    quota q1 { over 10000000000 bytes used 512 bytes }
    map quotas { type ipv4_addr : quota; elements = { 10.22.0.5 : "q1" } }

A rule with such a map counts a packet for the quota of its key, and goes on only if the quota is used up.
What it then drops counts, too.  <linux/netfilter/nf_tables.h> has the messages.
"""

import _struct as struct
import errno

from cnihook.linux import nft, nft_objects
from cnihook.linux.netlink import (
    NLM_F_CREATE,
    NLM_F_DUMP,
    NetlinkError,
    attr,
    attributes,
    nested,
    read_text,
    text,
)
from cnihook.linux.nft import SUBSYSTEM

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cnihook.linux.nft_objects import Message

_NEWSETELEM = SUBSYSTEM | 12
_NEWOBJ, _GETOBJ, _DELOBJ = SUBSYSTEM | 18, SUBSYSTEM | 19, SUBSYSTEM | 20
_OBJ_TABLE, _OBJ_NAME, _OBJ_TYPE, _OBJ_DATA, _OBJ_USERDATA = 1, 2, 3, 4, 8
_QUOTA = 2  # NFT_OBJECT_QUOTA
_QUOTA_BYTES, _QUOTA_FLAGS, _QUOTA_CONSUMED, _OVER = 1, 2, 4, 1
_SET_OBJ_TYPE, _OBJECTS = 15, 0x40  # NFTA_SET_OBJ_TYPE, NFT_SET_OBJECT
_LIST_TABLE, _LIST_SET, _LIST_ELEMENTS, _LIST_ELEM = 1, 2, 3, 1
_ELEM_KEY, _ELEM_USERDATA, _ELEM_OBJREF, _DATA_VALUE = 1, 6, 9, 1
_EXPR_NAME, _EXPR_DATA, _OBJREF_SREG, _OBJREF_SET_NAME, _REGISTER = 1, 2, 3, 4, 1


class Quota:
    """A quota in the kernel: bytes that may pass, bytes that were counted, and the owner in its comment."""

    __slots__ = ("limit", "name", "owner", "used")

    def __init__(self, name: str, limit: int, used: int, owner: str) -> None:
        self.name = name
        self.limit = limit
        self.used = used
        self.owner = owner


def add(table: str, quota: Quota) -> "Message":
    """Return the message that adds a quota, or gives one that exists another limit: its bytes stay."""
    data = _u64(_QUOTA_BYTES, quota.limit) + _u32(_QUOTA_FLAGS, _OVER) + _u64(_QUOTA_CONSUMED, quota.used)
    body = _named(table, quota.name) + nested(_OBJ_DATA, data)
    return _NEWOBJ, NLM_F_CREATE, body + attr(_OBJ_USERDATA, nft.userdata(quota.owner))


def delete(table: str, name: str) -> "Message":
    """Return the message that deletes a quota, to which no element may lead."""
    return _DELOBJ, 0, _named(table, name)


def _named(table: str, name: str) -> bytes:
    return text(_OBJ_TABLE, table) + text(_OBJ_NAME, name) + _u32(_OBJ_TYPE, _QUOTA)


def quota_map(table: str, name: str, key: "tuple[int, int]") -> "Message":
    """Return the message that adds a map from keys of a type, such as IPV4_ADDR, to quotas."""
    return nft_objects.new_set(table, name, _OBJECTS, key, _u32(_SET_OBJ_TYPE, _QUOTA))


def add_element(table: str, quotas: str, key: bytes, quota: Quota) -> "Message":
    """Return the message that leads from a key to a quota."""
    elem = nested(_ELEM_KEY, attr(_DATA_VALUE, key)) + text(_ELEM_OBJREF, quota.name)
    elem += attr(_ELEM_USERDATA, nft.userdata(quota.owner))
    body = text(_LIST_TABLE, table) + text(_LIST_SET, quotas)
    return _NEWSETELEM, NLM_F_CREATE, body + nested(_LIST_ELEMENTS, nested(_LIST_ELEM, elem))


def count(quotas: str) -> bytes:
    """Count a packet for the quota of the loaded key; match it if that is used up."""
    data = nested(_EXPR_DATA, _u32(_OBJREF_SREG, _REGISTER), text(_OBJREF_SET_NAME, quotas))
    return nested(_LIST_ELEM, text(_EXPR_NAME, "objref") + data)


def find(family: str, table: str, name: str) -> "Quota | None":
    """Return the quota of this name; None if it does not exist."""
    try:
        answers = nft.ask(_GETOBJ, 0, family, _named(table, name), f"look up the quota {name}")
    except NetlinkError as error:
        if error.errno == errno.ENOENT:
            return None
        raise
    return next(map(_read, answers), None)


def all_of(family: str, table: str) -> "list[Quota]":
    """Return all quotas of a table; none if the table does not exist."""
    body = text(_OBJ_TABLE, table) + _u32(_OBJ_TYPE, _QUOTA)
    answers = nft.ask(_GETOBJ, NLM_F_DUMP, family, body, f"list the quotas of {family} {table}")
    return [
        _read(answer)
        for answer in answers
        # older kernels list those of all tables
        if read_text(attributes(answer, 4).get(_OBJ_TABLE)) == table
    ]


def _read(answer: bytes) -> Quota:
    fields = attributes(answer, 4)
    data = attributes(fields[_OBJ_DATA])
    limit, used = (int.from_bytes(data[kind], "big") for kind in (_QUOTA_BYTES, _QUOTA_CONSUMED))
    owner = nft.read_comment(fields.get(_OBJ_USERDATA, b""))
    return Quota(read_text(fields[_OBJ_NAME]), limit, used, owner)


def _u32(kind: int, value: int) -> bytes:
    return attr(kind, struct.pack(">I", value))


def _u64(kind: int, value: int) -> bytes:
    return attr(kind, struct.pack(">Q", value))
