# SPDX-License-Identifier: Apache-2.0
"""cnihook cluster join: make this host a member of a network."""

import argparse
import ipaddress
import secrets

from cnihook.cli.clusters import access, init
from cnihook.cli.networks import store as network_files
from cnihook.cli.shared import arguments
from cnihook.cli.shared.arguments import Parser
from cnihook.cluster.etcd import EtcdStore
from cnihook.cluster.etcd_http import Access
from cnihook.cluster.model import Settings
from cnihook.cluster.state import Membership, State, machine_id, networks
from cnihook.cluster.store import Keys
from cnihook.cluster.underlay import address_towards
from cnihook.cluster.view import View
from cnihook.linux.netns import NetNS
from cnihook.protocol import locks
from cnihook.runtime.networks import load_folder
from cnihook.types.errors import IO_FAILURE, CniError, invalid_config

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

DESCRIPTION = """\
Make this host a member of a network, and write the network's file into the folder of networks.

The agent claims the host's block then.  Start it with `systemctl enable --now cnihook-agent`, or restart it
if it runs.  Until it has claimed one, containers on the network do not start.
"""
_VERSION = "1.1.0"  # with STATUS, which fails while the host has no block
_IFNAMSIZ = 15


def add_arguments(parser: Parser) -> None:
    access.add_network(parser)
    parser.add_argument(
        "--address",
        metavar="ADDRESS",
        default="",
        help="where the other hosts reach this one (default: its address towards etcd)",
    )
    parser.add_conf_dir()
    parser.add_plugin_dirs()
    access.add_etcd(parser)


def run(options: argparse.Namespace) -> int:
    chosen = access.of_options(options)
    if not chosen:
        raise invalid_config("--etcd is missing: where the network is")
    if options.name in networks():
        raise CniError(
            IO_FAILURE,
            f"this host has joined network {options.name} already",
            f"`cnihook cluster status {options.name}` shows it",
        )
    with access.errors_of_store():
        settings = _join(options, chosen)
    arguments.say(f"{options.name}: joined, {settings.transport}, MTU {settings.mtu}")
    arguments.say(
        "now `systemctl enable --now cnihook-agent`, or `systemctl restart cnihook-agent` if it runs"
    )
    return 0


def _join(options: argparse.Namespace, chosen: Access) -> Settings:
    host, store, keys = machine_id(), EtcdStore(chosen), Keys(options.name)
    view = View(keys, *store.items(keys.watched))
    settings = view.settings
    if not settings:
        raise CniError(
            IO_FAILURE,
            f"network {options.name}: {view.wrong.get(keys.config, 'etcd does not have it')}",
            f"`cnihook cluster init {options.name}` makes it",
        )
    for block in view.blocks(settings).values():
        if block.member.host == host:
            member = block.member
            raise CniError(
                IO_FAILURE,
                f"network {options.name}: {member.name} ({member.address}) has this host's machine ID",
                "if that is this host, from before: `cnihook cluster forget "
                f"{member.name} --network {options.name} --yes` on another host; "
                "if this host is a copy of it: `systemd-machine-id-setup` after removing /etc/machine-id",
            )
    _check_address(options.address, chosen)
    init.refuse_overlap(options, settings, store, "remove what uses it on this host, and join again")
    membership = Membership(chosen, host, secrets.token_hex(16), options.address)
    own_settings = arguments.settings_of(options)
    with locks.networks(f"cluster join {options.name}"):
        raw = _conflist(options.name, settings)
        _refuse_names(options.name, own_settings.conf_dir, raw)
        state = State(options.name)
        state.write_membership(membership)
        try:
            text = f"{arguments.as_json(raw, 2)}\n".encode()
            network_files.write(
                network_files.path_of(options.name, own_settings.conf_dir), text, own_settings
            )
        except BaseException:
            state.remove()
            raise
    return settings


def _check_address(text: str, chosen: Access) -> None:
    if not text:
        if not address_towards(chosen.endpoints):
            raise invalid_config("this host has no address towards etcd that others reach; give --address")
        return
    try:
        address = ipaddress.ip_address(text)
    except ValueError as error:
        raise invalid_config(f"--address: {error}") from None
    present = {str(own.net.address) for own in NetNS.current().rtnl.addresses()}
    if str(address) not in present:
        raise invalid_config(f"--address: {text} is not an address of this host")


def _refuse_names(network: str, folder: str, raw: "dict[str, Any]") -> None:
    for other in load_folder(folder)[0]:
        if other.name == network:
            raise CniError(
                IO_FAILURE,
                f"network {network} exists already, in {other.source}",
                "`cnihook network rm` removes it",
            )
    bridge = raw["plugins"][0]["bridge"]
    if NetNS.current().rtnl.find_link(bridge):
        raise CniError(
            IO_FAILURE, f"a link with the name {bridge} exists", f"`ip link delete {bridge}` removes it"
        )


def bridge_of(network: str) -> str:
    """Return the name of the network's bridge; that of a long name has a hash."""
    name = f"{network}0"
    if len(name) <= _IFNAMSIZ:
        return name
    from _blake2 import blake2s

    return f"cl-{blake2s(network.encode(), digest_size=6).hexdigest()}"


def _conflist(network: str, settings: Settings) -> "dict[str, Any]":
    subnets = list(map(str, settings.subnets))
    routes = [{"dst": "0.0.0.0/0" if net.version == 4 else "::/0"} for net in settings.subnets]
    return {
        "cniVersion": _VERSION,
        "name": network,
        "plugins": [
            {
                "type": "bridge",
                "bridge": bridge_of(network),
                "isGateway": True,
                "ipMasq": True,
                "ipMasqSubnets": subnets,
                "mtu": settings.mtu,
                "ipam": {"type": "host-local", "block": network, "routes": routes},
            },
            {"type": "portmap", "capabilities": {"portMappings": True}},
        ],
    }
