# SPDX-License-Identifier: Apache-2.0
"""
vlan: one VLAN of a host's interface, the master, untagged in the container.

The kernel has each VLAN of a master only once, so one container can have it.
"""

from cnihook import ipam
from cnihook.links import child_link
from cnihook.linux import parent_links
from cnihook.sdk import Call, CniError, Field, Result, Traits, invalid_config
from cnihook.types.errors import INTERNAL
from cnihook.types.fields import MAX_VLAN, check_vlan

_KIND = "vlan"
_MASTER = Field("master", str, required=True, doc="the parent link")
FIELDS = (
    _MASTER,
    *child_link.FIELDS,
    *ipam.REQUIRED_FIELDS,
    Field("vlanId", int, 0, high=MAX_VLAN, check=check_vlan, doc="number of the VLAN"),
)
TRAITS = Traits("interface", makes=("vlan",), link=_MASTER, on_parent=True, releases_by_owner=True)


class Conf(child_link.Conf):
    """Every key, checked before anything is changed."""

    def __init__(self, call: Call) -> None:
        super().__init__(call, FIELDS)
        if not self.master:
            raise invalid_config(
                '"master" field is required. It specifies the host interface name to create the VLAN for.'
            )
        self.vlan_id: int = self.options["vlanId"]
        if not self.ipam:
            raise invalid_config("no plugin name provided: ipam.type is empty or absent")


def add(call: Call) -> Result:
    conf = Conf(call)
    master = child_link.find_master(call, conf)
    if not master.is_up:
        raise CniError(
            INTERNAL,
            f"master {master.name} is down, so its VLAN {conf.vlan_id} cannot be raised",
            f"`ip link set {master.name} up`",
        )
    return child_link.add(call, conf, master, _KIND, parent_links.vlan(conf.vlan_id))


def delete(call: Call) -> None:
    child_link.delete(call, _KIND)


def check(call: Call) -> None:
    conf = Conf(call)
    link = child_link.check(call, conf, _KIND)
    child_link.expect(call, "VLAN", parent_links.vlan_id(link), conf.vlan_id)


def update(call: Call, before: Call) -> "Result | None":
    return child_link.update(call, before, Conf(call))


def gc(call: Call) -> None:
    """Run GC of the IPAM plugin only: the kernel removes a link with its namespace."""
    ipam.gc(call)


def status(call: Call) -> None:
    child_link.status(call, Conf(call))
