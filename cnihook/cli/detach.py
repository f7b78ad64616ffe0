# SPDX-License-Identifier: Apache-2.0
"""cnihook detach: take a container off its networks, and give its addresses back at once."""

from cnihook import detach
from cnihook.cli import arguments
from cnihook.cli.arguments import Parser
from cnihook.log import Log
from cnihook.runtime import cache, netns_names
from cnihook.runtime.cache import Damaged
from cnihook.spec.errors import UNKNOWN_CONTAINER, CniError
from cnihook.spec.names import check_network_name

DESCRIPTION = """\
Take a container off its networks, last one first, and give its addresses back at once.

Works from the record of what was attached: the container may run or be gone, and so may the configurations.
"""


def parser() -> Parser:
    made = Parser("detach", DESCRIPTION)
    made.add_container()
    made.add_argument(
        "--network",
        metavar="NAME",
        action="append",
        default=[],
        type=arguments.checked(check_network_name),
        help="a network to take it off, repeatable; else all that it is on",
    )
    made.add_plugin_folders()
    return made


def main(argv: list[str]) -> int:
    found = parser().parse_args(argv)

    def work() -> None:
        damaged: list[Damaged] = []
        on = [record.network for record in cache.of_container(found.id, damaged=damaged)]
        if not (on or damaged or netns_names.is_marked(found.id)):
            raise CniError(UNKNOWN_CONTAINER, "it is on no network by our record")
        for network in found.network:
            if network not in on:
                raise CniError(UNKNOWN_CONTAINER, f"it is not on {network}", f"it is on {', '.join(on)}")
        settings = arguments.settings_of(found)
        log = Log(found.id)
        with arguments.failures_in(log, "detach"):
            for network in reversed(found.network or [""]):
                detach.down(found.id, settings, log, network=network)
        if not cache.of_container(found.id):
            log.close()

    return arguments.work(f"detach {found.id}", work)
