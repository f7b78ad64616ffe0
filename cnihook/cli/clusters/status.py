# SPDX-License-Identifier: Apache-2.0
"""cnihook cluster status: show the hosts of a network, and what is wrong."""

import argparse
import time

from cnihook.cli.clusters import access
from cnihook.cli.shared import arguments, table, terminal
from cnihook.cli.shared.arguments import Parser
from cnihook.cli.shared.table import Cell, Column
from cnihook.cluster import claims, state, transport
from cnihook.cluster.claims import Own
from cnihook.cluster.etcd import EtcdStore
from cnihook.cluster.model import Block, Settings
from cnihook.cluster.peers import Peers
from cnihook.cluster.state import State, StateError
from cnihook.cluster.store import Keys, StoreError, under
from cnihook.cluster.view import View
from cnihook.linux import flock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

DESCRIPTION = """\
Show the hosts of a network, their blocks and if their agents run, and what is wrong on this host.

If etcd does not answer, the hosts are those that this host's agent has seen last.
"""
EPILOG = """\
exit codes:
  0  nothing is wrong
  1  something is wrong; a line names it
  2  wrong usage
"""
_COLUMNS = (
    Column("HOST", low=8),
    Column("ADDRESS", low=12),
    Column("BLOCK", low=14),
    Column("STATE"),
)


def add_arguments(parser: Parser) -> None:
    access.add_network(parser, optional=True)
    parser.add_argument("--json", action="store_true", help="print a list of JSON objects")


def run(options: argparse.Namespace) -> int:
    names = [options.name] if options.name else state.networks()
    if options.name:
        access.membership(options.name)
    reports = [_Report(name).read() for name in names]
    if options.json:
        arguments.print_json(reports)
    elif not reports:
        terminal.remark("this host has joined no network of several hosts")
    else:
        for report in reports:
            _show(report)
    return int(any(report["problems"] for report in reports))


class _Report:
    """One network, from this host's files and from etcd."""

    def __init__(self, network: str) -> None:
        self._network = network
        self._state = State(network)
        self._problems: list[str] = []

    def read(self) -> "dict[str, Any]":
        own, peers = Own(), None
        try:
            own, peers = self._state.own(), self._state.peers()
        except StateError as error:
            self._problems.append(str(error))
        agent = self._state.status()
        is_running = flock.is_held(f"cluster-{self._network}")
        if not is_running:
            self._problems.append("the agent does not run; `systemctl start cnihook-agent` starts it")
        settings, blocks, live = self._hosts(peers)
        self._judge(own, agent if is_running else {}, settings)
        missing = [
            block.member.name for block in blocks if live is not None and block.member.host not in live
        ]
        if missing:
            self._problems.append(f"not live: {', '.join(missing[:5])}{' ...' if len(missing) > 5 else ''}")
        return {
            "name": self._network,
            "block": claims.shown(own.key),
            "fenced": own.fenced,
            "settings": _settings(settings),
            "agent": {"running": is_running, **agent},
            "hosts": [self._host(block, settings, live, peers) for block in blocks],
            "problems": self._problems,
        }

    def _hosts(self, peers: "Peers | None") -> "tuple[Settings | None, list[Block], set[str] | None]":
        """Return settings, blocks, and the hosts that are live; None for these if etcd does not answer."""
        keys = Keys(self._network)
        try:
            store = EtcdStore(self._state.membership().access)
            view = View(keys, *store.items(keys.watched))
            prefix = keys.live("")
            live = {item.key.removeprefix(prefix) for item in store.items(under(prefix))[0]}
        except (StoreError, StateError) as error:
            self._problems.append(f"etcd: {error}" if isinstance(error, StoreError) else str(error))
            return (peers.settings, list(peers.blocks.values()), None) if peers else (None, [], None)
        if not view.settings:
            self._problems.append(
                "etcd does not have the settings of the network; if it has lost its data,"
                f" `cnihook cluster init {self._network} --recover` writes them again"
            )
        settings = view.settings or (peers.settings if peers else None)
        blocks = list(view.blocks(settings).values()) if settings else []
        self._problems += [f"{key}: {reason}" for key, reason in list(view.wrong.items())[:5]]
        if settings and peers:  # in the order of the blocks, with those that the store has lost
            present = {block.index for block in blocks}
            blocks += [
                block
                for part, block in peers.blocks.items()
                if part in peers.unconfirmed and block.index not in present
            ]
        return settings, sorted(blocks, key=lambda block: block.index), live

    def _judge(self, own: Own, agent: "dict[str, Any]", settings: "Settings | None") -> None:
        if own.fenced:
            self._problems.append(f"this host may not start containers: {own.fenced}")
        elif not own.key:
            self._problems.append("this host has no block yet")
        problems = agent.get("problems")
        for subject, problem in problems.items() if isinstance(problems, dict) else ():
            if subject == "store" or (subject == "block" and own.fenced):
                continue  # it is reported from here
            self._problems.append(f"{subject}: {problem}")
        if agent and not agent.get("connected"):
            seconds = int(time.time() - agent.get("since", time.time()))
            self._problems.append(f"the agent has had no connection to etcd for {max(0, seconds)} s")
        if settings:
            try:
                self._problems += transport.of(settings, self._network, self._state.folder).check()
            except (OSError, transport.TransportError) as error:
                self._problems.append(str(error))

    def _host(
        self, block: Block, settings: "Settings | None", live: "set[str] | None", peers: "Peers | None"
    ) -> "dict[str, Any]":
        member = block.member
        key = settings.key(block.index) if settings else ""
        is_unconfirmed = bool(peers and key in peers.unconfirmed)
        return {
            "host": member.host,
            "name": member.name,
            "address": member.address,
            "block": claims.shown(key),
            "blocks": list(map(str, settings.block(block.index))) if settings else [],
            "live": None if live is None else member.host in live,
            "confirmed": not is_unconfirmed,
        }


def _settings(settings: "Settings | None") -> "dict[str, Any] | None":
    if not settings:
        return None
    return {
        "subnets": list(map(str, settings.subnets)),
        "blocks": list(settings.blocks),
        "transport": settings.transport,
        "mtu": settings.mtu,
        "epoch": settings.epoch,
    }


def _show(report: "dict[str, Any]") -> None:
    settings = report["settings"]
    about = (
        f"{' '.join(settings['subnets'])} {settings['transport']} MTU {settings['mtu']}" if settings else ""
    )
    arguments.say(f"{report['name']}: {about or 'settings unknown'}")
    if report["hosts"]:
        rows = [
            [Cell(host["name"]), Cell(host["address"]), Cell(host["block"]), Cell(_state(host))]
            for host in report["hosts"]
        ]
        table.show(_COLUMNS, rows)
    for problem in report["problems"]:
        arguments.say(f"! {problem}")


def _state(host: "dict[str, Any]") -> str:
    if not host["confirmed"]:
        return "unconfirmed"
    return {True: "live", False: "not-live", None: "unknown"}[host["live"]]
