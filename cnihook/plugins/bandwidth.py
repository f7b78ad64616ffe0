# SPDX-License-Identifier: Apache-2.0
"""
bandwidth: limits on what the container's interface receives (ingress) and on what it sends (egress).

It follows another plugin in a chain.  A link delays what it sends, by a token bucket filter (tbf).  It
cannot delay what it receives.  So that is redirected through an ifb, a link with such a filter and no other
use, which returns it as if it had just been received.

Of a veth pair, the host's end has both limits, where the container cannot change them:

    to the container      tbf on VETH
    from the container    what VETH receives is redirected to IFB; tbf on IFB

An interface of another kind has no end on the host.  Its limits are in the container's namespace, on the
interface itself, so the directions are exchanged.  A process with CAP_NET_ADMIN there can remove such a
limit.
"""

import errno
import sys

from cnihook.fast.address import IPNet, mac_bytes
from cnihook.links import veth
from cnihook.linux import tc
from cnihook.linux.netlink import NetlinkError, attr, u32
from cnihook.linux.rtnl import IFLA_ADDRESS, IFLA_MTU, IFLA_TXQLEN, Link, Rtnl
from cnihook.log import notice
from cnihook.sdk import Call, CniError, Field, Interface, NetConf, Result, Traits, Undo, read, try_each
from cnihook.types import versions
from cnihook.types.errors import INTERNAL

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from cnihook.linux.htb import Choice

VERSIONS = versions.ALL[2:]  # the results of older versions do not name the link to limit

_LATENCY = 25_000  # microseconds that a packet may wait
_MAX_RATE = (1 << 64) - 1
_MAX_BURST = 0xFFFFFFFF * 8 - 1  # bits; the kernel counts bytes
# Kubernetes has no option for the burst, so its runtimes pass the largest number of a type: cri-dockerd,
# containerd, CRI-O, older CRI-O.  With that of containerd, 537 MB would pass before the limit takes effect.
_NO_BURST = ((1 << 31) - 1, (1 << 32) - 1, _MAX_BURST, _MAX_BURST + 1)
_HEADER = 14  # bytes of Ethernet, on top of a link's MTU
_SUBNETS = ("unshapedSubnets", "shapedSubnets")
_RATES = (
    Field(
        "ingressRate", int, 0, high=_MAX_RATE, doc="bits per second that the container receives; 0: no limit"
    ),
    Field("ingressBurst", int, 0, high=_MAX_RATE, doc="bits that may pass at once above that rate"),
    Field("egressRate", int, 0, high=_MAX_RATE, doc="bits per second that the container sends; 0: no limit"),
    Field("egressBurst", int, 0, high=_MAX_RATE, doc="bits that may pass at once above that rate"),
)
FIELDS = (
    *_RATES,
    Field("unshapedSubnets", list, of=IPNet, needs="htb", doc="traffic with these subnets has no limit"),
    Field("shapedSubnets", list, of=IPNet, needs="htb", doc="only traffic with these subnets is limited"),
)
TRAITS = Traits(
    "chained",
    makes=("ifb",),
    needs=("tbf",),
    capabilities=(Field("bandwidth", dict, fields=FIELDS, doc="limits, if the network has none"),),
    releases_by_owner=True,
)


class Conf:
    """The limits; None: no limit.  Those of the network come before those that the runtime requests."""

    def __init__(self, call: Call) -> None:
        conf, asked = call.conf, call.runtime_config.object("bandwidth")
        limits = conf if any(conf.has(field.name) for field in _RATES) else asked
        subnets = conf if any(conf.strings(key) for key in _SUBNETS) else asked
        rates = read(limits, _RATES)
        for name in ("ingress", "egress"):
            if limits is asked and rates[f"{name}Rate"] and rates[f"{name}Burst"] in _NO_BURST:
                rates[f"{name}Burst"] = tc.default_burst(rates[f"{name}Rate"])
        self.ingress = _limit(limits, rates, subnets, "ingress")
        self.egress = _limit(limits, rates, subnets, "egress")


class Limit:
    """A limit on the traffic in one direction: on all of it, or on what `choice` selects."""

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
        """Raise CniError if the link does not have this limit."""
        if self.choice:
            from cnihook.linux import htb

            difference = htb.difference(rtnl, link, self.tbf, self.choice)
        else:
            difference = tc.difference(rtnl, link, self.tbf)
        if difference:
            raise CniError(INTERNAL, f"{link.name}: {difference}")


def _names_subnets(call: Call) -> bool:
    places = (call.conf, call.runtime_config.object("bandwidth"))
    return any(conf.strings(key) for conf in places for key in _SUBNETS)


def _choice(conf: NetConf, direction: str) -> "Choice | None":
    """Read unshapedSubnets and shapedSubnets; both name machines with which the container communicates."""
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


def _limit(conf: NetConf, rates: "dict[str, Any]", subnets: NetConf, direction: str) -> "Limit | None":
    choice = _choice(subnets, direction)
    rate_key, burst_key = f"{direction}Rate", f"{direction}Burst"
    rate, burst = rates[rate_key], rates[burst_key]
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
    """The link that is limited.  `sent`: the limit of the link itself; `received`: that of its ifb."""

    def __init__(self, call: Call, conf: Conf, result: Result) -> None:
        if not result.interfaces:
            raise CniError(INTERNAL, "no interfaces provided", "prevResult names no interface to limit")
        inner = call.sandbox.find_link(call.ifname)
        if not inner:
            raise CniError(INTERNAL, f"{call.ifname} of container {call.container_id} does not exist")
        if inner.kind == "veth":
            # A tbf on the container's end would need no ifb, and save DEL a wait of 20 ms.  But the
            # container could remove it.
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
    """Return two names for the ifb: the reference's, so that its DEL finds it, and the attachment's own.

    The reference has the same name for two attachments of a container to one network.
    """
    # The module that hashlib uses; to import hashlib itself takes 2.5 ms.
    module = __import__("_sha2" if sys.version_info >= (3, 12) else "_sha512")
    digest = module.sha512(f"{call.network}{call.container_id}".encode()).hexdigest()
    return f"bwp{digest[:12]}", f"bwp{_digest(call).hex()}"


def _mac(call: Call) -> str:
    """Return the MAC address that identifies the ifb.  Unlike an alias, it is set at creation."""
    return f"02:{_digest(call)[:5].hex(':')}"


def _digest(call: Call) -> bytes:
    from _blake2 import blake2s

    return blake2s(call.owner.encode(), digest_size=6).digest()


def _add_ifb(call: Call, place: Place) -> Link:
    rtnl, mac = place.rtnl, _mac(call)
    name, other_name = _names(call)
    existing = rtnl.find_link(name)
    if existing and existing.mac != mac:
        name = other_name
    attrs = [u32(IFLA_MTU, place.link.mtu), attr(IFLA_ADDRESS, mac_bytes(mac))]
    if place.received and place.received.choice:
        from cnihook.linux import htb

        attrs.append(u32(IFLA_TXQLEN, htb.QUEUE))  # the kernel gives an ifb 32, too few for an htb
    rtnl.add_link("ifb", name, *attrs)
    return rtnl.link(name)


def _own_ifbs(call: Call, rtnl: Rtnl, targets: "set[int] | None") -> "list[Link]":
    """Return this attachment's ifbs.

    `targets`: the links to which the limited link redirects what it receives; None if that link is gone.
    """
    links = [link for name in _names(call) if (link := rtnl.find_link(name)) and link.kind == "ifb"]
    return [link for link in links if link.mac == _mac(call) or _is_the_references(call, link, targets)]


def _is_the_references(call: Call, link: Link, targets: "set[int] | None") -> bool:
    """Return True if the reference made the ifb for this attachment.

    By its name, it could belong to another interface of the container on the same network.
    """
    if link.alias or not link.is_up:  # this plugin made it, or is about to finish it
        return False
    listed = _listed(call)
    if listed is not None:
        return link.name in listed
    return targets is None or link.index in targets


def _listed(call: Call) -> "set[str] | None":
    """Return the interfaces that prevResult names; None if prevResult is missing or malformed."""
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
    for tbf in [limit.tbf for limit in (conf.ingress, conf.egress) if limit]:
        if tbf.burst < place.link.mtu + _HEADER:
            notice(
                f"bandwidth: no full packet of {place.link.name} can pass: it has "
                f"{place.link.mtu + _HEADER} bytes, and the burst is {tbf.burst} bytes"
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
    """Remove what an ADD left behind that was killed half-way, then set the limits."""
    _take_back(call, place.rtnl, place.link)
    try:
        return _set(call, place)
    except NetlinkError as error:
        if error.errno != errno.EEXIST:
            raise
        name = place.link.name
        raise CniError(
            INTERNAL,
            f"{error.filename}: {name} has a qdisc already, which another program made",
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
        # What a container does to its own links must not prevent the DEL of the chain's other plugins.
        notice(f"bandwidth: {call.ifname} of container {call.container_id}: {error}")


def _take_back(call: Call, rtnl: Rtnl, link: "Link | None") -> None:
    """Remove what belongs to this attachment.  A qdisc of another program stays."""
    targets = tc.ingress_targets(rtnl, link) if link else None
    ifbs = _own_ifbs(call, rtnl, targets)

    def unlimit() -> None:
        if link and targets is not None:
            if not targets or targets & {0, *(ifb.index for ifb in ifbs)}:
                tc.delete_ingress(rtnl, link)  # before the ifb: what is sent to a missing ifb is lost
            if not tc.delete_tbf(rtnl, link) and _names_subnets(call):
                from cnihook.linux import htb

                htb.delete(rtnl, link)

    def delete_ifbs() -> None:
        for ifb in ifbs:
            call.remove_link(rtnl, ifb)

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
            raise CniError(INTERNAL, f"{where}: {_names(call)[0]}, which must limit it, is gone")
        ifb = ifbs[0]
        if not ifb.is_up:
            raise CniError(INTERNAL, f"{ifb.name} is down")
        if ifb.index not in targets:
            raise CniError(INTERNAL, f"what {place.link.name} receives is not redirected to {ifb.name}")
        place.received.check(place.rtnl, ifb)


def repair(call: Call) -> None:
    """Run ADD: it takes over what remains of an earlier ADD."""
    add(call)


def gc(call: Call) -> None:
    """Remove the ifbs of every owner on this network that is not a valid attachment.

    The kernel removes a qdisc with its link, and an ifb in a container with the container.
    """
    keep = call.valid_attachments()
    if keep is None:
        return
    owners = {call.owner_of(container_id, ifname) for container_id, ifname in keep}
    for link in call.host.links():
        if link.kind == "ifb" and link.alias.startswith(call.owner_prefix) and link.alias not in owners:
            call.host.delete_link(link)
