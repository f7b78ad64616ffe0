# SPDX-License-Identifier: Apache-2.0
"""ADD of a container to networks, to all or none.  All records are on disk before the first plugin runs."""

from cnihook.fast.errors_text import message
from cnihook.fast.undo import Undo
from cnihook.linux import netns
from cnihook.log import ATTACHED, step
from cnihook.protocol import locks
from cnihook.runtime import attachment, chain, netns_names, records
from cnihook.runtime.engine import Engine, refuse_if_another_lives
from cnihook.runtime.records import Record
from cnihook.types.errors import (
    UNKNOWN_CONTAINER,
    AddFailedError,
    CniError,
    PoolExhaustedError,
    PortTakenError,
    ResourceTakenError,
    as_cni_error,
)
from cnihook.types.result import Result

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from cnihook.linux.netns import NetNS
    from cnihook.runtime.identity import ProcessIdentity
    from cnihook.runtime.networks import Network


class NotAttachedError(CniError):
    """The error if an attachment is not on record."""

    def __init__(self, network: str, container_id: str, ifname: str) -> None:
        super().__init__(
            UNKNOWN_CONTAINER, f"container {container_id} is not on network {network} with {ifname}"
        )


class Attachment:
    """A container on a network: one container ID, network and interface name."""

    __slots__ = ("_engine", "_network", "_result", "record")

    def __init__(self, engine: Engine, record: Record, network: "Network | None" = None) -> None:
        self._engine = engine
        self._network = network
        self._result: Result | None = None
        self.record = record

    def __repr__(self) -> str:
        return f"Attachment({', '.join(map(repr, self.record.identity))})"

    @property
    def network(self) -> "Network":
        """The network as it was attached.  Raises DamagedRecordError if the record does not hold it."""
        if self._network is None:
            self._network = attachment.network_of(self.record)
        return self._network

    @property
    def result(self) -> Result:
        """The result of ADD; empty if ADD has not ended."""
        if self._result is None:
            self._result = attachment.result_of(self.network, self.record) or Result()
        return self._result

    @result.setter
    def result(self, result: Result) -> None:
        self._result = result

    def check(self) -> None:
        """Raise CniError if anything is not as it was set up.  SPEC.md, "CHECK"."""
        engine, identity = self._engine, self.record.identity
        with locks.container(self.record.container_id, "check", engine.lock_timeout):
            record = records.find(*identity, engine.state_dir)
            if record is None:
                raise NotAttachedError(*identity)
            attachment.check(record, engine.plugin_dirs, timeout=engine.timeout)

    def update(
        self,
        capability_args: "Mapping[str, Any] | None" = None,
        *,
        config: "bytes | None" = None,
        cuts: bool = False,
    ) -> bool:
        """Change what the plugins get, while the container runs.  Returns False if nothing differs.

        `capability_args` replace those of the same names; None removes one.  `config`: another text of the
        network's configuration, with the same plugins.  `cuts`: connections that the change no longer
        permits are ended.  If a plugin cannot be changed, or fails, CniError is raised, and everything is as
        before.
        """
        from cnihook.runtime import update  # few programs use it

        engine = self._engine
        with locks.container(self.record.container_id, "update", engine.lock_timeout):
            record = records.find(*self.record.identity, engine.state_dir)
            if record is None:
                raise NotAttachedError(*self.record.identity)
            edit = update.replacement(capability_args or {}, config)
            is_changed = update.change(engine, record, edit, cuts=cuts)
        self.record, self._network, self._result = record, None, None
        return is_changed

    def delete(self) -> None:
        """Detach the container from the network, unless that has been done.  SPEC.md, "DEL".

        Every plugin runs.  Then the first error is raised, and the record is kept for another try.
        """
        with locks.container(self.record.container_id, "delete", self._engine.lock_timeout):
            self._engine.release_on_file(*self.record.identity, sandbox=self.record.netns)


def plan(
    engine: Engine,
    network: "Network",
    container_id: str,
    ifname: str,
    netns: str,
    process: "ProcessIdentity",
    *,
    cni_args: "Mapping[str, str] | None" = None,
    capability_args: "Mapping[str, Any] | None" = None,
    policy: "dict[str, Any] | None" = None,
    mdns: "dict[str, Any] | None" = None,
) -> Attachment:
    """Return an attachment that is not made yet.  Its record is not on disk."""
    extra = (("requested", network.requested), ("policy", policy), ("mdns", mdns))
    record = Record(
        network.name,
        container_id,
        ifname,
        config=network.text,
        netns=netns,
        cni_args=dict(cni_args or {}),
        capability_args=dict(capability_args or {}),
        process=process,
        plugin_dirs=engine.plugin_dirs,
        extra={key: value for key, value in extra if value},
        folder=engine.state_dir,
    )
    return Attachment(engine, record, network)


def make_way(engine: Engine, attachments: "list[Record]", process: "ProcessIdentity") -> "list[Record]":
    """Release what earlier containers with this ID left.  Returns the records of the present one.

    `attachments`: records of one container ID.  `process`: the container that is to be attached.  Raises
    ContainerIdInUseError if another container with this ID lives.
    """
    ended = engine.ended(attachments)
    stale = [record for record in attachments if record in ended or _is_stale(engine, record, process)]
    present = [record for record in attachments if record not in stale]
    for record in stale:
        if record.result is not None:
            refuse_if_another_lives(record, process.pid)
    if stale:
        engine.forget_ending(stale[0].container_id)
    for record in reversed(stale):
        engine.tell(f"releasing {record.network} {record.ifname}, left over from an earlier start")
        engine.release(record, last=not present and record is stale[0])
    for record in present:
        if record.has_open_change:
            from cnihook.runtime import update  # few containers are changed while they run

            update.try_to_settle(engine, record)
    return present


def _is_stale(engine: Engine, record: Record, process: "ProcessIdentity") -> bool:
    """Return True if the record is not of this container, but of one before it with the same ID.

    Without a result, its ADD did not end.  In another namespace, the container was restarted, perhaps
    after a crash.  The kernel gives the inode of a namespace that has ended to a new one, so the process
    counts, too.
    """
    if record.process is None:
        return engine.judges_foreign and (record.result is None or attachment.is_gone(record))
    if record.result is None or not record.process.shares_netns(process):
        return True
    return not (process.pid and record.process.pid == process.pid) and attachment.is_gone(record)


def attach(
    engine: Engine,
    new: "list[Attachment]",
    present: "list[Record]",
    collect: "Callable[[], object]",
    namespace: "NetNS | None" = None,
) -> None:
    """Attach a container to networks, to all or none.

    `present`: the container's other records.  `collect` releases what containers that are gone have, and
    returns a true value if there was anything.  `namespace` gets the container's ID as its name.
    """
    for one in new:
        one.record.refuse_another()  # a rollback would remove that record
    sequence = 1 + max((record.sequence for record in present), default=-1)
    written: list[Record] = []
    half_done: list[Record] = []
    with Undo() as undo:
        undo.push(_take_back, engine, written, half_done, namespace is not None and not present)
        for number, one in enumerate(new, sequence):
            one.record.sequence = number
            written.append(one.record)
            one.record.write()
        step("record")
        if namespace is not None:
            # Only now, because without a record the name would never be removed.
            _name(engine, namespace, written)
            step("name of the namespace")
        for one in new:
            try:
                one.result = _connect(engine, one, collect)
            except BaseException as error:
                if not attachment.is_undone(error):
                    half_done.append(one.record)
                raise
            addresses = " ".join(str(ip.net) for ip in one.result.ips)
            if engine.log:
                fields = {"network": one.network.name, "interface": one.record.ifname}
                engine.log.event(ATTACHED, **fields, addresses=addresses)


def _take_back(engine: Engine, written: "list[Record]", half_done: "list[Record]", is_named: bool) -> None:
    """Undo attach().  What cannot be undone stays on record, and the next DEL or GC tries again."""
    errors: list[CniError] = []
    left = len(written)
    for record in reversed(written):
        try:
            if record.result is not None or record in half_done:
                engine.take_down(record)
            if is_named and left == 1:
                engine.unname(record)
            record.remove()
            left -= 1
        except Exception as error:
            errors.append(as_cni_error(error))
    chain.raise_all(errors)


def _connect(engine: Engine, one: Attachment, collect: "Callable[[], object]") -> "Result":
    """Run ADD, and once more if it failed because a container that is gone has what this one needs."""
    policy = engine.policy_of(one.record, one.network)
    try:
        return attachment.up(one.network, one.record, timeout=engine.timeout, policy=policy)
    except AddFailedError as error:
        if not (isinstance(error.cause, ResourceTakenError) and error.undone):
            raise
        # Another process may have released at this moment what was taken; these two are cheap to try.
        is_cheap = isinstance(error.cause, (PortTakenError, PoolExhaustedError))
        if not (collect() or is_cheap):
            raise
    return attachment.up(one.network, one.record, timeout=engine.timeout, policy=policy)


def _name(engine: Engine, namespace: "NetNS", written: "list[Record]") -> None:
    """Bind the namespace to /run/netns/ID, so that it can be entered by name, and exists for DEL."""
    try:
        netns_names.bind(namespace, written[0].container_id)
    except OSError as error:
        engine.tell(f"the namespace gets no name in {netns.NAMES}: {message(error)}")
        for record in written:
            record.netns = namespace.path
            record.write()
