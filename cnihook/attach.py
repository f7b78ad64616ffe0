# SPDX-License-Identifier: Apache-2.0
"""
All networks of one container, up or down.  Hook, commands and wrappers have no other way to a network.

Up is all or nothing: before the first plugin runs, the attachment is on record, and a failure takes down
whatever was up.  Down knows nothing but the record, for when it comes, configuration, bundle and process may
be gone; what it cannot take down stays on record, for the next try.
"""

import os

from cnihook.lean.words import in_words
from cnihook.linux import flock, netns
from cnihook.linux.flock import Busy, Lock
from cnihook.linux.netns import NetNS
from cnihook.linux.traffic import Traffic
from cnihook.log import Log
from cnihook.runtime import attachment, cache, chain, holder, networks
from cnihook.runtime.cache import Record
from cnihook.runtime.networks import Network
from cnihook.runtime.wants import Served, Want, Wants, serve
from cnihook.sdk.undo import Undo
from cnihook.spec.errors import INVALID_CONFIG, INVALID_ENVIRONMENT, CniError, ResourceTaken, as_cni_error
from cnihook.spec.names import check_container_id, check_ifname, record_name
from cnihook.spec.result import Result

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_STATE = "/run/cnihook"  # gone with a reboot
_DYING = 1.0  # seconds that a container's process may take to end, once it has been killed


class Settings:
    """Where networks and plugins are found."""

    __slots__ = ("conf_folder", "plugin_path")

    def __init__(
        self, conf_folder: str = networks.DEFAULT_FOLDER, plugin_path: "list[str] | None" = None
    ) -> None:
        self.conf_folder = conf_folder
        self.plugin_path = plugin_path

    @classmethod
    def from_environment(cls, environment: "Mapping[str, str]") -> "Settings":
        """NETCONFPATH and CNI_PATH, as every CNI tool reads them; empty is as good as unset."""
        path = [os.path.abspath(folder) for folder in environment.get("CNI_PATH", "").split(":") if folder]
        return cls(os.path.abspath(environment.get("NETCONFPATH") or networks.DEFAULT_FOLDER), path or None)


class Container:
    """Whoever is attached: an ID, a namespace, and the process that keeps it."""

    __slots__ = ("id", "netns", "pid")

    def __init__(self, container_id: str, namespace: NetNS, pid: int) -> None:
        self.id = container_id
        self.netns = namespace
        self.pid = pid


class Attachment:
    """One network of one container, up."""

    __slots__ = ("network", "record", "result")

    def __init__(self, network: Network, record: Record, result: Result) -> None:
        self.network = network
        self.record = record
        self.result = result


class LivesAlready(CniError):
    """What is on record under this ID is another container's, and that one lives.

    runc and crun know nothing of each other, nor does a runtime of what it keeps under another --root.
    """

    def __init__(self, record: Record, pid: int) -> None:
        who = f"process {pid}" if pid else f"the namespace {netns.named(record.container_id)}"
        super().__init__(
            INVALID_ENVIRONMENT,
            f"another container {record.container_id} lives, {who}, and is on network {record.network}",
            f"give this one another ID; `cnihook detach {record.container_id}` is for the other",
        )


# Which networks


def select(wants: Wants, settings: Settings, complain: "Callable[[str], None]") -> "list[Served]":
    """The networks wanted, or all there are, each with what its plugins are to be told.

    A file that is malformed is complained of and hides no other network.  Raises CniError for a network that
    is not there, for a name that is not free to be requested, and for a want that no plugin can serve.
    """
    found, problems = networks.load_folder(settings.conf_folder)
    for problem in problems:
        complain(str(problem))
    chosen: list[tuple[Network, Want]] = []
    if wants.networks is not None:
        by_name = {network.name: network for network in found}
        if not found and not problems:
            # The operator's networks replace it.  A malformed file is meant to be one of them.
            by_name[networks.built_in().name] = networks.built_in()
        for want in wants.networks:
            network = by_name.get(want.network)
            if not network:
                raise CniError(
                    INVALID_CONFIG,
                    f"no network {want.network!r} in {settings.conf_folder}",
                    f"there are: {', '.join(sorted(by_name)) or str(problems[0])}",
                )
            if wants.guard:
                wants.guard.check_network(network, wants)
            chosen.append((network, want))
    elif found:
        chosen = [(network, Want(network.name)) for network in _admitted(found, wants, settings, complain)]
    elif problems:
        raise CniError(
            INVALID_CONFIG, f"no usable network configuration in {settings.conf_folder}", str(problems[0])
        )
    else:
        default = networks.built_in()
        complain(
            f"no network configuration in {settings.conf_folder}: "
            f"using the built-in default network {default.name} (10.88.64.0/20 on bridge cnihook0)"
        )
        chosen = [(one, Want(one.name)) for one in _admitted([default], wants, settings, complain)]
    if wants.hostname or wants.common.aliases or any(want.aliases for _, want in chosen):
        from cnihook.oci import reserved  # few request a name, and would pay for it

        reserved.check(wants, [network for network, _ in chosen if not network.is_loopback])
    return serve(chosen, wants.common)


def _admitted(
    found: "list[Network]", wants: Wants, settings: Settings, complain: "Callable[[str], None]"
) -> "list[Network]":
    """All networks, where none is named: those alone that the container's annotations may request."""
    if not wants.guard:
        return found
    admitted = [network for network in found if wants.guard.admits(network)]
    left_out = ", ".join(network.name for network in found if network not in admitted)
    if not admitted:
        raise CniError(
            INVALID_CONFIG,
            f"annotations may request no network in {settings.conf_folder}: not {left_out}",
            "--network among the hook's arguments names one",
        )
    if left_out:
        complain(f"not on {left_out}, which annotations may not request")
    return admitted


def _name_interfaces(chosen: "list[Served]", taken: "set[str]") -> "list[str]":
    """Give each network without an ifname the next ethN that nobody has; loopback is always lo."""
    named: list[str] = []
    taken = taken | {served.ifname for served in chosen}
    number = 0
    for served in chosen:
        ifname = served.ifname
        if not ifname and served.network.is_loopback:
            ifname = "lo"
        while not ifname:
            if f"eth{number}" not in taken:
                ifname = f"eth{number}"
            number += 1
        check_ifname(ifname)
        if ifname in named:
            raise CniError(INVALID_CONFIG, f"interface name {ifname} is asked for twice")
        named.append(ifname)
    return named


# Up


def up(container: Container, chosen: "list[Served]", settings: Settings, log: Log) -> "list[Attachment]":
    """Attach a container to networks, all or none.  Returns what came of it, in order.

    Raises CniError, also where the container is on one of the networks already, LivesAlready, or OSError.
    """
    check_container_id(container.id)
    for served in chosen:
        # Refused now rather than half-way.
        record_name(served.network.name, container.id, served.ifname or "eth000")
        chain.find_plugins(served.network, settings.plugin_path)
    if not os.path.isdir(_STATE):  # the first since the machine was booted
        collect(settings, log)
    with log, _lock(container.id, "attach"):
        present = _release_stale(container, settings, log)
        _refuse_twice(container, chosen, present)
        if not any(served.chooses_ports for served in chosen):
            return _attach_all(container, chosen, present, settings, log)
        # Whoever chooses next has to see these published.
        with Lock("free-ports", purpose=f"attach {container.id}"):
            for served in chosen:
                served.choose_ports()
            return _attach_all(container, chosen, present, settings, log)


def _release_stale(container: Container, settings: Settings, log: Log) -> "list[Record]":
    """Detach what an earlier container of this ID left.  Returns the records of the present one."""
    known = cache.of_container(container.id)
    # Another namespace: a container that was restarted, or crashed and was started anew.  No result: whoever
    # began to attach it was killed on the way.  No holder: it is libcni's, and not ours to judge.
    stale = [
        record
        for record in known
        if record.holder is not None
        and (record.result is None or not holder.is_in(record.holder, container.netns))
    ]
    present = [record for record in known if record not in stale]
    for record in stale:
        if record.result is not None:
            _refuse_if_another_lives(record, container.pid)
    for record in reversed(stale):
        log.event(f"releasing {record.network} {record.ifname}, left over from an earlier start")
        _detach(record, settings, last=not present and record is stale[0])
    return present


def _refuse_if_another_lives(record: Record, pid: int) -> None:
    """Raise LivesAlready, unless it is this process that was attached; 0 is none."""
    if record.holder is None or (pid and record.holder.get("pid") == pid):
        return
    if not attachment.is_gone(record, patience=_DYING):
        raise LivesAlready(record, record.holder.get("pid", 0))


def _refuse_twice(container: Container, chosen: "list[Served]", present: "list[Record]") -> None:
    on = {record.network: record.ifname for record in present}
    asked: set[str] = set()
    for network in (served.network for served in chosen):
        if network.name in asked:
            raise CniError(INVALID_CONFIG, f"network {network.name} is asked for twice")
        if network.name in on:
            raise CniError(
                INVALID_CONFIG,
                f"container {container.id} is on network {network.name} already, as {on[network.name]}",
                f"`cnihook detach {container.id} --network {network.name}` takes it off",
            )
        asked.add(network.name)


def _attach_all(
    container: Container, chosen: "list[Served]", present: "list[Record]", settings: Settings, log: Log
) -> "list[Attachment]":
    with Undo() as undo:
        # Nothing works well without loopback, and not every runtime raises it.
        sandbox = container.netns.rtnl
        sandbox.set_link(sandbox.link("lo"), up=True)
        if not chosen:
            return []  # and no name: without a record nobody would take it away
        taken = {record.ifname for record in present} | {link.name for link in sandbox.links()}
        who = holder.of(container.pid, container.netns)
        if not present:
            undo.push(netns.unbind, container.id, container.netns.identity)
        first = max((record.sequence for record in present), default=-1) + 1
        records = []
        half_done: list[Record] = []
        names = _name_interfaces(chosen, taken)
        for sequence, (served, ifname) in enumerate(zip(chosen, names, strict=True), first):
            record = Record(
                served.network.name,
                container.id,
                ifname,
                config=served.network.text,
                netns=netns.named(container.id),
                cni_args=served.cni_args,
                capability_args=served.capability_args,
                holder=who,
                sequence=sequence,
                plugin_path=settings.plugin_path,
            )
            undo.push(_take_back, record, half_done, settings)
            record.write()
            records.append(record)
        # Only now, since without a record nobody would take the name away again.
        _name(container, records, log)

        attached = []
        for served, record in zip(chosen, records, strict=True):
            try:
                result = _attach(served.network, record, settings, log)
            except BaseException as error:
                if getattr(error, "__notes__", ()):  # the chain could not undo all that it had done
                    half_done.append(record)
                raise
            attached.append(Attachment(served.network, record, result))
        return attached


def _take_back(record: Record, half_done: "list[Record]", settings: Settings) -> None:
    if record.result is not None or record in half_done:
        _detach(record, settings)  # keeps the record if it fails; then gc has the next try
    else:
        record.remove()


def _attach(network: Network, record: Record, settings: Settings, log: Log) -> Result:
    """Bring one network up.  Its record, written already, gets the result."""
    try:
        result = attachment.up(network, record)
    except ResourceTaken:
        if not collect(settings, log):
            raise
        result = attachment.up(network, record)
    addresses = " ".join(str(ip.net) for ip in result.ips)
    log.event(f"attached to {network.name} as {record.ifname} {addresses}".rstrip())
    return result


# Down


def down(
    container_id: str, settings: Settings, log: Log, *, network: str = "", ended: "int | None" = None
) -> int:
    """Detach a container from all that it is on, or from one network, last first.

    `ended`: the process of the container, which has ended; 0 where nobody knows which it was.  LivesAlready
    is raised then for what belongs to another that lives.

    Returns how many there were.  Tries all; then raises the first error, the others noted on it.
    """
    check_container_id(container_id)
    with log, _lock(container_id, "detach"):
        going = [r for r in cache.of_container(container_id) if network in ("", r.network)]
        if ended is not None:
            for record in going:
                _refuse_if_another_lives(record, ended)
        _down(container_id, going, settings, log)
        return len(going)


def _down(container_id: str, going: "list[Record]", settings: Settings, log: Log) -> None:
    left = len(cache.of_container(container_id))
    errors: list[CniError] = []
    for record in reversed(going):
        try:
            passed = _detach(record, settings, last=left == 1)
            left -= 1
            told = f": {passed}" if passed else ""
            log.event(f"detached from {record.network}, {record.ifname}{told}")
        except Exception as error:
            log.failure(f"detach from {record.network}, {record.ifname}", error)
            errors.append(as_cni_error(error))
    cache.discard_unfinished(container_id)
    if errors:
        for another in errors[1:]:
            errors[0].add_note(str(another))
        errors[0].add_note(f"it stays on record; `cnihook detach {container_id}` and `cnihook gc` try again")
        raise errors[0]


def _detach(record: Record, settings: Settings, *, last: bool = False) -> "Traffic | None":
    """Take one attachment down by its record, and forget it.  The namespace's name goes with the last."""
    _forget_names(record)
    passed = attachment.down(record, settings.plugin_path)
    if last:
        _unname(record)  # the record outlives the name, for without it nobody would know of that
    record.remove()
    return passed


def _forget_names(record: Record) -> None:
    """Nobody shall look for it any more.  What cannot be done now is done by whoever looks there next."""
    if os.path.exists(f"{_STATE}/names/{record.network}/{record.container_id}"):
        from cnihook.oci import hosts  # few come here, and would pay for it

        try:
            hosts.leave(record.network, record.container_id)
        except OSError as error:
            Log(record.container_id).event(f"its names stay on {record.network}: {in_words(error)}")


# What was left behind


def collect(settings: Settings, log: "Log | None" = None, *, dry_run: bool = False) -> "list[Record]":
    """Detach the containers that are gone without a word: after a crash, a reboot, a hook that never ran.

    Only what this tool has on record with the container's process; attachments of other runtimes are their
    own business.  Returns what was released, or would be.  What is busy or cannot be released waits for the
    next time.
    """
    gone: dict[str, list[Record]] = {}
    for record in cache.all_records():
        if record.holder is not None and attachment.is_gone(record):
            gone.setdefault(record.container_id, []).append(record)
    if not dry_run:
        for container_id in cache.unfinished():
            gone.setdefault(container_id, [])
        flock.clear_abandoned()
    released: list[Record] = []
    for container_id, records in gone.items():
        if dry_run:
            released += records
            continue
        own_log = Log(container_id, quiet=True)
        try:
            with own_log, _lock(container_id, "gc", timeout=0):
                records = [r for r in cache.of_container(container_id) if r.holder and attachment.is_gone(r)]
                if records:
                    own_log.event("its container is gone")
                    _down(container_id, records, settings, own_log)
                cache.discard_unfinished(container_id)
                released += records
            own_log.close()
        except (CniError, OSError) as error:
            if log and not isinstance(error, Busy):
                log.event(f"gc of {container_id}: {error}")
    if not dry_run and os.path.isdir(f"{_STATE}/names"):
        from cnihook.oci import hosts

        try:
            hosts.sweep()
        except OSError as error:
            if log and not isinstance(error, Busy):
                log.event(f"gc of names: {in_words(error)}")
    return released


# The namespace's name


def _name(container: Container, records: "list[Record]", log: Log) -> None:
    """Bind the namespace to /run/netns/ID: it can be entered by name then, and is there for DEL."""
    try:
        netns.bind(container.netns, container.id)
    except OSError as error:
        log.event(f"the namespace gets no name in {netns.NAMES}: {in_words(error)}")
        for record in records:
            record.netns = container.netns.path
            record.write()


def _unname(record: Record) -> None:
    if record.holder is not None:
        netns.unbind(record.container_id, holder.namespace_identity(record.holder))


def _lock(container_id: str, purpose: str, timeout: float = 30.0) -> Lock:
    return Lock(f"container-{container_id}", timeout=timeout, purpose=f"{purpose} {container_id}")
