# SPDX-License-Identifier: Apache-2.0
"""cnihook cluster init: write the settings of a network into etcd."""

import argparse
import ipaddress
import secrets
import time

from cnihook.cli.clusters import access
from cnihook.cli.networks import subnets
from cnihook.cli.shared import arguments
from cnihook.cli.shared.arguments import Parser
from cnihook.cluster import claims, transport
from cnihook.cluster.etcd import EtcdStore
from cnihook.cluster.etcd_http import Access
from cnihook.cluster.model import TRANSPORTS, ModelError, Settings
from cnihook.cluster.peers import Peers
from cnihook.cluster.state import State
from cnihook.cluster.store import PREFIX, Keys, under
from cnihook.cluster.underlay import address_towards
from cnihook.cluster.view import View
from cnihook.fast.address import Address, IPNet
from cnihook.linux import route_lookup
from cnihook.linux.netns import NetNS
from cnihook.types.errors import INVALID_CONFIG, IO_FAILURE, CniError, invalid_config

DESCRIPTION = """\
Write the settings of a network into etcd, once for all hosts, and print them.

With --recover: etcd has lost its data, or the settings.  Run it on a host of the network.  It waits until
the hosts have claimed their blocks again.  The blocks of hosts that have not, and that this host knows, are
kept for them for 24 hours.
"""
EPILOG = """\
A subnet needs a part for each host: with --subnet 10.60.0.0/16 --block 24, 256 hosts can have 253 containers
each.  The subnets of other networks, and those that this host uses, are refused.
"""
QUARANTINE = 24 * 3600  # seconds
_BLOCK = {4: 24, 6: 64}
_PORTS = {"wireguard": 51820}
_VXLAN_PORT = 4789
_USUAL = 1500  # MTU of a link that cannot be looked up


def add_arguments(parser: Parser) -> None:
    access.add_network(parser)
    parser.add_argument(
        "--subnet",
        metavar="CIDR",
        action="append",
        default=[],
        help="the addresses of all hosts; one of each IP version, repeatable",
    )
    parser.add_argument(
        "--block",
        metavar="LENGTH",
        type=int,
        action="append",
        default=[],
        help="prefix length of one host's part of a subnet (default: 24, IPv6: 64), repeatable",
    )
    parser.add_argument(
        "--transport",
        choices=TRANSPORTS,
        metavar="KIND",
        default="vxlan",
        help="vxlan; routes, if the hosts are on one link; wireguard, which encrypts; none, if another"
        " program makes the routes (default: vxlan)",
    )
    parser.add_argument(
        "--mtu", metavar="BYTES", type=int, help="of the containers (default: what the transport leaves)"
    )
    parser.add_argument(
        "--vni", metavar="NUMBER", type=int, default=117, help="VXLAN's network (default: 117)"
    )
    parser.add_argument(
        "--port", metavar="PORT", type=int, help="UDP port (default: 4789; wireguard: 51820)"
    )
    parser.add_argument(
        "--names",
        action="store_true",
        help="containers find those of other hosts by name, within seconds; for some thousand containers",
    )
    parser.add_argument(
        "--recover", action="store_true", help="write the settings again, as this host had them"
    )
    parser.add_argument(
        "--wait",
        metavar="SECONDS",
        type=float,
        default=60.0,
        help="with --recover: time for the hosts to claim their blocks (default: 60)",
    )
    parser.add_argument("--json", action="store_true", help="print a JSON object")
    parser.add_conf_dir()
    parser.add_plugin_dirs()
    access.add_etcd(parser)


def run(options: argparse.Namespace) -> int:
    kept: list[dict[str, str]] = []
    with access.errors_of_store():
        settings = _recover(options, kept) if options.recover else _create(options)
    if options.json:
        arguments.print_json({"name": options.name, **_described(settings), "kept": kept})
    else:
        for one in kept:
            arguments.say(f"{one['block']} is kept for {one['host']} for 24 hours")
        arguments.say(
            f"{options.name}: {settings.count} blocks; `cnihook cluster join {options.name}` on each host"
        )
    return 0


def _described(settings: Settings) -> "dict[str, object]":
    return {
        "subnets": list(map(str, settings.subnets)),
        "blocks": list(settings.blocks),
        "count": settings.count,
        "transport": settings.transport,
        "mtu": settings.mtu,
        "epoch": settings.epoch,
    }


def _create(options: argparse.Namespace) -> Settings:
    chosen = access.of_options(options)
    if not chosen:
        raise invalid_config("--etcd is missing: where the settings are written")
    settings = _settings(options, chosen)
    store, keys = EtcdStore(chosen), Keys(options.name)
    items, _revision = store.items(keys.watched)
    if any(item.key == keys.config for item in items):
        raise CniError(IO_FAILURE, f"network {options.name} exists in etcd already", "choose another name")
    if items:
        raise CniError(
            IO_FAILURE,
            f"network {options.name}: etcd has {len(items)} of its blocks, but not its settings",
            f"`cnihook cluster init {options.name} --recover` on a host of the network writes them again",
        )
    refuse_overlap(options, settings, store, "choose another --subnet")
    _write(store, keys, settings)
    return settings


def _settings(options: argparse.Namespace, chosen: Access) -> Settings:
    if not options.subnet:
        raise invalid_config("--subnet is missing: the addresses of all hosts, such as 10.60.0.0/16")
    try:
        nets = tuple(map(ipaddress.ip_network, options.subnet))
    except ValueError as error:
        raise invalid_config(f"--subnet: {error}") from None
    blocks = options.block or [_BLOCK[net.version] for net in nets]
    try:
        settings = Settings(
            subnets=nets,
            blocks=tuple(blocks),
            transport=options.transport,
            mtu=options.mtu or _USUAL,
            epoch=secrets.token_hex(8),
            created=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            vni=options.vni,
            port=options.port or _PORTS.get(options.transport, _VXLAN_PORT),
            names=options.names,
        )
        return settings if options.mtu else _with_mtu(settings, options.name, chosen)
    except ModelError as error:
        raise invalid_config(f"network {options.name}: {error}") from None


def _with_mtu(settings: Settings, network: str, chosen: Access) -> Settings:
    """Return the settings with the MTU that the transport leaves of the link towards etcd."""
    from dataclasses import replace

    address = address_towards(chosen.endpoints)
    link = route_lookup.link_towards(NetNS.current().rtnl, Address.parse(address)) if address else None
    overhead = transport.of(settings, network, State(network).folder).overhead
    return replace(settings, mtu=(link.mtu if link else _USUAL) - overhead[":" in address])


def refuse_overlap(options: argparse.Namespace, settings: Settings, store: EtcdStore, hint: str) -> None:
    """Raise CniError if the subnets are in use on this host, or by another network in etcd."""
    uses = subnets.in_use(arguments.settings_of(options), NetNS.current().rtnl)
    for net in settings.subnets:
        try:
            subnets.refuse_overlap(IPNet.parse(str(net)), uses)
        except CniError as error:
            raise CniError(error.code, error.msg, hint) from None
    for item in store.items(under(PREFIX))[0]:
        name, _slash, rest = item.key.removeprefix(PREFIX).partition("/")
        if rest != "config" or name == options.name:
            continue
        try:
            other = Settings.from_json(item.value)
        except ModelError:
            continue
        for net in settings.subnets:
            for taken in other.subnets:
                if net.version == taken.version and net.overlaps(taken):
                    raise CniError(
                        INVALID_CONFIG,
                        f"subnet {net} overlaps {taken} of network {name} in etcd",
                        "choose another",
                    )


def _write(store: EtcdStore, keys: Keys, settings: Settings) -> None:
    if not store.create(keys.config, settings.to_json()):
        raise CniError(IO_FAILURE, f"network {keys.network}: another host has just written its settings")


def _recover(options: argparse.Namespace, kept: "list[dict[str, str]]") -> Settings:
    """Write the settings of the snapshot again, with another epoch.

    Adds to `kept` the blocks that are put into quarantine for their hosts.
    """
    from dataclasses import replace

    if options.subnet or options.block or options.mtu:
        raise invalid_config(
            "--recover takes the settings that this host had: leave out --subnet, --block, --mtu"
        )
    store, keys = EtcdStore(access.membership(options.name).access), Keys(options.name)
    peers = State(options.name).peers()
    if not peers:
        raise CniError(IO_FAILURE, f"network {options.name}: this host has not seen its settings")
    if store.get(keys.config):
        raise CniError(
            IO_FAILURE, f"network {options.name}: its settings are in etcd", "nothing is to recover"
        )
    settings = replace(peers.settings, epoch=secrets.token_hex(8))
    view = _wait(store, keys, peers, options.wait)
    lease = 0
    for part, block in peers.blocks.items():
        if view.is_free(part):
            lease = lease or store.grant(QUARANTINE)
            store.create(keys.quarantine(part), claims.quarantined(block.member.host), lease=lease)
            kept.append({"block": claims.shown(part), "host": block.member.name})
    _write(store, keys, settings)
    return settings


def _wait(store: EtcdStore, keys: Keys, peers: Peers, seconds: float) -> View:
    """Return the store once all blocks that this host knows are claimed again, or the time is over."""
    end = time.monotonic() + seconds
    while True:
        view = View(keys, *store.items(keys.watched))
        if time.monotonic() >= end or not any(map(view.is_free, peers.blocks)):
            return view
        time.sleep(min(1.0, max(0.0, end - time.monotonic())))
