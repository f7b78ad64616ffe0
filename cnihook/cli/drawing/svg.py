# SPDX-License-Identifier: Apache-2.0
"""
A picture of networks as SVG, with its own layout: uplinks on the left, then the networks, one band each,
then in each band the containers whose first network it is.

A container on several networks has a line to each of the others.  Lines to the same network share a lane,
like those of a bus, so that a hundred lines are as clear as one.
"""

import math

from cnihook.cli.drawing import hosts
from cnihook.cli.drawing.model import NO_WAY, Container, Interface, Network, Picture
from cnihook.cli.drawing.shapes import CARD, DENSE_CARD, GAP, LETTER, LINE, PAD, at, safe
from cnihook.cli.shared import listing

_COLOURS = (
    "#2563eb", "#c2570c", "#059669", "#c026d3", "#7c3aed", "#0891b2", "#4d7c0f", "#be123c", "#4338ca",
    "#a16207",
)  # fmt: skip
_STATES = {
    listing.ATTACHED: "#16a34a",
    listing.ATTACHING: "#0891b2",
    listing.DEAD: "#dc2626",
    listing.RETRY: "#d97706",
}

_MARGIN, _HEAD = 20, 54
_OUT, _NET = 172, 196  # widths of the boxes of uplinks and networks
_LINKS = 92  # between uplinks and networks
_LANE = 4
_ASPECT = 1.5  # of width to height, about that of a screen
_MOST_PORTS = 3
_MANY = 60  # from this number of containers on, each gets less room

STYLE = """\
.page{fill:#fff} text{font:11px "DejaVu Sans",Verdana,Arial,sans-serif;fill:#334155}
.title{font-size:17px;font-weight:bold;fill:#0f172a} .name{font-weight:bold;font-size:12px;fill:#0f172a}
.dim{fill:#64748b} .card{fill:#fff;stroke:#cbd5e1} .box{fill:#f8fafc;stroke:#94a3b8}
.dead .card{stroke:#dc2626;stroke-dasharray:5 3} .retry .card{stroke:#d97706;stroke-dasharray:5 3}
.link{fill:none;stroke-width:2} .pill{fill:#e2e8f0} .port{fill:#0f172a} .limit{fill:#fde68a}
"""


class _Line:
    """A line of a card.  A line without an interface continues the one before."""

    def __init__(self, text: str, interface: "Interface | None" = None) -> None:
        self.text = text
        self.interface = interface


class _Card:
    """The box of a container.  A dense one has one address of each interface, and only numbers of ports."""

    def __init__(self, container: Container, dense: bool) -> None:
        self.container = container
        self.dense = dense
        self.width = DENSE_CARD if dense else CARD
        self.lines: list[_Line] = []
        self.ports: list[str] = []
        for interface in container.interfaces:
            first, *others = interface.addresses or [""]
            more = f"  +{len(others)}" if dense and others else ""
            self.lines.append(_Line(first + more, interface))
            self.lines += [_Line(address) for address in others if not dense]
            self.ports += interface.ports
        names = [len(interface.ifname) for interface in container.interfaces]
        self.indent = 24 if dense else 24 + int(max(names) * LETTER) + 10
        if dense and self.ports:
            self.ports = [" ".join(map(_outside, self.ports))]
        elif len(self.ports) > _MOST_PORTS + 1:
            more = f"and {len(self.ports) - _MOST_PORTS} more"
            self.ports = [*self.ports[:_MOST_PORTS], more]
        self.limits = _limits(container)
        self.height = 2 * PAD + LINE * (1 + len(self.lines) + len(self.ports) + len(self.limits))
        self.x = self.y = 0


def _limits(container: Container) -> "list[str]":
    """Return a line for each kind of limit, with its interfaces if not all have it."""
    lines: dict[str, list[str]] = {}
    for interface in container.interfaces:
        for limit in interface.limits:
            lines.setdefault(limit, []).append(interface.ifname)
    every = len(container.interfaces)
    return [limit if len(on) == every else f"{' '.join(on)}: {limit}" for limit, on in lines.items()]


def _outside(port: str) -> str:
    """Return the published port of 127.0.0.1:53->53/udp: 53/udp, or the number alone for TCP."""
    return f"{port.partition('->')[0].rpartition(':')[2]}/{port.rpartition('/')[2]}".removesuffix("/tcp")


class _Band:
    def __init__(self, network: Network, colour: str) -> None:
        self.network = network
        self.colour = colour
        self.cards: list[_Card] = []
        self.others: hosts.Card | None = None
        self.containers: list[Container] = []  # of the network, also those whose card is in another band
        self.y = self.height = 0
        self.about = _about(network)

    @property
    def boxes(self) -> "list[_Card | hosts.Card]":
        """All that is beside the network's own box."""
        return [*self.cards, *([self.others] if self.others else [])]

    @property
    def center(self) -> int:
        return self.y + min(self.height, self.least) // 2

    @property
    def least(self) -> int:
        return 2 * PAD + LINE * (1 + len(self.about))


def _about(network: Network) -> "list[str]":
    kind = " ".join(filter(None, [network.kind, network.link]))
    number = f"{network.containers} container" + ("" if network.containers == 1 else "s")
    gateways = [f"gateway {gateway}" for gateway in network.gateways]
    words = [kind, *network.subnets, *gateways, number]
    return [*filter(None, words), *([NO_WAY] if network.out == NO_WAY else [])]


class _Layout:
    """The position of everything, with this number of cards side by side."""

    def __init__(self, picture: Picture, columns: int) -> None:
        self.bands = [
            _Band(network, _COLOURS[number % len(_COLOURS)])
            for number, network in enumerate(picture.networks)
        ]
        by_network = {id(band.network): band for band in self.bands}
        self.band_of = by_network
        #  Networks that lines lead to from other bands, each with its lane.
        self.lanes: dict[int, int] = {}
        dense = len(picture.containers) >= _MANY
        for container in picture.containers:
            first, *others = container.interfaces
            by_network[id(first.network)].cards.append(_Card(container, dense))
            for interface in container.interfaces:
                by_network[id(interface.network)].containers.append(container)
            for interface in others:
                self.lanes.setdefault(id(interface.network), len(self.lanes))
        for band in self.bands:
            if band.network.hosts:
                band.others = hosts.Card(band.network.hosts, dense)
        self.lane_room = _LANE * min(len(self.lanes), 12)
        self.net_x = _MARGIN + _OUT + _LINKS
        self.cards_x = self.net_x + _NET + 2 * (GAP + self.lane_room)
        self.step = (DENSE_CARD if dense else CARD) + GAP + self.lane_room
        y = _HEAD
        widest = 1 if picture.containers else 0
        for band in self.bands:
            band.y = y
            card_y = y + GAP
            for start in range(0, len(band.boxes), columns):
                row = band.boxes[start : start + columns]
                widest = max(widest, len(row))
                for place, card in enumerate(row):
                    card.x = self.cards_x + place * self.step
                    card.y = card_y
                card_y += max(card.height for card in row) + GAP
            band.height = max(card_y - y, band.least + 2 * GAP)
            y += band.height + GAP + 2 * self.lane_room
        self.right = self.cards_x + widest * self.step - self.lane_room if widest else self.net_x + _NET
        self.width = self.right + _MARGIN
        self.height = max(y, 150)

    def lane(self, network: Network) -> int:
        return _LANE * (self.lanes[id(network)] % 12)


def svg(picture: Picture) -> str:
    most = max([network.containers + bool(network.hosts) for network in picture.networks], default=1)
    tried = [_Layout(picture, columns) for columns in range(1, max(min(most, 16), 1) + 1)]
    layout = min(tried, key=lambda one: abs(math.log(one.width / one.height / _ASPECT)))
    out, height = _ways_out(picture, layout)
    height = max(height, layout.height) + 16
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {layout.width} {height}"'
        f' width="{layout.width}" height="{height}">',
        f"<title>{safe(picture.title)}</title><style>{STYLE}</style>",
        f'<rect class="page" width="{layout.width}" height="{height}"/>',
        f'<text class="title" x="{_MARGIN}" y="32">{safe(picture.title)}</text>',
        *(_band(band, layout) for band in layout.bands),
        *out,
        *_lines(layout),
        *(_card(card, layout) for band in layout.bands for card in band.cards),
        *(band.others.drawn() for band in layout.bands if band.others),
    ]
    if not layout.bands:
        parts.append(at(_MARGIN, _HEAD + 45, "no network is configured, and no container attached", "dim"))
    return "\n".join([*parts, "</svg>"]) + "\n"


def _band(band: _Band, layout: _Layout) -> str:
    x, y, network = layout.net_x, band.y, band.network
    whole = layout.right - x if band.boxes else _NET
    lines = [
        at(x + 16, y + GAP + PAD + 4 + LINE * (number + 1), text, "dim", _NET - 22)
        for number, text in enumerate(band.about)
    ]
    dash = ' stroke-dasharray="5 3"' if network.out == NO_WAY else ""
    return (
        f'<g class="network" data-network="{safe(network.name)}" data-of="{_ids(band.containers)}"'
        f' data-search="{safe(" ".join([network.name, *band.about]))}">'
        f'<rect x="{x}" y="{y}" width="{whole}" height="{band.height}" rx="8" fill="{band.colour}"'
        f' fill-opacity=".09"/>'
        f'<rect class="box" x="{x}" y="{y}" width="{_NET}" height="{band.height}" rx="8"'
        f' style="stroke:{band.colour}"{dash}/>'
        f'<rect x="{x}" y="{y}" width="7" height="{band.height}" rx="3" fill="{band.colour}"/>'
        + at(x + 16, y + GAP + PAD + 4, network.name, "name", _NET - 30)
        + "".join(lines)
        + "</g>"
    )


def _ways_out(picture: Picture, layout: _Layout) -> "tuple[list[str], int]":
    """Return the boxes on the left with the lines from them, and the height that they need."""
    parts: list[str] = []
    labels: list[str] = []  # in front of all lines
    y = _HEAD
    for uplink in picture.uplinks:
        users = [band for band in layout.bands if uplink.dev in band.network.uplinks]
        height = 2 * PAD + LINE * (1 + max(len(uplink.gateways), 1))
        middle = y + height // 2
        for band in users:
            parts.append(
                f'<path class="link" data-of="{_ids(band.containers)}" stroke="{band.colour}"'
                f' d="M{_MARGIN + _OUT},{middle}'
                f" C{_MARGIN + _OUT + _LINKS // 2},{middle} {_MARGIN + _OUT + 16},{band.center}"
                f' {layout.net_x},{band.center}"/>'
            )
            label, label_y = layout.net_x - 32, band.center
            labels.append(
                f'<rect class="pill" x="{label - 24}" y="{label_y - 9}" width="48" height="17" rx="8"/>'
                f'<text class="port" x="{label}" y="{label_y + 4}" text-anchor="middle">'
                f"{safe(band.network.out)}</text>"
            )
        parts.append(f'<rect class="box" x="{_MARGIN}" y="{y}" width="{_OUT}" height="{height}" rx="8"/>')
        parts.append(at(_MARGIN + 12, y + PAD + 11, f"{uplink.dev}  ", "name", _OUT - 20))
        for number, gateway in enumerate(uplink.gateways or ["no default route"]):
            text = f"via {gateway}" if uplink.gateways else gateway
            parts.append(at(_MARGIN + 12, y + PAD + 11 + LINE * (number + 1), text, "dim", _OUT - 16))
        y += height + GAP
    if not picture.uplinks:
        parts.append(at(_MARGIN, y + 14, "no way out: no default route", "dim"))
        y += 30
    return _published(picture, parts + labels, y, max(layout.height - y, 0))


def _published(picture: Picture, parts: "list[str]", y: int, room: int) -> "tuple[list[str], int]":
    """Return `parts` with the list of published ports, as a client outside uses them; and the height."""
    ports = [
        (port, container)
        for container in picture.containers
        for interface in container.interfaces
        for port in interface.ports
    ]
    if not ports:
        return parts, y
    ports.sort(key=lambda one: (len(one[0].partition("->")[0]), one[0]))
    most = max(room // LINE - 3, 8)
    shown = ports if len(ports) <= most + 1 else ports[:most]
    y += 6
    parts.append(at(_MARGIN, y + 12, f"published ports ({len(ports)})", "name"))
    for port, container in shown:
        y += LINE
        outside, _, inside = port.partition("->")
        number, _, protocol = inside.partition("/")
        text = at(_MARGIN, y + 14, f"{outside}/{protocol} → {container.label}:{number}", "", _OUT + 8)
        parts.append(f'<g data-of="{_ids([container])}">{text}</g>')
    if len(shown) < len(ports):
        y += LINE
        parts.append(at(_MARGIN, y + 14, f"and {len(ports) - len(shown)} more", "dim"))
    return parts, y + 24


def _lines(layout: _Layout) -> "list[str]":
    """Return the lines from the containers to their further networks.

    A line goes down a lane beside the card, along a lane between bands, and along the rail beside the
    networks.
    """
    parts: dict[str, list[Container]] = {}  # each part once, because lanes are shared
    for band in layout.bands:
        for card in band.cards:
            for number, each in enumerate(card.lines):
                interface = each.interface
                if not interface or interface.network is band.network:
                    continue
                target = layout.band_of[id(interface.network)]
                lane = layout.lane(interface.network)
                y = card.y + PAD + 7 + LINE * (number + 1)
                beside = card.x - GAP // 2 - lane
                below = target.y > band.y
                between = band.y + band.height + 5 + lane if below else band.y - 5 - lane
                rail = layout.net_x + _NET + GAP // 2 + 3 + lane
                end = target.center
                points = [(card.x, y), (beside, y), (beside, between), (rail, between), (rail, end)]
                points.append((layout.net_x + _NET, end))
                path = " ".join(f"{x},{y}" for x, y in points)
                for part in (
                    f'polyline class="link" stroke="{target.colour}" points="{path}"',
                    f'circle cx="{points[-1][0]}" cy="{end}" r="4" fill="{target.colour}"',
                ):
                    parts.setdefault(part, []).append(card.container)
    return [f'<{part} data-of="{_ids(containers)}"/>' for part, containers in parts.items()]


def _ids(containers: "list[Container]") -> str:
    """Return what connects a part with its containers, for the search."""
    return safe(" ".join(dict.fromkeys(container.id for container in containers)))


def _card(card: _Card, layout: _Layout) -> str:
    container = card.container
    x, y = card.x, card.y
    about = [container.id, container.state]
    for one in container.interfaces:
        about.append(" ".join([one.network.name, one.ifname, *one.addresses, *one.ports, *one.limits]))
    title = "\n".join(map(safe, about))
    parts = [
        f'<g class="container {container.state}" data-id="{safe(container.id)}"'
        f' data-search="{safe(" ".join(about))}">',
        f"<title>{title}</title>",
        f'<rect class="card" x="{x}" y="{y}" width="{card.width}" height="{card.height}" rx="6"/>',
        f'<circle cx="{x + card.width - 12}" cy="{y + PAD + 6}" r="4" fill="{_STATES[container.state]}"/>',
    ]
    state = "" if card.dense or container.state == listing.ATTACHED else f"  {container.state}"
    parts.append(at(x + 10, y + PAD + 10, container.label + state, "name", card.width - 30))
    line = y + PAD + 10
    for each in card.lines:
        line += LINE
        if each.interface:
            colour = layout.band_of[id(each.interface.network)].colour
            parts.append(f'<rect x="{x + 10}" y="{line - 8}" width="8" height="8" rx="2" fill="{colour}"/>')
            if not card.dense:
                parts.append(at(x + 24, line, each.interface.ifname, "dim"))
        parts.append(at(x + card.indent, line, each.text, "", card.width - card.indent - 6))
    pills = [("pill", port.replace("->", " → ")) for port in card.ports]
    for style, shown in [*pills, *(("limit", text) for text in card.limits)]:
        line += LINE
        width = min(int(len(shown) * LETTER) + 12, card.width - 32)
        parts.append(
            f'<rect class="{style}" x="{x + 22}" y="{line - 10}" width="{width}" height="13" rx="6"/>'
            + at(x + 28, line, shown, "port", card.width - 40)
        )
    return "".join([*parts, "</g>"])
