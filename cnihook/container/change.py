# SPDX-License-Identifier: Apache-2.0
"""
Changes of a container's networks while it runs: what a command requests, as edits of attachments.

All or nothing: if the change of one network fails, those that are changed already are changed back.
"""

from cnihook.container import edits, own_names, steps
from cnihook.container.edits import Change
from cnihook.container.engine import ContainerEngine
from cnihook.container.steps import Step
from cnihook.fast.undo import Undo
from cnihook.log import Log
from cnihook.protocol import locks
from cnihook.runtime import records, update
from cnihook.runtime.pending import Input
from cnihook.runtime.records import Record
from cnihook.runtime.settings import Settings
from cnihook.types import Value
from cnihook.types.errors import UNKNOWN_CONTAINER, CniError, PortTakenError
from cnihook.types.names import check_container_id

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cnihook.runtime.update import Edit

_PORT_TRIES = 32  # for a free port; a try fails if another container gets the chosen one


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
            own_names.fill(attachments, change.names, change.lists)
            return steps.of_edits(edits.of(attachments, change))
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
    own_names.fill(attachments, change.names, change.lists)
    for number in range(_PORT_TRIES):
        edits_of = edits.of(attachments, change)
        differences = steps.of_edits(edits_of)
        try:
            _carry_out(engine, edits_of, cuts, seconds)
            break
        except PortTakenError:
            if number == _PORT_TRIES - 1 or (has_collected and not is_chosen):
                raise
        if not has_collected:
            from cnihook.container import gc  # rarely needed

            gc.collect(engine, patience=locks.PATIENCE)
            has_collected = True
    if change.lists:
        from cnihook.container import own_lists  # most changes are of ports

        own_lists.end_denied(attachments, cuts=cuts)
    for step in differences:
        engine.tell(f"{step.network} {step.ifname}: {step.done}")
    return differences


def _carry_out(
    engine: ContainerEngine, edits_of: "list[tuple[Record, Edit]]", cuts: bool, seconds: float
) -> None:
    with Undo() as undo:
        for record, edit in edits_of:
            old, extra = Input.of(record), record.extra
            if update.change(engine, record, edit, seconds=seconds, cuts=cuts):
                undo.push(update.carry_out, engine, record, old, extra)
