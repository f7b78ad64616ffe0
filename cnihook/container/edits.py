# SPDX-License-Identifier: Apache-2.0
"""The edits of attachments that a change requests: from the input that is in force, the new one."""

from cnihook.container import own_keys, own_names
from cnihook.protocol import invoke
from cnihook.request import published, resolve
from cnihook.request.request import HostPort, PortRequest
from cnihook.runtime.networks import Network
from cnihook.runtime.pending import Input, network_of
from cnihook.runtime.records import Record
from cnihook.types import Value
from cnihook.types.config import NetConf
from cnihook.types.errors import INVALID_CONFIG, CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from cnihook.runtime.update import Edit


class Change(Value):
    """The requested changes.

    `limits`: new values of the capabilities bandwidth, emulate and quota; an empty one removes the old one.
    `lists`: new lists of connections by direction; `all` removes the old one.  `names` and `keys`: see
    own_names and own_keys.
    """

    __slots__ = ("keys", "limits", "lists", "names", "publish_add", "publish_rm", "resets_quota")

    def __init__(self) -> None:
        self.publish_add: list[PortRequest] = []
        self.publish_rm: list[HostPort] = []
        self.limits: dict[str, dict[str, Any]] = {}
        self.lists: dict[str, str] = {}
        self.resets_quota = False
        self.names = own_names.Names()
        self.keys = own_keys.Keys()


_LIMITS = {"bandwidth": "a limit on bandwidth", "emulate": "a network to emulate", "quota": "a quota"}


def of(attachments: "list[Record]", change: Change) -> "list[tuple[Record, Edit]]":
    """Return the edit of each attachment, with the ports that the requests left open chosen.

    own_names.fill() has run.  Raises CniError for a request that no attachment can serve.
    """
    networks = {record.path: network_of(Input.of(record), record) for record in attachments}
    edits = []
    added = _new_ports(attachments, change, networks)
    changed = [*change.limits, *(["quota"] if change.resets_quota else [])]
    limited = {capability: _limited(attachments, networks, capability) for capability in changed}
    real = [record for record in attachments if not networks[record.path].is_loopback]
    names = own_names.edits(real, networks, change.names)
    keys = own_keys.edits(real, networks, change.keys)
    servers = own_names.servers_in_use(real) if change.lists else []
    own_servers = own_names.own_servers(real) if change.lists else []
    for record in attachments:
        limits = [capability for capability, one in limited.items() if one is record]
        own = [*names.get(record.path, ()), *keys.get(record.path, ())]
        if change.lists and record in real:
            own.append(_edit_of_lists(change.lists, servers, own_servers))
        edits.append((record, _edit(change, added.get(record.path, []), limits, own)))
    return edits


def _edit_of_lists(lists: "dict[str, str]", servers: "list[str]", own_servers: "list[str]") -> "Edit":
    from cnihook.container import own_lists  # most changes are of ports

    def edit(old: Input) -> Input:
        own = dict(old.own)
        _set(own, "policy", own_lists.replaced(own.get("policy") or {}, lists, servers, own_servers))
        return Input(old.config, old.capability_args, own)

    return edit


def _edit(
    change: Change, added: "list[dict[str, Any]]", limits: "list[str]", others: "list[Edit]"
) -> "Edit":
    """Return the edit of one attachment.

    `limits`: the capabilities that it changes there.  `others`: edits that it makes as well.
    """

    def edit(old: Input) -> Input:
        args = dict(old.capability_args)
        if change.publish_rm or added:
            ports = _without(published.mappings(args), change.publish_rm)
            ports += [one for one in added if one not in ports]
            _set(args, "portMappings", ports)
        for capability in limits:
            _set(args, capability, _new_limits(change, capability, _limits_of(args, capability)))
        new = Input(old.config, args, old.own)
        for other in others:
            new = other(new)
        return new

    return edit


def _new_limits(change: Change, capability: str, old: "dict[str, Any]") -> "dict[str, Any]":
    new = dict(change.limits.get(capability, old))
    since = old.get("since")
    since = since if isinstance(since, int) else 0
    if capability == "quota" and new and (since or change.resets_quota):
        new["since"] = since + change.resets_quota  # the count begins again when this number changes
    return new


def _limits_of(args: "dict[str, Any]", capability: str) -> "dict[str, Any]":
    limits = args.get(capability)
    return limits if isinstance(limits, dict) else {}


def _set(args: "dict[str, Any]", name: str, value: object) -> None:
    """Set an argument; an empty value removes it."""
    if value:
        args[name] = value
    else:
        args.pop(name, None)


def _without(ports: "list[dict[str, Any]]", removed: "list[HostPort]") -> "list[dict[str, Any]]":
    return [one for one in ports if not any(published.is_at(one, port) for port in removed)]


def _new_ports(
    attachments: "list[Record]", change: Change, networks: "dict[str, Network]"
) -> "dict[str, list[dict[str, Any]]]":
    """Return the mappings that each attachment is to have, by the path of its record.

    One that a container has already is used for a request that it serves.
    """
    added: dict[str, list[dict[str, Any]]] = {}
    if not change.publish_add:
        return added
    present = {
        record.path: _without(published.mappings(record.capability_args), change.publish_rm)
        for record in attachments
    }
    served = {
        record.path: resolve.ResolvedNetwork(networks[record.path], record.ifname) for record in attachments
    }
    first = resolve.first_with(list(served.values()), "portMappings", "a port to publish")
    path = next(path for path, one in served.items() if one is first)
    in_use = {
        (published.protocol_of(one), one["hostPort"])
        for ports in present.values()
        for one in ports
        if "hostPort" in one
    }
    for request in change.publish_add:
        serving = [
            (where, one)
            for where, ports in present.items()
            for one in ports
            if published.serves(one, request)
        ]
        if serving:
            where, mapping = serving[0]
        elif request.is_fixed:
            where, mapping = path, request.mapping(request.first)
            _refuse_second_target(attachments[0].container_id, mapping, present[path])
        else:
            where, mapping = path, request.mapping(resolve.free_host_port(request, in_use))
        in_use.add((request.protocol, mapping["hostPort"]))
        added.setdefault(where, []).append(mapping)
        present[where] = [*present[where], mapping]
    return added


def _refuse_second_target(
    container_id: str, mapping: "dict[str, Any]", present: "list[dict[str, Any]]"
) -> None:
    port = HostPort(mapping["hostPort"], mapping["protocol"], mapping.get("hostIP", ""))
    for one in present:
        if published.is_at(one, port) and one.get("containerPort") != mapping["containerPort"]:
            end = published.host_end(one)
            raise CniError(
                INVALID_CONFIG,
                f"host port {end}/{port.protocol} leads to port {one.get('containerPort')} of it already",
                f"`cnihook update {container_id} --publish-rm {end}/{port.protocol}"
                f" --publish-add {end}:{mapping['containerPort']}/{port.protocol}` moves it",
            )


def _limited(attachments: "list[Record]", networks: "dict[str, Network]", capability: str) -> Record:
    """Return the attachment that a limit is for: one that has it, else the first whose network takes it."""
    for record in attachments:
        if capability in record.capability_args:
            return record
    served = [resolve.ResolvedNetwork(networks[record.path], record.ifname) for record in attachments]
    first = resolve.first_with(served, capability, _LIMITS[capability])
    record = attachments[served.index(first)]
    for plugin in networks[record.path].plugins:
        for field in invoke.traits(plugin["type"]).capabilities:
            own = NetConf(plugin)
            is_bandwidth = field.name == capability == "bandwidth"
            if is_bandwidth and any(own.has(rate.name) for rate in field.fields):
                raise CniError(
                    INVALID_CONFIG,
                    f"network {record.network}: it sets the limit itself, in its plugin {plugin['type']}",
                    "such a limit comes before that of a container",
                )
    return record
