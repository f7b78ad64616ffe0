# SPDX-License-Identifier: Apache-2.0
"""cnihook update: change ports, limits, names and routes of a container that runs."""

import argparse

from cnihook.cli.shared import changing
from cnihook.cli.shared.arguments import Parser
from cnihook.container.edits import Change
from cnihook.container.own_keys import Keys
from cnihook.container.own_names import Names
from cnihook.request import emulation, quota, values
from cnihook.types.names import shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_NONE, _RESET = "none", "reset"  # values of options
_LEAST_MTU, _MOST_MTU = 68, 65535  # of IPv4: RFC 791

DESCRIPTION = f"""\
Change the networks of a container that runs, in one step: all that is requested, or nothing.

{changing.LASTS}"""


def parser() -> Parser:
    parser = Parser("update", DESCRIPTION, changing.EPILOG)
    parser.add_container()
    ports = "[[IP:]PORT:]PORT[/PROTOCOL]: publish a port on a port of the host"
    _add_list(parser, "publish-add", "PORTS", values.parse_ports, ports)
    of_host = "[IP:]PORT[/PROTOCOL]: take a published port of the host back"
    _add_list(parser, "publish-rm", "PORTS", values.parse_host_ports, of_host)
    for name, metavar, parse, purpose in (
        (
            "bandwidth",
            "LIMITS",
            values.parse_bandwidth,
            "in=RATE,out=RATE: bits per second, instead of all limits that it has; none: no limit",
        ),
        (
            "emulate",
            "EFFECTS",
            emulation.parse,
            "delay=TIME,loss=SHARE,...: a bad network, instead of the one that is emulated; none: none",
        ),
        (
            "quota",
            "LIMITS",
            _parse_quota,
            "out=BYTES,in=BYTES,total=BYTES instead of its quota, and the count continues; reset: the count "
            "begins with 0; none: no quota",
        ),
    ):
        parser.add_argument(
            f"--{name}", metavar=metavar, type=changing.checked_value(_or_none(parse)), help=purpose
        )
    for name, purpose in (("egress", "may open"), ("ingress", "may accept")):
        parser.add_argument(
            f"--{name}",
            metavar="LIST",
            help=f"the connections that it {purpose}, such as dns,10.0.0.0/8:5432/tcp; none: no connection; "
            "all: no limit.  Without --network, on all its networks",
        )
    _add_names(parser)
    _add_keys(parser)
    changing.add_arguments(parser, cuts=True)
    return parser


def _add_names(parser: Parser) -> None:
    for name, metavar, parse, purpose in (
        ("alias-add", "NAME", values.parse_alias, "another name for other containers on its networks"),
        ("alias-rm", "NAME", str, "take such a name back"),
        ("host-add", "NAME:ADDRESS", values.parse_host, "a further line of its /etc/hosts"),
        ("host-rm", "NAME", str, "remove such a line"),
        ("dns", "ADDRESS", values.parse_server, "a name server, instead of those that it has"),
        (
            "dns-search",
            "DOMAIN",
            values.parse_search,
            "a domain for short names, instead of those that it has",
        ),
        (
            "dns-option",
            "OPTION",
            values.parse_option,
            "an option of resolv.conf(5), instead of those that it has",
        ),
    ):
        is_dns = name.startswith("dns")
        purpose += " (none: as its networks have it)" if is_dns else ""
        _add_list(parser, name, metavar, _or_none(parse) if is_dns else parse, purpose)


def _add_keys(parser: Parser) -> None:
    for name, metavar, parse, purpose in (
        ("route-add", "DESTINATION[=GATEWAY]", values.parse_route, "a route of the container"),
        ("route-rm", "DESTINATION[=GATEWAY]", values.parse_route, "remove a route of its network"),
        (
            "sysctl",
            "KEY=VALUE",
            _parse_sysctl,
            "a setting below net, by the plugin tuning (none: as before)",
        ),
    ):
        _add_list(parser, name, metavar, parse, purpose)
    parser.add_argument(
        "--default-route", action="store_true", help="let --route-add and --route-rm change a default route"
    )
    parser.add_argument(
        "--mtu",
        metavar="BYTES",
        type=changing.checked_value(_parse_mtu),
        default=0,
        help="the MTU of its interface, and of the host's end of a pair",
    )


def _add_list(parser: Parser, name: str, metavar: str, parse: "Callable[[str], Any]", purpose: str) -> None:
    parser.add_argument(
        f"--{name}",
        metavar=metavar,
        action="append",
        default=[],
        type=changing.checked_value(parse),
        help=f"{purpose}, repeatable",
    )


def _or_none(parse: "Callable[[str], Any]") -> "Callable[[str], Any]":
    return lambda text: {} if text == _NONE else parse(text)


def _parse_quota(text: str) -> "dict[str, int] | str":
    return text if text == _RESET else quota.parse(text)


def _parse_mtu(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 6 and _LEAST_MTU <= int(text) <= _MOST_MTU):
        raise values.refuse(f"MTU {shown(text)}", f"it is a number from {_LEAST_MTU} to {_MOST_MTU}")
    return int(text)


def _parse_sysctl(text: str) -> "tuple[str, str]":
    key, equals, value = text.partition("=")
    if not (equals and key.strip()):
        raise values.refuse(f"sysctl {shown(text)}", "it is KEY=VALUE")
    return key.strip(), "" if value.strip() == _NONE else value.strip()


def main(argv: list[str]) -> int:
    usage = parser()
    options = usage.parse_args(argv)
    change = Change()
    change.publish_add = [port for ports in options.publish_add for port in ports]
    change.publish_rm = [port for ports in options.publish_rm for port in ports]
    change.resets_quota = options.quota == _RESET
    limits = {name: getattr(options, name) for name in ("bandwidth", "emulate", "quota")}
    change.limits = {name: value for name, value in limits.items() if value not in (None, _RESET)}
    lists = {name: getattr(options, name) for name in ("egress", "ingress")}
    change.lists = {name: text for name, text in lists.items() if text is not None}
    _read_names(options, change.names)
    _read_keys(options, change.keys)
    if change == Change():
        usage.error("nothing to change: give at least one of the options for a change")
    if options.network.network and (change.names.dns or change.names.hosts_add or change.names.hosts_rm):
        usage.error("name servers and hosts are for all networks: give them without --network")
    return changing.run("update", options, change)


def _read_names(options: argparse.Namespace, names: Names) -> None:
    names.aliases_add, names.aliases_rm = options.alias_add, options.alias_rm
    names.hosts_add, names.hosts_rm = options.host_add, options.host_rm
    for key, given in (
        ("nameservers", options.dns),
        ("search", options.dns_search),
        ("options", options.dns_option),
    ):
        if given:
            names.dns[key] = [value for value in given if value]  # `none` is empty


def _read_keys(options: argparse.Namespace, keys: Keys) -> None:
    keys.mtu = options.mtu
    keys.routes_add, keys.routes_rm = options.route_add, options.route_rm
    keys.sysctls = dict(options.sysctl)
    if keys.routes_add or keys.routes_rm:
        keys.takes_default_route = options.default_route
