# SPDX-License-Identifier: Apache-2.0
"""
static: the addresses that the configuration names, or that the runtime requests.

The first of these sources that names an address is the only one used:

    runtimeConfig.ips    (capability "ips")
    args.cni.ips
    ipam.addresses, and after them CNI_ARGS IP=ADDRESS/PREFIX,...

Only ipam.addresses have a key for a gateway.  A requested address gets the gateway of a configured address,
if that gateway is in its subnet.  GATEWAY=ADDRESS,... in CNI_ARGS comes before that.  It is for the
addresses of CNI_ARGS only, as in the reference, because another caller may have set the other addresses.

The plugin stores nothing, so it does not report that two containers have one address.
"""

from cnihook.sdk import (
    DNS,
    IP,
    Address,
    Call,
    CniError,
    Field,
    IPNet,
    Result,
    Route,
    Traits,
    invalid_config,
    read,
)
from cnihook.types import versions
from cnihook.types.errors import INTERNAL, INVALID_CONFIG, INVALID_ENVIRONMENT
from cnihook.types.fields import NEW_ONLY

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_IPS = Field("ips", list, of=str, doc="requested addresses with their prefixes: 10.1.0.5/24")
FIELDS = (
    Field("addresses", list, of=dict, fields=IP.FIELDS, doc="addresses of the container"),
    Field("routes", list, of=dict, fields=Route.FIELDS, change=NEW_ONLY, doc="routes of the container"),
    Field("dns", dict, fields=DNS.FIELDS, doc="DNS settings"),
)
TRAITS = Traits("ipam", takes=("ips", "routes"), capabilities=(_IPS,), args=(_IPS,))


class Conf:
    """The plugin's part of the configuration, with what this request replaces in it."""

    def __init__(self, call: Call) -> None:
        if not call.conf.has("ipam"):
            raise invalid_config("IPAM config missing 'ipam' key")
        ipam = call.conf.object("ipam")
        options = read(ipam, FIELDS)
        configured = [IP.from_json(item) for item in options["addresses"]]
        instead = (
            _nets(call.runtime_config.list("ips"), "runtimeConfig.ips", INVALID_CONFIG)
            or _nets(call.cni_args.list("ips"), "args.cni.ips", INVALID_CONFIG)
        )  # fmt: skip
        arguments = _nets(_items(call.arg("IP")), "CNI_ARGS: IP", INVALID_ENVIRONMENT)
        requested = [IP(net, _gateway_of(configured, net)) for net in instead or arguments]
        gateways = _gateways(call)
        if not instead:
            for ip in requested:
                ip.gateway = next((each for each in reversed(gateways) if each in ip.net), ip.gateway)
        self.ips = _each_once(requested if instead else configured + requested)
        self.routes = [Route.from_json(item) for item in options["routes"]]
        self.dns = DNS.from_json(options["dns"])

        families = [ip.net.address.version for ip in self.ips]
        if len(families) > len(set(families)) and not versions.at_least(call.version, "0.3.0"):
            raise invalid_config(
                f"CNI version {call.version} does not support more than 1 address per family"
            )


def _items(text: str) -> "list[str]":
    return [item.strip() for item in text.split(",") if item.strip()]


def _nets(texts: "list[Any]", where: str, code: int) -> "list[IPNet]":
    nets = []
    for text in texts:
        try:
            nets.append(IPNet.parse(text))
        except ValueError as error:
            raise CniError(code, f"{where}: {error}", "it takes ADDRESS/PREFIX") from None
    return nets


def _gateways(call: Call) -> "list[Address]":
    try:
        return [Address.parse(item) for item in _items(call.arg("GATEWAY"))]
    except ValueError as error:
        raise CniError(INVALID_ENVIRONMENT, f"CNI_ARGS: GATEWAY: {error}") from None


def _gateway_of(configured: "list[IP]", net: IPNet) -> "Address | None":
    return next((ip.gateway for ip in configured if ip.gateway and ip.gateway in net), None)


def _each_once(ips: "list[IP]") -> "list[IP]":
    """Return each address once: a request may repeat a configured one, and the kernel rejects the second."""
    unique: dict[IPNet, IP] = {}
    for ip in ips:
        unique.setdefault(ip.net, ip)
    return list(unique.values())


def subnets(call: Call) -> "set[IPNet]":
    """Return the subnets of the addresses that a configuration names."""
    return {ip.net.network() for ip in Conf(call).ips}


def add(call: Call) -> Result:
    conf = Conf(call)
    return Result(ips=conf.ips, routes=conf.routes, dns=conf.dns)


def delete(call: Call) -> None:
    """Do nothing, because nothing is stored.  An invalid configuration must not fail a DEL."""


def check(call: Call) -> None:
    gateways = {ip.net: ip.gateway for ip in call.required_prev_result().ips}
    for ip in Conf(call).ips:
        if ip.net not in gateways:
            raise CniError(INTERNAL, f"static: {ip.net} is not among the container's addresses")
        if ip.gateway and gateways[ip.net] != ip.gateway:
            raise CniError(INTERNAL, f"static: {ip.net} has gateway {gateways[ip.net]}, not {ip.gateway}")


def status(call: Call) -> None:
    Conf(call)
