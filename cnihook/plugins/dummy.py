# SPDX-License-Identifier: Apache-2.0
"""
dummy: an interface that discards what is sent to it, for addresses that only the container uses.
"""

from cnihook import ipam
from cnihook.links import container_link, interface
from cnihook.sdk import DNS, Call, CniError, Interface, Result, Traits, Undo, invalid_config, read
from cnihook.types.errors import INTERNAL

KIND = "dummy"

FIELDS = ipam.REQUIRED_FIELDS
TRAITS = Traits("interface", makes=(KIND,), releases_by_owner=True)


class Conf:
    def __init__(self, call: Call) -> None:
        options = read(call.conf, FIELDS)
        if not options["ipam"].string("type"):
            raise invalid_config(
                "dummy interface requires an IPAM configuration", "ipam.type is empty or absent"
            )
        self.dns = DNS.given(options["dns"])


def add(call: Call) -> Result:
    conf = Conf(call)
    container_link.refuse_taken(call)
    sandbox = call.sandbox
    with Undo() as undo:
        sandbox.add_link(KIND, call.ifname)
        # Before ipam.add(), which may fail after it leased some addresses; and undone last, as in DEL.
        undo.push(ipam.delete, call)
        undo.push(container_link.delete, call, KIND)
        link = sandbox.link(call.ifname)
        sandbox.set_link(link, alias=call.owner)

        result = ipam.add(call)
        result.interfaces = [Interface(link.name, link.mac, sandbox=call.netns)]
        for ip in result.ips:
            ip.interface = 0
        if call.request.policy:
            call.request.policy.admit("", link.mac, [ip.net for ip in result.ips])
        interface.configure(call, link, result)
        if conf.dns is not None:
            result.dns = conf.dns
        return result


def delete(call: Call) -> None:
    """Remove the link, then release its address."""
    container_link.delete(call, KIND)
    ipam.delete(call)


def check(call: Call) -> None:
    Conf(call)
    ipam.check(call)
    if not interface.check(call, KIND).is_up:
        raise CniError(INTERNAL, f"{call.ifname} of container {call.container_id} is down")


def gc(call: Call) -> None:
    ipam.gc(call)


def status(call: Call) -> None:
    Conf(call)
    ipam.status(call)
