# SPDX-License-Identifier: Apache-2.0
"""cnihook detach: detach a container from its networks, and release its addresses at once."""

from cnihook.cli.shared import arguments, containers, terminal
from cnihook.cli.shared.arguments import Parser
from cnihook.container import detach
from cnihook.log import Log
from cnihook.runtime import netns_names, records
from cnihook.runtime.records import DamagedRecordError
from cnihook.types.errors import UNKNOWN_CONTAINER, CniError
from cnihook.types.names import check_network_name

DESCRIPTION = """\
Detach a container from its networks, last one first, and release its addresses at once.

Works from the records of the attachments.  The container may run or be gone; the configurations may be gone,
too.
"""


def parser() -> Parser:
    parser = Parser("detach", DESCRIPTION)
    parser.add_container()
    parser.add_argument(
        "--network",
        metavar="NAME",
        action="append",
        default=[],
        type=arguments.checked(check_network_name),
        help="a network to detach it from (default: all), repeatable",
    )
    parser.add_argument(
        "--json", action="store_true", help="print what was detached as a list of JSON objects"
    )
    parser.add_verbose()
    parser.add_plugin_dirs()
    return parser


def main(argv: list[str]) -> int:
    options = parser().parse_args(argv)

    def work() -> None:
        container_id = containers.on_record(options.id, is_changed=True)
        damaged: list[DamagedRecordError] = []
        attachments = records.of_container(container_id, damaged=damaged)
        on = [record.network for record in attachments]
        if not (on or damaged or netns_names.is_marked(container_id)):
            raise CniError(UNKNOWN_CONTAINER, "no network is on record for it", containers.all_on_record())
        for network in options.network:
            if network not in on:
                raise CniError(UNKNOWN_CONTAINER, f"it is not on {network}", f"it is on {', '.join(on)}")
        settings = arguments.settings_of(options)
        log = Log(container_id)
        with arguments.failures_in(log, "detach"):
            for network in reversed(options.network or [""]):
                detach.down(container_id, settings, log, network)
        left = {record.identity for record in records.of_container(container_id)}
        if not left:
            log.close()
        detached = [record for record in attachments if record.identity not in left]
        if options.json:
            arguments.print_json(
                [
                    {"container": container_id, "network": record.network, "ifname": record.ifname}
                    for record in detached
                ]
            )
        else:
            networks = ", ".join(record.network for record in detached)
            terminal.remark(f"{options.id} is detached" + (f" from {networks}" if networks else ""))

    return arguments.work(f"detach {options.id}", work, verbose=options.verbose)
