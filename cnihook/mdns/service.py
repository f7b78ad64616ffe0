# SPDX-License-Identifier: Apache-2.0
"""
Begin and end to send multicast DNS on for a container.

A record has {"uplinks": [...]} as its key "mdns" if its attachment requests it.
"""

import os

from cnihook.fast.address import Address, mac_bytes
from cnihook.keeper.client import DaemonError, Keeper
from cnihook.linux.flock import LockBusyError
from cnihook.linux.netns import NetNS
from cnihook.mdns import listing
from cnihook.mdns.listing import Listing
from cnihook.protocol import invoke, locks
from cnihook.runtime import attachment, records
from cnihook.runtime.records import Record
from cnihook.types.config import LenientConf
from cnihook.types.errors import INTERNAL, INVALID_CONFIG, CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

SOCKET = "/run/cnihook/mdns/socket"
KEEPER = Keeper("keeper of multicast DNS", "mdns-keeper", 10.0)


def serve(container_id: str) -> None:
    """Send on for the attachments of a container that request it, from now on.

    The first call on a host starts the process, which takes 0.2 s.  Raises CniError if that fails, or if the
    process cannot listen; or OSError.  The caller then detaches the container.
    """
    for record in records.of_container(container_id):
        if "mdns" in record.extra:
            _serve(record)


def _serve(record: Record) -> None:
    current = _listing_of(record)
    current.write()
    if not os.path.exists(record.path):  # the container has ended in between
        forget(record)
        return
    _load(current.name, start=True)


def name_of(record: Record) -> str:
    """Return the name of an attachment's listing."""
    return os.path.basename(record.path)


def forget(record: Record) -> None:
    """End it for an attachment.  Nothing happens if it has no listing."""
    _forget(name_of(record))


def _forget(name: str) -> None:
    if listing.forget(name):
        try:
            KEEPER.call(SOCKET, {"do": "load", "name": name}, start=False)
        except DaemonError:
            pass  # it does not run, or not well; the next one does not find the file


def restore(record: Record) -> "list[str]":
    """Restore what an attachment needs of it, and return what was missing, as text.

    Raises CniError or OSError.
    """
    if "mdns" not in record.extra:
        return []
    missing = []
    current = _listing_of(record)
    try:
        present = Listing.read(current.name)
    except ValueError:
        present = None
    if present is None or present.interface != current.interface:
        missing.append("its request for multicast DNS was not on file")
    if present != current:
        current.write()
    if status() is None:
        missing.append("the keeper of multicast DNS did not run")
    _load(current.name, start=True)
    return missing


def prune() -> None:
    """End it for attachments that are not on record and that no other process works on."""
    for name in listing.names():
        if os.path.exists(f"{records.FOLDER}/{name}"):
            continue
        try:
            present = Listing.read(name)
        except ValueError:
            _forget(name)
            continue
        try:
            with locks.container(present.container_id if present else name, "gc", timeout=0):
                if not os.path.exists(f"{records.FOLDER}/{name}"):
                    _forget(name)
        except LockBusyError:
            pass


def status() -> "dict[str, Any] | None":
    """Return the answer of the process to the request for its status; None if it does not run."""
    try:
        return KEEPER.call(SOCKET, {"do": "status"}, start=False)
    except DaemonError:
        return None


def _load(name: str, *, start: bool) -> None:
    """Have the process read a listing again.  Raises CniError."""
    try:
        KEEPER.call(SOCKET, {"do": "load", "name": name}, start=start)
    except DaemonError as error:
        raise CniError(INTERNAL, f"multicast DNS: {error}") from None


def _listing_of(record: Record) -> Listing:
    requested = LenientConf(record.extra["mdns"], record.path)
    uplinks = requested.strings("uplinks")
    name = name_of(record)
    return Listing(name, record.container_id, _interface_of(record), _addresses_of(record), uplinks)


def _interface_of(record: Record) -> str:
    """Return the interface of the host on which the container's messages arrive."""
    network = attachment.network_of(record)
    first = LenientConf(network.plugins[0])
    traits = invoke.traits(first.string("type"))
    if "bridge" in traits.makes:
        return traits.host_link(first.raw)
    result = attachment.result_of(network, record)
    for interface in result.interfaces if result else ():
        if not interface.sandbox:
            return interface.name
    raise CniError(
        INVALID_CONFIG,
        f"multicast DNS: network {network.name}: its result names no interface of the host",
        'set "cniVersion": "1.0.0" in its configuration',
    )


def _addresses_of(record: Record) -> "list[Address]":
    """Return the addresses from which the container sends, link-local ones included."""
    namespace = NetNS.open(attachment.live_netns_path(record) or record.netns)
    try:
        link = namespace.rtnl.link(record.ifname)
        addresses = [one.net.address for one in namespace.rtnl.addresses(link)]
    finally:
        namespace.close()
    return sorted({*addresses, _link_local(link.mac)})


def _link_local(mac: str) -> Address:
    """Return the link-local address that most kernels make of a MAC address: it may not be there yet."""
    octets = mac_bytes(mac)
    return Address(b"\xfe\x80" + bytes(6) + bytes((octets[0] ^ 2,)) + octets[1:3] + b"\xff\xfe" + octets[3:])
