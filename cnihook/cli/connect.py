# SPDX-License-Identifier: Apache-2.0
"""cnihook connect: attach a container that runs to one more network."""

from cnihook.cli import attach
from cnihook.cli.shared import arguments, changing
from cnihook.cli.shared.arguments import Parser
from cnihook.request import values
from cnihook.request.request import ContainerRequest
from cnihook.runtime.addition import Attachment

DESCRIPTION = """\
Attach a container that runs to one more network, with the operands of `docker network connect`.  It is found
as by `cnihook attach`, which takes more options.

Its default routes, its published ports and all its connections stay as they are.  It gets a default route by
the new network for an IP version for which it has none; otherwise one that takes over when it is
disconnected from the other network.
"""


def parser() -> Parser:
    parser = Parser("connect", DESCRIPTION)
    parser.add_argument(
        "network",
        metavar="NETWORK[:IFNAME]",
        type=changing.checked_value(values.parse_network),
        help="the network, and the name of the interface (default: the next free one of eth0, eth1, ...)",
    )
    parser.add_container()
    for name, metavar, parse, purpose in (
        ("ip", "ADDRESS", lambda text: values.parse_ip(text, 4), "an IPv4 address"),
        ("ip6", "ADDRESS", lambda text: values.parse_ip(text, 6), "an IPv6 address"),
        ("alias", "NAME", values.parse_alias, "another name on this network"),
    ):
        parser.add_argument(
            f"--{name}",
            metavar=metavar,
            action="append",
            default=[],
            type=changing.checked_value(parse),
            help=f"{purpose}, repeatable",
        )
    parser.add_argument(
        "--mac-address",
        metavar="ADDRESS",
        type=changing.checked_value(values.parse_mac),
        help="a MAC address",
    )
    attach.add_runtime(parser)
    parser.add_verbose()
    parser.add_conf_dir()
    parser.add_plugin_dirs()
    return parser


def main(argv: list[str]) -> int:
    options = parser().parse_args(argv)
    requested = options.network
    requested.ips += [*options.ip, *options.ip6]
    requested.aliases += options.alias
    requested.mac = options.mac_address or requested.mac
    return attach.run("connect", options, ContainerRequest([requested]), _report)


def _report(attached: list[Attachment]) -> None:
    for one in attached:
        addresses = " ".join(str(ip.net) for ip in one.result.ips)
        arguments.say(f"connected to {one.network.name}, {one.record.ifname}: {addresses}")
