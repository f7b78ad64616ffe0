# SPDX-License-Identifier: Apache-2.0
"""loopback: raises `lo`, whatever interface name the runtime passes."""

from cnihook.sdk import IP, Call, CniError, Field, Interface, Result, Traits, Undo
from cnihook.types.errors import INTERNAL

_LO = "lo"

FIELDS: "tuple[Field, ...]" = ()
TRAITS = Traits("loopback")


def add(call: Call) -> Result:
    prev_result = call.prev_result
    sandbox = call.sandbox
    lo = sandbox.link(_LO)
    # The namespace's own addresses, which the kernel adds as lo goes up, are the only ones that belong
    # there.
    foreign = [a.net for a in sandbox.addresses(lo) if not a.net.address.is_loopback]
    if foreign:
        raise CniError(
            INTERNAL, f"{_LO} in {call.netns} has an address that is not a loopback address: {foreign[0]}"
        )
    with Undo() as undo:
        if not lo.is_up:
            undo.push(lambda: sandbox.set_link(lo, up=False))
        sandbox.set_link(lo, up=True)
        if prev_result:
            return prev_result
        result = Result([Interface(_LO, lo.mac, sandbox=call.netns)])
        for version in (4, 6):
            nets = [a.net for a in sandbox.addresses(lo) if a.net.address.version == version]
            result.ips += [IP(net, interface=0) for net in nets[:1]]
        return result


def delete(call: Call) -> None:
    sandbox = call.sandbox_if_alive()
    lo = sandbox.find_link(_LO) if sandbox else None
    if sandbox and lo:
        sandbox.set_link(lo, up=False)


def check(call: Call) -> None:
    if not call.sandbox.link(_LO).is_up:
        raise CniError(INTERNAL, "loopback interface is down")
