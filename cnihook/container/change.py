# SPDX-License-Identifier: Apache-2.0
"""
Changes of a container's networks while it runs: what a command requests, as edits of attachments.

All or nothing: if the change of one network fails, those that are changed already are changed back.
"""

from cnihook.container.engine import ContainerEngine
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
from cnihook.types.result import Result

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from cnihook.runtime.update import Edit

_PORT_TRIES = 32  # for a free port; a try fails if another container gets the chosen one


class Change(Value):
    """The requested changes.  `bandwidth`: new limits, or an empty dict for none; None: unchanged."""

    __slots__ = ("bandwidth", "publish_add", "publish_rm")

    def __init__(self) -> None:
        self.publish_add: list[PortRequest] = []
        self.publish_rm: list[HostPort] = []
        self.bandwidth: dict[str, int] | None = None


class Step(Value):
    """One difference that a change makes: `published` and `8080/tcp -> 10.22.0.2:80`."""

    __slots__ = ("ifname", "network", "value", "what")

    def __init__(self, record: Record, what: str, value: str) -> None:
        self.network = record.network
        self.ifname = record.ifname
        self.what = what
        self.value = value


PUBLISHED, UNPUBLISHED, LIMITED, UNLIMITED = "published", "unpublished", "limited", "unlimited"


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
            return _differences(_edits(attachments, change))
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
        steps = _differences(edits)
        try:
            _carry_out(engine, edits, cuts, seconds)
            break
        except PortTakenError:
            if number == _PORT_TRIES - 1 or (has_collected and not is_chosen):
                raise
        if not has_collected:
            from cnihook.container import gc  # rarely needed

            gc.collect(engine, patience=locks.PATIENCE)
            has_collected = True
    for step in steps:
        engine.tell(f"{step.network} {step.ifname}: {step.what} {step.value}")
    return steps


def _carry_out(
    engine: ContainerEngine, edits: "list[tuple[Record, Edit]]", cuts: bool, seconds: float
) -> None:
    with Undo() as undo:
        for record, edit in edits:
            old, extra = Input.of(record), record.extra
            if update.change(engine, record, edit, seconds=seconds, cuts=cuts):
                undo.push(update.carry_out, engine, record, old, extra)


# The edits


def _edits(attachments: "list[Record]", change: Change) -> "list[tuple[Record, Edit]]":
    """Return the edit of each attachment, with the ports that the requests left open chosen."""
    networks = {record.path: network_of(Input.of(record), record) for record in attachments}
    edits = []
    added = _new_ports(attachments, change, networks)
    limited = _limited(attachments, networks) if change.bandwidth is not None else None
    for record in attachments:
        edits.append((record, _edit(change, added.get(record.path, []), record is limited)))
    return edits


def _edit(change: Change, added: "list[dict[str, Any]]", is_limited: bool) -> "Edit":
    def edit(old: Input) -> Input:
        args = dict(old.capability_args)
        if change.publish_rm or added:
            ports = _without(published.mappings(args), change.publish_rm)
            ports += [one for one in added if one not in ports]
            _set(args, "portMappings", ports)
        if is_limited:
            _set(args, "bandwidth", change.bandwidth)
        return Input(old.config, args)

    return edit


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
            _refuse_second_target(mapping, present[path])
        else:
            where, mapping = path, request.mapping(resolve.free_host_port(request, in_use))
        in_use.add((request.protocol, mapping["hostPort"]))
        added.setdefault(where, []).append(mapping)
        present[where] = [*present[where], mapping]
    return added


def _refuse_second_target(mapping: "dict[str, Any]", present: "list[dict[str, Any]]") -> None:
    port = HostPort(mapping["hostPort"], mapping["protocol"], mapping.get("hostIP", ""))
    for one in present:
        if published.is_at(one, port) and one.get("containerPort") != mapping["containerPort"]:
            end = published.host_end(one)
            raise CniError(
                INVALID_CONFIG,
                f"host port {end}/{port.protocol} leads to port {one.get('containerPort')} of it already",
                f"to move the port, use --publish-rm {end}/{port.protocol} together with --publish-add",
            )


def _limited(attachments: "list[Record]", networks: "dict[str, Network]") -> Record:
    """Return the attachment that a limit is for: the first whose network takes one."""
    served = [resolve.ResolvedNetwork(networks[record.path], record.ifname) for record in attachments]
    first = resolve.first_with(served, "bandwidth", "a limit on bandwidth")
    record = attachments[served.index(first)]
    for plugin in networks[record.path].plugins:
        for field in invoke.traits(plugin["type"]).capabilities:
            own = NetConf(plugin)
            if field.name == "bandwidth" and any(own.has(rate.name) for rate in field.fields):
                raise CniError(
                    INVALID_CONFIG,
                    f"network {record.network}: it sets the limit itself, in its plugin {plugin['type']}",
                    "such a limit comes before that of a container",
                )
    return record


# The differences


def _differences(edits: "list[tuple[Record, Edit]]") -> "list[Step]":
    steps = []
    for record, edit in edits:
        new = edit(Input.of(record))
        steps += _port_steps(record, new)
        limits = new.capability_args.get("bandwidth")
        if limits != record.capability_args.get("bandwidth"):
            steps.append(_limit_step(record, limits or {}))
    return steps


def _port_steps(record: Record, new: Input) -> "list[Step]":
    before, after = (published.mappings(args) for args in (record.capability_args, new.capability_args))
    steps = [
        Step(record, UNPUBLISHED, f"{published.host_end(one)}/{published.protocol_of(one)}")
        for one in before
        if one not in after
    ]
    for one in after:
        if one not in before:
            end = f"{published.host_end(one)}/{published.protocol_of(one)}"
            steps.append(Step(record, PUBLISHED, f"{end} -> {_target(record, one)}"))
    return steps


def _target(record: Record, mapping: "dict[str, Any]") -> str:
    """Return the address and the port of the container to which a port leads."""
    addresses = [str(ip.net.address) for ip in _result(record).ips]
    is_six = ":" in str(mapping.get("hostIP") or "")
    chosen = next((each for each in addresses if (":" in each) == is_six), "".join(addresses[:1]))
    return (
        f"[{chosen}]:{mapping['containerPort']}" if ":" in chosen else f"{chosen}:{mapping['containerPort']}"
    )


def _result(record: Record) -> Result:
    network = network_of(Input.of(record), record)
    return Result.from_json(record.result, network.version)


def _limit_step(record: Record, limits: "dict[str, int]") -> Step:
    texts = [
        f"{name}={_rate(limits[key])}"
        for name, key in (("in", "ingressRate"), ("out", "egressRate"))
        if limits.get(key)
    ]
    where = f"{record.ifname} on {record.network}"
    return (
        Step(record, LIMITED, f"{where} to {','.join(texts)}") if texts else Step(record, UNLIMITED, where)
    )


def _rate(bits: int) -> str:
    """Return a rate as --bandwidth takes it."""
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if bits % size == 0:
            return f"{bits // size}{unit}"
    return str(bits)
