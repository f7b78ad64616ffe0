# SPDX-License-Identifier: Apache-2.0
"""
sbr (source based routing): packets from an address leave by the interface that has this address.

It is for containers in more than one network, each with a default route; the table main can use only one.
It follows another plugin in a chain, and gives each address of its interface its own table, with the routes
that were set for it in main:

    rule                from ADDRESS lookup TABLE
    in TABLE            SUBNET dev IFNAME, default via GATEWAY, and so on
    in main             none of these, so that they affect no other address
"""

from cnihook.linux import routes, rules, vrf
from cnihook.linux.flock import Lock
from cnihook.linux.routes import RTPROT_RA, WholeRoute
from cnihook.linux.rtnl import RT_TABLE_MAIN, RTN_UNICAST, Link, Rtnl
from cnihook.protocol import locks
from cnihook.sdk import (
    IP,
    Address,
    Call,
    CniError,
    Field,
    IPNet,
    Result,
    Traits,
    Undo,
    invalid_config,
    read,
)
from cnihook.types.errors import INTERNAL

_FIRST_TABLE = 100
_THE_KERNELS = {253, 254, 255}  # default, main, local
_DEFAULT = {4: IPNet.parse("0.0.0.0/0"), 6: IPNet.parse("::/0")}

FIELDS = (
    Field("table", int, low=1, high=0xFFFFFFFF,
          doc="a table that another program fills; then only rules are added"),
    Field("addSourceHints", bool, doc="leave direct routes in table main, with their source address"),
    Field("gateways", list, of=Address, doc="default gateways, one for each IP version"),
)  # fmt: skip
TRAITS = Traits("chained", moves_routes=True)


class Conf:
    """Every key, checked before anything is changed."""

    def __init__(self, call: Call) -> None:
        options = read(call.conf, FIELDS)
        # Another program fills this table; the plugin only adds rules that lead to it.
        self.table: int | None = options["table"]
        self.source_hints: bool = options["addSourceHints"]
        self.gateways: dict[int, Address] = {}  # by IP version
        gateways: list[str] = options["gateways"]
        if len(gateways) > 2:
            raise invalid_config(
                "gateways list cannot contain more than 2 entries (one IPv4, one IPv6)",
                f"it has {len(gateways)}",
            )
        for text in gateways:
            try:
                gateway = Address.parse(text)
            except ValueError:
                raise invalid_config(f"invalid static gateway IP address: {text}") from None
            version = gateway.version
            if version in self.gateways:
                both = f"{self.gateways[version]} and {gateway}"
                raise invalid_config(f"gateways list contains multiple IPv{version} addresses: {both}")
            self.gateways[version] = gateway


def _own_ips(call: Call, result: Result) -> "list[IP]":
    """Return the addresses of this interface, and those without a valid interface index."""

    def is_anothers(ip: IP) -> bool:
        is_valid = ip.interface is not None and 0 <= ip.interface < len(result.interfaces)
        return is_valid and result.interfaces[ip.interface or 0].name != call.ifname

    return [ip for ip in result.ips if not is_anothers(ip)]


def _required(call: Call) -> "tuple[Result, list[IP]]":
    result = call.prev_result
    if result is None:
        raise CniError(INTERNAL, "This plugin must be called as chained plugin", "there is no prevResult")
    ips = _own_ips(call, result)
    if not ips:
        raise CniError(INTERNAL, f"No IP addresses supplied on interface: {call.ifname}")
    return result, ips


def _lock(call: Call) -> Lock:
    """Return the lock of the namespace: a table that is free must still be free when it is filled."""
    return locks.sandbox(call.sandbox_ns.identity[1], f"sbr {call.owner}")


# ADD


def add(call: Call) -> Result:
    conf = Conf(call)
    result, ips = _required(call)
    sandbox = call.sandbox
    link = sandbox.link(call.ifname)
    with _lock(call), Undo() as undo:
        present = rules.listed(sandbox)
        # After the rule of VRFs, so that packets of a VRF stay in it; the kernel would put it before that
        # rule.
        priority = max((rule.priority + 1 for rule in present if rule.l3mdev), default=0)
        if conf.table is not None:
            for ip in ips:
                _add_rule(sandbox, ip, conf.table, priority, undo)
            return result

        everything = routes.listed(sandbox)
        home = vrf.tables(sandbox).get(link.master, RT_TABLE_MAIN) if link.master else RT_TABLE_MAIN
        own = [route for route in everything if _is_to_move(route, link, home)]
        used = {rule.table for rule in present} | {route.table for route in everything} | _THE_KERNELS
        for ip in ips:
            table = _FIRST_TABLE
            while table in used:
                table += 1
            used.add(table)
            # The rule comes first: if this ADD is killed half-way, DEL finds the table by the rule.
            _add_rule(sandbox, ip, table, priority, undo)
            undo.push(_clear, sandbox, link.index, table)
            content = _routes_of(ip, ips, own)
            if home != RT_TABLE_MAIN:
                # The kernel accepts a source address of a VRF in the VRF's table only.
                content = [route.with_source(None) for route in content]
            _fill(sandbox, conf, link, ip, table, content)
        if home == RT_TABLE_MAIN:
            _take_out_of_main(sandbox, conf, ips, own, undo)
    return result


def _add_rule(sandbox: Rtnl, ip: IP, table: int, priority: int, undo: Undo) -> None:
    rules.add(sandbox, ip.net.address, table, priority)
    undo.push(_delete_rules, sandbox, ip.net.address, table)


def _delete_rules(sandbox: Rtnl, source: Address, table: int) -> None:
    for rule in rules.listed(sandbox):
        if (rule.source, rule.table) == (source, table):
            rules.delete(sandbox, rule)


def _is_to_move(route: WholeRoute, link: Link, home: int) -> bool:
    """Return True if the route must move out of main.

    Advertised routes stay, because routers repeat them.  fe80::/10 stays, because each link has its own.
    """
    if (route.index, route.table, route.kind) != (link.index, home, RTN_UNICAST):
        return False
    return route.protocol != RTPROT_RA and not (route.dst and route.dst.address.is_link_local)


def _routes_of(ip: IP, ips: "list[IP]", own: "list[WholeRoute]") -> "list[WholeRoute]":
    """Return the routes that this address can use: its own, and those that are not another address's own."""

    def is_of(route: WholeRoute, other: IP) -> bool:
        if route.gateway and route.gateway == other.gateway:
            return True
        return any(address in other.net for address in (route.source, route.gateway) if address)

    return [
        route
        for route in own
        if route.version == ip.net.address.version
        and (is_of(route, ip) or not any(is_of(route, other) for other in ips))
    ]


def _fill(sandbox: Rtnl, conf: Conf, link: Link, ip: IP, table: int, own: "list[WholeRoute]") -> None:
    version = ip.net.address.version
    static = conf.gateways.get(version)
    if static:
        own = [route for route in own if route.dst]
    for route in own:
        if route.is_direct:  # first, because these lead to the gateways of the others
            routes.put(sandbox, route.in_table(table))
    gateway = static or ip.gateway
    if gateway and all(route.dst for route in own):
        sandbox.add_route(link, _DEFAULT[version], via=gateway, table=table)
    for route in own:
        if not route.is_direct:
            routes.put(sandbox, route.in_table(table))


def _take_out_of_main(
    sandbox: Rtnl, conf: Conf, ips: "list[IP]", own: "list[WholeRoute]", undo: Undo
) -> None:
    """Remove the routes from main.

    With source hints, routes without a gateway stay, and a subnet is reached from the address in it.
    """
    hints: dict[IPNet | None, Address] = {}
    for ip in ips if conf.source_hints else ():
        hints.setdefault(ip.net.network(), ip.net.address)
    for route in sorted(own, key=lambda route: route.is_direct):
        hint = hints.pop(route.dst, None)
        if conf.source_hints and route.is_direct and hint in (None, route.source):
            continue
        undo.push(routes.put, sandbox, route)
        routes.delete(sandbox, route)
        if hint:
            hinted = route.with_source(hint)
            undo.push(routes.delete, sandbox, hinted)
            routes.put(sandbox, hinted)


def _clear(sandbox: Rtnl, index: int, table: int) -> None:
    """Delete the routes over one link from a table."""
    for route in routes.listed(sandbox):
        if (route.index, route.table) == (index, table):
            routes.delete(sandbox, route)


# DEL


def delete(call: Call) -> None:
    """Remove rules and tables.  The routes do not return to main, because the interface will be removed."""
    sandbox = call.sandbox_if_alive()
    if not sandbox:
        return
    table = call.conf.integer("table", default=0, low=0, high=0xFFFFFFFF)
    with _lock(call):
        link = sandbox.find_link(call.ifname)
        sources = _sources(call, link)
        index = link.index if link else 0
        for rule in rules.listed(sandbox):
            if rule.source not in sources:
                continue
            if table:
                if rule.table == table:
                    rules.delete(sandbox, rule)
            elif _may_be_ours(rule.table) and not _is_of_another_link(sandbox, rule.table, index):
                _clear(sandbox, index, rule.table)
                rules.delete(sandbox, rule)


def _sources(call: Call, link: "Link | None") -> "set[Address]":
    """Return the attachment's addresses, from prevResult or, if that is lost, from the link."""
    try:
        result = call.prev_result
    except CniError:
        result = None
    if result and (ips := _own_ips(call, result)):
        return {ip.net.address for ip in ips}
    return {address.net.address for address in call.sandbox.addresses(link)} if link else set()


def _may_be_ours(table: int) -> bool:
    return table >= _FIRST_TABLE and table not in _THE_KERNELS


def _is_of_another_link(sandbox: Rtnl, table: int, index: int) -> bool:
    """Return True if the table has routes of another link.

    Two networks may give a container the same address; then each has a rule for it.
    """
    return any(route.table == table and route.index not in (0, index) for route in routes.listed(sandbox))


# The change


def update(call: Call, before: Call) -> Result:
    """Return the routes to main, remove the old rules and tables, then run ADD.

    Main has all routes in between, so the container reaches what it reached before.
    """
    new, old = Conf(call), Conf(before)
    if (new.table, new.source_hints, new.gateways) != (old.table, old.source_hints, old.gateways):
        if old.table is None:
            with _lock(call):
                _return_to_main(call, old)
        delete(before)
        return add(call)
    return call.required_prev_result()


def _return_to_main(call: Call, old: Conf) -> None:
    result, ips = _required(call)
    sandbox = call.sandbox
    link = sandbox.link(call.ifname)
    home = vrf.tables(sandbox).get(link.master, RT_TABLE_MAIN) if link.master else RT_TABLE_MAIN
    sources = {ip.net.address for ip in ips}
    tables = {rule.table for rule in rules.listed(sandbox) if rule.source in sources}
    own = [route for route in routes.listed(sandbox) if route.index == link.index and route.table in tables]
    # ADD has replaced a default route by that of a static gateway.
    kept = [route for route in own if route.dst or route.version not in old.gateways]
    hints = {ip.net.network(): ip.net.address for ip in ips if old.source_hints}
    for route in sorted(kept, key=lambda route: not route.is_direct):
        usual = route.in_table(home)
        if route.is_direct and route.dst in hints and route.source != hints[route.dst]:
            routes.delete(sandbox, usual.with_source(hints[route.dst]))
        routes.put_behind(sandbox, usual)
    defaults = [
        route
        for route in result.routes
        if not route.dst.prefix and route.dst.address.version in old.gateways and route.table is None
    ]
    if defaults:
        from cnihook.links import interface  # few networks have static gateways

        interface.set_routes(call, link, ips, defaults)


# CHECK, STATUS


def check(call: Call) -> None:
    conf = Conf(call)
    _, ips = _required(call)
    sandbox = call.sandbox
    link = sandbox.link(call.ifname)
    present = rules.listed(sandbox)
    own = [route for route in routes.listed(sandbox) if route.index == link.index]
    for ip in ips:
        address = ip.net.address
        where = f"{call.ifname} of container {call.container_id}"
        tables = {
            rule.table
            for rule in present
            if rule.source == address and rule.table == (conf.table or rule.table)
        }
        if not tables:
            raise CniError(INTERNAL, f"{where}: the rule for source {address} is missing")
        if conf.table or not (ip.gateway or address.version in conf.gateways):
            continue
        defaults = [route for route in own if not route.dst and route.version == address.version]
        if not any(route.table in tables for route in defaults):
            raise CniError(INTERNAL, f"{where}: the default route for source {address} is missing")


def status(call: Call) -> None:
    Conf(call)
