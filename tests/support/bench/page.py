# SPDX-License-Identifier: Apache-2.0
"""The table of cnihook/pages/start-time.md, made from the group `steps`."""

import os
from typing import Any

from tests.support.bench.machine import CHECKOUT
from tests.support.bench.steps import BARE, CALLS, IMPORTS, KERNEL, TOOK, WHOLE

PAGE = f"{CHECKOUT}/cnihook/pages/start-time.md"
# The text outside these lines is written by hand.
BEGIN = "<!-- scripts/bench --page writes what follows -->\n"
END = "<!-- the end of what it writes -->\n"
PICTURES = {
    "growth.svg": "time of ADD and DEL beside a growing number of containers, for cnihook and the reference",
    "throughput.svg": "ADDs and DELs in a second, one to 32 at once, for cnihook and the reference",
}


def write(data: "dict[str, Any]") -> None:
    with open(PAGE) as file:
        text = file.read()
    with open(PAGE, "w") as file:
        file.write(written(text, data))


def written(page: str, data: "dict[str, Any]") -> str:
    """Return the page with its table made again."""
    before, _, rest = page.partition(BEGIN)
    _old, _, after = rest.partition(END)
    pictures = "".join(
        f"\n![{alternative}]({name})\n"
        for name, alternative in PICTURES.items()
        if os.path.exists(f"{os.path.dirname(PAGE)}/{name}")
    )
    return f"{before}{BEGIN}\n{table(data)}{pictures}\n{END}{after}"


def table(data: "dict[str, Any]") -> str:
    machine = data["machine"]
    steps: dict[str, dict[str, float]] = {
        row["row"]: {column: figures["median"] for column, figures in row["programs"].items()}
        for row in data["rows"]
        if row["group"] == "steps"
    }
    whole, bare = steps.pop(WHOLE), steps.pop(BARE)
    load = max(machine["load"])
    busy = f" (busy, with load {load:.0f})" if load > machine["processors"] else ""
    lines = [
        f"Medians of a machine with {machine['processors']} processors{busy}, Linux {machine['kernel']},"
        f" Python {machine['python']}, in ms:",
        "",
        "| step | time | imports | kernel | code | system calls |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name, columns in steps.items():
        parts = ["", "", ""]
        if IMPORTS in columns and name != "Python":
            imports, kernel = columns[IMPORTS], columns[KERNEL]
            parts = [_ms(imports), _ms(kernel), _ms(max(columns[TOOK] - imports - kernel, 0))]
        lines.append(_row(name, _ms(columns[TOOK]), *parts, f"{columns.get(CALLS, 0):.0f}"))
    lines.append(_row("**whole process**", _ms(whole[TOOK]), "", "", "", f"{whole[CALLS]:.0f}"))
    lines.append(_row("bare Python", _ms(bare[TOOK]), "", "", "", f"{bare[CALLS]:.0f}"))
    return "\n".join([*lines, ""])


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |".replace("|  |", "| |").replace("|  |", "| |")


def _ms(value: float) -> str:
    return f"{value:.2f}"
