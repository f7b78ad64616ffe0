# SPDX-License-Identifier: Apache-2.0
"""
The attachment of a container to its networks.  The hook, the commands and the wrappers all use it.

All or nothing: before the first plugin runs, the attachment is on record, and a failure detaches what was
attached.
"""

import os

from cnihook.container import detach
from cnihook.container.engine import POLICIES, STATE, ContainerEngine
from cnihook.fast.undo import Undo
from cnihook.linux import netns
from cnihook.linux.netns import NetNS
from cnihook.log import Log, step
from cnihook.protocol import locks
from cnihook.request.request import ContainerRequest, NetworkRequest
from cnihook.request.resolve import ResolvedNetwork, resolve
from cnihook.runtime import addition, chain, netns_names, networks, records
from cnihook.runtime.addition import Attachment
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
)
from cnihook.types.names import check_container_id, check_ifname, record_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_PORT_TRIES = 32  # for a free port; a try fails if another container gets the chosen one


class Container:
    """A container: its ID, its namespace, the process that keeps that alive, and its host name, if any.

    `net_admin` is True if the process will have CAP_NET_ADMIN; None if it has its capabilities already.
    """

    __slots__ = ("_process", "hostname", "id", "net_admin", "netns", "pid")

    def __init__(self, container_id: str, namespace: NetNS, pid: int, hostname: str = "") -> None:
        self.id = container_id
        self.netns = namespace
        self.pid = pid
        self.hostname = hostname
        self.net_admin: bool | None = None
        self._process: ProcessIdentity | None = None

    @property
    def process(self) -> ProcessIdentity:
        """The identity of the process.  Raises the errors of ProcessIdentity.capture()."""
        if self._process is None:
            self._process = ProcessIdentity.capture(self.pid, self.netns)
        return self._process


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
                from cnihook.fast import similar  # not at the top: for this error only

                others = similar.hint(requested.network, sorted(by_name))
                raise CniError(
                    INVALID_CONFIG,
                    f"no network {requested.network!r} in {settings.conf_dir}",
                    "; ".join(filter(None, [others, *map(str, problems)])),
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
    if request.mdns:
        from cnihook.request import mdns  # few containers request it

        mdns.place(served, request.mdns)
    if request.has_policy or os.path.exists(POLICIES):
        from cnihook.container import policies  # few containers have one

        wants = policies.request_of(request, served)
        for one in served:
            one.policy = wants
    for one in served:
        one.sticky = "" if one.network.is_loopback else request.sticky
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
    container: Container,
    chosen: "list[ResolvedNetwork]",
    settings: Settings,
    log: Log,
    set_names: "Callable[[list[Attachment]], object]",
) -> "list[Attachment]":
    """Attach a container to networks, all or none.  Returns the attachments, in order.

    `set_names` writes the container's names on these networks, which detach.down() removes.  If it raises,
    the container is detached from them.

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
    engine = ContainerEngine(settings, log)
    if not os.path.isdir(STATE):  # the first container since the machine was booted
        _collect(engine, thorough=False)
    with log, locks.container(container.id, "attach"):
        present = _make_way(container, engine)
        _refuse_twice(container, chosen, present)
        step("earlier records")
        if any(served.sticky for served in chosen):
            from cnihook.container import sticky  # not at the top: few containers have a sticky name

            attached = sticky.attach(
                container.id,
                container.netns,
                chosen,
                engine,
                lambda: _attach_with_ports(container, chosen, present, engine),
            )
        else:
            attached = _attach_with_ports(container, chosen, present, engine)
    with Undo() as undo:
        for one in attached:
            undo.push(detach.down, container.id, settings, log, one.network.name)
        engine.resolve_names(container.id)
        if any(served.mdns for served in chosen):
            from cnihook.mdns import service  # not at the top: few containers request it

            service.serve(container.id)
        # Without the lock: this may start a process that sets names later, and that would inherit it.
        set_names(attached)
    return attached


def _make_way(container: Container, engine: ContainerEngine) -> "list[Record]":
    """Detach what an earlier container with this ID left.  Returns the records of the present one."""
    damaged: list[DamagedRecordError] = []
    attachments = records.of_container(container.id, damaged=damaged)
    present = addition.make_way(engine, attachments, container.process) if attachments else []
    if damaged or (not attachments and _is_named_by_another(container)):
        engine.release_remains(container.id, damaged)
    return present


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


def _attach_with_ports(
    container: Container,
    chosen: "list[ResolvedNetwork]",
    present: "list[Record]",
    engine: ContainerEngine,
) -> "list[Attachment]":
    """Choose ports of the host where the request leaves them open, then attach."""
    if not any(served.chooses_ports for served in chosen):
        return _attach_all(container, chosen, present, engine)
    # No lock is held from the choice until the port is published, because an executable plugin could keep it
    # for any time.  Rarely, another container gets the port; then a new one is chosen.
    for _ in range(_PORT_TRIES - 1):
        for served in chosen:
            served.choose_ports()
        try:
            return _attach_all(container, chosen, present, engine)
        except AddFailedError as error:
            if not (isinstance(error.cause, PortTakenError) and error.undone):
                raise
            engine.tell(f"choosing another port: {error.msg}")
    for served in chosen:
        served.choose_ports()
    return _attach_all(container, chosen, present, engine)


def _attach_all(
    container: Container,
    chosen: "list[ResolvedNetwork]",
    present: "list[Record]",
    engine: ContainerEngine,
) -> "list[Attachment]":
    # Many programs need loopback, and not every runtime sets it up.
    sandbox = container.netns.rtnl
    sandbox.set_link(sandbox.link("lo"), up=True)
    if not chosen:
        return []  # and no name: without a record, it would never be removed
    used_names = {record.ifname for record in present} | {link.name for link in sandbox.links()}
    step("loopback")
    rights = {} if container.net_admin is None else {"netAdmin": container.net_admin}
    # A further network must not be a way around the lists that the container was started with, nor must
    # another container in its namespace, which has no right to replace them.
    earlier = _lists_of(present)
    of_others: dict[str, Any] = {}
    if used_names - {"lo", *(record.ifname for record in present)} and os.path.exists(f"{STATE}/policy"):
        of_others = _lists_of(_others_inside(container))
    new = [
        addition.plan(
            engine,
            served.network,
            container.id,
            ifname,
            netns.named(container.id),
            container.process,
            cni_args=served.cni_args,
            capability_args=served.capability_args,
            policy={**(rights if served.policy else {}), **earlier, **(served.policy or {}), **of_others},
            mdns=served.mdns,
        )
        for served, ifname in zip(chosen, _name_interfaces(chosen, used_names), strict=True)
    ]
    addition.attach(engine, new, present, lambda: _collect(engine, patience=locks.PATIENCE), container.netns)
    return new


def _lists_of(attachments: "list[Record]") -> "dict[str, Any]":
    lists: dict[str, Any] = {}
    for record in attachments:
        if isinstance(own := record.extra.get("policy"), dict):
            lists |= own
    return lists


def _others_inside(container: Container) -> "list[Record]":
    """Return the attachments of other containers in the namespace of this one."""
    return [
        record
        for record in records.all_records(unreadable=[])
        if record.container_id != container.id
        and record.process
        and record.process.netns_id == container.netns.identity
    ]


def _collect(engine: ContainerEngine, *, thorough: bool = True, patience: float = 0.0) -> "list[Record]":
    from cnihook.container import gc  # not at the top: it is rarely needed

    return gc.collect(engine, thorough=thorough, patience=patience)
