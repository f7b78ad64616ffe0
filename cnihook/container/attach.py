# SPDX-License-Identifier: Apache-2.0
"""
The attachment of a container to its networks.  The hook, the commands and the wrappers all use it.

All or nothing: before the first plugin runs, the attachment is on record, and a failure detaches what was
attached.
"""

import os

from cnihook.container import detach
from cnihook.fast.errors_text import message
from cnihook.fast.undo import Undo
from cnihook.linux import netns
from cnihook.linux.netns import NetNS
from cnihook.log import ATTACHED, Log
from cnihook.protocol import locks
from cnihook.request.request import ContainerRequest, NetworkRequest, ResolvedNetwork, resolve
from cnihook.runtime import attachment, chain, netns_names, networks, records
from cnihook.runtime.identity import ProcessIdentity
from cnihook.runtime.networks import Network
from cnihook.runtime.records import DamagedRecordError, Record
from cnihook.runtime.settings import Settings
from cnihook.types.errors import (
    INVALID_CONFIG,
    IO_FAILURE,
    AddFailedError,
    CniError,
    PortTakenError,
    as_cni_error,
)
from cnihook.types.names import check_container_id, check_ifname, record_name
from cnihook.types.result import Result

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_PORT_TRIES = 32  # for a free port; a try fails if another container gets the chosen one


class Container:
    """A container: its ID, its namespace, the process that keeps that alive, and its host name, if any."""

    __slots__ = ("hostname", "id", "netns", "pid")

    def __init__(self, container_id: str, namespace: NetNS, pid: int, hostname: str = "") -> None:
        self.id = container_id
        self.netns = namespace
        self.pid = pid
        self.hostname = hostname


class Attachment:
    """A network that a container is attached to, with its record and its result."""

    __slots__ = ("network", "record", "result")

    def __init__(self, network: Network, record: Record, result: Result) -> None:
        self.network = network
        self.record = record
        self.result = result


# Which networks


def select(
    request: ContainerRequest, settings: Settings, complain: "Callable[[str], None]"
) -> "list[ResolvedNetwork]":
    """Return the networks that are requested, or all, each with the arguments for its plugins.

    A malformed file is reported, and does not hide the other networks.  Raises CniError for a network that
    does not exist, or is in a file that cannot be read, for a name that may not be requested, and for a
    request that no plugin can serve.
    """
    available, problems = networks.load_folder(settings.conf_dir)
    unreadable = next((problem for problem in problems if problem.code == IO_FAILURE), None)
    if unreadable and request.networks is None:
        raise unreadable
    chosen: list[tuple[Network, NetworkRequest]] = []
    if request.networks is not None:
        by_name = {network.name: network for network in available}
        if not available and not problems:
            # The operator's networks replace this one.  A malformed file counts as one of them.
            by_name[networks.built_in().name] = networks.built_in()
        for requested in request.networks:
            network = by_name.get(requested.network)
            if not network and unreadable:
                raise unreadable
            if not network:
                others = [f"there are: {', '.join(sorted(by_name))}"] if by_name else []
                raise CniError(
                    INVALID_CONFIG,
                    f"no network {requested.network!r} in {settings.conf_dir}",
                    "; ".join([*others, *map(str, problems)]),
                )
            if request.guard:
                request.guard.check_network(network, request)
            chosen.append((network, requested))
    elif available:
        chosen = [
            (network, NetworkRequest(network.name))
            for network in _admitted(available, request, settings, complain)
        ]
    elif problems:
        raise CniError(
            INVALID_CONFIG,
            f"no usable network configuration in {settings.conf_dir}",
            "; ".join(map(str, problems)),
        )
    else:
        default = networks.built_in()
        complain(
            f"no network configuration in {settings.conf_dir}: "
            f"using the built-in default network {default.name} (10.88.64.0/20 on bridge cnihook0)"
        )
        chosen = [
            (one, NetworkRequest(one.name)) for one in _admitted([default], request, settings, complain)
        ]
    if request.hostname or request.common.aliases or any(requested.aliases for _, requested in chosen):
        from cnihook.request import reserved  # not at the top: few containers request a name

        reserved.check(request, [network for network, _ in chosen if not network.is_loopback])
    served = resolve(chosen, request.common)
    for problem in problems:
        complain(str(problem))
    return served


def _admitted(
    available: "list[Network]",
    request: ContainerRequest,
    settings: Settings,
    complain: "Callable[[str], None]",
) -> "list[Network]":
    """Return the networks of a container that names none: those that its annotations may request."""
    if not request.guard:
        return available
    admitted = [network for network in available if request.guard.admits(network)]
    left_out = ", ".join(network.name for network in available if network not in admitted)
    if not admitted:
        raise CniError(
            INVALID_CONFIG,
            f"annotations may request no network in {settings.conf_dir}: not {left_out}",
            "name one with --network in the hook's arguments",
        )
    if left_out:
        complain(f"not attached to {left_out}, which annotations may not request")
    return admitted


def _name_interfaces(chosen: "list[ResolvedNetwork]", taken: "set[str]") -> "list[str]":
    """Give each network without an ifname the next ethN that is free; loopback is always lo."""
    named: list[str] = []
    in_use = taken | {served.ifname for served in chosen}
    number = 0
    for served in chosen:
        ifname = served.ifname
        if not ifname and served.network.is_loopback:
            ifname = "lo"
        while not ifname:
            if f"eth{number}" not in in_use:
                ifname = f"eth{number}"
            number += 1
        check_ifname(ifname)
        if ifname in named:
            raise CniError(INVALID_CONFIG, f"interface name {ifname} is asked for twice")
        named.append(ifname)
    return named


# Up


def up(
    container: Container, chosen: "list[ResolvedNetwork]", settings: Settings, log: Log
) -> "list[Attachment]":
    """Attach a container to networks, all or none.  Returns the attachments, in order.

    Raises CniError, also if the container is already on one of the networks; ContainerIdInUseError; or
    OSError.
    """
    check_container_id(container.id)
    if container.hostname and any(b"dhcp" in served.network.text for served in chosen):
        from cnihook.names import dhcp_name  # few networks have a DHCP server

        dhcp_name.send(chosen, container.hostname)
    for served in chosen:
        # Rejected now rather than half-way.
        record_name(served.network.name, container.id, served.ifname or "eth000")
        chain.find_plugins(served.network, settings.plugin_dirs)
    if not os.path.isdir(detach.STATE):  # the first container since the machine was booted
        detach.collect(settings, log, thorough=False)
    with log, locks.container(container.id, "attach"):
        present = _release_stale(container, settings, log)
        _refuse_twice(container, chosen, present)
        if not any(served.chooses_ports for served in chosen):
            return _attach_all(container, chosen, present, settings, log)
        # There is no lock from the choice until the port is published, because an executable plugin could
        # hold it for any time.  Rarely, another container gets the port; then a new one is chosen.
        for _ in range(_PORT_TRIES - 1):
            for served in chosen:
                served.choose_ports()
            try:
                return _attach_all(container, chosen, present, settings, log)
            except AddFailedError as error:
                if not (isinstance(error.cause, PortTakenError) and error.undone):
                    raise
                log.event(f"choosing another port: {error.msg}")
        for served in chosen:
            served.choose_ports()
        return _attach_all(container, chosen, present, settings, log)


def _release_stale(container: Container, settings: Settings, log: Log) -> "list[Record]":
    """Detach what an earlier container with this ID left.  Returns the records of the present one."""
    damaged: list[DamagedRecordError] = []
    attachments = records.of_container(container.id, damaged=damaged)
    # Another namespace: the container was restarted, perhaps after a crash.  No result: the process that
    # attached it was killed on the way.  No process: libcni wrote it, and only its user can judge it.
    stale = [
        record
        for record in attachments
        if record.process is not None and (record.result is None or not _is_present(record, container))
    ]
    present = [record for record in attachments if record not in stale]
    for record in stale:
        if record.result is not None:
            detach.refuse_if_another_lives(record, container.pid)
    for record in reversed(stale):
        log.event(f"releasing {record.network} {record.ifname}, left over from an earlier start")
        detach.detach(record, settings, last=not present and record is stale[0])
    if damaged or (not attachments and _is_named_by_another(container)):
        detach.release_remains(container.id, damaged, settings, log)
    return present


def _is_present(record: Record, container: Container) -> bool:
    """Return True if the record is of this container, and not of one before it with the same ID.

    The kernel gives the inode of a namespace that has ended to a new one.  So the process counts, too.
    """
    process = record.process
    if process is None or not process.owns(container.netns):
        return False
    is_same = not container.pid or process.pid in (0, container.pid)
    return is_same or not attachment.is_gone(record)


def _is_named_by_another(container: Container) -> bool:
    """Return True if the container's ID names another namespace.

    After `priv-net-run --netns`, it names this one.
    """
    return (
        netns_names.is_marked(container.id)
        and netns_names.identity_of(container.id) != container.netns.identity
    )


def _refuse_twice(container: Container, chosen: "list[ResolvedNetwork]", present: "list[Record]") -> None:
    on = {record.network: record.ifname for record in present}
    names: set[str] = set()
    for network in (served.network for served in chosen):
        if network.name in names:
            raise CniError(INVALID_CONFIG, f"network {network.name} is asked for twice")
        if network.name in on:
            raise CniError(
                INVALID_CONFIG,
                f"container {container.id} is on network {network.name} already, as {on[network.name]}",
                f"`cnihook detach {container.id} --network {network.name}` takes it off",
            )
        names.add(network.name)


def _attach_all(
    container: Container,
    chosen: "list[ResolvedNetwork]",
    present: "list[Record]",
    settings: Settings,
    log: Log,
) -> "list[Attachment]":
    with Undo() as undo:
        # Many programs need loopback, and not every runtime sets it up.
        sandbox = container.netns.rtnl
        sandbox.set_link(sandbox.link("lo"), up=True)
        if not chosen:
            return []  # and no name: without a record, it would never be removed
        used_names = {record.ifname for record in present} | {link.name for link in sandbox.links()}
        process = ProcessIdentity.capture(container.pid, container.netns)
        first = max((record.sequence for record in present), default=-1) + 1
        attachments: list[Record] = []
        half_done: list[Record] = []
        undo.push(_take_back, attachments, half_done, settings, not present)
        names = _name_interfaces(chosen, used_names)
        for sequence, (served, ifname) in enumerate(zip(chosen, names, strict=True), first):
            record = Record(
                served.network.name,
                container.id,
                ifname,
                config=served.network.text,
                netns=netns.named(container.id),
                cni_args=served.cni_args,
                capability_args=served.capability_args,
                process=process,
                sequence=sequence,
                plugin_dirs=settings.plugin_dirs,
            )
            record.refuse_another()  # before there is a rollback that would remove that record
            attachments.append(record)
            record.write()
        # Only now, because without a record the name would never be removed.
        _name(container, attachments, log)

        attached = []
        for served, record in zip(chosen, attachments, strict=True):
            try:
                result = _attach(served.network, record, settings, log)
            except BaseException as error:
                if not attachment.is_undone(error):
                    half_done.append(record)
                raise
            attached.append(Attachment(served.network, record, result))
        return attached


def _take_back(
    attachments: "list[Record]", half_done: "list[Record]", settings: Settings, named: bool
) -> None:
    """Undo these attachments.  What cannot be undone stays on record, and gc tries again.

    `named`: the name of the namespace has to be removed before the last record.
    """
    errors: list[CniError] = []
    left = len(attachments)
    for record in reversed(attachments):
        try:
            if record.result is not None or record in half_done:
                detach.take_down(record, settings)
            if named and left == 1:
                detach.unname(record)
            record.remove()
            left -= 1
        except Exception as error:
            errors.append(as_cni_error(error))
    chain.raise_all(errors)


def _attach(network: Network, record: Record, settings: Settings, log: Log) -> Result:
    """Attach one network.  Its record, which is on disk already, gets the result."""
    result = attachment.up_or_release(
        network, record, lambda: detach.collect(settings, log, patience=locks.PATIENCE)
    )
    addresses = " ".join(str(ip.net) for ip in result.ips)
    log.event(ATTACHED, network=network.name, interface=record.ifname, addresses=addresses)
    return result


# The namespace's name


def _name(container: Container, attachments: "list[Record]", log: Log) -> None:
    """Bind the namespace to /run/netns/ID, so that it can be entered by name, and exists for DEL."""
    try:
        netns_names.bind(container.netns, container.id)
    except OSError as error:
        log.event(f"the namespace gets no name in {netns.NAMES}: {message(error)}")
        for record in attachments:
            record.netns = container.netns.path
            record.write()
