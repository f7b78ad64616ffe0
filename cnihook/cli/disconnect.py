# SPDX-License-Identifier: Apache-2.0
"""cnihook disconnect: detach a container that runs from one network."""

from cnihook.cli.shared import arguments, containers
from cnihook.cli.shared.arguments import Parser
from cnihook.container import detach
from cnihook.linux import route_lookup
from cnihook.linux.netns import NetNS
from cnihook.linux.rtnl import RT_TABLE_MAIN
from cnihook.log import Log
from cnihook.runtime import attachment, records
from cnihook.types.errors import UNKNOWN_CONTAINER, CniError
from cnihook.types.names import check_network_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cnihook.linux.route_lookup import LinkRoute
    from cnihook.runtime.records import Record

DESCRIPTION = """\
Detach a container from one network, with the operands of `docker network disconnect`, and release its
addresses at once.  Its connections by other networks stay.

If its default route is by this network, the one of the network that was attached next takes over.  This, and
what has no default route any more, is printed.
"""


def parser() -> Parser:
    parser = Parser("disconnect", DESCRIPTION)
    parser.add_argument(
        "network",
        metavar="NETWORK",
        type=arguments.checked(check_network_name),
        help="the network to detach it from",
    )
    parser.add_container()
    parser.add_verbose()
    parser.add_plugin_dirs()
    return parser


def main(argv: list[str]) -> int:
    options = parser().parse_args(argv)

    def work() -> None:
        container_id = containers.on_record(options.id, is_changed=True)
        attachments = records.of_container(container_id)
        if options.network not in [record.network for record in attachments]:
            on = ", ".join(record.network for record in attachments)
            hint = f"it is on {on}" if on else containers.all_on_record()
            raise CniError(UNKNOWN_CONTAINER, f"it is not on {options.network}", hint)
        log = Log(container_id)
        before = _default_routes(attachments)
        with arguments.failures_in(log, "disconnect"):
            detach.down(container_id, arguments.settings_of(options), log, options.network)
        left = records.of_container(container_id)
        if not left:
            log.close()
        arguments.say(f"disconnected from {options.network}")
        now = _default_routes(left)
        for version, (ifname, _gateway) in before.items():
            if version not in now:
                arguments.say(f"no default route for IPv{version} any more")
            elif now[version][0] != ifname:
                arguments.say("the default route for IPv{} is by {}, {} now".format(version, *now[version]))

    return arguments.work(f"disconnect {options.id}", work, verbose=options.verbose)


def _default_routes(attachments: "list[Record]") -> "dict[int, tuple[str, str]]":
    """Return {IP version: (interface, gateway)} of a running container's default routes."""
    path = next(filter(None, map(attachment.live_netns_path, attachments)), "")
    namespace = NetNS.find(path) if path else None
    if not namespace:
        return {}
    try:
        first: dict[int, LinkRoute] = {}
        for route in route_lookup.routes(namespace.rtnl):
            if route.dst is None and route.table == RT_TABLE_MAIN and route.index:
                best = first.setdefault(route.version, route)
                first[route.version] = min(best, route, key=lambda each: each.priority)
        return {
            version: (link.name, str(route.gateway or "without a gateway"))
            for version, route in sorted(first.items())
            if (link := namespace.rtnl.find_link_by_index(route.index))
        }
    finally:
        namespace.close()
