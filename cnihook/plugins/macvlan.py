# SPDX-License-Identifier: Apache-2.0
"""
macvlan: an interface with its own MAC address on the network of a host's interface, the master.

On that network, the container is one more machine.  The host forwards nothing and needs no address.
Containers on one master reach each other in mode `bridge`.  They do not reach the host itself, because the
kernel never delivers to them what the host sends through the master.
"""

from cnihook import ipam
from cnihook.fast.address import mac_bytes
from cnihook.links import child_link
from cnihook.linux import parent_links
from cnihook.sdk import Call, Field, Result, Traits, invalid_config

_KIND = "macvlan"
_MAC = Field("mac", str, doc="MAC address of the interface")

FIELDS = (
    child_link.MASTER,
    *child_link.FIELDS,
    *ipam.FIELDS,
    Field("mode", str, "bridge", choices=tuple(parent_links.MACVLAN_MODES),
          doc="which of the containers on one parent link reach each other"),
    Field("bcqueuelen", int, 0, high=0xFFFFFFFF,
          doc="length of the queue of broadcasts and multicasts; 0: the kernel's default"),
    _MAC,
)  # fmt: skip
TRAITS = Traits(
    "interface",
    makes=("macvlan",),
    takes=("mac",),
    link=child_link.MASTER,
    on_parent=True,
    capabilities=(_MAC,),
    args=(_MAC,),
    releases_by_owner=True,
)


class Conf(child_link.Conf):
    """Every key, checked before anything is changed."""

    def __init__(self, call: Call) -> None:
        super().__init__(call, FIELDS)
        self.mode: str = self.options["mode"]
        self.bc_queue_len: int = self.options["bcqueuelen"]
        self.mac: str = (
            call.runtime_config.string("mac")
            or call.cni_args.string("mac")
            or call.arg("MAC")
            or self.options["mac"]
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


def update(call: Call, before: Call) -> "Result | None":
    return child_link.update(call, before, Conf(call))


def gc(call: Call) -> None:
    """Run GC of the IPAM plugin only: the kernel removes a link with its namespace."""
    ipam.gc(call)


def status(call: Call) -> None:
    child_link.status(call, Conf(call))
