# SPDX-License-Identifier: Apache-2.0
"""
The CNI runtime for programs that embed it: like libcni for Go, and with what libcni leaves to its callers.

    from cnihook import CNI

    cni = CNI()
    attachment = cni.add("mynet", "c1", netns="/run/netns/c1")
    print(attachment.result.ips[0].net)
    attachment.delete()

In addition to libcni:
- An attachment is on record before its first plugin runs.
- An ADD that fails is undone.
- If an address, a port or a device is taken, ADD releases those of ended containers, then tries again.
- A container has one operation at a time.  GC runs while no other operation runs on its network.
- If a plugin fails, DEL still runs the others.

Errors are CniError, with the code of the plugin, or OSError.
"""

from cnihook.fast.errors_text import message_with_notes
from cnihook.linux import flock
from cnihook.linux.flock import Lock
from cnihook.linux.netns import NetNS
from cnihook.protocol import invoke, locks
from cnihook.protocol.call import Invocation, args_text
from cnihook.runtime import addition, chain, gc, records
from cnihook.runtime.addition import Attachment, NotAttachedError
from cnihook.runtime.attachment import is_gone
from cnihook.runtime.engine import Engine
from cnihook.runtime.identity import ProcessIdentity
from cnihook.runtime.network_map import Networks
from cnihook.runtime.networks import Network
from cnihook.runtime.records import DamagedRecordError, Record
from cnihook.types.errors import INTERNAL, INVALID_CONFIG, INVALID_ENVIRONMENT, CniError, as_cni_error
from cnihook.types.names import check_container_id, check_ifname, record_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any


class CNI(Engine):
    """The networks, plugins and records of one machine.

    `conf_dir`: the networks' folder.  `plugin_dirs`: folders that are searched before the built-in plugins.
    `timeout`: seconds for one plugin, counted again for each DEL.  `lock_timeout`: seconds to wait while
    another process works on the container or the network.
    """

    def __repr__(self) -> str:
        return f"CNI({self.conf_dir!r}, plugin_dirs={self.plugin_dirs!r}, state_dir={self.state_dir!r})"

    @property
    def networks(self) -> Networks:
        """The networks by name.  Each access reads the folder; keep the mapping to use one state of it.

        SPEC.md, "Section 1: Network configuration format".
        """
        return Networks(self.conf_dir)

    def _network(self, network: "Network | str") -> Network:
        return self.networks[network] if isinstance(network, str) else network

    def validate(self, network: "Network | str") -> "list[str]":
        """Return the capabilities that the network's plugins enable.

        Raises CniError if a plugin is missing or does not support the network's version.  Its notes hold the
        other errors.
        """
        return chain.validate(self._network(network), self.plugin_dirs)

    def versions(self, plugin_type: str) -> "Sequence[str]":
        """Return the versions of the specification that a plugin supports.  SPEC.md, "VERSION"."""
        return invoke.supported_versions(plugin_type, self.plugin_dirs)

    # One attachment

    def add(
        self,
        network: "Network | str",
        container_id: str,
        ifname: str = "eth0",
        *,
        netns: str,
        pid: int = 0,
        cni_args: "Mapping[str, str] | None" = None,
        capability_args: "Mapping[str, Any] | None" = None,
    ) -> Attachment:
        """Attach the namespace at the path `netns`, completely or not at all.  SPEC.md, "ADD".

        `cni_args`: keys and values of CNI_ARGS.  Each plugin gets those `capability_args` that its
        `capabilities` name; CniError is raised for one that no plugin gets.  `pid`: the process in the
        namespace.  The attachment is stale when this process ends or, without one, when the namespace ends.
        """
        check_container_id(container_id)
        check_ifname(ifname)
        _check_args(cni_args or {})
        network = self._network(network)
        _refuse_unused(network, capability_args or {})
        record_name(network.name, container_id, ifname)
        chain.find_plugins(network, self.plugin_dirs)
        process = self._process(netns, pid)
        one = addition.plan(
            self,
            network,
            container_id,
            ifname,
            netns,
            process,
            cni_args=cni_args,
            capability_args=capability_args,
        )
        with self._lock(container_id, "add"):
            present = self._make_way_for(one, process)
            addition.attach(self, [one], present, lambda: gc.release_gone(self, [], locks.PATIENCE))
        return one

    def _process(self, netns: str, pid: int) -> ProcessIdentity:
        try:
            namespace = NetNS.open(netns)
        except OSError as error:
            raise CniError(INTERNAL, f"failed to open netns: {message_with_notes(error)}") from None
        try:
            return ProcessIdentity.capture(pid, namespace)
        finally:
            namespace.close()

    def _make_way_for(self, one: Attachment, process: ProcessIdentity) -> "list[Record]":
        """Release stale attachments of the same interface name.  Returns the container's other records.

        Raises CniError if the container has an interface of this name.
        """
        _network, container_id, ifname = one.record.identity
        damaged: list[DamagedRecordError] = []
        attachments = records.of_container(container_id, self.state_dir, damaged)
        for file in damaged:
            if any(identity[1:] == (container_id, ifname) for identity in file.identities()):
                self.release_damaged(file)
        same_name = [each for each in attachments if each.ifname == ifname]
        for record in addition.make_way(self, same_name, process):
            raise CniError(
                INVALID_CONFIG,
                f"container {container_id} has {ifname} already, on network {record.network}",
                "detach it first, or use another interface name",
            )
        return [each for each in attachments if each.ifname != ifname]

    def delete(
        self,
        network: "Network | str",
        container_id: str,
        ifname: str = "eth0",
        *,
        netns: str = "",
        cni_args: "Mapping[str, str] | None" = None,
        capability_args: "Mapping[str, Any] | None" = None,
    ) -> None:
        """Detach a container from a network.  SPEC.md, "DEL".

        The record is used if there is one.  Otherwise the plugins of the network get the arguments of this
        call.  Every plugin runs.  Then the first error is raised, with the others as its notes, and the
        record is kept for another try.  Succeeds if nothing is attached, and if the network is unknown.
        """
        check_container_id(container_id)
        check_ifname(ifname)
        _check_args(cni_args or {})
        with self._lock(container_id, "delete"):
            if not self.release_on_file(_name(network), container_id, ifname, sandbox=netns):
                # The runtime that attached it keeps no record, or has lost it.
                configured = self.networks.get(network) if isinstance(network, str) else network
                if configured:
                    self._delete(configured, container_id, ifname, netns, cni_args or {}, capability_args)
            records.discard_partial(container_id, self.state_dir)
            flock.clear_abandoned(signed=False)

    def _delete(
        self,
        network: Network,
        container_id: str,
        ifname: str,
        netns: str,
        cni_args: "Mapping[str, str]",
        capability_args: "Mapping[str, Any] | None",
    ) -> None:
        request = Invocation(
            container_id,
            netns,
            ifname,
            args=args_text(cni_args),
            plugin_dirs=self.plugin_dirs,
            timeout=self.timeout,
        )
        try:
            chain.delete(network, request, dict(capability_args or {}), None)
        finally:
            request.close()

    def check(self, network: "Network | str", container_id: str, ifname: str = "eth0") -> None:
        """Raise CniError if anything is not as it was set up.  SPEC.md, "CHECK"."""
        attachment = self.attachment(network, container_id, ifname)
        if attachment is None:
            raise NotAttachedError(_name(network), container_id, ifname)
        attachment.check()

    def attachment(
        self, network: "Network | str", container_id: str, ifname: str = "eth0"
    ) -> "Attachment | None":
        """Return an attachment that is on record, or None.  Raises DamagedRecordError or OSError."""
        record = records.find(_name(network), container_id, ifname, self.state_dir)
        return Attachment(self, record) if record else None

    def attachments(self, container_id: "str | None" = None) -> "list[Attachment]":
        """Return the attachments of one container, in the order of its ADDs, or those of all containers."""
        if container_id is None:
            return self._as_attachments(records.all_records(self.state_dir))
        check_container_id(container_id)
        return self._as_attachments(records.of_container(container_id, self.state_dir))

    def _as_attachments(self, attached: "Iterable[Record]") -> "list[Attachment]":
        return [Attachment(self, record) for record in attached]

    # A whole network

    def status(self, network: "Network | str") -> None:
        """Raise CniError, code 50 or 51, if an ADD would fail now.  SPEC.md, "STATUS"."""
        network = self._network(network)
        request = Invocation("", "", "", plugin_dirs=self.plugin_dirs, timeout=self.timeout)
        try:
            chain.status(network, request)
        finally:
            request.close()

    def stale_attachments(
        self, network: "Network | str", keep: "Iterable[tuple[str, str]] | None" = None
    ) -> "list[Attachment]":
        """Return the attachments to a network that gc() would detach."""
        kept = None if keep is None else set(keep)
        errors: list[CniError] = []
        stale = self._unwanted(_name(network), kept, errors)
        chain.raise_all(errors)
        return self._as_attachments(stale)

    def _unwanted(
        self, network: str, keep: "set[tuple[str, str]] | None", errors: "list[CniError]"
    ) -> "list[Record]":
        """Do what stale_attachments() does, but add to `errors` why an attachment could not be checked."""
        unreadable: list[OSError] = []
        attachments = records.all_records(self.state_dir, unreadable=unreadable)
        errors += map(as_cni_error, unreadable)
        stale = []
        for record in attachments:
            if record.network != network:
                continue
            try:
                if self._is_unwanted(record, keep):
                    stale.append(record)
            except (CniError, OSError) as error:
                errors.append(as_cni_error(error).wrapped(f"container {record.container_id}"))
        return stale

    def _is_unwanted(self, record: Record, keep: "set[tuple[str, str]] | None") -> bool:
        if keep is None:
            return is_gone(record)
        return (record.container_id, record.ifname) not in keep

    def live_attachments(self, network: "Network | str") -> "set[tuple[str, str]]":
        """Return each (container ID, ifname) that gc() would have the plugins keep."""
        stale = (attachment.record for attachment in self.stale_attachments(network))
        return self._on(_name(network)) - {(record.container_id, record.ifname) for record in stale}

    def _on(self, network: str) -> "set[tuple[str, str]]":
        """Return each (container ID, ifname) on a network that has a record file, even an unreadable one."""
        files = records.identities_on_file(self.state_dir)
        return {(container_id, ifname) for name, container_id, ifname in files if name == network}

    def gc(
        self, network: "Network | str", keep: "Iterable[tuple[str, str]] | None" = None
    ) -> "list[Attachment]":
        """Detach stale attachments, then have the plugins release what else is stale.  SPEC.md, "GC".

        `keep`: each valid (container ID, ifname); None: those whose process or namespace still exists.
        Returns what was detached.  Continues after an error; then raises the first one.
        """
        network = self._network(network)
        if network.disable_gc:
            return []
        kept = None if keep is None else set(keep)
        errors: list[CniError] = []
        released: list[Record] = []
        for record in self._unwanted(network.name, kept, errors):
            try:
                released += gc.release_stale(
                    self, record.container_id, [record], lambda each: self._is_unwanted(each, kept)
                )
            except Exception as error:
                errors.append(as_cni_error(error))
        released += self._gc_damaged(network.name, errors)
        for record in records.all_records(self.state_dir, unreadable=[]):
            if record.network == network.name and record.has_open_change:
                gc.settle(self, record)
        with locks.network(network.name, f"gc {network.name}", timeout=self.lock_timeout):
            # Read under the lock: what was attached since then is not garbage.
            present = self._on(network.name)
            request = Invocation("", "", "", plugin_dirs=self.plugin_dirs, timeout=self.timeout)
            try:
                chain.gc(network, present | (kept or set()), request)
            except CniError as error:
                errors.append(error)
            finally:
                request.close()
        self._remove_remains()
        chain.raise_all(errors)
        return self._as_attachments(released)

    def _remove_remains(self) -> None:
        """Remove lock files that no process uses, and partial files of records whose writers were killed."""
        for container_id in records.partial(self.state_dir):
            try:
                with locks.container(container_id, "gc", timeout=0):
                    records.discard_partial(container_id, self.state_dir)
            except (CniError, OSError):
                continue  # another process is writing it
        flock.clear_abandoned()

    def _gc_damaged(self, network: str, errors: "list[CniError]") -> "list[Record]":
        """Release what damaged files were records of, unless it is in use.  Adds errors to `errors`."""
        released = []
        for one in records.damaged(self.state_dir):
            identity = next((names for names in one.identities() if names[0] == network), None)
            if identity:
                try:
                    with self._lock(identity[1], "gc"):
                        self.release_damaged(one)
                    released.append(Record(*identity, config=b"", folder=self.state_dir))
                except Exception as error:
                    errors.append(as_cni_error(error))
        return released

    def _lock(self, container_id: str, purpose: str) -> Lock:
        return locks.container(container_id, purpose, self.lock_timeout)


def _name(network: "Network | str") -> str:
    return network if isinstance(network, str) else network.name


def _refuse_unused(network: Network, capability_args: "Mapping[str, Any]") -> None:
    """Raise CniError for an argument that no plugin gets: it would be ignored without a message."""
    for name in capability_args:
        if name not in network.capabilities:
            raise CniError(
                INVALID_CONFIG,
                f"network {network.name} ({network.source}): none of its plugins has the capability {name}",
                f'add "capabilities": {{"{name}": true}} to the plugin that takes it',
            )


def _check_args(cni_args: "Mapping[str, str]") -> None:
    """Raise CniError for a key or a value that CNI_ARGS cannot hold.  SPEC.md, "Parameters"."""
    for key, value in cni_args.items():
        if not key or set(";=") & {*key, *value}:
            raise CniError(
                INVALID_ENVIRONMENT,
                f"invalid CNI_ARGS pair {f'{key}={value}'!r}",
                "a key and a value contain neither ; nor =, and no key is empty",
            )
