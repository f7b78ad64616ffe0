# SPDX-License-Identifier: Apache-2.0
"""
host-local: addresses from ranges, leased in files on this host.

The files are the reference plugin's, so that either can release what the other leased:

    DATADIR/NETWORK/10.1.2.3              the container's ID, CR LF, the interface's name
    DATADIR/NETWORK/last_reserved_ip.0    where the search in the first set of ranges goes on
    DATADIR/NETWORK/lock                  flock(2) for every operation

    DATADIR/NETWORK/.owners/DIGEST.0      ours: a link from an owner to its lease

The links spare us what the reference does at each operation, to read every lease in order to find one
owner's. It does no harm to them: when it releases an address it removes each file whose content is the
owner's, and read through the link that is what the link says, too.
"""

import fcntl
import os

from cnihook.lean.address import Address, IPNet
from cnihook.sdk import DNS, IP, Call, CniError, NetConf, Result, Route, Undo, invalid_config
from cnihook.sdk.call import requested_addresses
from cnihook.spec import version
from cnihook.spec.errors import INTERNAL, PLUGIN_NOT_AVAILABLE, PoolExhausted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

DATA_DIR = "/var/lib/cni/networks"
_LAST_RESERVED = "last_reserved_ip."
_OWNERS = ".owners"


class Range:
    """A stretch of one subnet, first and last address included."""

    def __init__(self, conf: NetConf) -> None:
        subnet = conf.network("subnet")
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
        self.gateway = conf.address("gateway") or subnet.address + 1
        self.start = conf.address("rangeStart") or subnet.address + 1
        last = subnet.last()
        self.end = conf.address("rangeEnd") or (last + -1 if bits == 32 else last)
        if self.start not in subnet:
            raise conf.refuse("rangeStart", f"is wrong: RangeStart {self.start} not in network {subnet}")
        if self.end not in subnet or self.end < self.start:
            raise conf.refuse("rangeEnd", f"is wrong: RangeEnd {self.end} not in network {subnet}")

    def __contains__(self, address: Address) -> bool:
        return len(address) == len(self.start) and self.start <= address <= self.end

    def __str__(self) -> str:
        return f"{self.start}-{self.end}"

    def overlaps(self, other: "Range") -> bool:
        return other.start in self or self.start in other

    def size(self) -> int:
        """How many addresses it can lease: all but the gateway's."""
        count = int.from_bytes(self.end, "big") - int.from_bytes(self.start, "big") + 1
        return count - (self.gateway in self)


class RangeSet:
    """A pool: every set gives a container one address, from whichever of its ranges has one."""

    def __init__(self, index: int, ranges: "list[Range]") -> None:
        self.index = index
        self.ranges = ranges

    def range_of(self, address: Address) -> "Range | None":
        return next((part for part in self.ranges if address in part), None)

    def __str__(self) -> str:
        return ",".join(map(str, self.ranges))

    def candidates(self, last: "Address | None") -> "Iterator[tuple[Address, Range]]":
        """Every address once but the gateways, from the one behind `last` on and round."""
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
    """The plugin's part of the configuration; refused as a whole before anything is leased."""

    def __init__(self, call: Call) -> None:
        if not call.conf.has("ipam"):
            raise invalid_config("IPAM config missing 'ipam' key")
        ipam = call.conf.object("ipam")
        sets = [_ranges(NetConf({"ranges": item}, "runtimeConfig: ipRanges"), index)
                for index, item in enumerate(call.runtime_config.list("ipRanges"))]  # fmt: skip
        if ipam.has("subnet"):
            sets.append([Range(ipam)])
        sets += [_ranges(NetConf({"ranges": item}, f"{ipam.where}: ranges"), index)
                 for index, item in enumerate(ipam.list("ranges"))]  # fmt: skip
        if not sets:
            raise invalid_config(
                f"{ipam.where}: no IP ranges specified", 'ipam takes a "subnet" or "ranges"'
            )
        self.sets = [RangeSet(index, ranges) for index, ranges in enumerate(sets)]
        self._check(call.version)

        self.routes = [Route.from_json(item) for item in ipam.objects("routes")]
        self.resolv_conf = ipam.string("resolvConf")
        self.folder = os.path.join(ipam.string("dataDir") or DATA_DIR, call.network)

    def _check(self, wanted_version: str) -> None:
        for one in self.sets:
            for i, part in enumerate(one.ranges):
                if len(part.start) != len(one.ranges[0].start):
                    raise invalid_config(f"invalid range set {one.index}: mixed address families")
                for other in one.ranges[:i]:
                    if part.overlaps(other):
                        both = f"subnets {other.subnet} and {part.subnet} overlap"
                        raise invalid_config(f"invalid range set {one.index}: {both}")
            for earlier in self.sets[: one.index]:
                if any(a.overlaps(b) for a in one.ranges for b in earlier.ranges):
                    raise invalid_config(f"range set {one.index} overlaps with {earlier.index}")
        if not version.at_least(wanted_version, "0.3.0"):
            families = [one.ranges[0].start.version for one in self.sets]
            if len(families) > len(set(families)):
                raise invalid_config(
                    f"CNI version {wanted_version} does not support more than 1 address per family"
                )

    def dns(self) -> DNS:
        return _read_resolv_conf(self.resolv_conf) if self.resolv_conf else DNS()


def _ranges(conf: NetConf, index: int) -> "list[Range]":
    found = []
    try:
        found = [Range(item) for item in conf.objects("ranges")]
    except CniError as error:
        raise CniError(error.code, f"invalid range set {index}: {error.msg}", error.details) from None
    if not found:
        raise invalid_config(f"{conf.where}: invalid range set {index}: empty range set")
    return found


class Store:
    """The leases of one network, locked for the time of a `with` block."""

    def __init__(self, folder: str, container_id: str, ifname: str) -> None:
        self.folder = folder
        self._container_id = container_id.strip()
        self._owner = f"{self._container_id}\r\n{ifname}"
        self._lock = -1

    def __enter__(self) -> "Store":
        os.makedirs(self.folder, mode=0o755, exist_ok=True)
        self._lock = os.open(f"{self.folder}/lock", os.O_CREAT | os.O_RDONLY | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        return self

    def __exit__(
        self,
        _kind: "type[BaseException] | None",
        _error: "BaseException | None",
        _trace: "TracebackType | None",
    ) -> None:
        os.close(self._lock)

    def reserve(self, address: Address, set_index: int) -> bool:
        """Lease it, unless somebody has it."""
        path = f"{self.folder}/{address}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        try:
            fd = os.open(path, flags, 0o600)
        except FileExistsError:
            # An empty file is what a crash of the machine made of a lease: nobody writes one while we hold
            # the lock.
            if os.stat(path).st_size:
                return False
            fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        with Undo() as undo:
            undo.push(self.release, [address])
            try:
                os.write(fd, self._owner.encode())
            except OSError as error:  # the disk is full: an empty lease would be nobody's
                raise OSError(error.errno, error.strerror, path) from None
            finally:
                os.close(fd)
            self._remember(address)
            last = f"{self.folder}/{_LAST_RESERVED}{set_index}"
            try:
                with open(last, "w", opener=_private) as file:
                    file.write(str(address))
            except OSError as error:
                raise OSError(error.errno, error.strerror, last) from None
        return True

    def last_reserved(self, set_index: int) -> "Address | None":
        try:
            with open(f"{self.folder}/{_LAST_RESERVED}{set_index}") as file:
                return Address.parse(file.read().strip())
        except (OSError, ValueError):
            return None

    def owned(self) -> "list[Address]":
        """The owner's leases: by links; or by a search, if some lease (the reference plugin's) has none."""
        by_link = [name for name in map(_lease_of, self._links()) if self._is_ours(name)]
        if by_link or self._all_have_links():
            return [Address.parse(name) for name in by_link]
        return [address for address, owner in self.leases() if owner in (self._owner, self._container_id)]

    def _all_have_links(self) -> bool:
        try:
            links = len(os.listdir(self._owners))
        except FileNotFoundError:
            links = 0
        names = os.listdir(self.folder)
        own = sum(name in ("lock", _OWNERS) or name.startswith(_LAST_RESERVED) for name in names)
        return len(names) - own <= links

    def leases(self) -> "Iterator[tuple[Address, str]]":
        """(address, content) of every lease.

        A content without a line break is an ID alone, as very old ones are.
        """
        for name in os.listdir(self.folder):
            try:
                address = Address.parse(name)
                with open(f"{self.folder}/{name}", newline="") as file:
                    yield address, file.read().strip()
            except (OSError, ValueError):
                continue  # the lock, a last_reserved_ip, a folder

    def owner_of(self, address: Address) -> str:
        """The ID of the container that has a lease."""
        with open(f"{self.folder}/{address}", newline="") as file:
            return file.read().partition("\r\n")[0].strip()

    def release(self, addresses: "list[Address]") -> None:
        # Links first: a lease without a link is searched for, a link without a lease misleads.
        for link in self._links():
            _unlink(link)
        for address in addresses:
            _unlink(f"{self.folder}/{address}")
        try:
            os.rmdir(self._owners)
        except OSError:
            pass  # others have links in it

    def release_all(self) -> None:
        """Whatever the owner has."""
        owned = self.owned()
        if not self._links():  # then all were read: remove what a crash made of leases, too
            owned += [address for address, owner in self.leases() if not owner]
        self.release(owned)

    @property
    def _owners(self) -> str:
        return f"{self.folder}/{_OWNERS}"

    def _link(self, number: int) -> str:
        from _blake2 import blake2s

        return f"{self._owners}/{blake2s(self._owner.encode(), digest_size=16).hexdigest()}.{number}"

    def _links(self) -> "list[str]":
        found: list[str] = []
        while os.path.islink(link := self._link(len(found))):
            found.append(link)
        return found

    def _remember(self, address: Address) -> None:
        os.makedirs(self._owners, mode=0o755, exist_ok=True)
        os.symlink(f"../{address}", self._link(len(self._links())))

    def _is_ours(self, name: str) -> bool:
        try:
            with open(f"{self.folder}/{name}", newline="") as file:
                return file.read().strip() in (self._owner, self._container_id)
        except OSError:
            return False


def add(call: Call) -> Result:
    conf = Conf(call)
    wanted = _requested(call)
    result = Result(routes=conf.routes, dns=conf.dns())
    got: list[Address] = []
    with Store(conf.folder, call.container_id, call.ifname) as store:
        try:
            for one in conf.sets:
                address, part = _allocate(store, one, wanted, call)
                got.append(address)
                result.ips.append(IP(IPNet(address, part.subnet.prefix), part.gateway))
            if wanted:
                raise CniError(
                    INTERNAL,
                    f"failed to allocate all requested IPs: {' '.join(map(str, wanted))}",
                    f"one address of each range set can be had: {'; '.join(map(str, conf.sets))}",
                )
        except BaseException:
            if got:
                store.release(got)
            raise
    return result


def _requested(call: Call) -> "list[Address]":
    """The addresses asked for, each once.

    CNI_ARGS are passed over where args.cni has them (CONVENTIONS.md).
    """
    texts = call.cni_args.list("ips") or list(filter(None, call.arg("IP").split(",")))
    wanted = requested_addresses([*texts, *call.runtime_config.list("ips")], "requested IPs")
    return list(dict.fromkeys(address for address, _net in wanted))


def _allocate(store: Store, one: RangeSet, wanted: "list[Address]", call: Call) -> "tuple[Address, Range]":
    prefix = f"failed to allocate for range {one.index}: "
    for address in wanted:
        part = one.range_of(address)
        if not part:
            continue
        wanted.remove(address)
        if address == part.gateway:
            raise CniError(INTERNAL, f"{prefix}requested ip {address} is subnet's gateway")
        if not store.reserve(address, one.index):
            raise CniError(
                INTERNAL,
                f"{prefix}requested IP address {address} is not available in range set {one}",
                f"container {store.owner_of(address)} has it; `cnihook gc` takes it back if that is gone",
            )
        return address, part

    for address in store.owned():
        if one.range_of(address):
            raise CniError(
                INTERNAL,
                f"{prefix}{address} has been allocated to {call.container_id},"
                " duplicate allocation is not allowed",
            )
    for address, part in one.candidates(store.last_reserved(one.index)):
        if store.reserve(address, one.index):
            return address, part
    raise PoolExhausted(
        INTERNAL,
        f"{prefix}no IP addresses available in range set: {one}",
        f"leases are the files in {store.folder}; `cnihook gc` releases those of containers that are gone",
    )


def delete(call: Call) -> None:
    """Needs the folder alone: ranges that were edited since, or are wrong by now, are no reason to keep a
    lease.
    """
    folder = os.path.join(call.conf.object("ipam").string("dataDir") or DATA_DIR, call.network)
    if os.path.isdir(folder):
        with Store(folder, call.container_id, call.ifname) as store:
            store.release_all()


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
    if keep is None or not os.path.isdir(conf.folder):
        return
    owners = {f"{container_id}\r\n{ifname}" for container_id, ifname in keep}
    owners |= {container_id for container_id, _ifname in keep}  # as very old leases have it
    with Store(conf.folder, "", "") as store:
        stale = [(address, owner) for address, owner in store.leases() if owner not in owners]
    for address, owner in stale:
        container_id, _, ifname = owner.partition("\r\n")
        with Store(conf.folder, container_id, ifname) as store:
            store.release([address])


def status(call: Call) -> None:
    conf = Conf(call)
    leased: list[Address] = []
    if os.path.isdir(conf.folder):
        with Store(conf.folder, "", "") as store:
            leased = [address for address, _owner in store.leases()]
    for one in conf.sets:
        taken = sum(one.range_of(address) is not None for address in leased)
        if taken >= sum(part.size() for part in one.ranges):
            raise CniError(
                PLUGIN_NOT_AVAILABLE, f"host-local: no IP addresses available in range set: {one}"
            )


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, 0o600)


def _lease_of(link: str) -> str:
    return os.path.basename(os.readlink(link))


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass


def _read_resolv_conf(path: str) -> DNS:
    """resolv.conf(5); lines add up, `#` and `;` start comments."""
    dns = DNS()
    try:
        with open(path, errors="replace") as file:
            lines = file.read().splitlines()
    except OSError as error:
        raise invalid_config(f'ipam: "resolvConf": {path}: {error.strerror}') from None
    for line in lines:
        fields = line.split()
        if not fields or fields[0][0] in "#;":
            continue
        if fields[0] == "nameserver":
            dns.nameservers += fields[1:2]
        elif fields[0] == "domain" and len(fields) > 1:
            dns.domain = fields[1]
        elif fields[0] == "search":
            dns.search += fields[1:]
        elif fields[0] == "options":
            dns.options += fields[1:]
    return dns
