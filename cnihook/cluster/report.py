# SPDX-License-Identifier: Apache-2.0
"""The state of a network of several hosts: its hosts, this host's block, and what is wrong."""

import time

from cnihook.cluster import claims, transport
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


class Report:
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
