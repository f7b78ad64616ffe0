# SPDX-License-Identifier: Apache-2.0
"""Growth and throughput as SVG.  Programs differ in line, mark and colour, so any one of these is enough."""

import math
import os
import re
from html import escape
from typing import Any, NamedTuple

from tests.support.bench.samples import BEFORE, HOOK, NEWEST, REFERENCE

_STYLES = {  # label: colour, dashes, mark
    HOOK: ("#1d4ed8", "", "circle"),
    REFERENCE: ("#b45309", "7 4", "square"),
    NEWEST: ("#15803d", "2 3", "triangle"),
    BEFORE: ("#7e22ce", "9 3 2 3", "diamond"),
}
_WIDTH, _HEIGHT = 360, 250  # of the area of one diagram
_LEFT, _TOP, _RIGHT, _BOTTOM = 62, 44, 20, 52  # around it
_HEAD, _FOOT = 56, 40  # title and legend
# The page is part of the picture, so it is readable on a dark background, too.
_STYLE = """\
.page{fill:#fff} text{font:12px "DejaVu Sans",Verdana,Arial,sans-serif;fill:#334155}
.title{font-size:17px;font-weight:bold;fill:#0f172a} .name{font-weight:bold;fill:#0f172a}
.grid{stroke:#e2e8f0} .axis{stroke:#64748b} .line{fill:none;stroke-width:2}
"""


Point = tuple[int, float, float, float]  # x, median, quartiles


class Diagram(NamedTuple):
    """One diagram, with a curve for each program."""

    name: str
    x_name: str
    y_name: str
    curves: "dict[str, list[Point]]"


def write(data: "dict[str, Any]", folder: str) -> "list[str]":
    """Write growth.svg and throughput.svg, as far as they were measured.  Returns their paths."""
    os.makedirs(folder, exist_ok=True)
    paths = []
    for name, title, diagrams in (
        ("growth", "Time of one call beside attached containers", _growth(data)),
        ("throughput", "Calls a second, with several at once", _throughput(data)),
    ):
        if diagrams:
            paths.append(f"{folder}/{name}.svg")
            with open(paths[-1], "w") as file:
                file.write(svg(title, about(data), diagrams))
    return paths


def about(data: "dict[str, Any]") -> str:
    machine = data["machine"]
    return (
        f"{machine['processors']} processors, Linux {machine['kernel']}, Python {machine['python']};"
        " medians, bars from quartile to quartile"
    )


def _growth(data: "dict[str, Any]") -> "list[Diagram]":
    diagrams = []
    for network in ("plain", "chain"):
        for verb in ("ADD", "DEL"):
            curves = _curves(data, "growth", rf"{verb}, {network}, (\d+) attached")
            if curves:
                diagrams.append(Diagram(f"{verb}, {network}", "attached containers", "ms", curves))
    return diagrams


def _throughput(data: "dict[str, Any]") -> "list[Diagram]":
    diagrams = []
    for network in ("plain", "chain"):
        curves = _curves(data, "throughput", rf"{network}, (\d+) at once")
        if curves:
            diagrams.append(Diagram(f"ADD and DEL, {network}", "calls at once", "calls a second", curves))
    return diagrams


def _curves(data: "dict[str, Any]", group: str, pattern: str) -> "dict[str, list[Point]]":
    curves: dict[str, list[Point]] = {}
    for row in data["rows"]:
        match = re.fullmatch(pattern, row["row"])
        if row["group"] != group or not match:
            continue
        for label, figures in row["programs"].items():
            point = int(match[1]), figures["median"], *figures["quartiles"]
            curves.setdefault(label, []).append(point)
    return curves


def svg(title: str, subtitle: str, diagrams: "list[Diagram]") -> str:
    columns = 2 if len(diagrams) > 1 else 1
    cell_width, cell_height = _LEFT + _WIDTH + _RIGHT, _TOP + _HEIGHT + _BOTTOM
    width = columns * cell_width
    height = _HEAD + -(-len(diagrams) // columns) * cell_height + _FOOT
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}"'
        f' height="{height}" role="img">',
        f"<title>{escape(title)}</title><style>{_STYLE}</style>",
        f'<rect class="page" width="{width}" height="{height}" rx="8"/>',
        f'<text class="title" x="20" y="30">{escape(title)}</text>',
        f'<text x="20" y="50">{escape(subtitle)}</text>',
    ]
    for number, diagram in enumerate(diagrams):
        x = number % columns * cell_width + _LEFT
        y = _HEAD + number // columns * cell_height + _TOP
        parts.append(f'<g transform="translate({x},{y})">{_diagram(diagram)}</g>')
    parts.append(_legend(diagrams, height - _FOOT + 14))
    return "\n".join([*parts, "</svg>", ""])


def _legend(diagrams: "list[Diagram]", y: int) -> str:
    parts = []
    x = _LEFT
    for label in dict.fromkeys(label for diagram in diagrams for label in diagram.curves):
        colour, dashes, mark = _STYLES[label]
        parts.append(
            f'<path class="line" stroke="{colour}" stroke-dasharray="{dashes}" d="M{x},{y}h44"/>'
            f'{_mark(mark, x + 22, y, colour)}<text x="{x + 52}" y="{y + 4}">{escape(label)}</text>'
        )
        x += 84 + 8 * len(label)
    return "".join(parts)


def _diagram(diagram: Diagram) -> str:
    points = [point for curve in diagram.curves.values() for point in curve]
    xs = sorted({point[0] for point in points})
    top, step = _scale(max(point[3] for point in points))
    low, high = math.log(xs[0]), math.log(xs[-1])

    def at_x(value: float) -> float:
        return round(_WIDTH * (math.log(value) - low) / (high - low), 1) if high > low else _WIDTH / 2

    def at_y(value: float) -> float:
        return round(_HEIGHT * (1 - value / top), 1)

    parts = [f'<text class="name" x="0" y="-16">{escape(diagram.name)}</text>']
    for number in range(round(top / step) + 1):
        y = at_y(number * step)
        parts.append(f'<path class="grid" d="M0,{y}h{_WIDTH}"/>')
        parts.append(f'<text x="-8" y="{y + 4}" text-anchor="end">{number * step:g}</text>')
    for x in xs:
        parts.append(f'<path class="axis" d="M{at_x(x)},{_HEIGHT}v5"/>')
        parts.append(f'<text x="{at_x(x)}" y="{_HEIGHT + 20}" text-anchor="middle">{x}</text>')
    parts.append(f'<path class="axis" fill="none" d="M0,0V{_HEIGHT}H{_WIDTH}"/>')
    parts.append(
        f'<text x="{_WIDTH / 2}" y="{_HEIGHT + 40}" text-anchor="middle">{escape(diagram.x_name)}</text>'
    )
    place = f"translate(-46,{_HEIGHT / 2}) rotate(-90)"
    parts.append(f'<text transform="{place}" text-anchor="middle">{escape(diagram.y_name)}</text>')
    for label, curve in diagram.curves.items():
        colour, dashes, mark = _STYLES[label]
        path = "L".join(f"{at_x(x)},{at_y(median)}" for x, median, _, _ in curve)
        parts.append(f'<path class="line" stroke="{colour}" stroke-dasharray="{dashes}" d="M{path}"/>')
        for x, median, lower, upper in curve:
            parts.append(f'<path stroke="{colour}" d="M{at_x(x)},{at_y(lower)}V{at_y(upper)}"/>')
            parts.append(_mark(mark, at_x(x), at_y(median), colour))
    return "".join(parts)


def _scale(highest: float) -> "tuple[float, float]":
    """Return the end of an axis from 0, and the distance of its lines: 1, 2 or 5 times a power of ten."""
    rough = max(highest, 1e-9) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)
    return math.ceil(highest / step) * step, step


def _mark(kind: str, x: float, y: float, colour: str) -> str:
    if kind == "circle":
        return f'<circle cx="{x}" cy="{y}" r="4.5" fill="{colour}"/>'
    shapes = {
        "square": "m-4,-4h8v8h-8z",
        "triangle": "m0,-5.5l5,9h-10z",
        "diamond": "m0,-6l5,6l-5,6l-5,-6z",
    }
    fill = "#fff" if kind == "square" else colour
    return f'<path d="M{x},{y}{shapes[kind]}" fill="{fill}" stroke="{colour}" stroke-width="1.5"/>'
