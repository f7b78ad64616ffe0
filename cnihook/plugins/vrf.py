# SPDX-License-Identifier: Apache-2.0
"""
vrf: a container's interface in a VRF, so that it shares no routing table with interfaces outside of it.

It follows another plugin in a chain.  The VRF is a link in the container, made for its first member and
removed with its last.  An interface that changes its master loses its routes, and its IPv6 addresses unless
a sysctl keeps them.  So the plugin sets them again, with the routes of table main in the VRF's table.
"""

import errno
import time

from cnihook.links import interface
from cnihook.linux import routes, vrf
from cnihook.linux.flock import Lock
from cnihook.linux.netlink import NetlinkError
from cnihook.linux.routes import RTPROT_KERNEL, RTPROT_RA, WholeRoute
from cnihook.linux.rtnl import (
    IF_OPER_UP,
    IFA_F_NODAD,
    IFA_F_NOPREFIXROUTE,
    IFA_F_PERMANENT,
    RT_SCOPE_LINK,
    RT_TABLE_MAIN,
    RTN_LOCAL,
    Link,
    Rtnl,
)
from cnihook.protocol import locks
from cnihook.sdk import Call, CniError, Field, Result, Traits, Undo, invalid_config, read, try_each
from cnihook.types import versions
from cnihook.types.errors import INTERNAL
from cnihook.types.fields import check_link_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

VERSIONS = versions.ALL[3:]  # as the reference: since 0.3.1

FIELDS = (
    Field("vrfname", str, required=True, check=check_link_name,
          doc="name of the VRF in the container; it is made if it does not exist"),
    Field("table", int, 0, high=0xFFFFFFFF, doc="its routing table; 0: the first free one"),
)  # fmt: skip
TRAITS = Traits("chained", makes=("vrf",), moves_routes=True)

_RT_TABLE_LOCAL = 255
_WAIT = 1.5  # seconds at most, for what the kernel does by itself in a few milliseconds


class Conf:
    """Every key, checked before anything is changed."""

    def __init__(self, call: Call) -> None:
        options = read(call.conf, FIELDS)
        self.name: str = options["vrfname"]
        if not self.name:
            raise invalid_config(
                "configuration is expected to have a valid vrf name", "vrfname is empty or absent"
            )
        self.table: int = options["table"]


def _lock(call: Call) -> Lock:
    """Return the namespace's lock: a VRF is removed with its last member, and each needs its own table."""
    return locks.sandbox(call.sandbox_ns.identity[1], f"vrf {call.owner}")


# ADD


def add(call: Call) -> Result:
    conf = Conf(call)
    result = call.required_prev_result()
    sandbox = call.sandbox
    with _lock(call), Undo() as undo:
        link = sandbox.link(call.ifname)
        if link.master:
            master = sandbox.find_link_by_index(link.master)
            name = master.name if master else f"link {link.master}"
            raise CniError(INTERNAL, f"interface {call.ifname} has already a master set: {name}")
        tables = vrf.tables(sandbox)
        master = _find_vrf(sandbox, conf, tables)
        if not master:
            table = conf.table or next(n for n in range(1, len(tables) + 2) if n not in tables.values())
            undo.push(_remove_unused, sandbox, conf.name)
            vrf.add(sandbox, conf.name, table)
            master = sandbox.link(conf.name)
            tables[master.index] = table

        belongings = _Belongings(sandbox, link)
        undo.push(belongings.take_along, 0, RT_TABLE_MAIN)
        belongings.take_along(master.index, tables[master.index])
    return result


def _find_vrf(sandbox: Rtnl, conf: Conf, tables: "dict[int, int]") -> "Link | None":
    link = sandbox.find_link(conf.name)
    if not link:
        return None
    if link.kind != "vrf":
        raise CniError(INTERNAL, f"Netlink {conf.name} is not a VRF", f"it is of type {link.kind}")
    table = tables[link.index]
    if conf.table and table != conf.table:
        what = f"VRF {conf.name} already exist with different routing table {table}"
        raise CniError(INTERNAL, what, f"the configuration says {conf.table}")
    return link


class _Belongings:
    """The addresses and routes that an interface loses for good when its master changes."""

    def __init__(self, sandbox: Rtnl, link: Link) -> None:
        self._sandbox = sandbox
        self._link = link
        self._addresses = [
            address
            for address in sandbox.addresses(link)
            if address.net.address.version == 6
            and address.scope < RT_SCOPE_LINK
            and address.flags & IFA_F_PERMANENT
        ]
        self._routes = [route for route in routes.listed(sandbox) if _is_to_keep(route, link)]

    def take_along(self, master: int, table: int) -> None:
        """Give the interface another master, 0 for none; put routes of table main into `table`."""
        sandbox, link = self._sandbox, self._link
        sandbox.set_link(link, master=master)
        if link.operstate == IF_OPER_UP:
            _wait(lambda: sandbox.link(link.name).operstate == IF_OPER_UP)
        # Routes on the link come first, because they lead to the gateways of the others.  A failure does not
        # stop the rest, because a failed ADD is undone in this way, too.
        moved = sorted(self._routes, key=lambda route: not route.is_direct)
        try_each(
            self._restore_addresses,
            *(lambda r=route: routes.put_behind(sandbox, _as_for(r, table)) for route in moved),
        )

    def _restore_addresses(self) -> None:
        """Set the IPv6 addresses again, even those that the kernel has kept.

        The kernel looks for duplicates of these again, and until then they could not be used.
        """
        sandbox, link = self._sandbox, self._link
        present = {address.net for address in sandbox.addresses(link)}
        for address in self._addresses:
            if address.net in present:
                sandbox.delete_address(link, address.net)
            ifa_flags = address.flags & IFA_F_NOPREFIXROUTE | IFA_F_NODAD
            sandbox.add_address(link, address.net, ifa_flags=ifa_flags)
        nets = {address.net.address.host_net() for address in self._addresses}
        if link.is_up and nets:
            _wait(lambda: nets <= {route.dst for route in _own_addresses(sandbox, link)})


def _as_for(route: WholeRoute, table: int) -> WholeRoute:
    """Return the route as it must be for an interface whose own table is `table`.

    The kernel accepts a source address of a VRF in the VRF's table only.
    """
    if route.table == RT_TABLE_MAIN:
        return route.in_table(table)
    return route if table == RT_TABLE_MAIN else route.with_source(None)


def _own_addresses(sandbox: Rtnl, link: Link) -> "list[WholeRoute]":
    """Return the local routes of the link's addresses; the kernel sets those of IPv6 a moment later."""
    return [r for r in routes.listed(sandbox) if r.index == link.index and r.kind == RTN_LOCAL]


def _is_to_keep(route: WholeRoute, link: Link) -> bool:
    """Return False for a route that the kernel sets with an address, or that routers advertise again."""
    if route.index != link.index or route.table == _RT_TABLE_LOCAL or route.protocol == RTPROT_RA:
        return False
    return route.table != RT_TABLE_MAIN or route.protocol != RTPROT_KERNEL


def _wait(condition: "Callable[[], bool]") -> None:
    """Wait until the condition is true, or for _WAIT seconds: the interface works as before without it."""
    deadline = time.monotonic() + _WAIT
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.002)


# DEL


def delete(call: Call) -> None:
    """Remove the interface from its VRF.  Its routes are not restored, because it will be removed."""
    sandbox = call.sandbox_if_alive()
    name = call.conf.string("vrfname")
    if not sandbox or not name:
        return
    with _lock(call):
        master = sandbox.find_link(name)
        link = sandbox.find_link(call.ifname)
        if not master or master.kind != "vrf":
            return
        if link and link.master == master.index:
            try:
                sandbox.set_link(link, master=0)
            except NetlinkError as error:
                if error.errno != errno.ENODEV:  # it was just removed, with its other end
                    raise
        _remove_unused(sandbox, name)


def _remove_unused(sandbox: Rtnl, name: str) -> None:
    master = sandbox.find_link(name)
    if master and master.kind == "vrf" and not sandbox.links(master.index):
        sandbox.delete_link(master)


# CHECK, STATUS


def check(call: Call) -> None:
    conf = Conf(call)
    result = call.required_prev_result()
    sandbox = call.sandbox
    where = f"{call.ifname} of container {call.container_id}"
    link = sandbox.find_link(call.ifname)
    if not link:
        raise CniError(INTERNAL, f"{where} does not exist")
    master = _find_vrf(sandbox, conf, vrf.tables(sandbox))
    if not master or link.master != master.index:
        raise CniError(INTERNAL, f"Failed to find {call.ifname} associated to vrf {conf.name}")
    present = {address.net for address in sandbox.addresses(link)}
    for ip in interface.own_ips(call, result):
        if ip.net not in present:
            raise CniError(INTERNAL, f"{where} does not have address {ip.net}")


def status(call: Call) -> None:
    Conf(call)
