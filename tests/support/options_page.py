# SPDX-License-Identifier: Apache-2.0
"""The tables of cnihook/pages/options.md and kubernetes.md, made from the option table."""

from cnihook.request.option_table import TABLE, Entry


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _option(entry: Entry) -> str:
    form = f"`--{entry.name}{entry.value}`"
    return f"{form}, `{entry.short}`" if entry.short else form


def tables() -> str:
    lines = ["| annotation | option | effect | values |", "|---|---|---|---|"]
    lines += [
        f"| `{entry.annotation}` | {_cell(_option(entry))} | {_cell(entry.help)} | {_cell(entry.examples)} |"
        for entry in TABLE
        if entry.annotation
    ]
    lines += ["", "Options that are not requests:", "", "| option | effect | of |", "|---|---|---|"]
    lines += [
        f"| {_cell(_option(entry))} | {_cell(entry.help)} | {', '.join(entry.programs)} |"
        for entry in TABLE
        if not entry.annotation
    ]
    return "\n".join(lines)


def table_of_pods() -> str:
    """Return what a pod may request by annotations, and what it has instead of the others."""
    lines = ["| annotation | effect | in Kubernetes |", "|---|---|---|"]
    lines += [
        f"| `{entry.annotation}` | {_cell(entry.help)} | {entry.in_kubernetes or 'this annotation'} |"
        for entry in sorted(TABLE, key=lambda entry: bool(entry.in_kubernetes))
        if entry.annotation
    ]
    return "\n".join(lines)
