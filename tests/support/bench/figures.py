# SPDX-License-Identifier: Apache-2.0
"""The figures of a run as text."""

from typing import Any

_WIDTH = 40


def report(data: "dict[str, Any]") -> str:
    machine = data["machine"]
    lines = [f"{machine['processors']} processors, Linux {machine['kernel']}, Python {machine['python']}"]
    lines += [f"{label}: {about}" for label, about in data["programs"].items()]
    lines.append("quartiles: a quarter of the n values is below, a quarter above; CPU: its median, in ms")
    group = ""
    for row in data["rows"]:
        if group != f"{row['group']} ({row['unit']})":
            group = f"{row['group']} ({row['unit']})"
            columns = f"{'n':>4} {'median':>9} {'quartiles':>17} {'least':>9} {'CPU':>8}  ratio"
            lines += ["", f"{group:<{_WIDTH}} {columns}"]
        for label, figures in row["programs"].items():
            name = f"{row['row']}: {label}"
            lines.append(f"{name:<{_WIDTH}} {_columns(figures)}".rstrip())
    if machine["load"] > machine["processors"]:
        lines += ["", f"The machine was busy (load {machine['load']} before): do not quote this."]
    return "\n".join(lines)


def _columns(figures: "dict[str, Any]") -> str:
    if "failure" in figures:
        return f"fails: {figures['failure']}"
    low, high = figures["quartiles"]
    cpu = f"{figures['cpu_median_ms']:8.1f}" if "cpu_median_ms" in figures else f"{'':>8}"
    ratios = ", ".join(f"{ratio:.2f} of {name}" for name, ratio in figures["ratios"].items())
    spread = f"{low:.1f} - {high:.1f}"
    return f"{figures['n']:4} {figures['median']:9.1f} {spread:>17} {figures['least']:9.1f} {cpu}  {ratios}"
