# SPDX-License-Identifier: Apache-2.0
"""
The attachment of a container with a sticky name: it gets the addresses that the one before it had.

The built-in host-local keeps the leases (cnihook.ipam.sticky).  It gets the name in CNI_ARGS, so the DEL
from the record has it, too.  The MAC addresses are requested as by --mac-address.
"""

from cnihook.container import gc
from cnihook.container.engine import ContainerEngine
from cnihook.fast.errors_text import message
from cnihook.fast.undo import Undo
from cnihook.ipam import leases, sticky
from cnihook.ipam.sticky import OnNetwork, StickyName
from cnihook.protocol import invoke, locks
from cnihook.request.request import ContainerRequest, NetworkRequest
from cnihook.request.resolve import ResolvedNetwork, resolve
from cnihook.runtime import attachment, networks, records
from cnihook.runtime.networks import Network
from cnihook.types.config import NetConf
from cnihook.types.errors import INVALID_CONFIG, CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from cnihook.linux.netns import NetNS
    from cnihook.runtime.addition import Attachment
    from cnihook.runtime.records import Record


def attach(
    container_id: str,
    namespace: "NetNS",
    chosen: "list[ResolvedNetwork]",
    engine: ContainerEngine,
    work: "Callable[[], list[Attachment]]",
) -> "list[Attachment]":
    """Return what `work` returns, which attaches the container to `chosen`.  The caller holds its lock.

    Raises CniError if a container that lives has the sticky name, or if what is kept for it is damaged.
    """
    name = next(served.sticky for served in chosen if served.sticky)
    with locks.sticky(name, "attach"):
        kept = sticky.find(name)
        with Undo() as undo:
            if kept is None:
                _refuse_too_many(name)
                kept = StickyName(name)
                undo.push(sticky.remove, name)
            elif kept.container != container_id:
                _take_over(kept, engine)
            before = kept.text()
            kept.container = container_id
            _forget_missing(kept, chosen, engine)
            for served in chosen:
                if served.sticky:
                    _request(kept, served, engine)
            # On disk before a lease has the name as its owner, which GC would release otherwise.
            if kept.text() != before:
                kept.write()
            attached = work()
        _update(kept, namespace, attached, engine)
    return attached


def _refuse_too_many(name: str) -> None:
    if len(sticky.names()) >= sticky.MOST:
        raise CniError(
            INVALID_CONFIG,
            f"sticky name {name}: there are {sticky.MOST} others, which is the most",
            "`cnihook sticky ls` lists them, and `cnihook sticky rm NAME...` removes some",
        )


def users(kept: StickyName) -> "list[Record]":
    """Return the records of the container that used the name last, if they have the name."""
    if not kept.container:
        return []
    present = records.of_container(kept.container)
    return [record for record in present if record.cni_args.get(leases.STICKY) == kept.name]


def _take_over(kept: StickyName, engine: ContainerEngine) -> None:
    """Raise CniError if the other container lives.  Release what it left if its end did not."""
    present = users(kept)
    if any(not attachment.is_gone(record) for record in present):
        raise CniError(
            INVALID_CONFIG,
            f"sticky name {kept.name}: container {kept.container} has it, and lives",
            f"stop that one, or give this one another name; `cnihook detach {kept.container}` detaches it",
        )
    if len(engine.ended(present)) < len(present):
        gc.collect(engine, thorough=False, patience=locks.PATIENCE)


def _forget_missing(kept: StickyName, chosen: "list[ResolvedNetwork]", engine: ContainerEngine) -> None:
    """Release what is kept on networks that are not configured any more."""
    others = kept.networks.keys() - {served.network.name for served in chosen}
    if not others:
        return
    configured, problems = networks.load_folder(engine.conf_dir)
    if problems:
        return  # the network may be in a file that is not valid at the moment
    for network in sorted(others - {one.name for one in configured}):
        old = kept.networks.pop(network)
        if old.folder:
            sticky.release(kept.name, old.folder)
        addresses = " ".join(old.ips) or "nothing"
        engine.tell(f"sticky name {kept.name}: {addresses} is kept no longer: network {network} is gone")


def _request(kept: StickyName, served: ResolvedNetwork, engine: ContainerEngine) -> None:
    """Request what is kept on a network, except for what the container requests itself."""
    network = served.network
    served.cni_args = {"IgnoreUnknown": "1", **served.cni_args, leases.STICKY: kept.name}
    one = kept.networks.setdefault(network.name, OnNetwork())
    folder = _folder(network, engine)
    if one.folder and one.folder != folder:
        sticky.release(kept.name, one.folder)
    one.folder = folder
    if one.mac and "mac" not in served.capability_args and "MAC" not in served.cni_args:
        requested = NetworkRequest(network.name)
        requested.mac = one.mac
        try:
            (with_mac,) = resolve([(network, requested)], ContainerRequest().common)
        except CniError:
            return  # no plugin takes a MAC address
        served.capability_args |= with_mac.capability_args
        served.cni_args |= with_mac.cni_args


def _folder(network: Network, engine: ContainerEngine) -> str:
    """Return the folder of the network's leases; empty unless the built-in host-local assigns addresses."""
    for plugin in network.plugins:
        if networks.ipam_type(plugin) == "host-local":
            if invoke.find("host-local", engine.plugin_dirs):
                return ""
            return leases.folder_of(network.name, NetConf(plugin).object("ipam").string("dataDir"))
    return ""


def _update(
    kept: StickyName, namespace: "NetNS", attached: "list[Attachment]", engine: ContainerEngine
) -> None:
    """Store what the container has now.  A failure is logged: the leases have their owner already."""
    before = kept.text()
    for one in attached:
        network = one.network.name
        if network not in kept.networks:
            continue  # loopback
        old = kept.networks[network]
        # The results of old versions have no MAC address.
        link = namespace.rtnl.find_link(one.record.ifname)
        ips, mac = [str(ip.net) for ip in one.result.ips], link.mac if link else ""
        for what, former, present in (("address", old.ips, ips), ("MAC address", [old.mac], [mac])):
            if any(former) and former != present:
                changed = f"{what} {' '.join(present) or 'none'} on {network} instead of {' '.join(former)}"
                engine.tell(f"sticky name {kept.name}: {changed}")
        old.ips, old.mac = ips, mac
    if kept.text() != before:
        try:
            kept.write()
        except OSError as error:
            engine.tell(f"sticky name {kept.name}: not stored: {message(error)}")
