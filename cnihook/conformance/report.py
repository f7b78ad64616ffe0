# SPDX-License-Identifier: Apache-2.0
"""Reports of the outcomes: a table and the failures for the user, JSON and JUnit XML for programs."""

import json
import textwrap
from collections.abc import Callable, Iterable, Sequence
from typing import Any
from xml.etree import ElementTree

from cnihook.conformance.check import FAIL, NOTE, OK, SKIP, Check, Outcome
from cnihook.fast.errors_text import printable

Style = Callable[[str, str], str]  # returns a text in the colours that are named

_COLOURS = {OK: "green", FAIL: "bold red", NOTE: "yellow", SKIP: "dim"}
_CELL = 5


class Report:
    def __init__(self, outcomes: Sequence[Outcome], *, style: Style | None = None, width: int = 80) -> None:
        self._outcomes = outcomes
        self._style = style
        self._width = max(width, 80)
        self._subjects = list(dict.fromkeys(outcome.subject for outcome in outcomes))
        self._checks = list({outcome.check.name: outcome.check for outcome in outcomes}.values())
        self._cells = {(outcome.subject, outcome.check.name): outcome for outcome in outcomes}

    @property
    def failed(self) -> bool:
        return any(outcome.mark == FAIL for outcome in self._outcomes)

    @property
    def tried(self) -> bool:
        return any(outcome.mark != SKIP for outcome in self._outcomes)

    def text(self) -> str:
        parts = [self._table(group) for group in self._groups()]
        parts += [
            self._legend(),
            *self._details(FAIL),
            *self._details(NOTE),
            self._skipped(),
            self._summary(),
        ]
        return "\n".join(part for part in parts if part)

    def _marked(self, mark: str, text: str = "") -> str:
        text = text or mark
        return self._style(text, _COLOURS[mark]) if self._style else text

    # The table

    @property
    def _left(self) -> int:
        return max(len(check.name) for check in self._checks) + 2

    def _groups(self) -> "list[list[str]]":
        """Return groups of plugins, each as many as fit side by side with the last one's name above it."""
        groups: list[list[str]] = [[]]
        for subject in self._subjects:
            if groups[-1] and self._left + _CELL * len(groups[-1]) + len(subject) > self._width:
                groups.append([])
            groups[-1].append(subject)
        return groups

    def _table(self, subjects: Sequence[str]) -> str:
        lines = []
        for index, subject in enumerate(subjects):
            bars = "".join("|".ljust(_CELL) for _ in range(index))
            room = self._width - self._left - len(bars)
            subject = printable(subject)
            shown = subject if len(subject) <= room else f"...{subject[3 - room :]}"
            lines.append(" " * self._left + bars + shown)
        for check in self._checks:
            cells = []
            for subject in subjects:
                mark = self._cells[subject, check.name].mark
                cells.append(self._marked(mark) + " " * (_CELL - len(mark)))
            lines.append((check.name.ljust(self._left) + "".join(cells)).rstrip())
        return "\n".join([*lines, ""])

    def _legend(self) -> str:
        return (
            "ok: the promise is kept    -: it does not apply, or could not be tried\n"
            'FAIL: it is broken, and the specification says "must" or gives the procedure\n'
            'note: it is broken, and the specification says "should" or "may", or has no rule\n'
        )

    # The details

    def _details(self, mark: str) -> "list[str]":
        parts = []
        for outcome in self._outcomes:
            if outcome.mark != mark:
                continue
            lines = [
                f"{self._marked(mark)} {printable(outcome.subject)}: {outcome.check.name}",
                _item(
                    "promise",
                    f"{outcome.check.promise} (specification: {outcome.check.section})",
                    self._width,
                ),
                _item("why", outcome.why, self._width),
            ]
            if mark == FAIL and outcome.sent:
                lines.append(_item("sent", outcome.sent, self._width))
                lines.append(_item("came", outcome.came, self._width))
            parts.append("\n".join([*lines, ""]))
        return parts

    def _skipped(self) -> str:
        """Return the reasons why checks were skipped, each once for a plugin.

        A check for another kind of plugin is left out.
        """
        reasons: dict[tuple[str, str], list[str]] = {}
        for outcome in self._outcomes:
            if outcome.mark == SKIP and not outcome.why.startswith("only for"):
                reasons.setdefault((outcome.subject, outcome.why), []).append(outcome.check.name)
        lines = []
        for (subject, why), names in reasons.items():
            listed = ", ".join(names) if len(names) < 4 else f"{len(names)} checks"
            line = printable(f"{subject}: {listed}: {why}")
            lines.append(textwrap.fill(line, self._width, subsequent_indent="    "))
        return "\n".join(["Not tried:", *lines, ""]) if lines else ""

    def _summary(self) -> str:
        counts = self.counts()
        what = f"{_count(self._subjects, 'subject')}, {_count(self._checks, 'check')}"
        return (
            f"{what}: {counts[OK]} ok, {counts[FAIL]} failed, {counts[NOTE]} to note, {counts[SKIP]} skipped"
        )

    def counts(self) -> "dict[str, int]":
        return {mark: sum(one.mark == mark for one in self._outcomes) for mark in (OK, FAIL, NOTE, SKIP)}

    # For programs

    def json(self) -> str:
        words = {OK: "passed", FAIL: "failed", NOTE: "note", SKIP: "skipped"}
        results = [
            {
                "subject": outcome.subject,
                "check": outcome.check.name,
                "promise": outcome.check.promise,
                "section": outcome.check.section,
                "outcome": words[outcome.mark],
                "seconds": round(outcome.seconds, 3),
                **{
                    key: value
                    for key, value in (("why", outcome.why), ("sent", outcome.sent), ("came", outcome.came))
                    if value
                },
            }
            for outcome in self._outcomes
        ]
        counts = {words[mark]: count for mark, count in self.counts().items()}
        text = json.dumps({"counts": counts, "results": results}, indent=2)
        return text.replace("\x7f", "\\u007f") + "\n"

    def junit(self) -> str:
        """Return a test suite for each plugin.  A note is a passed test with text on its standard output."""
        top = ElementTree.Element("testsuites", name="cnihook conformance")
        for subject in self._subjects:
            mine = [outcome for outcome in self._outcomes if outcome.subject == subject]
            suite = ElementTree.SubElement(top, "testsuite", {"name": _xml(subject), **_totals(mine)})
            for outcome in mine:
                self._testcase(suite, outcome)
        for key, value in _totals(self._outcomes).items():
            top.set(key, value)
        ElementTree.indent(top)
        return ElementTree.tostring(top, encoding="unicode", xml_declaration=True) + "\n"

    def _testcase(self, suite: "Any", outcome: Outcome) -> None:
        case = ElementTree.SubElement(
            suite,
            "testcase",
            name=outcome.check.name,
            classname=_xml(f"conformance.{outcome.subject}"),
            time=f"{outcome.seconds:.3f}",
        )
        whole = f"{outcome.check.promise} ({outcome.check.section})\n{outcome.why}"
        if outcome.mark == FAIL:
            failure = ElementTree.SubElement(case, "failure", message=_xml(outcome.why), type="conformance")
            failure.text = _xml(f"{whole}\nsent: {outcome.sent}\ncame: {outcome.came}")
        elif outcome.mark == SKIP:
            ElementTree.SubElement(case, "skipped", message=_xml(outcome.why))
        elif outcome.mark == NOTE:
            ElementTree.SubElement(case, "system-out").text = _xml(f"note: {whole}")


def _count(things: Sequence[object], word: str) -> str:
    return f"{len(things)} {word}{'' if len(things) == 1 else 's'}"


def _totals(outcomes: Sequence[Outcome]) -> "dict[str, str]":
    return {
        "tests": str(len(outcomes)),
        "failures": str(sum(one.mark == FAIL for one in outcomes)),
        "errors": "0",
        "skipped": str(sum(one.mark == SKIP for one in outcomes)),
        "time": f"{sum(one.seconds for one in outcomes):.3f}",
    }


def _xml(text: str) -> str:
    return "\n".join(printable(line) for line in text.split("\n"))


def _item(name: str, text: str, width: int) -> str:
    lines = []
    for line in map(printable, text.splitlines() or [""]):
        lines += textwrap.wrap(line, width - 11, break_on_hyphens=False) or [""]
    indented = f"\n{'':11}".join(lines)
    return f"  {name + ':':<9}{indented}"


def listing(checks: Iterable[Check], width: int = 80) -> str:
    """Return all checks, each with its section of the specification and its promise."""
    parts = []
    for check in checks:
        level = "" if check.must else "; note"
        promise = textwrap.fill(check.promise, width, initial_indent="    ", subsequent_indent="    ")
        parts.append(f"{check.name}  [{check.section}{level}]\n{promise}\n")
    return "".join(parts)
