# SPDX-License-Identifier: Apache-2.0
"""A network of several hosts as the files of this host show it; etcd is not asked."""

from dataclasses import dataclass

from cnihook.cluster.state import State, StateError
from cnihook.linux import flock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

LIVE, NOT_LIVE, UNKNOWN, UNCONFIRMED = "live", "not-live", "unknown", "unconfirmed"


@dataclass(frozen=True)
class Other:
    """Another host of a network.  `state`: one of those above, as the agent of this host saw it last."""

    name: str
    address: str
    blocks: "tuple[str, ...]"
    state: str


def figures(network: str) -> "dict[str, float]":
    """Return the numbers for `cnihook metrics` by their names, those that are known."""
    state = State(network)
    is_running, agent = _agent(state)
    result: dict[str, float] = {"agent_running": is_running, "connected": 0}
    if is_running:
        connected = agent.get("connected") is True
        problems = agent.get("problems")
        result |= {"connected": connected, "problems": len(problems) if isinstance(problems, dict) else 0}
        result |= _numbers(agent, {"connection_timestamp_seconds": "since"})
    result |= _numbers(
        agent, {"revision": "revision", "hosts": "blocks", "kernel_timestamp_seconds": "programmed"}
    )
    if "hosts" in result:
        result["hosts_unconfirmed"] = len(_parts(agent, "unconfirmed") or ())
        absent = _parts(agent, "absent") if is_running else None
        if absent is not None:
            result["hosts_live"] = max(result["hosts"] - len(absent), 0)
    try:
        result["fenced"] = bool(state.own().fenced)
    except StateError:
        pass  # `cnihook doctor` names the file
    return result


def others(network: str) -> "list[Other]":
    """Return the other hosts, first those that are not live.  Raises StateError for a damaged file."""
    state = State(network)
    own, peers = state.own(), state.peers()
    if not peers:
        return []
    is_running, agent = _agent(state)
    absent = _parts(agent, "absent") if is_running else None

    def state_of(part: str) -> str:
        if part in peers.unconfirmed:
            return UNCONFIRMED
        if absent is None:
            return UNKNOWN
        return NOT_LIVE if part in absent else LIVE

    hosts = [
        Other(
            block.member.name,
            block.member.address,
            tuple(map(str, peers.settings.block(block.index))),
            state_of(part),
        )
        for part, block in sorted(peers.blocks.items(), key=lambda item: item[1].index)
        if part != own.key
    ]
    return sorted(hosts, key=lambda other: other.state in (LIVE, UNKNOWN))


def _agent(state: State) -> "tuple[bool, dict[str, Any]]":
    """Return whether the agent runs, and what it wrote of itself last."""
    return flock.is_held(f"cluster-{state.network}"), state.status()


def _numbers(agent: "dict[str, Any]", names: "dict[str, str]") -> "dict[str, float]":
    """Return numbers of the agent's file by new names, without those that are missing or no numbers."""
    values = {name: agent.get(key) for name, key in names.items()}
    return {name: number for name, number in values.items() if type(number) is int and number >= 0}


def _parts(agent: "dict[str, Any]", key: str) -> "frozenset[str] | None":
    """Return the blocks that a key of the agent's file lists; None: not known."""
    parts = agent.get(key)
    return frozenset(map(str, parts)) if isinstance(parts, list) else None
