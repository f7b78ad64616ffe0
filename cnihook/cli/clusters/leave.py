# SPDX-License-Identifier: Apache-2.0
"""cnihook cluster leave: take this host out of a network."""

import argparse

from cnihook.cli.clusters import access
from cnihook.cli.networks import removal
from cnihook.cli.shared import arguments
from cnihook.cli.shared.arguments import Parser
from cnihook.cluster import transport
from cnihook.cluster.etcd import EtcdStore
from cnihook.cluster.model import Member, ModelError
from cnihook.cluster.state import Membership, State, StateError, machine_id
from cnihook.cluster.store import Keys
from cnihook.linux.flock import Lock, LockBusyError
from cnihook.log import warn
from cnihook.names import other_hosts
from cnihook.protocol import locks
from cnihook.runtime.networks import load_folder
from cnihook.types.errors import IO_FAILURE, CniError

DESCRIPTION = """\
Take this host out of a network: give its block back, and remove its routes, its files and the bridge.

It is refused while containers are on the network, and while the agent runs.
"""


def add_arguments(parser: Parser) -> None:
    access.add_network(parser)
    parser.add_argument(
        "--force",
        action="store_true",
        help="detach the containers first, and do not wait for etcd: then the block stays claimed",
    )
    parser.add_conf_dir()
    parser.add_plugin_dirs()


def run(options: argparse.Namespace) -> int:
    membership = access.membership(options.name)
    state = State(options.name)
    try:
        with Lock(f"cluster-{options.name}", timeout=0, purpose="cluster leave"):
            _remove_network(options)
            if _has_block(state, membership):
                _give_back(options.name, membership, force=options.force)
            _remove_routes(state)
            other_hosts.remove(options.name)
            state.remove()
    except LockBusyError:
        raise CniError(
            IO_FAILURE,
            f"network {options.name}: the agent runs",
            "`systemctl stop cnihook-agent`, leave, and start it again if the host is on other networks",
        ) from None
    arguments.say(f"{options.name}: left")
    return 0


def _remove_network(options: argparse.Namespace) -> None:
    """Remove the network's file, and what it has on the host.  Raises CniError if containers are on it."""
    settings = arguments.settings_of(options)
    with locks.networks(f"cluster leave {options.name}"):
        selected = [one for one in load_folder(settings.conf_dir)[0] if one.name == options.name]
        errors = removal.remove(selected, settings, force=options.force)
    for error in errors.values():
        raise error
    if not selected and (rows := removal.users({options.name}).get(options.name)):
        raise removal.NetworkInUseError(options.name, removal.described(rows))


def _has_block(state: State, membership: Membership) -> bool:
    """Return False on a fenced host, such as a copy of another one: what has its claim is not its block."""
    try:
        return not state.own().fenced and membership.host == machine_id()
    except StateError as error:
        raise CniError(IO_FAILURE, str(error), "remove the file, and leave again") from None


def _give_back(network: str, membership: Membership, *, force: bool) -> None:
    """Delete this host's claims in etcd; another host's stay as they are."""
    keys = Keys(network)
    try:
        with access.errors_of_store():
            store = EtcdStore(membership.access)
            for item in store.items(keys.watched)[0]:
                if _claim_of(item.value) == membership.claim:
                    store.delete(item.key, item.value)
    except CniError as error:
        if not force:
            error.details = (
                "`--force` leaves the block claimed; `cnihook cluster forget` on another host frees it"
            )
            raise
        warn(f"cluster leave: {error.msg}; `cnihook cluster forget` on another host frees the block")


def _claim_of(value: bytes) -> str:
    try:
        return Member.from_json(value).claim
    except ModelError:
        return ""


def _remove_routes(state: State) -> None:
    try:
        peers = state.peers()
    except StateError as error:
        raise CniError(IO_FAILURE, str(error), "remove the file, and leave again") from None
    if peers:
        try:
            transport.of(peers.settings, state.network, state.folder).remove()
        except transport.TransportError as error:
            raise CniError(IO_FAILURE, f"network {state.network}: {error}") from None
