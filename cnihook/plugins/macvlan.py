# SPDX-License-Identifier: Apache-2.0
"""
macvlan: an interface with its own MAC address on the network of a host's interface, the master.

On that network, the container is one more machine.  The host forwards nothing and needs no address.
Containers on one master reach each other in mode `bridge`.  They do not reach the host itself, because the
kernel never delivers to them what the host sends through the master.
"""

from cnihook import ipam
from cnihook.links import child_link
from cnihook.linux import parent_links
from cnihook.linux.rtnl import mac_bytes
from cnihook.sdk import Call, Result, invalid_config

_KIND = "macvlan"


class Conf(child_link.Conf):
    """Every key, checked before anything is changed."""

    def __init__(self, call: Call) -> None:
        super().__init__(call)
        conf = call.conf
        self.mode = child_link.mode_of(conf, parent_links.MACVLAN_MODES, "bridge")
        self.bc_queue_len = conf.integer("bcqueuelen", default=0, low=0, high=0xFFFFFFFF)
        self.mac = (
            call.runtime_config.string("mac")
            or call.cni_args.string("mac")
            or call.arg("MAC")
            or conf.string("mac")
        )
        if self.mac:
            try:
                mac_bytes(self.mac)
            except ValueError as error:
                raise invalid_config(str(error)) from None


def add(call: Call) -> Result:
    conf = Conf(call)
    data = parent_links.macvlan(conf.mode, conf.bc_queue_len)
    return child_link.add(call, conf, child_link.find_master(call, conf), _KIND, data, mac=conf.mac)


def delete(call: Call) -> None:
    child_link.delete(call, _KIND)


def check(call: Call) -> None:
    conf = Conf(call)
    link = child_link.check(call, conf, _KIND)
    child_link.expect(call, "mode", parent_links.macvlan_mode(link), conf.mode)


def gc(call: Call) -> None:
    """Run GC of the IPAM plugin only: the kernel removes a link with its namespace."""
    ipam.gc(call)


def status(call: Call) -> None:
    child_link.status(call, Conf(call))
