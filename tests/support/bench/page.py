# SPDX-License-Identifier: Apache-2.0
"""The tables of cnihook/pages/start-time.md: the steps of an ADD, and the work beside others."""

import os
from typing import Any

from tests.support.bench.machine import CHECKOUT
from tests.support.bench.samples import HOOK, REFERENCE
from tests.support.bench.steps import BARE, CALLS, IMPORTS, KERNEL, TOOK, WHOLE

PAGE = f"{CHECKOUT}/cnihook/pages/start-time.md"
# The text outside these lines is written by hand.
BEGIN = "<!-- scripts/bench --page writes what follows -->\n"
BEGIN_BESIDE = "<!-- scripts/bench --all --page writes what follows -->\n"
END = "<!-- the end of what it writes -->\n"
PICTURES = {
    "growth.svg": "time of ADD and DEL beside a growing number of containers, for cnihook and the reference",
    "throughput.svg": "ADDs and DELs in a second, one to 32 at once, for cnihook and the reference",
}


# What is done, the group and the row, the program beside, and where the least that Python can take is.
_BARE = "bare python3"
_LEAST = ("plain", _BARE, HOOK)
_WORK: "list[tuple[str, str, str, str, tuple[str, str, str] | None]]" = [
    ("ADD, plain", "plain", "ADD", REFERENCE, _LEAST),
    ("ADD, chain", "chain", "ADD", REFERENCE, _LEAST),
    ("DEL, plain", "plain", "DEL", REFERENCE, _LEAST),
    ("DEL, chain", "chain", "DEL", REFERENCE, _LEAST),
    ("DEL of the last container, plain", "only", "DEL, plain", REFERENCE, _LEAST),
    ("DEL of the last container, chain", "only", "DEL, chain", REFERENCE, _LEAST),
    *(
        (f"`{name} run` of `true`", "runtimes", f"{name} run true, only container", "no hook",
         ("runtimes", f"{name} run true, only container", _BARE))
        for name in ("runc", "crun")
    ),
    ("`priv-net-run true`", "priv-net-run", "priv-net-run true", "by hand", _LEAST),
    ("`cnihook gc` of 500 dead containers", "gc", "gc of 500 dead containers", "", None),
    ("ADD with 10,000 ports", "many-ports", "ADD, time", "", None),
    ("ADD and DEL, plain, a second, 16 at once", "throughput", "plain, 16 at once", REFERENCE, None),
    ("ADD and DEL, chain, a second, 16 at once", "throughput", "chain, 16 at once", REFERENCE, None),
]  # fmt: skip


def write(data: "dict[str, Any]") -> None:
    with open(PAGE) as file:
        text = file.read()
    with open(PAGE, "w") as file:
        file.write(written(text, data))


def written(page: str, data: "dict[str, Any]") -> str:
    """Return the page with the tables made again whose rows were measured."""
    page = _replaced(page, BEGIN, table(data))
    if not any(row["group"] == "throughput" for row in data["rows"]):
        return page
    pictures = "".join(
        f"\n![{alternative}]({name})\n"
        for name, alternative in PICTURES.items()
        if os.path.exists(f"{os.path.dirname(PAGE)}/{name}")
    )
    return _replaced(page, BEGIN_BESIDE, f"{beside(data)}{pictures}")


def _replaced(page: str, begin: str, text: str) -> str:
    before, _, rest = page.partition(begin)
    _old, _, after = rest.partition(END)
    return f"{before}{begin}\n{text}\n{END}{after}"


def beside(data: "dict[str, Any]") -> str:
    """Return the table of the work beside the reference, the runtime without a hook, or the same by hand."""
    medians = {
        (row["group"], row["row"], label): figures["median"]
        for row in data["rows"]
        for label, figures in row["programs"].items()
        if "median" in figures
    }
    lines = [
        f"Medians of {_machine(data['machine'])}, in ms, except for calls a second:",
        "",
        "| work | cnihook | beside | | ratio | bare Python |",
        "|---|---:|---|---:|---:|---:|",
    ]
    for work, group, row, other, least in _WORK:
        own = medians.get((group, row, HOOK))
        if own is None:
            continue
        other_value = medians.get((group, row, other), 0)
        ratio = f"{own / other_value:.2f}" if other_value else ""
        floor = f"{medians[least] / other_value:.2f}" if other_value and least in medians else ""
        lines.append(
            _row(work, f"{own:.1f}", other, f"{other_value:.1f}" if other_value else "", ratio, floor)
        )
    return "\n".join([*lines, ""])


def _machine(machine: "dict[str, Any]") -> str:
    busy = f" (busy, with load {machine['load']:.0f})" if machine["load"] > machine["processors"] else ""
    return (
        f"a machine with {machine['processors']} processors{busy}, Linux {machine['kernel']}, Python"
        f" {machine['python']}"
    )


def table(data: "dict[str, Any]") -> str:
    machine = data["machine"]
    steps: dict[str, dict[str, float]] = {
        row["row"]: {column: figures["median"] for column, figures in row["programs"].items()}
        for row in data["rows"]
        if row["group"] == "steps"
    }
    whole, bare = steps.pop(WHOLE), steps.pop(BARE)
    lines = [
        f"Medians of {_machine(machine)}, in ms:",
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
