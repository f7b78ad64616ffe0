# SPDX-License-Identifier: Apache-2.0
"""The measured values: a sample for each row and program."""

import statistics
from typing import Any

from tests.support.bench.machine import Cost

HOOK, BEFORE, REFERENCE, NEWEST = "cnihook", "before", "reference", "newer reference"


class Sample:
    """The values of one row and program; `cpu` has their CPU time in ms, if that was measured."""

    def __init__(self) -> None:
        self.values: list[float] = []
        self.cpu: list[float] = []
        self.failure = ""

    def add(self, cost: Cost) -> None:
        self.values.append(cost.wall)
        self.cpu.append(cost.cpu)

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def quartiles(self) -> "tuple[float, float]":
        if len(self.values) < 2:
            return self.values[0], self.values[0]
        low, _, high = statistics.quantiles(self.values, n=4, method="inclusive")
        return low, high

    def to_json(self) -> "dict[str, Any]":
        if self.failure:
            return {"failure": self.failure}
        figures: dict[str, Any] = {"n": len(self.values), "median": self.median}
        figures |= {"least": min(self.values), "most": max(self.values), "quartiles": self.quartiles}
        if self.cpu:
            figures["cpu_median_ms"] = statistics.median(self.cpu)
        return {key: _rounded(value) for key, value in figures.items()}


def _rounded(value: Any) -> Any:
    return [round(each, 3) for each in value] if isinstance(value, tuple) else round(value, 3)


class Row:
    """One kind of work, by several programs.

    `beside`: the program to which the others are compared.  `over`: the row to which each program is
    compared, which shows how its cost grows.
    """

    def __init__(self, group: str, name: str, unit: str, beside: str, over: str) -> None:
        self.group = group
        self.name = name
        self.unit = unit
        self.beside = beside
        self.over = over
        self.samples: dict[str, Sample] = {}

    def __getitem__(self, label: str) -> Sample:
        return self.samples.setdefault(label, Sample())


class Results:
    """All rows, in the order in which they were measured."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, str], Row] = {}

    def row(self, group: str, name: str, unit: str = "ms", beside: str = REFERENCE, over: str = "") -> Row:
        return self.rows.setdefault((group, name), Row(group, name, unit, beside, over))

    def ratios(self, row: Row, label: str) -> "dict[str, float]":
        """Return the ratios of a program's median to the medians that the row is compared to."""
        others = {row.beside: row.samples.get(row.beside)} if label != row.beside else {}
        if label == HOOK:
            others[BEFORE] = row.samples.get(BEFORE)
        if row.over:
            others[row.over] = self.rows[row.group, row.over].samples.get(label)
        own = row.samples[label]
        ratios = {
            name: own.median / other.median
            for name, other in others.items()
            if other and other.values and own.values
        }
        first = others.get(row.over)
        if first and first.cpu and own.cpu:
            ratios[f"the CPU of {row.over}"] = statistics.median(own.cpu) / statistics.median(first.cpu)
        return ratios

    def to_json(self) -> "list[dict[str, Any]]":
        rows = []
        for row in self.rows.values():
            programs = {label: sample.to_json() for label, sample in row.samples.items()}
            for label, figures in programs.items():
                figures["ratios"] = {
                    name: round(ratio, 3) for name, ratio in self.ratios(row, label).items()
                }
            rows.append({"group": row.group, "row": row.name, "unit": row.unit, "programs": programs})
        return rows
