# SPDX-License-Identifier: Apache-2.0
"""
`table inet cnihook`, which masquerading, published ports and the firewall share.

Each of them has chains of its own, and sets or maps that lead there.  An ADD declares what it relies on, if
any of that is missing, and adds elements; so what somebody flushed is back with the next container.  A DEL
removes elements, and then what nothing needs any more: the table goes with the last chain in it.
"""

from cnihook.linux import nft, nft_objects

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

FAMILY, NAME = "inet", "cnihook"
TABLE = f"{FAMILY} {NAME}"
BY_ADDRESS = ("masq", "ports-to", "firewalld")  # maps whose keys are addresses of containers
LOCK = "nft"  # what is looked at must still be so when the transaction is made


def chains() -> "dict[str, int]":
    """The chains by name, each with its use count: its rules, and the jumps to it."""
    return nft.chains(FAMILY, NAME)


def owned() -> "Iterator[tuple[str, bytes, str]]":
    """Yield (map, key, owner) for every element that a container has."""
    conditional = [name.removeprefix("ports-when-") for name in chains() if name.startswith("ports-when-")]
    maps = ["masq4", "masq6", "ports-to4", "ports-to6", "forward-members", "firewalld4", "firewalld6"]
    for suffix in ("4", "6", *(each.removeprefix("ipv") for each in conditional)):
        version, dash, digest = suffix.partition("-")
        maps += [f"ports{version}{dash}{digest}", f"ports{version}-at{dash}{digest}"]
    for name in maps:
        for key, owner in nft.elements(FAMILY, NAME, name):
            if owner:
                yield name, key, owner


def remove(present: "dict[str, int]", unused: "Sequence[str]", objects: "Sequence[str]" = ()) -> None:
    """Remove chains that nothing leads to any more but one that stands before them here; and then `objects`,
    such as "map masq4", which only these chains refer to.

    Under the lock; `present` is what chains() says.
    """
    gone = [name for name in unused if name in present]
    if not gone:
        return
    if len(gone) == len(present):
        nft.change(FAMILY, [nft_objects.delete_table(NAME)], "remove the empty table")
        return
    messages = [nft_objects.delete_chain(NAME, name) for name in gone]
    messages += [nft_objects.delete_set(NAME, thing.split()[1]) for thing in objects]
    nft.change(FAMILY, messages, "remove what nothing needs any more")
