# SPDX-License-Identifier: Apache-2.0
"""
ipvlan: an interface that shares the MAC address of a host's interface, the master.

The kernel assigns packets to interfaces by IP address.  This is for networks that allow one MAC address per
port.  Mode `l2` is otherwise like macvlan.  In `l3` and `l3s` the host's side routes, so there is neither
ARP nor broadcast, and other machines need a route to the host.  The last link made on a master sets the mode
of all links on it.

Chained, it is on top of the single interface of prevResult and takes its addresses.
"""

from cnihook import ipam
from cnihook.links import child_link
from cnihook.linux import parent_links
from cnihook.sdk import Call, CniError, Field, Result, Traits, invalid_config
from cnihook.types.errors import INTERNAL

_KIND = "ipvlan"

FIELDS = (
    child_link.MASTER,
    *child_link.FIELDS,
    *ipam.FIELDS,
    Field("mode", str, "l2", choices=tuple(parent_links.IPVLAN_MODES),
          doc="l2: as on one switch; l3 and l3s: the host's side routes"),
)  # fmt: skip
TRAITS = Traits(
    "interface", makes=("ipvlan",), link=child_link.MASTER, on_parent=True, releases_by_owner=True
)


class Conf(child_link.Conf):
    """Every key, checked before anything is changed."""

    def __init__(self, call: Call) -> None:
        super().__init__(call, FIELDS)
        self.mode: str = self.options["mode"]


def add(call: Call) -> Result:
    conf = Conf(call)
    previous = call.prev_result
    chained = previous if previous and previous.ips else None
    if not (chained or conf.ipam):
        raise invalid_config(
            "no plugin name provided: ipam.type is empty or absent",
            "ipvlan assigns packets to interfaces by IP address, so it needs one",
        )
    if previous and not conf.master:
        conf.master = _single_interface(previous)
    master = child_link.find_master(call, conf)
    return child_link.add(call, conf, master, _KIND, parent_links.ipvlan(conf.mode), chained=chained)


def _single_interface(previous: Result) -> str:
    if len(previous.interfaces) != 1 or not previous.interfaces[0].name:
        raise CniError(
            INTERNAL,
            "chained master failure. PrevResult lacks a single named interface",
            '"master" names the interface to use',
        )
    return previous.interfaces[0].name


def delete(call: Call) -> None:
    child_link.delete(call, _KIND)


def check(call: Call) -> None:
    conf = Conf(call)
    link = child_link.check(call, conf, _KIND)
    child_link.expect(call, "mode", parent_links.ipvlan_mode(link), conf.mode)


def update(call: Call, before: Call) -> "Result | None":
    return child_link.update(call, before, Conf(call))


def gc(call: Call) -> None:
    """Run GC of the IPAM plugin only: the kernel removes a link with its namespace."""
    ipam.gc(call)


def status(call: Call) -> None:
    child_link.status(call, Conf(call))
