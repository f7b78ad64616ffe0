# SPDX-License-Identifier: Apache-2.0
"""
Limits and an emulated network: what a plugin is asked for, and the qdiscs of a link for it.

In each direction there is a limit, an emulated network below it, or both.  A limit is a tbf, or an htb that
limits a part of the traffic.  htb warns in the kernel's log about a queue below it that delays, so only a
tbf can be combined with an emulated network.
"""

from cnihook.fast.address import IPNet
from cnihook.linux import tc
from cnihook.linux.rtnl import Link, Rtnl
from cnihook.protocol.call import Call
from cnihook.types.config import NetConf
from cnihook.types.errors import INTERNAL, INVALID_CONFIG, CniError
from cnihook.types.fields import Field, read

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from cnihook.linux.htb import Choice
    from cnihook.linux.netem import Netem

_LATENCY = 25_000  # microseconds that a packet may wait
_MAX_RATE = (1 << 64) - 1
_MAX_BURST = 0xFFFFFFFF * 8 - 1  # bits; the kernel counts bytes
# Kubernetes has no option for the burst, so its runtimes pass the largest number of a type: cri-dockerd,
# containerd, CRI-O, older CRI-O.  With that of containerd, 537 MB would pass before the limit takes effect.
_NO_BURST = ((1 << 31) - 1, (1 << 32) - 1, _MAX_BURST, _MAX_BURST + 1)
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
_MOST_DELAY, _MOST_JITTER = 60_000_000, 2_000_000  # microseconds; the kernel's jitter has 31 bits of ns
_PARTS = 1_000_000
_EFFECTS = (
    Field("delay", int, 0, high=_MOST_DELAY, doc="microseconds that each packet waits"),
    Field("jitter", int, 0, high=_MOST_JITTER, doc="microseconds by which the delay varies, up and down"),
    Field("loss", int, 0, high=_PARTS, doc="packets of a million that are lost"),
    Field("duplicate", int, 0, high=_PARTS, doc="packets of a million that arrive twice"),
    Field("corrupt", int, 0, high=_PARTS, doc="packets of a million that get a wrong bit"),
    Field("reorder", int, 0, high=_PARTS, doc="packets of a million that do not wait for the delay"),
    Field("rate", int, 0, high=_MAX_RATE, doc="bits per second; 0: no limit"),
)
# The capability `emulate`.
EMULATED = (
    Field("ingress", dict, fields=_EFFECTS, doc="for what the container receives"),
    Field("egress", dict, fields=_EFFECTS, doc="for what the container sends"),
)


# Few networks name subnets, and few containers emulate a network: htb and netem are imported when they are
# used.


class Shape:
    """The qdiscs of one link.  `choice` selects the traffic that `limit` applies to; None: all of it."""

    __slots__ = ("choice", "limit", "netem")

    def __init__(
        self, limit: "tc.Tbf | None", choice: "Choice | None" = None, netem: "Netem | None" = None
    ) -> None:
        self.limit = limit
        self.choice = choice if limit else None
        self.netem = netem

    def __bool__(self) -> bool:
        return bool(self.limit or self.netem)

    def add(self, rtnl: Rtnl, link: Link) -> None:
        """Add them.  Raises NetlinkError with EEXIST if another program gave the link a qdisc."""
        if self.limit and self.choice:
            from cnihook.linux import htb

            htb.add(rtnl, link, self.limit, self.choice)
        elif self.limit:
            tc.add_tbf(rtnl, link, self.limit)
        if self.netem:
            from cnihook.linux import netem

            netem.add(rtnl, link, self.netem, self.limit)

    def check(self, rtnl: Rtnl, link: Link) -> None:
        """Raise CniError if the link does not have this limit and this emulated network."""
        difference = ""
        if self.limit and self.choice:
            from cnihook.linux import htb

            difference = htb.difference(rtnl, link, self.limit, self.choice)
        elif self.limit:
            difference = tc.difference(rtnl, link, self.limit)
        if self.netem and not difference:
            from cnihook.linux import netem

            difference = netem.difference(rtnl, link, self.netem, self.limit)
        if difference:
            raise CniError(INTERNAL, f"{link.name}: {difference}")


class Conf:
    """The two directions.  Limits of the network come before those that the runtime requests."""

    def __init__(self, call: Call) -> None:
        conf, asked = call.conf, call.runtime_config.object("bandwidth")
        limits = conf if any(conf.has(field.name) for field in _RATES) else asked
        subnets = conf if any(conf.strings(key) for key in _SUBNETS) else asked
        rates = read(limits, _RATES)
        for name in ("ingress", "egress"):
            if limits is asked and rates[f"{name}Rate"] and rates[f"{name}Burst"] in _NO_BURST:
                rates[f"{name}Burst"] = tc.default_burst(rates[f"{name}Rate"])
        emulated = call.runtime_config.object("emulate")
        self.ingress = _shape(limits, rates, subnets, emulated, "ingress")
        self.egress = _shape(limits, rates, subnets, emulated, "egress")

    def require_kernel(self, rtnl: Rtnl) -> None:
        """Raise CniError if a network is to be emulated, and the kernel cannot do it."""
        if self.ingress.netem or self.egress.netem:
            from cnihook.linux import netem

            if netem.is_missing(rtnl):
                raise CniError(
                    INTERNAL,
                    "emulate: this kernel has no netem, the module that emulates networks",
                    "`modprobe sch_netem` loads it, if the kernel was built with it",
                )


def names_subnets(call: Call) -> bool:
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


def _shape(
    conf: NetConf, rates: "dict[str, Any]", subnets: NetConf, emulated: NetConf, direction: str
) -> Shape:
    choice = _choice(subnets, direction)
    netem = _netem(emulated, direction)
    shape = Shape(_limit(conf, rates, direction), choice, netem)
    if shape.choice and shape.netem:
        raise CniError(
            INVALID_CONFIG,
            "emulate: the network limits a part of the traffic only, by shapedSubnets or unshapedSubnets",
            "emulate a network where there is no limit, or one without subnets",
        )
    return shape


def _limit(conf: NetConf, rates: "dict[str, Any]", direction: str) -> "tc.Tbf | None":
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
    return tc.Tbf.of(rate // 8, burst // 8, _LATENCY)


def check_emulated(conf: NetConf) -> None:
    """Raise CniError if the capability `emulate` is malformed."""
    for field in EMULATED:
        _netem(conf, field.name)


def _netem(emulated: NetConf, direction: str) -> "Netem | None":
    conf = emulated.object(direction)
    if not conf.raw:
        return None
    values = read(conf, _EFFECTS)
    for key in ("jitter", "reorder"):
        if values[key] and not values["delay"]:
            raise conf.refuse(key, "is wrong: it needs a delay")
    if 0 < values["rate"] < 8:
        raise conf.refuse("rate", f"is wrong: {values['rate']} bits are less than a byte")
    if not any(values.values()):
        return None
    from cnihook.linux.netem import Netem

    return Netem(**{**values, "rate": values["rate"] // 8})


def delete(rtnl: Rtnl, link: Link, *, has_choice: bool, has_netem: bool) -> None:
    """Delete the qdiscs that a Shape has added.  A qdisc of another program stays."""
    if tc.delete_tbf(rtnl, link):
        return  # with the netem below it
    if has_choice:
        from cnihook.linux import htb

        htb.delete(rtnl, link)
    if has_netem:
        from cnihook.linux import netem

        netem.remove(rtnl, link, None)
