# SPDX-License-Identifier: Apache-2.0
"""cnihook cluster forget: take a host that is gone for good out of a network."""

import argparse

from cnihook.cli.clusters import access
from cnihook.cli.clusters.init import QUARANTINE
from cnihook.cli.shared import arguments
from cnihook.cli.shared.arguments import Parser
from cnihook.cluster import claims, state
from cnihook.cluster.etcd import EtcdStore
from cnihook.cluster.model import Member, ModelError
from cnihook.cluster.store import Keys
from cnihook.types import names
from cnihook.types.errors import IO_FAILURE, CniError

DESCRIPTION = """\
Take a host that is gone for good out of a network.

Its block is in quarantine for 24 hours, and another host may claim it then.  If the host comes back, it
starts no containers on the network until `cnihook cluster leave --force` and another join.
"""


def add_arguments(parser: Parser) -> None:
    parser.add_argument("host", metavar="HOST", help="its name, its address or its machine ID")
    parser.add_argument(
        "--network",
        metavar="NAME",
        type=arguments.checked(names.check_network_name),
        help="the network (default: the one that this host has joined)",
    )
    parser.add_argument(
        "--yes", action="store_true", help="the host is gone; without it, nothing is changed"
    )


def run(options: argparse.Namespace) -> int:
    network = options.network or _only()
    keys = Keys(network)
    with access.errors_of_store():
        store = EtcdStore(access.membership(network).access)
        key, value, member = _find(store, keys, options.host)
        part = key.removeprefix(keys.block(""))
        if store.get(keys.live(member.host)):
            raise CniError(
                IO_FAILURE,
                f"network {network}: the agent of {member.name} ({member.address}) runs",
                f"`cnihook cluster leave {network}` on that host takes it out",
            )
        if not options.yes:
            raise CniError(
                IO_FAILURE,
                f"network {network}: {member.name} ({member.address}) has block {claims.shown(part)}",
                "--yes takes it, if that host is gone for good",
            )
        if not claims.forget(store, keys, part, value, member.host, store.grant(QUARANTINE)):
            raise CniError(IO_FAILURE, f"network {network}: {member.name} has just changed", "look again")
    arguments.say(f"{network}: {claims.shown(part)} of {member.name} is free in 24 hours")
    return 0


def _only() -> str:
    joined = state.networks()
    if len(joined) == 1:
        return joined[0]
    raise CniError(
        IO_FAILURE,
        f"this host has joined {len(joined)} networks: {', '.join(joined) or 'none'}",
        "name one with --network",
    )


def _find(store: EtcdStore, keys: Keys, text: str) -> "tuple[str, bytes, Member]":
    """Return the one block whose host has this name, address or machine ID."""
    matches = []
    for item in store.items(keys.watched)[0]:
        try:
            member = Member.from_json(item.value)
        except ModelError:
            continue
        if text in (member.host, member.name, member.address):
            matches.append((item.key, item.value, member))
    if len(matches) == 1:
        return matches[0]
    if matches:
        ids = ", ".join(member.host for _key, _value, member in matches)
        raise CniError(IO_FAILURE, f"network {keys.network}: several hosts match {text}", f"name one: {ids}")
    raise CniError(
        IO_FAILURE,
        f"network {keys.network} has no host {text!r:.100}",
        f"`cnihook cluster status {keys.network}` lists its hosts",
    )
