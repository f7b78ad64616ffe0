# SPDX-License-Identifier: Apache-2.0
"""
Repair: restore what an attachment has lost while its container runs, for example by a reload of the host's
firewall, an `nft flush ruleset`, or an `ip link del`.

CHECK of the plugins finds what is missing.  Plugins that have `repair` restore what needs no new link.  If
that is not enough, DEL and ADD of the chain give the container a new link.  It gets the address on record
and, if a plugin takes one, the MAC address on record.
"""

from cnihook.linux import netns
from cnihook.linux.netns import NetNS
from cnihook.protocol import invoke
from cnihook.protocol.call import PLUGIN_TIMEOUT, Invocation, args_text
from cnihook.request.request import ContainerRequest, NetworkRequest
from cnihook.request.resolve import resolve
from cnihook.runtime import attachment, chain, foreign, netns_names, networks, records
from cnihook.runtime.foreign import CannotCheckError
from cnihook.runtime.networks import Network
from cnihook.runtime.records import Record
from cnihook.types import versions
from cnihook.types.config import NetConf
from cnihook.types.errors import INTERNAL, UNKNOWN_CONTAINER, CniError
from cnihook.types.result import Interface, Result

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_WITH_CHECK = "1.0.0"  # any version that has CHECK, and a result with interfaces


def records_of(container_id: str) -> "list[Record]":
    """Return the records that can be repaired, in the order of ADD.  Raises CniError if there is none."""
    attachments = records.of_container(container_id)
    if not attachments:
        raise CniError(UNKNOWN_CONTAINER, "no network of this container is on record")
    if all(map(attachment.is_gone, attachments)):
        network = f" {attachments[0].network}" if foreign.is_foreign(attachments[0]) else ""
        raise CniError(
            UNKNOWN_CONTAINER, "the container has ended", f"`cnihook gc{network}` releases what it had"
        )
    return [record for record in attachments if not attachment.is_gone(record)]


def restore_name(record: Record) -> bool:
    """Bind the namespace to its name again, if the name was removed.  Returns True if it did."""
    if record.netns != netns.named(record.container_id):
        return False
    path = attachment.live_netns_path(record)
    if path in ("", record.netns):
        return False
    namespace = NetNS.open(path)
    try:
        netns_names.bind(namespace, record.container_id)
    finally:
        namespace.close()
    return True


def find_problems(
    record: Record, plugin_dirs: "list[str] | None", *, timeout: float = PLUGIN_TIMEOUT
) -> "list[str]":
    """Return what repair_attachment() would restore.  Raises CniError if that cannot be determined."""
    return _work(_find_problems, record, plugin_dirs, timeout)


def repair_attachment(
    record: Record, plugin_dirs: "list[str] | None", *, timeout: float = PLUGIN_TIMEOUT
) -> "list[str]":
    """Repair one attachment.  Returns what was wrong and has been corrected.

    The caller holds the container's lock.  Raises CniError if something is still wrong; the record is then
    kept for another try.
    """
    return _work(_repair, record, plugin_dirs, timeout, is_repair=True)


class _Checked:
    """An attachment, and what CHECK of its plugins takes."""

    def __init__(self, record: Record, network: Network, request: Invocation, result: Result) -> None:
        self.record = record
        self.network = network
        self.request = request
        self.result = result
        self._seen = _with_check(network, request)
        self._full_result = _with_interfaces(result, record, request)

    def differences(self) -> "list[tuple[int, CniError]]":
        """Return what is not as it was set up, each with the index of the plugin that set it up."""
        capability_args = self.record.capability_args
        return list(chain.differences(self._seen, self.request, capability_args, self._full_result))

    def try_to_repair_plugin(self, index: int) -> None:
        capability_args = self.record.capability_args
        try:
            chain.repair_plugin(self._seen, index, self.request, capability_args, self._full_result)
        except (CniError, OSError):
            pass  # a new link is needed then; if that fails, too, its error is reported


def _work(
    work: "Callable[[_Checked], list[str]]",
    record: Record,
    plugin_dirs: "list[str] | None",
    timeout: float,
    *,
    is_repair: bool = False,
) -> "list[str]":
    """Return what the work returns for an attachment, or nothing if its network sets disableCheck."""
    network, request = attachment.restore(record, plugin_dirs, timeout, is_repair=is_repair)
    try:
        if network.disable_check:
            return []
        result = _result(network, record)
        foreign.check_plugins(record, network, request, result, plugin_dirs)
        return work(_Checked(record, network, request, result))
    finally:
        request.close()


def _find_problems(checked: _Checked) -> "list[str]":
    with attachment.in_use(checked.network.name, checked.record):
        return [error.msg for _index, error in checked.differences()]


def _repair(checked: _Checked) -> "list[str]":
    record, network, request = checked.record, checked.network, checked.request
    with attachment.in_use(network.name, record):
        broken = checked.differences()
        if broken and foreign.is_foreign(record) and not request.sandbox.rtnl.find_link(record.ifname):
            raise foreign.needs_its_runtime(broken)
        for index, _error in broken:
            checked.try_to_repair_plugin(index)
        if broken and foreign.is_foreign(record) and records.find(*record.identity) is None:
            # Its runtime does not use the container's lock, and has just detached it.
            chain.delete(network, request, record.capability_args, checked.result)
            return []
        left = broken and checked.differences()
    if left and foreign.is_foreign(record):
        raise foreign.needs_its_runtime(left)
    how = f" ({_attach_anew(network, request, record, checked.result)})" if left else ""
    return [f"{error.msg}{how}" for _index, error in broken]


def _result(network: Network, record: Record) -> Result:
    result = attachment.result_of(network, record)
    if result is None:
        raise CniError(
            INTERNAL,
            "its record has no result: ADD did not complete",
            f"`cnihook detach {record.container_id}`, then attach it again",
        )
    return result


def _with_check(network: Network, request: Invocation) -> Network:
    """Return the network with a version that has CHECK: built-in plugins support CHECK for any version.

    Raises CannotCheckError if an older network uses a plugin that is an executable.
    """
    if versions.at_least(network.version or versions.OLDEST, versions.SINCE["CHECK"]):
        return network
    for plugin in network.plugins:
        conf = NetConf(plugin)
        for plugin_type in filter(None, (conf.string("type"), conf.object("ipam").string("type"))):
            if executable := invoke.find(plugin_type, request.plugin_dirs):
                raise CannotCheckError(
                    f"version {network.version or versions.OLDEST} of the specification has no CHECK,"
                    f" so {executable} cannot check it",
                    f'set "cniVersion": "{_WITH_CHECK}" in the configuration of network {network.name}',
                )
    raw = {
        key: value for key, value in network.raw.items() if key.lower() not in ("cniversion", "cniversions")
    }
    return networks.from_raw(raw | {"name": network.name, "cniVersion": _WITH_CHECK}, b"", network.source)


def _with_interfaces(result: Result, record: Record, request: Invocation) -> Result:
    """Return the result with its interface, which results of old versions do not name."""
    if result.interfaces or not result.ips:
        return result
    result = Result.from_json(result.to_json(_WITH_CHECK), _WITH_CHECK)
    result.interfaces = [Interface(record.ifname, "", sandbox=request.netns)]
    for ip in result.ips:
        ip.interface = 0
    return result


def _attach_anew(network: Network, request: Invocation, record: Record, result: Result) -> str:
    """Run DEL and ADD of the chain.  Returns this as text for the user, with the addresses that changed."""
    cni_args, capability_args = _same_addresses(network, record, result)
    again = Invocation(
        record.container_id,
        request.netns,
        record.ifname,
        args=args_text(cni_args),
        plugin_dirs=request.plugin_dirs,
        timeout=request.timeout,
        is_repair=True,
    )
    try:
        new_result = attachment.replace(network, record, request, again, capability_args)
    finally:
        again.close()
    before, now = (" ".join(str(ip.net) for ip in each.ips) for each in (result, new_result))
    return "attached again" if now == before else f"attached again, with {now} instead of {before}"


def _same_addresses(
    network: Network, record: Record, result: Result
) -> "tuple[dict[str, str], dict[str, object]]":
    """Return CNI_ARGS and capability arguments as on record, with a request for the same addresses."""
    own = next((one for one in result.interfaces if one.sandbox and one.name == record.ifname), None)
    index = result.interfaces.index(own) if own else None
    ips = [str(ip.net) for ip in result.ips if ip.interface is None or ip.interface == index]
    cni_args = {key: value for key, value in record.cni_args.items() if key not in ("IP", "MAC")}
    capability_args: dict[str, object] = dict(record.capability_args)
    for key, value in (("ips", ips), ("mac", own.mac if own else "")):
        requested = NetworkRequest(network.name)
        setattr(requested, key, value)
        try:
            (served,) = resolve([(network, requested)], ContainerRequest().common)
        except CniError:  # no plugin takes the request; one such as dhcp may assign the same by itself
            continue
        capability_args |= served.capability_args
        cni_args |= served.cni_args
    return cni_args, capability_args
