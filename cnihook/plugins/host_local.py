# SPDX-License-Identifier: Apache-2.0
"""
host-local: addresses from ranges, leased in files on this host.

The leases are the reference plugin's files (cnihook.ipam.leases), so each plugin can release what the other
one has leased.
"""

from cnihook.fast.address import Address, IPNet
from cnihook.ipam import leases
from cnihook.ipam.leases import Store
from cnihook.protocol.call import requested_addresses
from cnihook.sdk import DNS, IP, Call, CniError, Field, NetConf, Result, Route, Traits, invalid_config, read
from cnihook.types import fields, versions
from cnihook.types.config import json_name
from cnihook.types.errors import INTERNAL, PLUGIN_NOT_AVAILABLE, PoolExhaustedError, ResourceTakenError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from cnihook.ipam.sticky import Kept

_TRIES = 16  # for the next addresses; a range is nearly full if all of them are leased

_BOUNDS = (
    Field("rangeStart", Address, like="subnet", doc="the first address (default: the first of the subnet)"),
    Field("rangeEnd", Address, like="subnet", doc="the last address (default: the last of the subnet)"),
    Field("gateway", Address, like="subnet", doc="the router (default: the first address of the subnet)"),
)
_RANGE = (Field("subnet", IPNet, required=True, doc="the subnet: 10.1.0.0/16"), *_BOUNDS)
_SETTINGS = (
    Field("routes", list, of=dict, fields=Route.FIELDS, doc="routes of the container"),
    Field("resolvConf", str, doc="a resolv.conf(5) whose content the result has as its DNS"),
    Field("statusWhenFull", bool, doc="STATUS fails while all addresses are leased"),
    Field("dataDir", str, leases.FOLDER, doc="the folder of the leases, by network"),
)
_IPS = Field("ips", list, of=str, doc="requested addresses, at most one of each range set")
FIELDS = (
    Field("subnet", IPNet, doc="the subnet of a single range, which may stand beside `ranges`"),
    *_BOUNDS,
    Field("ranges", list, of=list, fields=_RANGE,
          doc="a list of range sets; a container gets one address of each set"),
    Field("block", str, doc="instead of subnets, this host's part of a network of `cnihook cluster`"),
    *_SETTINGS,
)  # fmt: skip
TRAITS = Traits(
    "ipam",
    takes=("ips", "routes"),
    has_leases=True,
    capabilities=(
        Field("ipRanges", list, of=list, fields=_RANGE, doc="range sets before those of `ranges`"),
        _IPS,
    ),
    args=(_IPS,),
    releases_by_owner=True,
    change=fields.NEW_ONLY,
)


class Range:
    """A range of one subnet, including its first and last address."""

    def __init__(self, conf: NetConf) -> None:
        options = read(conf, _RANGE)
        subnet: IPNet | None = options["subnet"]
        if not subnet:
            raise conf.refuse("subnet", "is missing")
        bits = subnet.address.bits
        if subnet.prefix > bits - 2:
            raise conf.refuse("subnet", f"is wrong: Network {subnet} too small to allocate from")
        if subnet.first() != subnet.address:
            raise conf.refuse(
                "subnet",
                "is wrong: Network has host bits set. For a subnet mask of length "
                f"{subnet.prefix} the network address is {subnet.first()}",
            )
        self.subnet = subnet
        self.gateway: Address = options["gateway"] or subnet.address + 1
        self.start: Address = options["rangeStart"] or subnet.address + 1
        last = subnet.last()
        self.end: Address = options["rangeEnd"] or (last + -1 if bits == 32 else last)
        if self.start not in subnet:
            raise conf.refuse("rangeStart", f"is wrong: RangeStart {self.start} not in network {subnet}")
        if self.end not in subnet:
            raise conf.refuse("rangeEnd", f"is wrong: RangeEnd {self.end} not in network {subnet}")
        if self.end < self.start:
            raise conf.refuse("rangeEnd", f"is wrong: RangeEnd {self.end} is before RangeStart {self.start}")

    def __contains__(self, address: Address) -> bool:
        return len(address) == len(self.start) and self.start <= address <= self.end

    def __str__(self) -> str:
        return f"{self.start}-{self.end}"

    def overlaps(self, other: "Range") -> bool:
        return other.start in self or self.start in other

    def size(self) -> int:
        """Return the number of addresses that it can lease: all but the gateway's."""
        count = int.from_bytes(self.end, "big") - int.from_bytes(self.start, "big") + 1
        return count - (self.gateway in self)


class RangeSet:
    """A pool of ranges: every set gives a container one address, from any of its ranges that has a free one.

    `key` is its place in the configuration; `index` counts the sets of all places, as the reference does.
    """

    def __init__(self, index: int, ranges: "list[Range]", key: str = "") -> None:
        self.key = key
        self.index = index
        self.ranges = ranges

    def range_of(self, address: Address) -> "Range | None":
        return next((part for part in self.ranges if address in part), None)

    def __str__(self) -> str:
        return ",".join(map(str, self.ranges))

    def candidates(self, last: "Address | None") -> "Iterator[tuple[Address, Range]]":
        """Yield every address once, except the gateways, from the one after `last`, with wrap-around."""
        ranges = self.ranges
        first = next((i for i, part in enumerate(ranges) if last is not None and last in part), None)
        if first is None or last is None:
            for part in ranges:
                yield from _stretch(part, part.start, part.end)
            return
        part = ranges[first]
        if last < part.end:
            yield from _stretch(part, last + 1, part.end)
        for other in ranges[first + 1 :] + ranges[:first]:
            yield from _stretch(other, other.start, other.end)
        yield from _stretch(part, part.start, last)


def _stretch(part: Range, start: Address, end: Address) -> "Iterator[tuple[Address, Range]]":
    address = start
    while True:
        if address != part.gateway:
            yield address, part
        if address == end:
            return
        address += 1


class Conf:
    """The plugin's part of the configuration, checked before anything is leased."""

    def __init__(self, call: Call, *, starts: bool = False) -> None:
        if not call.conf.has("ipam"):
            raise invalid_config("IPAM config missing 'ipam' key")
        ipam = call.conf.object("ipam")
        sets = _range_sets(call.runtime_config, "ipRanges")
        if ipam.has("subnet"):
            sets.append(("subnet", [Range(ipam)]))
        sets += _range_sets(ipam, "ranges")
        if ipam.has("block"):
            from cnihook.ipam import block  # few networks have one

            sets = [("block", [Range(conf)]) for conf in block.ranges(ipam, sets, starts=starts)]
        elif not sets:
            raise ipam.refuse(
                "subnet", "is missing: no IP ranges specified", 'ipam takes a "subnet" or "ranges"'
            )
        self.sets = [RangeSet(index, ranges, key) for index, (key, ranges) in enumerate(sets)]
        self._check(call.version, ipam.where)

        options = read(ipam, _SETTINGS)
        self.routes = [Route.from_json(item) for item in options["routes"]]
        self.resolv_conf: str = options["resolvConf"]
        # A runtime may run GC only while STATUS succeeds.  So a full range fails STATUS only if requested.
        self.status_when_full: bool = options["statusWhenFull"]
        self.folder = _folder(call)

    def _check(self, wanted_version: str, where: str) -> None:
        for one in self.sets:
            place = f"{where}: {one.key}: invalid range set {one.index}"
            for i, part in enumerate(one.ranges):
                if len(part.start) != len(one.ranges[0].start):
                    raise invalid_config(f"{place}: mixed address families")
                for other in one.ranges[:i]:
                    if part.overlaps(other):
                        both = f"subnets {other.subnet} and {part.subnet} overlap"
                        raise invalid_config(f"{place}: {both}")
            for earlier in self.sets[: one.index]:
                if any(a.overlaps(b) for a in one.ranges for b in earlier.ranges):
                    both = f"range set {one.index} overlaps with {earlier.index}"
                    raise invalid_config(f"{where}: {one.key}: {both}, which is {earlier.key}")
        if not versions.at_least(wanted_version, "0.3.0"):
            families = [one.ranges[0].start.version for one in self.sets]
            if len(families) > len(set(families)):
                raise invalid_config(
                    f"CNI version {wanted_version} does not support more than 1 address per family"
                )

    def dns(self) -> DNS:
        if not self.resolv_conf:
            return DNS()
        from cnihook.ipam import resolv_conf  # few networks have one

        return resolv_conf.read(self.resolv_conf)


def _range_sets(conf: NetConf, key: str) -> "list[tuple[str, list[Range]]]":
    """Read a list of range sets, each with its place.  A container gets one address of each set."""
    sets = []
    for index, items in enumerate(conf.list(key)):
        place = f"{key}[{index}]"
        if not isinstance(items, list):
            problem = f"must be a list of ranges, not {json_name(items)}"
            raise conf.refuse(place, problem, f'write "{key}": [[{{"subnet": …}}]]')
        if not items:
            raise conf.refuse(place, "is an empty range set")
        sets.append((place, [Range(item) for item in type(conf)({place: items}, conf.where).objects(place)]))
    return sets


def _folder(call: Call) -> str:
    return leases.folder_of(call.network, call.conf.object("ipam").string("dataDir"))


def subnets(call: Call) -> "set[IPNet]":
    """Return the subnets that a configuration names."""
    return {part.subnet for one in Conf(call).sets for part in one.ranges}


def add(call: Call) -> Result:
    conf = Conf(call, starts=True)
    requested = _requested(call)
    result = Result(routes=conf.routes, dns=conf.dns())
    leased: list[str] = []
    with Store(conf.folder, call.container_id, call.ifname) as store:
        owned = store.owned()
        kept = _kept(call, store)
        try:
            for one in conf.sets:
                address, part = _allocate(store, one, requested, owned, kept, call)
                leased.append(str(address))
                result.ips.append(IP(IPNet(address, part.subnet.prefix), part.gateway))
            if requested:
                raise CniError(
                    INTERNAL,
                    f"failed to allocate all requested IPs: {' '.join(map(str, requested))}",
                    f"each range set gives one address: {'; '.join(map(str, conf.sets))}",
                )
        except BaseException:
            if kept:
                kept.take_back()
            if leased:
                store.release(leased)
            raise
        if kept:
            kept.release_rest()
    return result


def _kept(call: Call, store: Store) -> "Kept | None":
    """Return what is kept for the sticky name of the container; None if it has no sticky name."""
    if leases.STICKY not in call.request.args:
        return None
    from cnihook.ipam.sticky import Kept  # few containers have one

    return Kept(call.arg(leases.STICKY), store, leases.owner(call.container_id, call.ifname))


def _requested(call: Call) -> "list[Address]":
    """Return the requested addresses, each once.

    Those of CNI_ARGS are ignored if args.cni has some (CONVENTIONS.md).
    """
    texts = call.cni_args.list("ips")
    arguments = [] if texts else list(filter(None, call.arg("IP").split(",")))
    addresses = [
        *requested_addresses(texts, "args.cni.ips"),
        *requested_addresses(arguments, "CNI_ARGS: IP"),
        *requested_addresses(call.runtime_config.list("ips"), "runtimeConfig.ips"),
    ]
    return list(dict.fromkeys(address for address, _net in addresses))


def _allocate(
    store: Store,
    one: RangeSet,
    wanted: "list[Address]",
    owned: "list[Address]",
    kept: "Kept | None",
    call: Call,
) -> "tuple[Address, Range]":
    prefix = f"failed to allocate for range {one.index}: "
    for address in wanted:
        part = one.range_of(address)
        if not part:
            continue
        wanted.remove(address)
        if address == part.gateway:
            raise CniError(INTERNAL, f"{prefix}requested ip {address} is subnet's gateway")
        if not (kept and kept.take(address)) and not store.reserve(address, one.index):
            msg = f"{prefix}requested IP address {address} is not available in range set {one}"
            raise ResourceTakenError(INTERNAL, msg, _hint_if_taken(store, address, call))
        return address, part

    for address in owned:
        if one.range_of(address):
            raise CniError(
                INTERNAL,
                f"{prefix}{address} has been allocated to {call.container_id},"
                " duplicate allocation is not allowed",
            )
    for address in kept.addresses if kept else ():
        part = one.range_of(address)
        if part and address != part.gateway and kept and kept.take(address):
            return address, part
    tries = 0
    names: set[str] = set()  # of the leases, after some tries
    for address, part in one.candidates(store.last_reserved(one.index)):
        if names and str(address) in names:
            continue
        if store.reserve(address, one.index):
            return address, part
        tries += 1
        if tries == _TRIES:
            names = store.names()  # 0.3 ms with 1,000 leases; a try for a leased address costs 0.006
    raise PoolExhaustedError(
        INTERNAL,
        f"{prefix}no IP addresses available in range set: {one}",
        f"leases are the files in {store.folder}; {_hint_to_collect(call)}",
    )


def _hint_if_taken(store: Store, address: Address, call: Call) -> str:
    container_id = store.owner_of(address)
    if container_id.startswith(leases.STICKY_OWNER):
        name = container_id.removeprefix(leases.STICKY_OWNER)
        return f"it is kept for the sticky name {name}; `cnihook sticky rm {name}` releases it"
    if container_id:
        return f"container {container_id} has it; if that is gone, {_hint_to_collect(call)}"
    path = f"{store.folder}/{address}"
    return f"{path} is not a lease; {_hint_to_collect(call)}, or remove it with `rm -r {path}`"


def _hint_to_collect(call: Call) -> str:
    """Return the command that releases stale leases.  Before 1.1.0, plugins have no GC (SPEC.md, "GC")."""
    from cnihook.ipam import sticky  # for an error only

    kept = "; `cnihook sticky ls` shows addresses that are kept" if sticky.names() else ""
    command = f"`cnihook gc {call.network}` releases the leases of containers that are gone"
    if versions.at_least(call.version, versions.SINCE["GC"]):
        return f"{command}{kept}"
    return f"{command} and on record; `cnihook doctor` names the others{kept}"


def delete(call: Call) -> None:
    """Release the leases.  Only the folder is read, because the ranges may be wrong, or edited since."""
    folder = _folder(call)
    if leases.exists(folder):
        with Store(folder, call.container_id, call.ifname) as store:
            (_kept(call, store) or store).release()


def check(call: Call) -> None:
    conf = Conf(call)
    with Store(conf.folder, call.container_id, call.ifname) as store:
        owned = store.owned()
    if not owned:
        raise CniError(
            INTERNAL, f"host-local: Failed to find address added by container {call.container_id}"
        )
    for ip in call.prev_result.ips if call.prev_result else ():
        address = ip.net.address
        if address not in owned and any(one.range_of(address) for one in conf.sets):
            raise CniError(INTERNAL, f"host-local: {address} is not leased to container {call.container_id}")


def gc(call: Call) -> None:
    conf = Conf(call)
    keep = call.valid_attachments()
    if keep is None or not leases.exists(conf.folder):
        return
    from cnihook.ipam import sticky  # not at the top: a start does not need it

    owners = {leases.owner(container_id, ifname) for container_id, ifname in keep}
    owners |= {container_id.encode() for container_id, _ifname in keep}  # very old leases have only this
    owners |= sticky.owners()
    with Store(conf.folder) as store:
        store.release_others(owners)


def status(call: Call) -> None:
    conf = Conf(call, starts=True)
    if not conf.status_when_full:
        return
    leased = leases.addresses(conf.folder)
    for one in conf.sets:
        count = sum(one.range_of(address) is not None for address in leased)
        if count >= sum(part.size() for part in one.ranges):
            raise CniError(
                PLUGIN_NOT_AVAILABLE, f"host-local: no IP addresses available in range set: {one}"
            )
