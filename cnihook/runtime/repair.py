# SPDX-License-Identifier: Apache-2.0
"""
Put back what somebody took from an attachment while its container ran: a reload of the host's firewall, an
`nft flush ruleset`, an `ip link del`.

The plugins' CHECK tells what is missing.  Those that have it set up again what needs no new link; where that
is not enough, the chain's DEL and ADD give the container a new link with the address, and where a plugin can
be told, the MAC address that are on record.
"""

from cnihook.linux import netns
from cnihook.linux.flock import Lock
from cnihook.linux.netns import NetNS
from cnihook.runtime import attachment, cache, chain, foreign, netns_names, networks
from cnihook.runtime.cache import Record
from cnihook.runtime.networks import Network
from cnihook.runtime.wants import Want, Wants, serve
from cnihook.sdk import invoke
from cnihook.sdk.call import Request
from cnihook.sdk.undo import Undo
from cnihook.spec import version as versions
from cnihook.spec.config import NetConf
from cnihook.spec.errors import INTERNAL, UNKNOWN_CONTAINER, CniError
from cnihook.spec.result import Interface, Result

_WITH_CHECK = "1.0.0"  # any version will do that knows CHECK, and a result with interfaces


def container(container_id: str, timeout: float = 30.0) -> Lock:
    """Nobody else may be at work on the container meanwhile."""
    return Lock(f"container-{container_id}", timeout=timeout, purpose=f"repair {container_id}")


def records_of(container_id: str) -> "list[Record]":
    """What can be repaired, in the order in which it was attached.  Raises CniError if that is nothing."""
    known = cache.of_container(container_id)
    if not known:
        raise CniError(UNKNOWN_CONTAINER, "no network of it is on record")
    if all(map(attachment.is_gone, known)):
        network = f" {known[0].network}" if foreign.is_foreign(known[0]) else ""
        raise CniError(UNKNOWN_CONTAINER, "it has ended", f"`cnihook gc{network}` releases what it had")
    return [record for record in known if not attachment.is_gone(record)]


def restore_name(record: Record) -> bool:
    """Bind the namespace to its name again, if somebody has taken that away."""
    if record.netns != netns.named(record.container_id):
        return False
    path = attachment.living_path(record)
    if path in ("", record.netns):
        return False
    namespace = NetNS.open(path)
    try:
        netns_names.bind(namespace, record.container_id)
    finally:
        namespace.close()
    return True


def amiss(
    record: Record, plugin_path: "list[str] | None", *, timeout: float = attachment.TIMEOUT
) -> "list[str]":
    """What attached() would have to put back.  Raises CniError where that cannot be told."""
    network, request = attachment.restore(record, plugin_path, timeout)
    try:
        if network.disable_check:
            return []
        result = _result(network, record)
        foreign.check_plugins(record, network, request, result, plugin_path)
        seen = _with_check(network, request)
        known = _with_interfaces(result, record, request)
        with attachment.in_use(network.name, record):
            found = chain.differences(seen, request, record.capability_args, known)
            return [error.msg for _index, error in found]
    finally:
        request.close()


def attached(
    record: Record, plugin_path: "list[str] | None", *, timeout: float = attachment.TIMEOUT
) -> "list[str]":
    """Repair one attachment, under the lock of its container.  Returns what was amiss, and is no more.

    Raises CniError where it still is.  The record stays then, and with it the next try.
    """
    network, request = attachment.restore(record, plugin_path, timeout, is_repair=True)
    try:
        if network.disable_check:
            return []
        result = _result(network, record)
        foreign.check_plugins(record, network, request, result, plugin_path)
        seen = _with_check(network, request)
        known = _with_interfaces(result, record, request)
        with attachment.in_use(network.name, record):
            found = list(chain.differences(seen, request, record.capability_args, known))
            if found and foreign.is_foreign(record) and not request.sandbox.rtnl.find_link(record.ifname):
                raise foreign.needs_its_runtime(found)
            for index, _error in found:
                _try_to_put_back(seen, index, request, record, known)
            if found and foreign.is_foreign(record) and cache.find(*record.identity) is None:
                # Its runtime, which does not know the lock of its container, has detached it just now.
                chain.delete(network, request, record.capability_args, result)
                return []
            left = found and list(chain.differences(seen, request, record.capability_args, known))
        if left and foreign.is_foreign(record):
            raise foreign.needs_its_runtime(left)
        how = f" ({_attach_anew(network, request, record, result)})" if left else ""
        return [f"{error.msg}{how}" for _index, error in found]
    finally:
        request.close()


def _result(network: Network, record: Record) -> Result:
    result = attachment.result_of(network, record)
    if result is None:
        raise CniError(
            INTERNAL,
            "there is no result on its record: it was never attached to the end",
            f"`cnihook detach {record.container_id}`, then attach it again",
        )
    return result


def _with_check(network: Network, request: Request) -> Network:
    """The network as one of a version that has CHECK, which built-in plugins know whatever it says."""
    if versions.at_least(network.version or versions.OLDEST, versions.SINCE["CHECK"]):
        return network
    for plugin in network.plugins:
        conf = NetConf(plugin)
        for plugin_type in filter(None, (conf.string("type"), conf.object("ipam").string("type"))):
            if executable := invoke.find(plugin_type, request.plugin_path):
                raise CniError(
                    INTERNAL,
                    f"version {network.version or versions.OLDEST} of the specification has no CHECK,"
                    f" so {executable} cannot be asked",
                    f'"cniVersion": "{_WITH_CHECK}" can, in {network.name}\'s configuration',
                )
    raw = {
        key: value for key, value in network.raw.items() if key.lower() not in ("cniversion", "cniversions")
    }
    return networks.from_raw(raw | {"name": network.name, "cniVersion": _WITH_CHECK}, b"", network.source)


def _with_interfaces(result: Result, record: Record, request: Request) -> Result:
    """With the interface that results of old versions do not name."""
    if result.interfaces or not result.ips:
        return result
    result = Result.from_json(result.to_json(_WITH_CHECK), _WITH_CHECK)
    result.interfaces = [Interface(record.ifname, "", sandbox=request.netns)]
    for ip in result.ips:
        ip.interface = 0
    return result


def _try_to_put_back(network: Network, index: int, request: Request, record: Record, result: Result) -> None:
    try:
        chain.put_back(network, index, request, record.capability_args, result)
    except (CniError, OSError):
        pass  # it takes a new link then, and if that fails, too, its error is the one to tell


def _attach_anew(network: Network, request: Request, record: Record, result: Result) -> str:
    """Returns that in words, and what is not the same any more."""
    cni_args, capability_args = _same_addresses(network, record, result)
    again = Request(
        record.container_id,
        request.netns,
        record.ifname,
        args=cni_args,
        plugin_path=request.plugin_path,
        timeout=request.timeout,
        is_repair=True,
    )
    try:
        # Nobody else on this network meanwhile, for between DEL and ADD the addresses are anybody's.
        with Lock(f"network-{network.name}", purpose=f"repair {record.container_id}"):
            chain.delete(network, request, record.capability_args, result)
            made = chain.add(network, again, capability_args)
            with Undo() as undo:
                undo.push(chain.delete, network, again, capability_args, made)
                record.netns = request.netns
                record.result = made.to_json(network.version)
                record.write()
    finally:
        again.close()
    before, now = (" ".join(str(ip.net) for ip in each.ips) for each in (result, made))
    return "attached anew" if now == before else f"attached anew, with {now} in place of {before}"


def _same_addresses(network: Network, record: Record, result: Result) -> "tuple[str, dict[str, object]]":
    """CNI_ARGS and capability arguments as they were, and with them what is to be the same again."""
    own = next((one for one in result.interfaces if one.sandbox and one.name == record.ifname), None)
    index = result.interfaces.index(own) if own else None
    ips = [str(ip.net) for ip in result.ips if ip.interface is None or ip.interface == index]
    pairs = [
        pair for pair in record.cni_args.split(";") if pair and pair.partition("=")[0] not in ("IP", "MAC")
    ]
    capability_args: dict[str, object] = dict(record.capability_args)
    for key, value in (("ips", ips), ("mac", own.mac if own else "")):
        want = Want(network.name)
        setattr(want, key, value)
        try:
            (served,) = serve([(network, want)], Wants().common)
        except CniError:  # no plugin can be told; the one that gave it may know it by itself, as dhcp does
            continue
        capability_args |= served.capability_args
        pairs += [pair for pair in served.cni_args.split(";") if pair and pair not in pairs]
    return ";".join(pairs), capability_args
