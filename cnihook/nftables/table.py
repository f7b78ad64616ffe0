# SPDX-License-Identifier: Apache-2.0
"""
`table inet cnihook`, which masquerading, published ports and the firewall share.

Each of them has its own chains, and sets or maps that lead to these.  An ADD declares what it relies on, if
any of that is missing, and adds elements.  So the next container restores what another program has flushed.
A DEL removes elements, and then what is no longer used.  The last chain is removed together with the table.
"""

from cnihook.linux import nft, nft_objects

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

FAMILY, NAME = "inet", "cnihook"
TABLE = f"{FAMILY} {NAME}"
BY_ADDRESS = ("masq", "ports-to", "firewalld", "quota")  # maps whose keys are addresses of containers
QUOTA_KINDS = ("egress", "ingress", "total")


def chains() -> "dict[str, int]":
    """Return the chains by name, each with its use count: its rules, and the jumps to it."""
    return nft.chains(FAMILY, NAME)


def owned() -> "Iterator[tuple[str, bytes, str]]":
    """Yield (map, key, owner) for every element that a container has."""
    conditional = [name.removeprefix("ports-when-") for name in chains() if name.startswith("ports-when-")]
    maps = ["masq4", "masq6", "ports-to4", "ports-to6", "forward-members", "firewalld4", "firewalld6"]
    maps += [f"quota-{kind}{version}" for version in (4, 6) for kind in QUOTA_KINDS]
    for suffix in ("4", "6", *(each.removeprefix("ipv") for each in conditional)):
        version, dash, digest = suffix.partition("-")
        maps += [f"ports{version}{dash}{digest}", f"ports{version}-at{dash}{digest}"]
    for name in maps:
        for key, owner in nft.elements(FAMILY, NAME, name):
            if owner:
                yield name, key, owner


def remove(present: "dict[str, int]", unused: "Sequence[str]", objects: "Sequence[str]" = ()) -> None:
    """Remove the unused chains, and then `objects`, such as "map masq4", to which only these chains refer.

    Only a chain earlier in `unused` may jump to a chain in it.  `present`: the value of chains().  Call it
    under the lock.
    """
    gone = [name for name in unused if name in present]
    if not gone:
        return
    if len(gone) == len(present):
        nft.change(FAMILY, [nft_objects.delete_table(NAME)], "remove the empty table")
        return
    messages = [nft_objects.delete_chain(NAME, name) for name in gone]
    messages += [nft_objects.delete_set(NAME, thing.split()[1]) for thing in objects]
    nft.change(FAMILY, messages, "remove unused chains")
