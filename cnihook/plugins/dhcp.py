# SPDX-License-Identifier: Apache-2.0
"""
dhcp: the address that a DHCP server on the container's network grants.

The request is sent through the container's own link, so an interface plugin that makes it first (bridge,
macvlan) can use this one.  A lease must be renewed while the container runs.  The DHCP daemon does that
(cnihook/dhcp), a process that this plugin starts if none listens.

A lease that cannot be renewed in time is lost, because another machine may get the address.  Then the daemon
sets the link down, the container's log has the reason, and CHECK fails.
"""

from cnihook.dhcp import message, rpc
from cnihook.dhcp.lease import Lease, folder_of, from_json, to_json
from cnihook.ipam import leases
from cnihook.keeper.client import DaemonError, ForeignDaemonError, RequestRejectedError, is_path
from cnihook.linux.rtnl import RT_SCOPE_LINK
from cnihook.sdk import (
    DNS,
    IP,
    Address,
    Call,
    CniError,
    Field,
    IPNet,
    NetConf,
    Result,
    Route,
    Traits,
    read,
    try_each,
)
from cnihook.types.errors import INTERNAL, PLUGIN_NOT_AVAILABLE, TRY_AGAIN_LATER
from cnihook.types.fields import NEW_ONLY

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_CODES = {
    "subnet-mask": message.SUBNET_MASK,
    "routers": message.ROUTERS,
    "host-name": message.HOST_NAME,
    "vendor-class-identifier": message.VENDOR_CLASS,
    "dhcp-client-identifier": message.CLIENT_ID,
    "user-class": message.USER_CLASS,
}
# Classless routes before routers: a server short of room leaves out what comes last (RFC 3442).
_PARAMETERS = [
    message.SUBNET_MASK, message.CLASSLESS_ROUTES, message.ROUTERS, message.STATIC_ROUTES,
    message.NAME_SERVERS, message.DOMAIN_NAME, message.DOMAIN_SEARCH,
    message.RENEWAL_TIME, message.REBINDING_TIME,
]  # fmt: skip
# Options that the client itself sets, so a configuration cannot.
_RESERVED = {
    message.PAD, message.REQUESTED_ADDRESS, message.OVERLOAD, message.MESSAGE_TYPE, message.SERVER,
    message.PARAMETERS, message.MAX_SIZE, message.END,
}  # fmt: skip
_LONGEST = 255  # bytes of an option
_OPTION = Field("option", str, required=True, doc="name of a DHCP option, or its number from 0 to 255")

FIELDS = (
    Field("daemonSocketPath", str, rpc.SOCKET, doc="socket of the DHCP daemon"),
    Field("timeout", int, 0, high=3600, doc="seconds to wait for a server; 0: 45"),
    Field("priority", int, 0, high=0xFFFFFFFF, doc="metric of the routes"),
    Field("provide", list, of=dict, doc="options to send", fields=(
        _OPTION,
        Field("value", str, doc="what is sent"),
        Field("fromArg", str, doc="a key of CNI_ARGS whose value is sent"),
    )),
    Field("request", list, of=dict, doc="options to request", fields=(
        _OPTION,
        Field("skipDefault", bool, doc="request none but the options of this list"),
    )),
)  # fmt: skip
TRAITS = Traits("ipam", takes=("hostname",), from_server=True, releases_by_owner=True, change=NEW_ONLY)


class Conf:
    """Every key, checked before anything is requested."""

    def __init__(self, call: Call) -> None:
        ipam = call.conf.object("ipam")
        self.socket = socket_path(ipam)
        options = read(ipam, FIELDS)
        self.timeout: int = options["timeout"]  # seconds; 0: the daemon's
        self.priority: int = options["priority"]
        self.provided = {message.CLIENT_ID: _client_id(call)}
        arguments = dict(pair.split("=", 1) for pair in call.request.args.split(";") if "=" in pair)
        for item in options["provide"]:
            code = _code(item)
            if code in _RESERVED:
                raise item.refuse("option", f"is wrong: the client itself sets option {code}")
            argument = item.string("fromArg")
            for key, value in ("value", item.string("value")), ("fromArg", arguments.get(argument, "")):
                if len(value.encode(errors="surrogateescape")) > _LONGEST:
                    raise item.refuse(key, f"is too long: an option has at most {_LONGEST} bytes")
                if value:
                    self.provided[code] = value.encode(errors="surrogateescape")
        requested = options["request"]
        skip_default = any(item.boolean("skipDefault") for item in requested)
        self.parameters = [] if skip_default else list(_PARAMETERS)
        self.parameters += [code for item in requested if (code := _code(item)) not in self.parameters]


def socket_path(ipam: NetConf) -> str:
    path = ipam.string("daemonSocketPath") or rpc.SOCKET
    if not is_path(path):
        raise ipam.refuse(
            "daemonSocketPath", f"is wrong: {path!r} is not an absolute path of at most 107 bytes"
        )
    return path


def _code(item: NetConf) -> int:
    name = item.string("option")
    if name in _CODES:
        return _CODES[name]
    if name.isascii() and name.isdigit() and int(name) <= 255:
        return int(name)
    names = ", ".join(_CODES)
    raise item.refuse("option", f"is wrong: {name!r} is not a DHCP option", f"use 0 to 255, or {names}")


def _client_id(call: Call) -> bytes:
    """Return the ID to which the server binds the lease, not a MAC address.  Type 0: a name (RFC 2132)."""
    sticky = call.arg(leases.STICKY) if leases.STICKY in call.request.args else ""
    client = f"{leases.STICKY_OWNER}{sticky}" if sticky else call.container_id
    return b"\0" + "/".join((client, call.network, call.ifname)).encode()[:254]


def _owner(call: Call) -> "tuple[str, str, str]":
    return call.network, call.container_id, call.ifname


def add(call: Call) -> Result:
    conf = Conf(call)
    request = {
        "do": "obtain",
        "owner": _owner(call),
        "netns": call.sandbox_ns.path,
        "options": to_json(conf.provided),
        "parameters": conf.parameters,
        "timeout": conf.timeout,
    }
    try:
        return _result(_ask(conf.socket, request, conf.timeout), conf.priority)
    except BaseException as error:
        try:
            delete(call)
        except OSError as another:
            error.add_note(f"while undoing: {another}")
        raise


def _ask(path: str, request: "dict[str, Any]", timeout: int = 0) -> "dict[str, Any]":
    """Return the daemon's answer; start a daemon if there is none.  `timeout`: its seconds for a server."""
    try:
        return rpc.KEEPER.call(path, request, start=True, patience=timeout + 5.0)
    except RequestRejectedError as error:
        code = TRY_AGAIN_LATER if error.later else INTERNAL
        raise CniError(code, f"dhcp: {error}") from None
    except ForeignDaemonError as error:
        help = 'stop it, or name another socket for this network in ipam: "daemonSocketPath"'
        raise CniError(INTERNAL, f"dhcp: {error}", help) from None
    except DaemonError as error:
        raise CniError(INTERNAL, f"dhcp: {error}") from None


def _result(granted: "dict[str, Any]", priority: int) -> Result:
    options = from_json(granted["options"])
    address = Address.parse(granted["address"])
    prefix = message.prefix_length(options.get(message.SUBNET_MASK, b""))
    if prefix is None:
        raise CniError(
            INTERNAL,
            f"dhcp: the DHCP server {granted['server']} grants {address} without a subnet mask (option 1)",
            '"skipDefault" in ipam.request leaves it out, unless ipam.request contains option 1',
        )
    router = next(iter(message.addresses(options.get(message.ROUTERS, b""))), None)
    return Result(
        ips=[IP(IPNet(address, prefix), router)],
        routes=_routes(options, router, priority),
        dns=DNS(
            [str(server) for server in message.addresses(options.get(message.NAME_SERVERS, b""))],
            message.domain_name(options.get(message.DOMAIN_NAME, b"")),
            message.domain_search(options.get(message.DOMAIN_SEARCH, b"")),
        ),
    )


def _routes(options: "dict[int, bytes]", router: "Address | None", priority: int) -> "list[Route]":
    routes = message.classless_routes(options.get(message.CLASSLESS_ROUTES, b""))
    if not routes:  # otherwise the other two do not count (RFC 3442)
        routes = message.static_routes(options.get(message.STATIC_ROUTES, b""))
        if router:
            routes.append((IPNet.parse("0.0.0.0/0"), router))
    return [
        Route(dst, priority=priority, scope=RT_SCOPE_LINK)
        if gw.is_unspecified  # the destination is on the link itself
        else Route(dst, gw, priority=priority)
        for dst, gw in routes
    ]


def delete(call: Call) -> None:
    """Release the lease.  Daemon and namespace may be gone: without renewal, it ends on the server."""
    path = socket_path(call.conf.object("ipam"))
    try:
        rpc.KEEPER.call(path, {"do": "release", "owner": _owner(call)}, start=False)
    except DaemonError:
        lease = Lease.load(folder_of(path), _owner(call))
        if lease:
            lease.release()


def check(call: Call) -> None:
    """Raise CniError if the lease is lost.  If the daemon was killed, a new one renews it from now on."""
    conf = Conf(call)
    kept = Address.parse(_ask(conf.socket, {"do": "show", "owner": _owner(call)})["address"])
    addresses = [ip.net.address for ip in call.required_prev_result().ips]
    if kept not in addresses:
        raise CniError(
            INTERNAL, f"dhcp: the lease is for {kept}, which is not among the container's addresses"
        )


def gc(call: Call) -> None:
    keep = call.valid_attachments()
    if keep is None:
        return
    path = socket_path(call.conf.object("ipam"))
    try:
        request = {"do": "gc", "network": call.network, "keep": [list(attachment) for attachment in keep]}
        rpc.KEEPER.call(path, request, start=False)
    except DaemonError:
        present = Lease.load_all(folder_of(path))
        stale = [one for one in present if one.owner[0] == call.network and one.owner[1:] not in keep]
        try_each(*(lease.release for lease in stale))


def status(call: Call) -> None:
    conf = Conf(call)
    try:
        _ask(conf.socket, {"do": "status"})
    except CniError as error:
        raise CniError(PLUGIN_NOT_AVAILABLE, error.msg, error.details) from None
