# SPDX-License-Identifier: Apache-2.0
"""The other hosts of a network that several hosts share, as each picture shows them."""

from collections import Counter

from cnihook.cli.drawing.shapes import CARD, DENSE_CARD, LETTER, LINE, PAD, at, safe
from cnihook.ipam import block
from cnihook.log import warn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from cnihook.cluster.local import Other
    from cnihook.runtime.networks import Network

MOST = 10  # of a network; JSON has all
NOTE = "their containers are not known here"
STYLES = {"live": "", "not-live": "red", "unconfirmed": "yellow", "unknown": ""}  # in a terminal
_COLOURS = {"live": "#16a34a", "not-live": "#dc2626", "unconfirmed": "#d97706", "unknown": "#94a3b8"}


def of_network(configured: "Network") -> "list[Other]":
    """Return the other hosts; none for a network of this host alone, which imports nothing for it."""
    name = block.network_of(configured.plugins[0])
    if not name:
        return []
    from cnihook.cluster import local, state  # few hosts are on such a network

    try:
        return local.others(name) if name in state.networks() else []
    except state.StateError as error:
        warn(f"graph: {error}")
        return []


def summary(hosts: "list[Other]") -> str:
    """Return how many there are, and in which state: "3 other hosts: 1 not-live, 2 live"."""
    states = Counter(host.state for host in hosts)
    counts = ", ".join(f"{number} {state}" for state, number in states.items())
    return f"{len(hosts)} other host{'' if len(hosts) == 1 else 's'}: {counts}"


def shown(hosts: "list[Other]") -> "tuple[list[Other], str]":
    """Return the hosts to show, and a line about the rest; empty without a rest."""
    if len(hosts) <= MOST + 1:
        return hosts, ""
    return hosts[:MOST], f"and {len(hosts) - MOST} more"


def lines(hosts: "list[Other]") -> "list[str]":
    """Return the lines of a box of these hosts."""
    some, more = shown(hosts)
    listed = [" ".join([host.name, host.address, *host.blocks, host.state]) for host in some]
    return [summary(hosts), *listed, *filter(None, [more]), NOTE]


def details(hosts: "list[Other]") -> "list[dict[str, Any]]":
    return [
        {"name": host.name, "address": host.address, "blocks": list(host.blocks), "state": host.state}
        for host in hosts
    ]


class Card:
    """The box of a network's other hosts in an SVG.  A dense one has only their names; more is on hover."""

    def __init__(self, hosts: "list[Other]", dense: bool) -> None:
        self._hosts = hosts
        self.width = DENSE_CARD if dense else CARD
        some, more = shown(hosts)
        number = f"{len(hosts)} host{'' if len(hosts) == 1 else 's'}"
        self._title = number if dense else number.replace(" ", " other ")
        self._lines: list[tuple[Other | None, str, str]] = []  # a host that begins here, left, right
        for host in some:
            block = "" if dense else host.blocks[0]
            state = "" if dense or host.state == "live" else host.state
            if not state and len(host.name + block) * LETTER < self.width - 44:
                self._lines.append((host, host.name, block))
            else:
                self._lines += [(host, host.name, ""), *([(None, state, block)] if block else [])]
        self._rest = [*filter(None, [more]), "containers unknown"]
        self.height = 2 * PAD + LINE * (1 + len(self._lines) + len(self._rest))
        self.x = self.y = 0

    def drawn(self) -> str:
        x, y = self.x, self.y
        listed = " ".join(word for host in self._hosts[:MOST] for word in (host.name, *host.blocks))
        parts = [
            f'<g class="hosts" data-of="" data-search="{safe(listed)}">',
            f"<title>{chr(10).join(map(safe, lines(self._hosts)))}</title>",
            f'<rect class="card" x="{x}" y="{y}" width="{self.width}" height="{self.height}" rx="6"'
            ' stroke-dasharray="2 3"/>',
            at(x + 10, y + PAD + 10, self._title, "name", self.width - 16),
        ]
        line = y + PAD + 10
        for host, left, right in self._lines:
            line += LINE
            if host:
                parts.append(f'<circle cx="{x + 14}" cy="{line - 4}" r="4" fill="{_COLOURS[host.state]}"/>')
            parts.append(at(x + 24, line, left, "" if host else "dim", self.width - 32))
            parts.append(
                f'<text class="dim" x="{x + self.width - 8}" y="{line}" text-anchor="end">'
                f"{safe(right)}</text>"
                if right
                else ""
            )
        for text in self._rest:
            line += LINE
            parts.append(at(x + 10, line, text, "dim", self.width - 14))
        return "".join([*parts, "</g>"])
