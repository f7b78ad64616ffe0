# SPDX-License-Identifier: Apache-2.0
"""
bandwidth: limits on what the container's interface receives (ingress) and on what it sends (egress).

It follows another plugin in a chain.  A link delays what it sends, by a token bucket filter (tbf).  It has
no way to delay what it receives; so that is led through an ifb, a link with such a filter and with no
other use, which gives it back as if it had just been received.

Of a veth pair, the host's end bears both, out of the container's reach:

    to the container      tbf on VETH
    from the container    what VETH receives is led to IFB; tbf on IFB

An interface of another kind has no end on the host.  There all of it is in the container's namespace, on the
interface itself, and so the other way round.  Who has CAP_NET_ADMIN in there can lift such a limit.
"""

import errno
import sys

from cnihook.lean.address import IPNet
from cnihook.linux import tc
from cnihook.linux.netlink import NetlinkError, attr, u32
from cnihook.linux.rtnl import IFLA_ADDRESS, IFLA_MTU, IFLA_TXQLEN, Link, Rtnl, mac_bytes
from cnihook.log import notice
from cnihook.sdk import Call, CniError, Interface, NetConf, Result, Undo, try_each, veth
from cnihook.spec import version
from cnihook.spec.errors import INTERNAL

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cnihook.linux.htb import Choice

VERSIONS = version.ALL[2:]  # the results of older ones do not name the link that is to be limited

_LATENCY = 25_000  # microseconds that a packet may wait for
_MAX_RATE = (1 << 64) - 1
_MAX_BURST = 0xFFFFFFFF * 8 - 1  # bits, of which the kernel counts the bytes
_HEADER = 14  # bytes of Ethernet, on top of a link's MTU
_SUBNETS = ("unshapedSubnets", "shapedSubnets")
_KEYS = ("ingressRate", "ingressBurst", "egressRate", "egressBurst")


class Conf:
    """The limits, None where there is none.  What the network says goes before what the runtime asks for."""

    def __init__(self, call: Call) -> None:
        conf, asked = call.conf, call.runtime_config.object("bandwidth")
        limits = conf if any(conf.has(key) for key in _KEYS) else asked
        subnets = conf if any(conf.strings(key) for key in _SUBNETS) else asked
        self.ingress = _limit(limits, subnets, "ingress")
        self.egress = _limit(limits, subnets, "egress")


class Limit:
    """A limit, on all traffic in one direction or on what `choice` chooses."""

    def __init__(self, tbf: tc.Tbf, choice: "Choice | None") -> None:
        self.tbf = tbf
        self.choice = choice

    def add(self, rtnl: Rtnl, link: Link) -> None:
        if not self.choice:
            tc.add_tbf(rtnl, link, self.tbf)
            return
        from cnihook.linux import htb  # few networks name subnets

        htb.add(rtnl, link, self.tbf, self.choice)

    def check(self, rtnl: Rtnl, link: Link) -> None:
        """Raise CniError if the link does not have it."""
        if not self.choice:
            _check_tbf(rtnl, link, self.tbf)
            return
        from cnihook.linux import htb

        if difference := htb.difference(rtnl, link, self.tbf, self.choice):
            raise CniError(INTERNAL, f"{link.name}: {difference}")


def _names_subnets(call: Call) -> bool:
    places = (call.conf, call.runtime_config.object("bandwidth"))
    return any(conf.strings(key) for conf in places for key in _SUBNETS)


def _choice(conf: NetConf, direction: str) -> "Choice | None":
    """Read unshapedSubnets and shapedSubnets; both are about the machines that the container talks to."""
    named = [key for key in _SUBNETS if conf.strings(key)]
    if not named:
        return None
    if len(named) > 1:
        raise conf.refuse(named[1], f"cannot be set together with {named[0]}", "remove one of them")
    from cnihook.linux import htb

    subnets = []
    for index, value in enumerate(conf.strings(named[0])):
        try:
            subnets.append(IPNet.parse(value))
        except ValueError as error:
            raise conf.refuse(f"{named[0]}[{index}]", f"is wrong: bad subnet: {error}") from None
    return htb.Choice(subnets, limited=named[0] == "shapedSubnets", by_source=direction == "ingress")


def _limit(conf: NetConf, subnets: NetConf, direction: str) -> "Limit | None":
    choice = _choice(subnets, direction)
    rate_key, burst_key = f"{direction}Rate", f"{direction}Burst"
    rate = conf.integer(rate_key, default=0, low=0, high=_MAX_RATE)
    burst = conf.integer(burst_key, default=0, low=0, high=_MAX_RATE)
    if not rate and not burst:
        return None
    if not burst:
        raise conf.refuse(burst_key, "is missing: if rate is set, burst must also be set")
    if not rate:
        raise conf.refuse(rate_key, "is missing: if burst is set, rate must also be set")
    if burst > _MAX_BURST:
        raise conf.refuse(burst_key, "is wrong: burst cannot be more than 4GB", f"it is {burst} bits")
    for key, bits in ((rate_key, rate), (burst_key, burst)):
        if bits < 8:
            raise conf.refuse(key, f"is wrong: {bits} bits are less than a byte")
    return Limit(tc.Tbf.of(rate // 8, burst // 8, _LATENCY), choice)


def _required_result(call: Call) -> Result:
    result = call.prev_result
    if result is None:
        raise CniError(INTERNAL, "must be called as chained plugin", "prevResult is missing")
    return result


class Place:
    """Where the limits are: `sent` is that of the link itself, `received` that of the ifb."""

    def __init__(self, call: Call, conf: Conf, result: Result) -> None:
        if not result.interfaces:
            raise CniError(INTERNAL, "no interfaces provided", "prevResult names none that could be limited")
        inner = call.sandbox.find_link(call.ifname)
        if not inner:
            raise CniError(INTERNAL, f"{call.ifname} of container {call.container_id} does not exist")
        if inner.kind == "veth":
            # A tbf on the container's end would spare us the ifb, and DEL a wait of 20 ms; but the container
            # could lift it.
            self.rtnl, self.link, self.netns = call.host, veth.check_host_end(call, inner), ""
            self.sent, self.received = conf.ingress, conf.egress
            if not any(i.name == self.link.name and not i.sandbox for i in result.interfaces):
                raise CniError(
                    INTERNAL,
                    "no veth peer of container interface found in host ns",
                    f"it is {self.link.name}, which prevResult does not name",
                )
        else:
            self.rtnl, self.link, self.netns = call.sandbox, inner, call.netns
            self.sent, self.received = conf.egress, conf.ingress


# The ifb


def _names(call: Call) -> "tuple[str, str]":
    """The name that the reference has for it, so that its DEL finds ours; and one that is not the same for
    two attachments of a container to a network.
    """
    # Where hashlib has it from, which itself takes 2.5 ms to import.
    module = __import__("_sha2" if sys.version_info >= (3, 12) else "_sha512")
    digest = module.sha512(f"{call.network}{call.container_id}".encode()).hexdigest()
    return f"bwp{digest[:12]}", f"bwp{_digest(call).hex()}"


def _mac(call: Call) -> str:
    """A MAC address to know our ifb by.  Unlike an alias it is set in the moment of creation."""
    return f"02:{_digest(call)[:5].hex(':')}"


def _digest(call: Call) -> bytes:
    from _blake2 import blake2s

    return blake2s(call.owner.encode(), digest_size=6).digest()


def _add_ifb(call: Call, place: Place) -> Link:
    rtnl, mac = place.rtnl, _mac(call)
    name, other_name = _names(call)
    taken = rtnl.find_link(name)
    if taken and taken.mac != mac:
        name = other_name
    attrs = [u32(IFLA_MTU, place.link.mtu), attr(IFLA_ADDRESS, mac_bytes(mac))]
    if place.received and place.received.choice:
        from cnihook.linux import htb

        attrs.append(u32(IFLA_TXQLEN, htb.QUEUE))  # the kernel gives an ifb 32, too few for an htb
    rtnl.add_link("ifb", name, *attrs)
    return rtnl.link(name)


def _own_ifbs(call: Call, rtnl: Rtnl, targets: "set[int] | None") -> "list[Link]":
    """This attachment's.  `targets`: where what the limited link receives is led; None if that is gone."""
    links = [link for name in _names(call) if (link := rtnl.find_link(name)) and link.kind == "ifb"]
    return [link for link in links if link.mac == _mac(call) or _is_the_references(call, link, targets)]


def _is_the_references(call: Call, link: Link, targets: "set[int] | None") -> bool:
    """Whether it is the one that the reference made for this attachment: by its name it could be that of
    another interface of the container, on the same network.
    """
    if link.alias or not link.is_up:  # ours, or about to be
        return False
    listed = _listed(call)
    if listed is not None:
        return link.name in listed
    return targets is None or link.index in targets


def _listed(call: Call) -> "set[str] | None":
    """The interfaces that prevResult names; None if there is none, or none that could be read."""
    try:
        result = call.prev_result
    except CniError:
        return None
    return {interface.name for interface in result.interfaces} if result else None


# ADD


def add(call: Call) -> Result:
    conf = Conf(call)
    result = _required_result(call)
    if not (conf.ingress or conf.egress):
        return result
    place = Place(call, conf, result)
    with Undo() as undo:
        undo.push(_take_back, call, place.rtnl, place.link)
        try:
            ifb = _set(call, place)
        except NetlinkError as error:
            if error.errno != errno.EEXIST:
                raise
            ifb = _set_again(call, place)
    if ifb:
        result.interfaces.append(Interface(ifb.name, ifb.mac, place.netns))
    for limit in filter(None, (conf.ingress, conf.egress)):
        tbf = limit.tbf
        if tbf.burst < place.link.mtu + _HEADER:
            notice(
                f"bandwidth: a burst of {tbf.burst} bytes lets no full packet of {place.link.name} pass, "
                f"which has {place.link.mtu + _HEADER}"
            )
    return result


def _set(call: Call, place: Place) -> "Link | None":
    if place.sent:
        place.sent.add(place.rtnl, place.link)
    if not place.received:
        return None
    ifb = _add_ifb(call, place)
    place.received.add(place.rtnl, ifb)
    place.rtnl.set_link(ifb, up=True, alias=call.owner)
    tc.redirect_ingress(place.rtnl, place.link, ifb)
    return ifb


def _set_again(call: Call, place: Place) -> "Link | None":
    """Once what is there of an ADD is gone, which was killed half-way."""
    _take_back(call, place.rtnl, place.link)
    try:
        return _set(call, place)
    except NetlinkError as error:
        if error.errno != errno.EEXIST:
            raise
        name = place.link.name
        raise CniError(
            INTERNAL,
            f"{error.filename}: {name} has a qdisc already, which is not ours",
            f"`tc qdisc show dev {name}` shows it",
        ) from None


# DEL


def delete(call: Call) -> None:
    try:
        outer = veth.find_host_end(call)
    except CniError:
        outer = None  # it was not found by its name, and prevResult cannot be read
    try_each(
        lambda: _take_back(call, call.host, outer),
        lambda: _take_back_inside(call) if not outer else None,
    )


def _take_back_inside(call: Call) -> None:
    sandbox = call.sandbox_if_alive()
    inner = sandbox.find_link(call.ifname) if sandbox else None
    if not sandbox or (inner and inner.kind == "veth"):
        return
    try:
        _take_back(call, sandbox, inner)
    except OSError as error:
        # What a container does to its own links must not keep the other plugins of the chain from their DEL.
        notice(f"bandwidth: {call.ifname} of container {call.container_id}: {error}")


def _take_back(call: Call, rtnl: Rtnl, link: "Link | None") -> None:
    """What is this attachment's, and that alone: a qdisc of somebody else stays."""
    targets = tc.ingress_targets(rtnl, link) if link else None
    ifbs = _own_ifbs(call, rtnl, targets)

    def unlimit() -> None:
        if link and targets is not None:
            if not targets or targets & {0, *(ifb.index for ifb in ifbs)}:
                tc.delete_ingress(rtnl, link)  # before the ifb: what is led to one that is gone, is lost
            if not tc.delete_tbf(rtnl, link) and _names_subnets(call):
                from cnihook.linux import htb

                htb.delete(rtnl, link)

    def delete_ifbs() -> None:
        for ifb in ifbs:
            rtnl.delete_link(ifb)

    try_each(unlimit, delete_ifbs)


# CHECK, GC


def check(call: Call) -> None:
    conf = Conf(call)
    result = _required_result(call)
    if not (conf.ingress or conf.egress):
        return
    place = Place(call, conf, result)
    if place.sent:
        place.sent.check(place.rtnl, place.link)
    if place.received:
        targets = tc.ingress_targets(place.rtnl, place.link)
        ifbs = _own_ifbs(call, place.rtnl, targets)
        if not ifbs:
            where = f"{call.ifname} of container {call.container_id}"
            raise CniError(INTERNAL, f"{where}: {_names(call)[0]}, which is to limit it, is gone")
        ifb = ifbs[0]
        if not ifb.is_up:
            raise CniError(INTERNAL, f"{ifb.name} is down")
        if ifb.index not in targets:
            raise CniError(INTERNAL, f"what {place.link.name} receives is not led to {ifb.name}")
        place.received.check(place.rtnl, ifb)


def _check_tbf(rtnl: Rtnl, link: Link, wanted: tc.Tbf) -> None:
    found = tc.find_tbf(rtnl, link)
    if not found:
        raise CniError(INTERNAL, f"{link.name} has no limit")
    for what, one, other in (
        ("rate", found.rate, wanted.rate),
        ("limit", found.limit, wanted.limit),
        ("buffer", found.buffer, wanted.buffer),
    ):
        if one != other and other is not None:
            raise CniError(INTERNAL, f"{link.name}: the tbf has {what} {one}, not {other}")


def repair(call: Call) -> None:
    """An ADD takes what is left of an earlier one for its own."""
    add(call)


def gc(call: Call) -> None:
    """Remove the ifbs of every owner on this network that is not on the keep-list.

    A qdisc goes with its link, and an ifb in a container with the container.
    """
    keep = call.valid_attachments()
    if keep is None:
        return
    owners = {call.owner_of(container_id, ifname) for container_id, ifname in keep}
    for link in call.host.links():
        if link.kind == "ifb" and link.alias.startswith(call.owner_prefix) and link.alias not in owners:
            call.host.delete_link(link)
