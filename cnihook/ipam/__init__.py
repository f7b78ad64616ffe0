# SPDX-License-Identifier: Apache-2.0
"""The IPAM plugin that a configuration names, called on behalf of an interface plugin."""

from cnihook.log import step
from cnihook.protocol import invoke
from cnihook.protocol.call import Call
from cnihook.types.errors import INTERNAL, INVALID_CONFIG, CniError
from cnihook.types.fields import Field
from cnihook.types.result import DNS, Result

_TYPE = Field("type", str, required=True, doc="the IPAM plugin, such as host-local")
_DNS = Field("dns", dict, fields=DNS.FIELDS, doc="DNS settings, instead of those of the IPAM plugin")
# The keys of every plugin that has an IPAM plugin.  It may be left out; the second form requires it.
FIELDS = (
    Field("ipam", dict, fields=(_TYPE,), doc="the IPAM plugin, and its options; empty: no address"),
    _DNS,
)
REQUIRED_FIELDS = (
    Field("ipam", dict, fields=(_TYPE,), required=True, doc="the IPAM plugin, and its options"),
    _DNS,
)


def plugin_type(call: Call) -> str:
    """Return the type of the IPAM plugin; empty for an attachment on layer 2, which gets no address."""
    return call.conf.object("ipam").string("type")


def add(call: Call) -> Result:
    """Run ADD of the IPAM plugin.  Raises CniError also if the plugin returns no address."""
    result = _delegate("ADD", call)
    if result is None or not result.ips:
        _delegate("DEL", call)  # it may have stored something nevertheless
        raise CniError(INTERNAL, "IPAM plugin returned missing IP config")
    return result


def delete(call: Call) -> None:
    """Release the addresses after the link that had them is gone.

    Raises CniError, and releases nothing, if CNI_IFNAME still has one of them, because another container
    would get the same address.
    """
    if plugin_type(call):
        _refuse_if_set(call)
        if call.request.policy:
            call.request.policy.release()  # else the next container with an address would have its rights
    _delegate("DEL", call)


def _refuse_if_set(call: Call) -> None:
    if call.request.ending:
        return  # the link is silent
    result = call.prev_result if call.command == "DEL" else None
    sandbox = call.sandbox_if_alive() if result and result.ips else None
    if not (result and sandbox):
        return
    released = {ip.net.address for ip in result.ips}
    for present in sandbox.addresses():
        if present.net.address not in released:
            continue
        link = sandbox.find_link_by_index(present.index)
        if link and link.name == call.ifname and call.recorded_mac in ("", link.mac):
            raise CniError(
                INTERNAL,
                f"{link.name} in {call.netns} still has {present.net}, which stays leased",
                f"`nsenter --net={call.netns} ip link delete {link.name}`, then a DEL, releases it",
            )


def delete_through_link(call: Call) -> None:
    """Run DEL of an IPAM plugin that releases an address by a message.  Call it while the link is still up.

    Without the message, the DHCP server would keep the address until the lease ends.
    """
    if invoke.traits(plugin_type(call)).from_server:
        _delegate("DEL", call)


def check(call: Call) -> None:
    _delegate("CHECK", call)


def gc(call: Call) -> None:
    _delegate("GC", call)


def status(call: Call) -> None:
    _delegate("STATUS", call)


def _delegate(command: str, call: Call) -> "Result | None":
    """Call the delegate with the whole configuration; its own part is under `ipam`.

    SPEC.md, "Delegated plugins".
    """
    delegate = plugin_type(call)
    if not delegate:
        if command == "ADD":
            raise CniError(INVALID_CONFIG, "no plugin name provided: ipam.type is empty or absent")
        return None
    step(f"{command} {call.conf.string('type')}")
    try:
        return invoke.run(command, delegate, call.conf, call.request)
    finally:
        step(f"{command} {delegate}")
