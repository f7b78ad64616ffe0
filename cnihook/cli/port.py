# SPDX-License-Identifier: Apache-2.0
"""cnihook port: list the published ports of a container, as `docker port` does."""

import argparse

from cnihook.cli.shared import arguments, listing, terminal
from cnihook.cli.shared.arguments import Parser
from cnihook.cli.shared.listing import Row
from cnihook.request import published
from cnihook.types.errors import UNKNOWN_CONTAINER, CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

DESCRIPTION = """\
List the published ports of a container, as `docker port` prints them: 80/tcp -> 0.0.0.0:8080.  With PORT,
print only where that port of the container is published.
"""
EPILOG = """\
exit codes:
  0  the ports are printed; a container may have none
  1  no such container, or PORT is not published
  2  wrong usage
"""
_ANY = {4: "0.0.0.0", 6: "::"}


def parser() -> Parser:
    parser = Parser("port", DESCRIPTION, EPILOG)
    parser.add_container()
    parser.add_argument(
        "port",
        metavar="PORT[/PROTOCOL]",
        nargs="?",
        type=_port,
        help="a port of the container (default: all; default PROTOCOL: tcp)",
    )
    parser.add_argument("--json", action="store_true", help="print the ports as a list of JSON objects")
    return parser


def _port(text: str) -> "tuple[int, str]":
    number, slash, protocol = text.partition("/")
    if not (number.isdecimal() and 0 < int(number[:6]) < 65536) or (slash and not protocol):
        raise argparse.ArgumentTypeError(f"{text!r} is not PORT or PORT/PROTOCOL")
    return int(number), protocol.lower() or "tcp"


def main(argv: list[str]) -> int:
    options = parser().parse_args(argv)
    ports = [port for one in listing.of_container(options.id) for port in _published(one)]
    if options.port:
        number, protocol = options.port
        ports = [one for one in ports if (one["container_port"], one["protocol"]) == options.port]
        if not ports:
            what = f"port {number}/{protocol} of container {options.id} is not published"
            raise CniError(UNKNOWN_CONTAINER, what, f"`cnihook port {options.id}` lists those that are")
    if options.json:
        arguments.print_json(ports)
        return 0
    for one in ports:
        address = f"[{one['host_ip']}]" if ":" in one["host_ip"] else one["host_ip"]
        inside = "" if options.port else f"{one['container_port']}/{one['protocol']} -> "
        arguments.say(f"{inside}{address}:{one['host_port']}")
    if not ports:
        terminal.remark(f"container {options.id} has no published port")
    return 0


def _published(one: Row) -> "list[dict[str, Any]]":
    """Return a port for each address of the host on which it is published."""
    versions = sorted({ip.net.address.version for ip in one.result.ips})
    return [
        {
            "network": one.network,
            "host_ip": address,
            "host_port": mapping.get("hostPort"),
            "container_port": mapping.get("containerPort"),
            "protocol": published.protocol_of(mapping),
        }
        for mapping in one.mappings
        for address in (
            [str(mapping["hostIP"])] if mapping.get("hostIP") else map(_ANY.__getitem__, versions)
        )
    ]
