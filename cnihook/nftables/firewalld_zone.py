# SPDX-License-Identifier: Apache-2.0
"""
Containers' addresses in a zone of firewalld.

firewalld does not know the owner of an address.  So `table inet cnihook` has it: a late DEL must not remove
an address that another container has now.

    map firewalld4 { 10.22.0.5 comment "mynet c1 eth0" : jump firewalld }

The chain is empty, and no packet enters it; it counts the elements.
"""

from cnihook.fast.address import Address
from cnihook.linux import nft, nft_objects
from cnihook.linux.dbus import NoServiceError
from cnihook.linux.firewalld import Firewalld
from cnihook.nftables import table
from cnihook.nftables.table import FAMILY, NAME
from cnihook.protocol import locks
from cnihook.protocol.call import Call

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_CHAIN = "firewalld"


def add(call: Call, zone: str, addresses: "Sequence[Address]") -> None:
    """Add the addresses to the zone.  Raises NoServiceError without firewalld, before any change."""
    with Firewalld() as firewalld:
        if addresses:
            _record(call, addresses)
        for address in addresses:
            firewalld.add_source(zone, address)


def _record(call: Call, addresses: "Sequence[Address]") -> None:
    what = f"note the addresses of {call.owner}"
    with locks.nft(f"zone of {call.owner}"):
        elements = []
        if _CHAIN not in table.chains():
            elements += [
                nft_objects.table(NAME),
                nft_objects.verdict_map(NAME, "firewalld4", nft_objects.IPV4_ADDR),
                nft_objects.verdict_map(NAME, "firewalld6", nft_objects.IPV6_ADDR),
                nft_objects.chain(NAME, _CHAIN),
            ]
        for address in addresses:
            if _owner(address) is not None:
                # The element is from an attachment that is gone, because this one has the address now.
                elements.append(nft.delete_element(NAME, _map(address), address))
            elements.append(nft.add_element(NAME, _map(address), address, call.owner, jump=_CHAIN))
        nft.change(FAMILY, elements, what)


def delete(call: Call, zone: str, addresses: "Sequence[Address]") -> None:
    """Remove those of the addresses that no other attachment has; without `addresses`, those on record.

    An address without an owner is removed, too, because the reference plugin may have added it.
    """
    owners = {a: _owner(a) for a in addresses} if addresses else _all()
    own = (call.owner, None)
    _delete(zone, {address: owner for address, owner in owners.items() if owner in own})


def gc(call: Call, zone: str, keep: "set[str]") -> None:
    """Remove the addresses of every owner on this network that is not in `keep`."""
    _delete(
        zone, {a: o for a, o in _all().items() if o and o.startswith(call.owner_prefix) and o not in keep}
    )


def missing(zone: str, addresses: "Sequence[Address]") -> "list[Address]":
    """Return the addresses that are not in the zone.  Raises NoServiceError."""
    with Firewalld() as firewalld:
        return [address for address in addresses if not firewalld.has_source(zone, address)]


def _map(address: Address) -> str:
    return f"firewalld{address.version}"


def _owner(address: Address) -> "str | None":
    return nft.comment_of(FAMILY, NAME, _map(address), address)


def _all() -> "dict[Address, str | None]":
    return {
        Address(key): owner
        for name in ("firewalld4", "firewalld6")
        for key, owner in nft.elements(FAMILY, NAME, name)
    }


def _delete(zone: str, owners: "dict[Address, str | None]") -> None:
    """Remove each address, as long as it is this owner's; None: an address without a known owner."""
    if not owners:
        return
    try:
        with Firewalld() as firewalld:
            for address in owners:
                firewalld.remove_source(zone, address)
    except NoServiceError:
        pass  # it does not run, so it has no addresses
    if not any(owners.values()):
        return
    with locks.nft("remove addresses of a zone"):
        elements = [
            nft.delete_element(NAME, _map(address), address)
            for address, owner in owners.items()
            if owner is not None and _owner(address) == owner
        ]
        if elements:
            nft.change(FAMILY, elements, "forget addresses of a zone")
        chains = table.chains()
        if chains.get(_CHAIN) == 0:
            table.remove(chains, [_CHAIN], ["map firewalld4", "map firewalld6"])
