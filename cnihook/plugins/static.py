# SPDX-License-Identifier: Apache-2.0
"""
static: the addresses that the configuration names, or the runtime asks for.

The first of these that names any has them all:

    runtimeConfig.ips    (capability "ips")
    args.cni.ips
    ipam.addresses, and behind them CNI_ARGS IP=ADDRESS/PREFIX,...

Only ipam.addresses have a key for a gateway.  An address that was asked for has that of a configured one
if it is in its subnet.  GATEWAY=ADDRESS,... in CNI_ARGS goes before that, and is for the addresses of
CNI_ARGS only, as in the reference: another caller may have set the other addresses.

Nothing is kept, so nobody is told if two containers have one address.
"""

from cnihook.sdk import DNS, IP, Address, Call, CniError, IPNet, Result, Route, invalid_config
from cnihook.spec import version
from cnihook.spec.errors import INTERNAL, INVALID_CONFIG, INVALID_ENVIRONMENT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Conf:
    """The plugin's part of the configuration, with what this request has put in place of it."""

    def __init__(self, call: Call) -> None:
        if not call.conf.has("ipam"):
            raise invalid_config("IPAM config missing 'ipam' key")
        ipam = call.conf.object("ipam")
        configured = [IP.from_json(item) for item in ipam.objects("addresses")]
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
        self.routes = [Route.from_json(item) for item in ipam.objects("routes")]
        self.dns = DNS.from_json(ipam.object("dns"))

        versions = [ip.net.address.version for ip in self.ips]
        if len(versions) > len(set(versions)) and not version.at_least(call.version, "0.3.0"):
            raise invalid_config(
                f"CNI version {call.version} does not support more than 1 address per family"
            )


def _items(text: str) -> "list[str]":
    return [item.strip() for item in text.split(",") if item.strip()]


def _nets(texts: "list[Any]", where: str, code: int) -> "list[IPNet]":
    found = []
    for text in texts:
        try:
            found.append(IPNet.parse(text))
        except ValueError as error:
            raise CniError(code, f"{where}: {error}", "it takes ADDRESS/PREFIX") from None
    return found


def _gateways(call: Call) -> "list[Address]":
    try:
        return [Address.parse(item) for item in _items(call.arg("GATEWAY"))]
    except ValueError as error:
        raise CniError(INVALID_ENVIRONMENT, f"CNI_ARGS: GATEWAY: {error}") from None


def _gateway_of(configured: "list[IP]", net: IPNet) -> "Address | None":
    return next((ip.gateway for ip in configured if ip.gateway and ip.gateway in net), None)


def _each_once(ips: "list[IP]") -> "list[IP]":
    """The kernel refuses to give an interface what it has; asking for what is configured is no mistake."""
    found: dict[IPNet, IP] = {}
    for ip in ips:
        found.setdefault(ip.net, ip)
    return list(found.values())


def add(call: Call) -> Result:
    conf = Conf(call)
    return Result(ips=conf.ips, routes=conf.routes, dns=conf.dns)


def delete(call: Call) -> None:
    """Nothing is kept; a configuration that is wrong by now must not stop a DEL."""


def check(call: Call) -> None:
    given = {ip.net: ip.gateway for ip in call.required_prev_result().ips}
    for ip in Conf(call).ips:
        if ip.net not in given:
            raise CniError(INTERNAL, f"static: {ip.net} is not among the container's addresses")
        if ip.gateway and given[ip.net] != ip.gateway:
            raise CniError(INTERNAL, f"static: {ip.net} has gateway {given[ip.net]}, not {ip.gateway}")


def status(call: Call) -> None:
    Conf(call)
