# SPDX-License-Identifier: Apache-2.0
"""
The CNI runtime for programs that embed it: like libcni for Go, and with what libcni leaves to its callers.

    from cnihook import CNI

    cni = CNI()
    network = cni.network("mynet")
    result = cni.add(network, "c1", "/run/netns/c1")
    print(result.ips[0].net)
    cni.delete(network, "c1")

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
from cnihook.protocol.call import Invocation
from cnihook.runtime import addition, attachment, chain, gc, networks, records
from cnihook.runtime.attachment import Attachment
from cnihook.runtime.engine import Engine
from cnihook.runtime.identity import ProcessIdentity
from cnihook.runtime.networks import Network
from cnihook.runtime.records import DamagedRecordError, Record
from cnihook.types.errors import INTERNAL, INVALID_CONFIG, UNKNOWN_CONTAINER, CniError, as_cni_error
from cnihook.types.names import check_container_id, check_ifname, record_name
from cnihook.types.result import Result

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

    # Networks

    def networks(self) -> "tuple[list[Network], list[CniError]]":
        """Return all networks of the folder, sorted by file name, and an error for each malformed file.

        SPEC.md, "Section 1: Network configuration format".
        """
        return networks.load_folder(self.conf_dir)

    def network(self, name: str) -> Network:
        """Return the network with this name.  Raises NetworkNotFoundError."""
        configured, problems = self.networks()
        for network in configured:
            if network.name == name:
                return network
        if not configured and not problems and name == networks.built_in().name:
            return networks.built_in()
        names = [network.name for network in configured]
        raise networks.NetworkNotFoundError(name, self.conf_dir, names, problems)

    def validate(self, network: Network) -> "list[str]":
        """Return the capabilities that the network's plugins enable.

        Raises CniError if a plugin is missing or does not support the network's version.  Its notes hold the
        other errors.
        """
        return chain.validate(network, self.plugin_dirs)

    def versions(self, plugin_type: str) -> "Sequence[str]":
        """Return the versions of the specification that a plugin supports.  SPEC.md, "VERSION"."""
        return invoke.supported_versions(plugin_type, self.plugin_dirs)

    def add(
        self,
        network: Network,
        container_id: str,
        netns: str,
        ifname: str = "eth0",
        *,
        args: str = "",
        capability_args: "Mapping[str, Any] | None" = None,
        pid: int = 0,
    ) -> Result:
        """Attach the namespace at the path `netns`, completely or not at all.  SPEC.md, "ADD".

        `args` is CNI_ARGS (KEY=VALUE;KEY=VALUE).  Each plugin gets those `capability_args` that its
        `capabilities` name.  `pid`: the process in the namespace.  The attachment is stale when this process
        ends or, without one, when the namespace ends.
        """
        check_container_id(container_id)
        check_ifname(ifname)
        record_name(network.name, container_id, ifname)
        chain.find_plugins(network, self.plugin_dirs)
        process = self._process(netns, pid)
        one = addition.plan(
            self, network, container_id, ifname, netns, process, args=args, capability_args=capability_args
        )
        with self._lock(container_id, "add"):
            present = self._make_way_for(one, process)
            addition.attach(self, [one], present, lambda: gc.release_gone(self, [], locks.PATIENCE))
        return one.result

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
        args: str = "",
        capability_args: "Mapping[str, Any] | None" = None,
    ) -> None:
        """Detach a container from a network.  SPEC.md, "DEL".

        The record is used if there is one.  Otherwise, if `network` is a Network, the arguments are used.
        Every plugin runs.  Then the first error is raised, with the others as its notes, and the record is
        kept for another try.  Succeeds if nothing is attached.
        """
        check_container_id(container_id)
        check_ifname(ifname)
        name = network if isinstance(network, str) else network.name
        with self._lock(container_id, "delete"):
            try:
                record = records.find(name, container_id, ifname, self.state_dir)
            except DamagedRecordError as error:
                self.release_damaged(error, sandbox=netns)
                record = None
            if record is not None:
                self.release(record)
            elif isinstance(network, Network):
                # The runtime that attached it keeps no record, or has lost it.
                request = Invocation(
                    container_id,
                    netns,
                    ifname,
                    args=args,
                    plugin_dirs=self.plugin_dirs,
                    timeout=self.timeout,
                )
                try:
                    chain.delete(network, request, dict(capability_args or {}), None)
                finally:
                    request.close()
            records.discard_partial(container_id, self.state_dir)
            flock.clear_abandoned(signed=False)

    def check(self, network: "Network | str", container_id: str, ifname: str = "eth0") -> None:
        """Raise CniError if anything is not as it was set up.  SPEC.md, "CHECK"."""
        name = network if isinstance(network, str) else network.name
        with self._lock(container_id, "check"):
            record = records.find(name, container_id, ifname, self.state_dir)
            if record is None:
                raise CniError(
                    UNKNOWN_CONTAINER, f"container {container_id} is not on network {name} with {ifname}"
                )
            attachment.check(record, self.plugin_dirs, timeout=self.timeout)

    def attachments(self, container_id: str = "") -> "list[Record]":
        """Return the records of one container, in the order of its ADDs, or those of all containers."""
        if container_id:
            return records.of_container(container_id, self.state_dir)
        return records.all_records(self.state_dir)

    def result(self, network: "Network | str", container_id: str, ifname: str = "eth0") -> "Result | None":
        """Return the result of an ADD, or None if there is no record of it."""
        name = network if isinstance(network, str) else network.name
        record = records.find(name, container_id, ifname, self.state_dir)
        if record is None:
            return None
        return attachment.result_of(networks.parse(record.config, record.path), record)

    def status(self, network: Network) -> None:
        """Raise CniError, code 50 or 51, if an ADD would fail now.  SPEC.md, "STATUS"."""
        request = Invocation("", "", "", plugin_dirs=self.plugin_dirs, timeout=self.timeout)
        try:
            chain.status(network, request)
        finally:
            request.close()

    def stale_attachments(
        self, network: str, keep: "Iterable[tuple[str, str]] | None" = None
    ) -> "list[Record]":
        """Return the attachments to a network that gc() would detach."""
        kept = None if keep is None else set(keep)
        errors: list[CniError] = []
        stale = self._unwanted(network, kept, errors)
        chain.raise_all(errors)
        return stale

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
            return attachment.is_gone(record)
        return (record.container_id, record.ifname) not in keep

    def live_attachments(self, network: str) -> "set[tuple[str, str]]":
        """Return each (container ID, ifname) that gc() would have the plugins keep."""
        gone = {(record.container_id, record.ifname) for record in self.stale_attachments(network)}
        return self._on(network) - gone

    def _on(self, network: str) -> "set[tuple[str, str]]":
        """Return each (container ID, ifname) on a network that has a record file, even an unreadable one."""
        files = records.identities_on_file(self.state_dir)
        return {(container_id, ifname) for name, container_id, ifname in files if name == network}

    def gc(self, network: Network, keep: "Iterable[tuple[str, str]] | None" = None) -> "list[Record]":
        """Detach stale attachments, then have the plugins release what else is stale.  SPEC.md, "GC".

        `keep`: each valid (container ID, ifname); None: those whose process or namespace still exists.
        Returns what was detached.  Continues after an error; then raises the first one.
        """
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
        return released

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
