# SPDX-License-Identifier: Apache-2.0
"""
Release what is left of attachments whose record is damaged, cut short or lost.

This runs DEL for the network, if its configuration is known, and for every built-in plugin that keeps
something on the host.  Each plugin finds what it made by the names of the attachment.
"""

import os

from cnihook.fast.errors_text import message_with_notes
from cnihook.linux import netns
from cnihook.linux.flock import LockBusyError
from cnihook.linux.netns import NetNS
from cnihook.log import Log
from cnihook.protocol import invoke, locks
from cnihook.protocol.call import Invocation
from cnihook.runtime import chain, netns_names, networks, records, remains
from cnihook.runtime.networks import Network
from cnihook.runtime.records import DamagedRecordError, Record
from cnihook.types.errors import IO_FAILURE, CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from cnihook.runtime.remains import Identity

_ASIDE = "/var/lib/cni/damaged"


def release(identity: "Identity", conf_dir: str, plugin_dirs: "list[str] | None") -> None:
    """Release what is left of an attachment.  The caller holds the container's lock.

    Raises AttachmentInUseError, or the error of the first plugin that fails.
    """
    remains.refuse_if_used(identity)
    take_down(identity, conf_dir, plugin_dirs)


def take_down(
    identity: "Identity",
    conf_dir: str,
    plugin_dirs: "list[str] | None",
    *,
    config: bytes = b"",
    sandbox: str = "",
) -> None:
    """Remove links, elements and addresses of an attachment, whether or not it is in use.

    `config`: the configuration that it was attached with; empty if it is not known.  `sandbox`: the path to
    its namespace; empty if it does not exist.
    """
    network, container_id, ifname = identity
    request = Invocation(container_id, sandbox, ifname, plugin_dirs=plugin_dirs)
    builtin = Invocation(container_id, sandbox, ifname)
    errors: list[CniError] = []
    try:
        for one in _configurations(network, conf_dir, config):
            try:
                chain.delete(one, request, {}, None)
            except CniError as error:
                errors.append(error)
        try:
            chain.delete(_everything(network), builtin, {}, None)
        except CniError as error:
            errors.append(error)
    finally:
        request.close()
        builtin.close()
    chain.raise_all(errors)


def _configurations(name: str, conf_dir: str, config: bytes) -> "list[Network]":
    """Return the configuration of the attachment if it is known, else the network's current one."""
    if config:
        try:
            return [networks.parse(config, "the record")]
        except CniError:
            pass
    return [network for network in networks.load_folder(conf_dir)[0] if network.name == name]


def _everything(name: str) -> Network:
    """Return a network of all plugins that keep something on the host, for a DEL by the owner."""
    types: dict[str, list[str]] = {"interface": [], "chained": [], "ipam": []}
    for plugin_type in invoke.built_in_types():
        traits = invoke.traits(plugin_type)
        if traits.releases_by_owner:
            types[traits.kind].append(plugin_type)
    interfaces = [conf for plugin_type in types["interface"] for conf in _interface_plugins(plugin_type)]
    for plugin_type in types["ipam"]:
        # If the addresses are a server's, it is on the network of a parent link.
        through_parent = invoke.traits(plugin_type).from_server
        first = next(
            conf
            for conf in interfaces
            if "ipam" not in conf and invoke.traits(conf["type"]).on_parent == through_parent
        )
        first["ipam"] = {"type": plugin_type}
    plugins = [*interfaces, *({"type": plugin_type} for plugin_type in types["chained"])]
    raw = {"cniVersion": "1.0.0", "name": name, "plugins": plugins}
    return networks.from_raw(raw, b"", f"what is left on {name}")


def _interface_plugins(plugin_type: str) -> "list[dict[str, Any]]":
    """Return a plugin's configuration, or one for each bridge of the host if it uses bridges."""
    traits = invoke.traits(plugin_type)
    # With these keys, it removes from the kernel what an ADD with them added.
    features = [field.name for field in invoke.fields(plugin_type) if field.type is bool and field.needs]
    conf: dict[str, Any] = {"type": plugin_type} | dict.fromkeys(features, True)
    if traits.link is None or "bridge" not in traits.makes:
        return [conf]
    host = NetNS.current()
    try:
        bridges = [link.name for link in host.rtnl.links() if link.kind == "bridge"]
    finally:
        host.close()
    first, *others = bridges or [""]
    key = traits.link.name
    return [conf | {key: first}, *({"type": plugin_type, key: other} for other in others)]


def release_record(
    damaged: DamagedRecordError,
    conf_dir: str,
    plugin_dirs: "list[str] | None",
    *,
    sandbox: "str | None" = None,
) -> "list[Identity]":
    """Release what the file was the record of, then remove it.  The caller holds the container's lock.

    `sandbox`: the path to the namespace, or "", to detach the container even if it may be live.
    Returns what was released.  Raises AttachmentInUseError or the first error; the file is then kept.
    """
    record = damaged.record if damaged.record and not damaged.is_misnamed else None
    identities = damaged.identities()
    if sandbox is None:
        _refuse_if_alive(record, identities)
    config = record.config if record else b""
    for identity in identities:
        take_down(identity, conf_dir, plugin_dirs, config=config, sandbox=sandbox or "")
    for container_id in damaged.container_ids():
        if not [name for name in records.names_of(container_id) if name != os.path.basename(damaged.path)]:
            release_name(container_id, also_if_used=sandbox is not None)
    _discard(damaged)
    return identities


def _refuse_if_alive(record: "Record | None", identities: "list[Identity]") -> None:
    if not (record and record.process):
        for identity in identities:
            remains.refuse_if_used(identity)
    elif record.process.is_alive():
        raise remains.AttachmentInUseError(record.identity, f"process {record.process.pid} runs")


def release_name(container_id: str, *, also_if_used: bool = False) -> None:
    """Remove the name of a namespace without a process, if cnihook made the name."""
    if not netns_names.is_marked(container_id):
        return
    identity = netns_names.identity_of(container_id)
    if identity == (0, 0):  # its writer was killed before it made the name
        netns_names.unmark(container_id)
        return
    for space in () if also_if_used else remains.spaces():
        if space.identity == identity and space.pid:
            raise CniError(IO_FAILURE, f"{netns.named(container_id)} is in use: {space} is in it")
    netns_names.unbind(container_id, identity)


def release_container(container_id: str, conf_dir: str, plugin_dirs: "list[str] | None") -> "list[Identity]":
    """Release what is left of a container that is not on record; the name of its namespace comes last."""
    released = [identity for identity in remains.orphans() if identity[1] == container_id]
    for identity in released:
        release(identity, conf_dir, plugin_dirs)
    release_name(container_id)
    return released


def _discard(damaged: DamagedRecordError) -> None:
    """Remove the file if it is the remainder of a record; move anything else aside."""
    status = os.lstat(damaged.path)
    if status.st_mode & 0o170000 == 0o100000 and not damaged.is_misnamed:  # S_IFREG
        os.unlink(damaged.path)
    else:
        move_aside(damaged.path)


def move_aside(path: str) -> str:
    os.makedirs(_ASIDE, mode=0o700, exist_ok=True)
    number, target = 1, f"{_ASIDE}/{os.path.basename(path)}"
    while os.path.lexists(target):
        target = f"{_ASIDE}/{os.path.basename(path)}.{number}"
        number += 1
    os.rename(path, target)
    return target


def collect(
    damaged: "list[DamagedRecordError]", conf_dir: str, plugin_dirs: "list[str] | None", log: "Log | None"
) -> "list[Identity]":
    """Release what these files were records of, and what is left without a record.  Returns all of it.

    What another runtime uses is kept.  An error is an event in `log`.
    """
    released: list[Identity] = []

    def attempt(container_id: str, work: "Callable[[], list[Identity]]") -> None:
        try:
            with locks.container(container_id, "gc", timeout=0):
                released.extend(work())
            Log(container_id).close()
        except LockBusyError:
            pass  # another process works on it
        except (CniError, OSError) as error:
            if log:
                log.event(f"gc of {container_id}: {message_with_notes(error)}")

    for one in damaged:
        container_id = [*one.container_ids(), os.path.basename(one.path)][0]
        attempt(container_id, lambda one=one: release_record(one, conf_dir, plugin_dirs))  # type: ignore[misc]
    lost = {identity[1] for identity in remains.orphans() if remains.is_free(identity)}
    for container_id in sorted(lost | set(remains.names())):
        attempt(
            container_id,
            lambda container_id=container_id: release_container(container_id, conf_dir, plugin_dirs),  # type: ignore[misc]
        )
    return released
