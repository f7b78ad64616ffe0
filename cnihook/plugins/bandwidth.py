# SPDX-License-Identifier: Apache-2.0
"""
bandwidth: limits on what the container's interface receives (ingress) and on what it sends (egress), an
emulated bad network in either direction, and quotas of bytes.

It follows another plugin in a chain.  A link limits and delays what it sends, by a token bucket filter (tbf)
and by netem.  It cannot delay what it receives.  So that is redirected through an ifb: see links.ifb.

Of a veth pair, the host's end has both directions, where the container cannot change them:

    to the container      tbf, netem on VETH
    from the container    what VETH receives is redirected to IFB; tbf, netem on IFB

An interface of another kind has no end on the host.  Its limits are in the container's namespace, on the
interface itself, so the directions are exchanged.  A process with CAP_NET_ADMIN there can remove such a
limit.
"""

import errno
import os

from cnihook.links import ifb, shaping, veth
from cnihook.links.shaping import EMULATED, FIELDS, Conf
from cnihook.linux import tc
from cnihook.linux.netlink import NetlinkError
from cnihook.linux.rtnl import Link, Rtnl
from cnihook.log import notice
from cnihook.sdk import Call, CniError, Field, Interface, Result, Traits, Undo, try_each
from cnihook.types import versions
from cnihook.types.errors import INTERNAL

VERSIONS = versions.ALL[2:]  # the results of older versions do not name the link to limit

_HEADER = 14  # bytes of Ethernet, on top of a link's MTU
_QUOTAS = "/run/cnihook/quota"  # of nftables.quota, which is not imported just to look for a folder
_QUOTA = (
    Field("egress", int, 0, doc="bytes that the container may send; 0: no limit"),
    Field("ingress", int, 0, doc="bytes that the container may receive; 0: no limit"),
    Field("total", int, 0, doc="bytes that it may send and receive; 0: no limit"),
    Field("since", int, 0, doc="any number; when it changes, the count begins with 0"),
)
TRAITS = Traits(
    "chained",
    makes=("ifb",),
    needs=("tbf",),
    capabilities=(
        Field("bandwidth", dict, fields=FIELDS, doc="limits, if the network has none"),
        Field("emulate", dict, fields=EMULATED, needs="netem", doc="a bad network to emulate"),
        Field("quota", dict, fields=_QUOTA, needs="nftables", doc="bytes until the container is cut off"),
    ),
    releases_by_owner=True,
)


def _required_result(call: Call) -> Result:
    result = call.prev_result
    if result is None:
        raise CniError(INTERNAL, "must be called as chained plugin", "prevResult is missing")
    return result


class Place:
    """The link that has the limits.  `sent`: the shape of the link itself; `received`: that of its ifb."""

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


def _has_quota(call: Call) -> bool:
    return bool(call.runtime_config.object("quota").raw)


# ADD


def add(call: Call) -> Result:
    conf = Conf(call)
    result = _required_result(call)
    with Undo() as undo:
        if _has_quota(call):
            from cnihook.nftables import quota  # few containers have one

            undo.push(quota.delete, call, result)
            quota.add(call, result)
        if conf.ingress or conf.egress:
            _limit(call, conf, result, undo)
    return result


def _limit(call: Call, conf: Conf, result: Result, undo: Undo) -> None:
    place = Place(call, conf, result)
    conf.require_kernel(place.rtnl)
    undo.push(_take_back, call, place.rtnl, place.link)
    try:
        own_ifb = _set(call, place)
    except NetlinkError as error:
        if error.errno != errno.EEXIST:
            raise
        own_ifb = _set_again(call, place)
    if own_ifb:
        result.interfaces.append(Interface(own_ifb.name, own_ifb.mac, place.netns))
    _report_small_bursts(conf, place)


def _report_small_bursts(conf: Conf, place: Place) -> None:
    for tbf in filter(None, (conf.ingress.limit, conf.egress.limit)):
        if tbf.burst < place.link.mtu + _HEADER:
            notice(
                f"bandwidth: no full packet of {place.link.name} can pass: it has "
                f"{place.link.mtu + _HEADER} bytes, and the burst is {tbf.burst} bytes"
            )


def _set(call: Call, place: Place) -> "Link | None":
    if place.sent:
        place.sent.add(place.rtnl, place.link)
    return _add_ifb(call, place) if place.received else None


def _add_ifb(call: Call, place: Place) -> Link:
    queue = 0
    if place.received.choice:
        from cnihook.linux import htb

        queue = htb.QUEUE  # the kernel gives an ifb 32, too few for an htb
    own_ifb = ifb.add(call, place.rtnl, place.link, queue)
    place.received.add(place.rtnl, own_ifb)
    place.rtnl.set_link(own_ifb, up=True, alias=call.owner)
    tc.redirect_ingress(place.rtnl, place.link, own_ifb)
    return own_ifb


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
        lambda: _delete_quota(call),
        lambda: _take_back(call, call.host, outer),
        lambda: _take_back_inside(call) if not outer else None,
    )


def _delete_quota(call: Call) -> None:
    """Remove the quota, if it has one, or if a record was lost which would show that it has one."""
    result = call.prev_result
    if _has_quota(call) or (not result and os.path.isdir(_QUOTAS)):
        from cnihook.nftables import quota

        quota.delete(call, result)


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
    ifbs = ifb.of_call(call, rtnl, targets)

    def unlimit() -> None:
        if link and targets is not None:
            has_netem = bool(call.runtime_config.object("emulate").raw)
            shaping.delete(rtnl, link, has_choice=shaping.names_subnets(call), has_netem=has_netem)

    try_each(lambda: _remove_ifbs(call, rtnl, link, targets, ifbs), unlimit)


def _remove_ifbs(
    call: Call, rtnl: Rtnl, link: "Link | None", targets: "set[int] | None", ifbs: "list[Link]"
) -> None:
    """Remove these ifbs, and before them the redirection to them: what is sent to a missing ifb is lost."""

    def redirect_no_more() -> None:
        if link and targets is not None and (not targets or targets & {0, *(own.index for own in ifbs)}):
            tc.delete_ingress(rtnl, link)

    def delete_ifbs() -> None:
        for own in ifbs:
            call.remove_link(rtnl, own)

    try_each(redirect_no_more, delete_ifbs)


# CHECK, GC


def check(call: Call) -> None:
    conf = Conf(call)
    result = _required_result(call)
    if _has_quota(call):
        from cnihook.nftables import quota

        quota.check(call, result)
    if not (conf.ingress or conf.egress):
        return
    place = Place(call, conf, result)
    if place.sent:
        place.sent.check(place.rtnl, place.link)
    if place.received:
        targets = tc.ingress_targets(place.rtnl, place.link)
        ifbs = ifb.of_call(call, place.rtnl, targets)
        if not ifbs:
            where = f"{call.ifname} of container {call.container_id}"
            raise CniError(INTERNAL, f"{where}: {ifb.names(call)[0]}, which must limit it, is gone")
        own = ifbs[0]
        if not own.is_up:
            raise CniError(INTERNAL, f"{own.name} is down")
        if own.index not in targets:
            raise CniError(INTERNAL, f"what {place.link.name} receives is not redirected to {own.name}")
        place.received.check(place.rtnl, own)


def update(call: Call, before: Call) -> "Result | None":
    """Change limits, the emulated network and the quota in place.  Connections stay."""
    conf, result = Conf(call), _required_result(call)
    place = Place(call, conf, result)
    conf.require_kernel(place.rtnl)
    changed = _reshape(call, place, result)
    _report_small_bursts(conf, place)
    if _has_quota(call) or _has_quota(before):
        from cnihook.nftables import quota

        quota.update(call, before, result)  # last: a count that has begun again cannot be restored
    return changed


def _reshape(call: Call, place: Place, result: Result) -> "Result | None":
    """Change the limits and the emulated network.  Returns the result, or None if it is unchanged."""
    from cnihook.links import reshaping

    reshaping.reshape(place.rtnl, place.link, place.sent)
    targets = tc.ingress_targets(place.rtnl, place.link)
    ifbs = ifb.of_call(call, place.rtnl, targets)
    # An htb needs a longer queue than the ifb of a tbf has.
    keeps_ifb = place.received and not place.received.choice
    if keeps_ifb and len(ifbs) == 1 and ifbs[0].index in targets:
        reshaping.reshape(place.rtnl, ifbs[0], place.received)
        return None
    if not (place.received or ifbs):
        return None
    _remove_ifbs(call, place.rtnl, place.link, targets, ifbs)
    names = [own.name for own in ifbs]
    result.interfaces = [
        one for one in result.interfaces if one.name not in names or one.sandbox != place.netns
    ]
    if place.received:
        own = _add_ifb(call, place)
        result.interfaces.append(Interface(own.name, own.mac, place.netns))
    return result


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
    if os.path.isdir(_QUOTAS):
        from cnihook.nftables import quota

        quota.gc(call, owners)
