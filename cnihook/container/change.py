# SPDX-License-Identifier: Apache-2.0
"""
Changes of a container's networks while it runs: what a command requests, as edits of attachments.

All or nothing: if the change of one network fails, those that are changed already are changed back.
"""

from cnihook.container import steps
from cnihook.container.engine import ContainerEngine
from cnihook.container.steps import Step
from cnihook.fast.undo import Undo
from cnihook.log import Log
from cnihook.protocol import invoke, locks
from cnihook.request import published, resolve
from cnihook.request.request import HostPort, PortRequest
from cnihook.runtime import records, update
from cnihook.runtime.networks import Network
from cnihook.runtime.pending import Input, network_of
from cnihook.runtime.records import Record
from cnihook.runtime.settings import Settings
from cnihook.types import Value
from cnihook.types.config import NetConf
from cnihook.types.errors import INVALID_CONFIG, UNKNOWN_CONTAINER, CniError, PortTakenError
from cnihook.types.names import check_container_id

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from cnihook.runtime.update import Edit

_PORT_TRIES = 32  # for a free port; a try fails if another container gets the chosen one


class Change(Value):
    """The requested changes.

    `limits`: new values of the capabilities bandwidth, emulate and quota; an empty one removes the old one.
    `lists`: new lists of connections by direction; `all` removes the old one.
    """

    __slots__ = ("limits", "lists", "publish_add", "publish_rm", "resets_quota")

    def __init__(self) -> None:
        self.publish_add: list[PortRequest] = []
        self.publish_rm: list[HostPort] = []
        self.limits: dict[str, dict[str, Any]] = {}
        self.lists: dict[str, str] = {}
        self.resets_quota = False


_LIMITS = {"bandwidth": "a limit on bandwidth", "emulate": "a network to emulate", "quota": "a quota"}


class Place(Value):
    """The network, and the interface, to which a change is restricted; empty: any."""

    __slots__ = ("ifname", "network")

    def __init__(self, network: str = "", ifname: str = "") -> None:
        self.network = network
        self.ifname = ifname


def carry_out(
    container_id: str,
    change: Change,
    settings: Settings,
    log: Log,
    *,
    place: Place,
    is_dry: bool = False,
    cuts: bool = False,
    seconds: float = 0.0,
) -> "list[Step]":
    """Change a container's networks, all or none.  Returns the differences; none if nothing differs.

    `is_dry`: return them only.  `cuts` and `seconds`: see update.change().
    """
    check_container_id(container_id)
    engine = ContainerEngine(settings, log)
    with log, locks.container(container_id, "update"):
        attachments = _attachments(container_id, place)
        for record in attachments if not is_dry else ():
            for text in update.settle(engine, record):
                engine.tell(f"{record.network} {record.ifname}: {text}")
        if is_dry:
            return steps.of_edits(_edits(attachments, change)) + steps.of_lists(attachments, change.lists)
        return _try_ports(engine, attachments, change, cuts, seconds)


def _attachments(container_id: str, place: Place) -> "list[Record]":
    attachments = records.of_container(container_id)
    if not attachments:
        raise CniError(UNKNOWN_CONTAINER, "no network of this container is on record")
    chosen = [
        record
        for record in attachments
        if place.network in ("", record.network) and place.ifname in ("", record.ifname)
    ]
    if not chosen:
        on = ", ".join(f"{record.network} as {record.ifname}" for record in attachments)
        where = f"{place.network}{f' as {place.ifname}' if place.ifname else ''}"
        raise CniError(UNKNOWN_CONTAINER, f"it is not on {where}", f"it is on {on}")
    for record in chosen:
        update.refuse_unchangeable(record)
    return chosen


def _try_ports(
    engine: ContainerEngine, attachments: "list[Record]", change: Change, cuts: bool, seconds: float
) -> "list[Step]":
    """Carry out the change, and again if another container gets a chosen port, or has left one behind."""
    is_chosen = not all(port.is_fixed for port in change.publish_add)
    has_collected = False
    for number in range(_PORT_TRIES):
        edits = _edits(attachments, change)
        differences = steps.of_edits(edits) + steps.of_lists(attachments, change.lists)
        try:
            _carry_out(engine, edits, attachments, change, cuts, seconds)
            break
        except PortTakenError:
            if number == _PORT_TRIES - 1 or (has_collected and not is_chosen):
                raise
        if not has_collected:
            from cnihook.container import gc  # rarely needed

            gc.collect(engine, patience=locks.PATIENCE)
            has_collected = True
    for step in differences:
        engine.tell(f"{step.network} {step.ifname}: {step.done}")
    return differences


def _carry_out(
    engine: ContainerEngine,
    edits: "list[tuple[Record, Edit]]",
    attachments: "list[Record]",
    change: Change,
    cuts: bool,
    seconds: float,
) -> None:
    with Undo() as undo:
        for record, edit in edits:
            old, extra = Input.of(record), record.extra
            if update.change(engine, record, edit, seconds=seconds, cuts=cuts):
                undo.push(update.carry_out, engine, record, old, extra)
        if change.lists:
            from cnihook.container import own_lists  # most changes are of ports

            own_lists.carry_out(attachments, change.lists, cuts=cuts)


# The edits


def _edits(attachments: "list[Record]", change: Change) -> "list[tuple[Record, Edit]]":
    """Return the edit of each attachment, with the ports that the requests left open chosen."""
    networks = {record.path: network_of(Input.of(record), record) for record in attachments}
    edits = []
    added = _new_ports(attachments, change, networks)
    changed = [*change.limits, *(["quota"] if change.resets_quota else [])]
    limited = {capability: _limited(attachments, networks, capability) for capability in changed}
    for record in attachments:
        limits = [capability for capability, one in limited.items() if one is record]
        edits.append((record, _edit(change, added.get(record.path, []), limits)))
    return edits


def _edit(change: Change, added: "list[dict[str, Any]]", limits: "list[str]") -> "Edit":
    """Return the edit of one attachment.  `limits`: the capabilities that it changes there."""

    def edit(old: Input) -> Input:
        args = dict(old.capability_args)
        if change.publish_rm or added:
            ports = _without(published.mappings(args), change.publish_rm)
            ports += [one for one in added if one not in ports]
            _set(args, "portMappings", ports)
        for capability in limits:
            _set(args, capability, _new_limits(change, capability, _limits_of(args, capability)))
        return Input(old.config, args)

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
