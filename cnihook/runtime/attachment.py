# SPDX-License-Identifier: Apache-2.0
"""
ADD, DEL and CHECK of one attachment, in step with its record: what is attached is always on record.

The record is on disk, without a result, before the first plugin runs.  It gets the result after the last
plugin has run.  A DEL needs only the record: configuration, namespace and process may be gone.
"""

from cnihook.linux import link_stats
from cnihook.linux.flock import Lock
from cnihook.linux.link_stats import LinkStats
from cnihook.linux.netns import NetNS
from cnihook.log import step
from cnihook.process.signals import Interrupted
from cnihook.protocol import locks
from cnihook.protocol.call import PLUGIN_TIMEOUT, Invocation, args_text
from cnihook.runtime import chain, networks
from cnihook.runtime.networks import Network
from cnihook.runtime.records import DamagedRecordError, Record
from cnihook.types.errors import INTERNAL, AddFailedError, CniError, as_cni_error
from cnihook.types.result import Result

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from cnihook.protocol.call import Policy
    from cnihook.protocol.ending import Ending


def up(
    network: Network, record: Record, *, timeout: float = PLUGIN_TIMEOUT, policy: "Policy | None" = None
) -> Result:
    """Run ADD for each plugin of the network and store the result in `record`, which is on disk already.

    `timeout`: seconds for one executable.  Raises AddFailedError, after the rollback.  Raises another
    CniError or OSError if no plugin has run.
    """
    request = Invocation(
        record.container_id,
        record.netns,
        record.ifname,
        args=args_text(record.cni_args),
        plugin_dirs=record.plugin_dirs,
        timeout=timeout,
    )
    try:
        if policy:
            request.policy = policy
            policy.prepare()
        with in_use(network.name, record):
            result = chain.add(network, request, record.capability_args)
            _complete(network, request, record, record.capability_args, result)
        return result
    finally:
        request.close()


def replace(
    network: Network,
    record: Record,
    request: Invocation,
    again: Invocation,
    capability_args: "dict[str, Any]",
) -> Result:
    """Run DEL by `request`, then ADD by `again`, and complete the record again.  Returns the new result.

    Raises AddFailedError, after the rollback; the record is then as before.
    """
    # The network is locked: between DEL and ADD, another container could get the addresses.
    with locks.network(network.name, f"repair {record.container_id}"):
        chain.delete(network, request, record.capability_args, result_of(network, record))
        result = chain.add(network, again, capability_args)
        record.netns = again.netns
        _complete(network, again, record, capability_args, result)
    return result


def _complete(
    network: Network,
    request: Invocation,
    record: Record,
    capability_args: "dict[str, Any]",
    result: Result,
) -> None:
    """Store the result.  If that fails, run DEL and raise AddFailedError."""
    try:
        record.result = result.to_json(network.version)
        record.write()
        step("record")
    except BaseException as error:
        record.result = None
        left = _undo(network, request, capability_args, result)
        if isinstance(error, Exception):
            raise chain.add_failed(as_cni_error(error), left) from None
        if isinstance(error, Interrupted):
            error.undone = not left
        raise


def _undo(
    network: Network, request: Invocation, capability_args: "dict[str, Any]", result: Result
) -> "list[CniError]":
    try:
        chain.delete(network, request, capability_args, result)
    except Exception as error:
        return [as_cni_error(error)]
    return []


def is_undone(error: BaseException) -> bool:
    """Return True if up(), which raised this error, has left nothing behind."""
    return error.undone if isinstance(error, (AddFailedError, Interrupted)) else isinstance(error, Exception)


def down(
    record: Record,
    plugin_dirs: "list[str] | None",
    *,
    timeout: float = PLUGIN_TIMEOUT,
    ending: "Ending | None" = None,
    policy_of: "Callable[[Record, Network], Policy | None] | None" = None,
) -> "LinkStats | None":
    """Run DEL for each plugin of the record's chain, the last one first.  The caller removes the record.

    Returns the counters of the interface, or None if it no longer exists.

    `plugin_dirs` is used if the record does not name the folders of the plugins, or if the plugins have been
    moved.  `ending` gets what is left for later, if the container has ended.  `policy_of` returns the
    policies to release.  Every plugin runs; then the first error is raised.
    """
    network, request = restore(record, plugin_dirs, timeout)
    request.ending = ending
    request.policy = policy_of(record, network) if policy_of else None
    try:
        with in_use(network.name, record):
            stats = _passed(request)
            chain.delete(network, request, record.capability_args, result_of(network, record))
        return stats
    finally:
        request.close()


def _passed(request: Invocation) -> "LinkStats | None":
    try:
        return link_stats.read(request.sandbox.rtnl, request.ifname) if request.netns else None
    except (CniError, OSError):
        return None


def check(record: Record, plugin_dirs: "list[str] | None", *, timeout: float = PLUGIN_TIMEOUT) -> None:
    """Have every plugin compare what it set up with what is there.  Raises the first difference."""
    if "pending" in record.extra:
        hint = f"`cnihook repair {record.container_id}` undoes it"
        raise CniError(INTERNAL, "a change of the attachment was interrupted", hint)
    network, request = restore(record, plugin_dirs, timeout)
    try:
        with in_use(network.name, record):
            chain.check(network, request, record.capability_args, result_of(network, record))
    finally:
        request.close()


def in_use(network: str, record: Record) -> Lock:
    """Return the lock against a GC on the network during an ADD, DEL or CHECK (SPEC.md, "GC")."""
    return locks.network(network, f"container {record.container_id} on network {network}", shared=True)


def restore(
    record: Record, plugin_dirs: "list[str] | None", timeout: float, *, is_repair: bool = False
) -> "tuple[Network, Invocation]":
    """Return the network as it was attached, and a request to its plugins, which the caller must close.

    Raises DamagedRecordError if the record holds no configuration.
    """
    network = network_of(record)
    return network, Invocation(
        record.container_id,
        live_netns_path(record),
        record.ifname,
        args=args_text(record.cni_args),
        plugin_dirs=_attachers_path(network, record, plugin_dirs),
        timeout=timeout,
        is_repair=is_repair,
    )


def network_of(record: Record) -> Network:
    """Return the network as it was attached.  Raises DamagedRecordError if the record does not hold it."""
    try:
        return networks.parse(record.config, f"the record {record.path}")
    except CniError as error:
        raise DamagedRecordError(record.path, f"holds no configuration: {error.msg}", record) from None


def result_of(network: Network, record: Record) -> "Result | None":
    """Return the result on record, or None if there is none or it is damaged.

    A damaged result must not prevent the DEL of everything else.
    """
    try:
        return Result.from_json(record.result, network.version) if record.result else None
    except CniError:
        return None


def _attachers_path(network: Network, record: Record, plugin_dirs: "list[str] | None") -> "list[str] | None":
    """Return the folders of the plugins that attached it: they must detach it, whatever CNI_PATH is now."""
    if record.process is None:
        return plugin_dirs  # a record of libcni, which does not name the folders
    try:
        chain.find_plugins(network, record.plugin_dirs)
        return record.plugin_dirs
    except CniError:
        # The plugins were moved, perhaps to a folder of `plugin_dirs`.
        return [*(record.plugin_dirs or ()), *(plugin_dirs or ())]


def live_netns_path(record: Record) -> str:
    """Return a path to the namespace that was attached; empty if it is gone.

    The path in a record of libcni is returned as it is.  Raises OSError if the namespace cannot be examined.
    """
    if record.process is None:
        return record.netns
    # The name is bound in one mount namespace, and the process that ran ADD may have had a private one.
    for path in (record.netns, f"/proc/{record.process.pid}/ns/net" if record.process.pid else ""):
        namespace = NetNS.find(path) if path else None
        if namespace:
            try:
                if record.process.owns(namespace):
                    return path
            finally:
                namespace.close()
    return ""


def is_gone(record: Record, *, patience: float = 0.0) -> bool:
    """Return True if the attached process has ended or, without a process, its namespace.

    Records of libcni name no process.  If one names no namespace either, nothing shows an end: False.
    `patience`: seconds to wait for the end of a process that was just killed.  Raises UncertainProcessError
    or OSError if that cannot be determined.
    """
    if record.process is not None and record.process.pid:
        return not record.process.is_alive(patience=patience)
    if record.process is not None:
        return not live_netns_path(record)
    if not record.netns:  # libcni before 1.2, with a result of 0.2.0 or older, which has no interfaces
        return False
    namespace = NetNS.find(record.netns)
    if namespace:
        namespace.close()
    return namespace is None
