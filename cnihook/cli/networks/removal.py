# SPDX-License-Identifier: Apache-2.0
"""
The removal of networks: of the file, and of what is left of the network on the host.

    1. What containers that are gone had is released.  Containers that live are detached, if that is wanted:
       first all of their links are silenced, then all are deleted with one wait (runtime.ending).
    2. Under the network's lock, so that no ADD runs: nothing is on record, no lease is in use, and the file
       is removed.
    3. Links, elements, leases and the bridge that are left have no owner, and are removed.
"""

import os

from cnihook.cli.shared import listing
from cnihook.cli.shared.listing import Row
from cnihook.container import gc as container_gc
from cnihook.container.engine import ContainerEngine
from cnihook.doctor.finding import plugins_of
from cnihook.fast.address import is_address
from cnihook.ipam import leases
from cnihook.links import host_bridge
from cnihook.linux import netns
from cnihook.linux.netns import NetNS
from cnihook.log import Log
from cnihook.protocol import invoke, locks
from cnihook.protocol.call import Invocation
from cnihook.runtime import chain, ending, networks, records, remains
from cnihook.runtime.networks import Network
from cnihook.runtime.records import Record
from cnihook.runtime.settings import Settings
from cnihook.types.errors import IO_FAILURE, CniError, as_cni_error

_PATIENCE = 10.0  # seconds to wait for another process that releases a container
_GC_VERSION = "1.1.0"  # the first one whose plugins have GC


class NetworkInUseError(CniError):
    """An error: containers are on the network."""

    def __init__(self, name: str, containers: "list[str]") -> None:
        count, them = (
            ("1 container", "it") if len(containers) == 1 else (f"{len(containers)} containers", "them")
        )
        super().__init__(
            IO_FAILURE,
            f"network {name} is in use by {count}: {', '.join(containers)}",
            f"`cnihook network rm --force {name}` detaches {them} first",
        )


def users(names: "set[str]") -> "dict[str, list[Row]]":
    """Return the attachments to these networks that are not of ended containers, by network."""
    attached: dict[str, list[Row]] = {}
    for row in listing.load():
        if row.network in names and row.alive:
            attached.setdefault(row.network, []).append(row)
    return attached


def described(rows: "list[Row]") -> "list[str]":
    """Return the containers, each once: its name and, if that is another, its ID."""
    return list(
        dict.fromkeys(
            one.shown if one.shown == one.container else f"{one.shown} ({one.container})" for one in rows
        )
    )


def remove(selected: "list[Network]", settings: Settings, *, force: bool) -> "dict[str, CniError]":
    """Remove networks; with `force`, detach their containers first.  The caller holds locks.networks().

    Returns the errors, by network.  Tries all.
    """
    container_gc.collect(ContainerEngine(settings), patience=_PATIENCE)
    errors: dict[str, CniError] = {}
    if force:
        _detach({network.name for network in selected}, settings, errors)
    attached = users({network.name for network in selected})
    for network in selected:
        try:
            if network.name in errors:
                continue
            if network.name in attached:
                raise NetworkInUseError(network.name, described(attached[network.name]))
            _remove(network, settings)
        except CniError as error:
            errors[network.name] = error
        except OSError as error:
            errors[network.name] = as_cni_error(error).wrapped(f"network {network.name}")
    return errors


def _detach(names: "set[str]", settings: Settings, errors: "dict[str, CniError]") -> None:
    """Detach all containers from these networks, with one wait.  Adds what fails to `errors`."""
    on: dict[str, set[str]] = {}  # the networks of each container
    for network, rows in users(names).items():
        for row in rows:
            on.setdefault(row.container, set()).add(network)
    for container_id, own in on.items():
        log = Log(container_id)
        engine = ContainerEngine(settings, log)
        try:
            with log, locks.container(container_id, "network rm", timeout=_PATIENCE):
                present = [one for one in records.of_container(container_id) if one.network in names]
                engine.release_all(container_id, present, log, has_ended=_is_named(container_id, present))
        except (CniError, OSError) as error:
            for network in own:
                errors[network] = as_cni_error(error).wrapped(f"container {container_id}")
    failures = ending.finish()
    for container_id in on:
        if not records.of_container(container_id):
            Log(container_id).close()
    for container_id, (left, failure) in failures.items():
        for network, _ifname in left.records:
            if network in names:
                errors[network] = as_cni_error(failure).wrapped(f"container {container_id}")


def _is_named(container_id: str, attachments: "list[Record]") -> bool:
    """Return True if the namespace has the container's ID as its name, by which ending.py finds it."""
    namespace = NetNS.find(netns.named(container_id))
    if not namespace:
        return False
    try:
        return all(one.process and one.process.netns_id == namespace.identity for one in attachments)
    finally:
        namespace.close()


def _remove(network: Network, settings: Settings) -> None:
    name = network.name
    folders = {conf.folder for plugin in plugins_of(network) if (conf := plugin.with_leases())}
    with locks.network(name, f"network rm {name}"):
        present = [
            container_id for each, container_id, _ifname in records.identities_on_file() if each == name
        ]
        if present:
            raise CniError(
                IO_FAILURE,
                f"network {name} is on record for {', '.join(sorted(set(present)))}, which is gone or busy",
                "`cnihook gc` releases what is left, or reports why it cannot",
            )
        for folder in folders:
            _refuse_used_leases(name, folder)
        os.unlink(network.source)
        try:
            _collect(network)
            _remove_bridges(network)
            for folder in folders:
                _remove_folder(folder)
        except (CniError, OSError) as error:
            what = as_cni_error(error).wrapped(
                f"network {name}: its file is removed, but not all of the rest"
            )
            raise what from None


def _refuse_used_leases(network: str, folder: str) -> None:
    """Raise AttachmentInUseError if a container that is not on record has an address of a lease."""
    for address in leases.addresses(folder):
        owner = (leases.read(f"{folder}/{address}") or b"").decode(errors="replace")
        container_id, _, ifname = owner.partition("\r\n")
        if records.are_names(network, container_id, ifname):
            remains.refuse_if_used((network, container_id, ifname))


def _collect(network: Network) -> None:
    """Have the built-in plugins release all that attachments to the network have."""
    plugins = [plugin for plugin in network.plugins if invoke.is_built_in(plugin["type"])]
    if plugins:
        raw = {"cniVersion": _GC_VERSION, "name": network.name, "plugins": plugins}
        request = Invocation("", "", "")
        try:
            chain.gc(networks.from_raw(raw, b"", network.source), (), request)
        finally:
            request.close()


def _remove_bridges(network: Network) -> None:
    """Remove the network's bridge if no port uses it, and if a plugin made it.

    A bridge that another runtime's plugin made has no mark of its maker.  But no link had the name when
    `network create` wrote the file.
    """
    rtnl = NetNS.current().rtnl
    for bridge in {plugin.bridge for plugin in plugins_of(network) if plugin.bridge}:
        host_bridge.remove_unused(rtnl, bridge)
        link = rtnl.find_link(bridge) if network.created else None
        if link and link.kind == "bridge" and not any(rtnl.each_port(link)):
            rtnl.delete_link(link)


def _remove_folder(folder: str) -> None:
    """Remove the folder of the leases, and in it what host-local writes."""
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return
    for name in names:
        if name == "lock" or name.startswith(leases.LAST_RESERVED) or is_address(name):
            leases.unlink(f"{folder}/{name}")
    leases.remove_if_empty(f"{folder}/{leases.OWNERS}")
    leases.remove_if_empty(folder)
