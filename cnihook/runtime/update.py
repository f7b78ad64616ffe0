# SPDX-License-Identifier: Apache-2.0
"""
A change of an attachment while its container runs: ports, limits, or any other input of its plugins.

CNI has no operation for it.  So a built-in plugin has `update(call, before)`: of what the ADD of `before`
has set up, it makes what the ADD of `call` sets up.  An executable that follows the interface plugin gets
DEL and ADD.

    1. the record is written with the key `pending`: what the plugins will get, and what cnihook itself had
       set up; it has the new values of the latter already, because other parts read them there
    2. each plugin whose input changes is called, in the order of the chain; then names and policies change
    3. the record is written with the new input and result, a higher `revision`, and without `pending`

If a step fails, the same is done with the two inputs exchanged.  If the process is killed, or
that fails too, `pending` stays.  Then settle() undoes the change in the next operation on the container, and
a DEL removes what either input has set up: see pending.py.  A temporary change has `until` and `previous`,
the input to which settle() returns after that time.  With the key `trial`, keep() can prevent that.

The keys are in the object `cnihook` of a record.  libcni reads the input that is in force outside it.
"""

import calendar
import os
import time

from cnihook.fast.errors_text import message_with_notes
from cnihook.log import notice
from cnihook.protocol import invoke
from cnihook.protocol.call import Call, Invocation
from cnihook.runtime import attachment, chain, pending
from cnihook.runtime.engine import Engine
from cnihook.runtime.networks import Network
from cnihook.runtime.pending import Input
from cnihook.runtime.records import Record
from cnihook.types.config import NetConf
from cnihook.types.errors import INTERNAL, INVALID_CONFIG, UNKNOWN_CONTAINER, CniError
from cnihook.types.result import Interface, Result

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, TypeAlias

    Edit: TypeAlias = Callable[[Input], Input]

_TEMPORARY = ("previous", "trial", "until")
_NOT_UNDONE = "the change is not undone; the next operation on the container tries again"


# What can be changed


def refuse_unchangeable(record: Record) -> None:
    """Raise CniError for an attachment that another runtime made, that is incomplete, or that has ended."""
    what = f"container {record.container_id} on network {record.network}"
    if record.process is None:
        raise CniError(INVALID_CONFIG, f"{what}: another runtime attached it, and only that can change it")
    if record.result is None:
        hint = f"`cnihook detach {record.container_id}`, then attach it again"
        raise CniError(INTERNAL, f"{what}: its ADD did not complete", hint)
    if attachment.is_gone(record):
        raise CniError(UNKNOWN_CONTAINER, f"{what}: the container has ended", "`cnihook gc` releases it")


def changed_plugins(record: Record, old: Input, new: Input) -> "list[int]":
    """Return the indexes of the plugins whose input differs.  Raises CniError if one cannot be changed."""
    before, after = pending.network_of(old, record), pending.network_of(new, record)
    again = f"`cnihook detach {record.container_id} --network {record.network}`, then attach it again"
    if before.name != after.name or pending.types(before) != pending.types(after):
        raise CniError(
            INVALID_CONFIG,
            f"network {record.network}: its name and its list of plugins cannot change under a container",
            again,
        )
    for name in new.capability_args:
        if name not in after.capabilities and name not in old.capability_args:
            raise CniError(
                INVALID_CONFIG,
                f"network {record.network}: none of its plugins has the capability {name}",
                f'add "capabilities": {{"{name}": true}} to the plugin that takes it; then {again}',
            )
    changed = pending.differing(before, after, old, new)
    for index in changed:
        plugin_type = pending.types(after)[index]
        if invoke.find(plugin_type, record.plugin_dirs) is None:
            can_change = pending.is_updated(before, after, index, old, new)
        else:
            can_change = index > 0
        if not can_change:
            raise CniError(
                INVALID_CONFIG,
                f"network {record.network}: plugin {plugin_type} cannot be changed while the container runs",
                again,
            )
    return changed


# The change


def change(
    engine: Engine,
    record: Record,
    edit: "Edit",
    *,
    seconds: float = 0.0,
    is_trial: bool = False,
    cuts: bool = False,
) -> bool:
    """Change an attachment under its container's lock.  Return False if nothing differs.

    `edit` returns a new input for an input.  It is called again for the one to which a temporary change will
    return.  `seconds`: the time after which this change ends; 0: never.  `is_trial`: unless keep() is called
    before.  `cuts`: connections that the change no longer permits are ended.  If a plugin fails, everything
    is undone; then its error is raised.
    """
    settle(engine, record)
    refuse_unchangeable(record)
    if seconds and "until" in record.extra and (is_trial or "trial" in record.extra):
        raise CniError(
            INVALID_CONFIG,
            f"container {record.container_id} on network {record.network}: it has a temporary change",
            f"until {record.extra['until']}; `cnihook logs {record.container_id}` shows it",
        )
    old = Input.of(record)
    new = edit(old)
    extra = _extra_after(record, edit, new, seconds)
    if is_trial and "until" in extra:
        extra["trial"] = True
    if new == old and extra == record.extra:
        return False
    carry_out(engine, record, new, extra, cuts=cuts)
    return True


def replacement(capability_args: "Mapping[str, Any]", config: "bytes | None" = None) -> "Edit":
    """Return an edit that replaces these capability arguments, or removes those that are None."""

    def edit(old: Input) -> Input:
        args = {**old.capability_args, **capability_args}
        return Input(
            old.config if config is None else config,
            {name: value for name, value in args.items() if value is not None},
            old.own,
        )

    return edit


def _extra_after(record: Record, edit: "Edit", new: Input, seconds: float) -> "dict[str, Any]":
    """Return the keys of the record that describe a temporary change, and the other keys unchanged."""
    extra = dict(record.extra)
    if seconds:
        if "previous" in extra or new != Input.of(record):
            extra.setdefault("previous", Input.of(record).to_json())
            extra["until"] = as_text(time.time() + seconds)
    elif "previous" in extra:
        # What is meant to stay, stays after the end of the temporary change, too.
        extra["previous"] = edit(Input.from_json(extra["previous"], record)).to_json()
        if extra["previous"] == new.to_json():
            extra = _lasting(extra)
    return extra


def carry_out(
    engine: Engine, record: Record, new: Input, extra: "dict[str, Any]", *, cuts: bool = False
) -> None:
    """Take the three steps, or undo them.  `extra`: what Record.extra is to be afterwards."""
    old, old_result, old_extra = Input.of(record), record.result, record.extra
    changed = changed_plugins(record, old, new)
    revision = revision_of(record)
    try:
        _open(record, old_extra, new, old, revision)
    except BaseException:
        record.extra = old_extra
        raise
    reached: list[int] = []
    try:
        record.result = _run(engine, record, old, new, changed, reached, cuts=cuts) or old_result
        if new.own != old.own:
            engine.change_own(record, old.own, new.own)
        record.config, record.capability_args = new.config, new.capability_args
        record.extra = {**new.extra(extra), "revision": revision + 1, "changed": as_text(time.time())}
        _write(record)
    except BaseException as error:
        record.config, record.capability_args, record.result = old.config, old.capability_args, old_result
        try:
            _undo(engine, record, old, new, reached[::-1], old_extra)
        except Exception as another:
            error.add_note(f"while undoing: {message_with_notes(another)}; {_NOT_UNDONE}")
        record.extra = old_extra
        raise


def _open(record: Record, extra: "dict[str, Any]", new: Input, old: Input, revision: int) -> None:
    """Write the record of a change that begins: its plugins may have the input `new` from now on."""
    record.extra = {**new.extra(extra), "pending": {**new.to_json(), "own": old.own, "from": revision}}
    _write(record)


def _undo(
    engine: Engine, record: Record, old: Input, new: Input, indexes: "list[int]", extra: "dict[str, Any]"
) -> None:
    """Return to the input `old`.  The record has the key `pending` until that is complete."""
    record.result = _run(engine, record, new, old, indexes, undoes=True) or record.result
    if new.own != old.own:
        _open(record, extra, Input(new.config, new.capability_args, old.own), old, revision_of(record))
        engine.change_own(record, new.own, old.own)
    record.extra = old.extra(extra)
    _write(record)


def set_key(record: Record, key: str, value: object) -> None:
    """Write a further key of `cnihook` into the record of a running container; None removes it."""
    extra = {name: each for name, each in record.extra.items() if name != key}
    record.extra = extra if value is None else extra | {key: value}
    _write(record)


def _write(record: Record) -> None:
    """Write the record, and keep the time of the file: it is that of the attachment."""
    time_ns = os.stat(record.path).st_mtime_ns
    record.write()
    os.utime(record.path, ns=(time_ns, time_ns))


def _run(
    engine: Engine,
    record: Record,
    old: Input,
    new: Input,
    indexes: "list[int]",
    reached: "list[int] | None" = None,
    *,
    cuts: bool = False,
    undoes: bool = False,
) -> "dict[str, Any] | None":
    """Call the plugins with these indexes.  Returns the result for the record, None if it is unchanged.

    `reached` gets the index of each plugin that is called.  `undoes`: the container had the new input
    before, so it gets that back, even a port on which a process of the host listens now.
    """
    if not indexes:
        return None
    before, after = pending.network_of(old, record), pending.network_of(new, record)
    network, request = attachment.restore(record, engine.plugin_dirs, engine.timeout, is_repair=undoes)
    request.cuts = cuts
    request.first = NetConf(after.plugins[0])
    result = attachment.result_of(network, record) or Result()
    is_changed = False
    try:
        with attachment.in_use(record.network, record):
            for index in indexes:
                if reached is not None:
                    reached.append(index)
                call = _call(after, index, new, result, request)
                try:
                    changed_result = _update(call, _call(before, index, old, result, request))
                except Exception as error:
                    raise chain.in_context(error, after, index, "update") from None
                result, is_changed = changed_result or result, is_changed or changed_result is not None
    finally:
        request.close()
    return result.to_json(after.version) if is_changed else None


def _call(network: Network, index: int, given: Input, result: Result, request: Invocation) -> Call:
    derived = chain.derive(network, index, given.capability_args, result)
    return Call("UPDATE", NetConf(derived, network.where(index)), request)


def _update(call: Call, before: Call) -> "Result | None":
    """Have one plugin make of what `before` set up what `call` asks for.

    Returns the result of the whole chain as it is then; None if it is unchanged.
    """
    plugin_type, request = call.conf.string("type"), call.request
    if invoke.find(plugin_type, request.plugin_dirs) is None:
        result: Result | None = invoke.load(plugin_type).update(call, before)
        return result
    invoke.run("DEL", plugin_type, pending.for_del(before.conf), request)
    again = invoke.run("ADD", plugin_type, call.conf, request)
    notice(f"plugin {plugin_type} cannot be changed: it was removed and added again")
    return _without_copies(again) if again else None


def _without_copies(result: Result) -> Result:
    """Return the result without the interfaces that a second ADD has added to it again."""
    places: dict[tuple[str, str], int] = {}
    numbers: list[int] = []
    interfaces: list[Interface] = []
    for one in result.interfaces:
        if (one.name, one.sandbox) not in places:
            places[one.name, one.sandbox] = len(interfaces)
            interfaces.append(one)
        numbers.append(places[one.name, one.sandbox])
    for ip in result.ips:
        if ip.interface is not None and ip.interface < len(numbers):
            ip.interface = numbers[ip.interface]
    result.interfaces = interfaces
    return result


# What an interrupted or a temporary change has left


def settle(engine: Engine, record: Record) -> "list[str]":
    """Undo an interrupted change, and end a temporary one whose time is over.

    The caller holds the container's lock, and has read the record under it.  Returns what was done, as text.
    """
    texts = []
    if record.has_open_change:
        refuse_unchangeable(record)
    if "pending" in record.extra:
        old, new = pending.of_open_change(record)
        changed = changed_plugins(record, new, old)
        extra = {key: value for key, value in record.extra.items() if key != "pending"}
        _undo(engine, record, old, new, changed[::-1], extra)
        texts.append("an interrupted change is undone")
    if is_overdue(record):
        end(engine, record)
        texts.append("a temporary change has ended")
    return texts


def end(engine: Engine, record: Record) -> None:
    """Return to the input before a temporary change."""
    carry_out(engine, record, Input.from_json(record.extra.get("previous"), record), _lasting(record.extra))


def keep(record: Record) -> None:
    """Make a change on trial permanent."""
    old_extra = record.extra
    try:
        record.extra = _lasting(old_extra)
        _write(record)
    except BaseException:
        record.extra = old_extra
        raise


def _lasting(extra: "dict[str, Any]") -> "dict[str, Any]":
    return {key: value for key, value in extra.items() if key not in _TEMPORARY}


def try_to_settle(engine: Engine, record: Record) -> None:
    """Call settle().  After an error, which is an event in the log, the change is left to a later call."""
    try:
        for text in settle(engine, record):
            engine.tell(f"{record.network} {record.ifname}: {text}")
    except (CniError, OSError) as error:
        engine.tell(f"{record.network} {record.ifname}: {message_with_notes(error)}; {_NOT_UNDONE}")


# The keys of a record


def revision_of(record: Record) -> int:
    """Return how often the attachment was changed."""
    revision = record.extra.get("revision")
    return revision if isinstance(revision, int) else 0


def is_overdue(record: Record, patience: float = 0.0) -> bool:
    """Return True if the time of a temporary change has been over for so many seconds."""
    end = end_of(record)
    return end is not None and end <= time.time() - patience


def end_of(record: Record) -> "float | None":
    """Return when a temporary change ends, in seconds since the epoch; None if it is not temporary.

    A malformed time is one that is over.
    """
    if "until" not in record.extra:
        return None
    try:
        return calendar.timegm(time.strptime(record.extra["until"], "%Y-%m-%dT%H:%M:%SZ"))
    except (ValueError, TypeError, OverflowError):
        return 0.0


def as_text(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
