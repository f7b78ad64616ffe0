# SPDX-License-Identifier: Apache-2.0
"""scripts/bench: what it computes, prints and draws, without a measurement."""

import re
import subprocess
from collections import Counter
from itertools import permutations
from typing import Any
from xml.etree import ElementTree

import pytest

from tests.support.bench import cluster, figures, page, plot
from tests.support.bench.machine import CHECKOUT, Cost
from tests.support.bench.samples import BEFORE, HOOK, NEWEST, REFERENCE, Results
from tests.support.bench.session import Run, in_turn
from tests.support.bench.steps import BARE, CALLS, IMPORTS, KERNEL, TOOK, WHOLE

SVG = "{http://www.w3.org/2000/svg}"


def data(results: Results, load: float = 0.1) -> "dict[str, Any]":
    machine = {"processors": 2, "kernel": "6.18", "python": "3.11.2", "load": load}
    return {"machine": machine, "programs": {}, "rows": results.to_json()}


def grown() -> Results:
    results = Results()
    for number in (1, 10, 1000):
        for verb in ("ADD", "DEL"):
            first = f"{verb}, plain, 1 attached" if number > 1 else ""
            row = results.row("growth", f"{verb}, plain, {number} attached", over=first)
            for label, factor in ((HOOK, 1), (REFERENCE, 2), (NEWEST, 3)):
                for value in (1, 2, 3, 4, 5):
                    row[label].add(Cost(value * factor * number, value))
    return results


def test_figures_have_spread_and_ratios() -> None:
    (row,) = [row for row in grown().to_json() if row["row"] == "ADD, plain, 10 attached"]
    own, reference = row["programs"][HOOK], row["programs"][REFERENCE]

    assert (own["n"], own["least"], own["median"], own["most"]) == (5, 10, 30, 50)
    assert own["quartiles"] == [20, 40] and own["cpu_median_ms"] == 3
    growth = {"ADD, plain, 1 attached": 10, "the CPU of ADD, plain, 1 attached": 1}
    assert own["ratios"] == {REFERENCE: 0.5, **growth} and reference["ratios"] == growth


def test_older_checkout_is_compared_to_this_one() -> None:
    results = Results()
    for label, value in ((HOOK, 2), (BEFORE, 4), (REFERENCE, 8)):
        results.row("plain", "ADD")[label].add(Cost(value, value))
    (row,) = results.to_json()

    ratios = {label: program["ratios"] for label, program in row["programs"].items()}
    assert ratios == {HOOK: {REFERENCE: 0.25, BEFORE: 0.5}, BEFORE: {REFERENCE: 0.5}, REFERENCE: {}}


@pytest.mark.parametrize("programs", ["a", "ab", "abc", "abcd"])
@pytest.mark.parametrize("rounds", [1, 20])
def test_each_program_follows_each_other_equally_often(programs: str, rounds: int) -> None:
    order = list(in_turn(programs, rounds))

    counted = Counter(program for program, counts in order if counts)
    assert set(counted) == set(programs) and len(set(counted.values())) == 1
    assert rounds <= counted["a"] <= rounds + len(programs)
    turns = [program for program, _counts in order]
    pairs = Counter(zip(turns, [*turns[1:], turns[0]], strict=True))
    assert set(pairs) == (set(permutations(programs, 2)) or {("a", "a")})
    assert len(set(pairs.values())) == 1


def test_text_shows_a_failure_and_a_busy_machine() -> None:
    results = Results()
    results.row("many-ports", "ADD, time", beside="")[HOOK].failure = "no buffer space"
    quiet, busy = (figures.report(data(results, load)) for load in (0.1, 5.0))

    assert "ADD, time: cnihook" in quiet and "fails: no buffer space" in quiet
    assert "busy" in busy and "busy" not in quiet


def test_group_without_its_program_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    run = Run(rounds=1, attached=[1], ports=1)
    cluster.starts(run)
    text = figures.report(data(run.results))

    assert re.findall("(ADD|DEL): etcd alive +fails: etcd is not installed", text) == ["ADD", "DEL"]


def test_pictures_show_each_program_by_line_mark_and_colour() -> None:
    """A curve must be recognizable without colours, as in print."""
    picture = ElementTree.fromstring(plot.svg("a & b", "c < d", plot._growth(data(grown()))))
    texts = [element.text for element in picture.iter(f"{SVG}text")]
    lines = [element.attrib for element in picture.iter(f"{SVG}path") if element.get("class") == "line"]

    assert {"a & b", "ADD, plain", "DEL, plain", "attached containers", "ms", "1000"} <= set(texts)
    assert {HOOK, REFERENCE, NEWEST} <= set(texts)
    assert len(lines) == 3 + 2 * 3, "the legend, and two diagrams"
    styles = {(line["stroke"], line["stroke-dasharray"]) for line in lines}
    assert len(styles) == len({colour for colour, _ in styles}) == len({dashes for _, dashes in styles}) == 3
    marks = {mark for _, _, mark in plot._STYLES.values()}
    assert len(marks) == len(plot._STYLES)


def test_curves_stay_inside_of_their_diagram() -> None:
    picture = plot.svg("t", "s", plot._growth(data(grown())))

    for path in re.findall(r'stroke-dasharray="[^"]*" d="M([\d.,L-]+)"', picture):
        for x, y in (point.split(",") for point in path.split("L")):
            assert 0 <= float(x) <= plot._WIDTH and 0 <= float(y) <= plot._HEIGHT


@pytest.mark.parametrize(
    ("highest", "top", "step"),
    [(0.9, 1, 0.2), (1, 1, 0.2), (41, 50, 10), (628, 800, 200), (5000, 5000, 1000)],
)
def test_axis_ends_at_a_round_number(highest: float, top: float, step: float) -> None:
    assert plot._scale(highest) == pytest.approx((top, step))


def test_table_of_the_page_is_replaced() -> None:
    results = Results()
    columns = {TOOK: 5.0, IMPORTS: 2.0, KERNEL: 1.5, CALLS: 30.0}
    for name in (BARE, WHOLE, "Python", "modules"):
        for column, value in columns.items():
            results.row("steps", name, beside="")[column].values.append(value)
    text = page.written(f"before\n{page.BEGIN}old\n{page.END}after\n", data(results))

    assert "old" not in text and text.startswith("before\n") and text.endswith("after\n")
    assert "| modules | 5.00 | 2.00 | 1.50 | 1.50 | 30 |" in text
    assert "| Python | 5.00 | | | | 30 |" in text
    assert page.written(text, data(results)) == text
    assert "2 processors, Linux" in text and "busy, with load 9" in page.table(data(results, load=9.1))


def test_page_compares_the_work_that_was_measured() -> None:
    results = grown()
    for label, value in ((HOOK, 30.0), (REFERENCE, 20.0)):
        results.row("plain", "ADD")[label].add(Cost(value, value))
    results.row("plain", page._BARE, beside="")[HOOK].add(Cost(10, 10))
    text = page.beside(data(results))

    assert "| ADD, plain | 30.0 | reference | 20.0 | 1.50 | 0.50 |" in text
    assert "chain" not in text


def test_rows_of_the_page_are_rows_of_a_run() -> None:
    with open(page.PAGE) as file:
        text = file.read().split(page.BEGIN_BESIDE)[1].split(page.END)[0]

    assert [work for work, *_ in page._WORK] == re.findall(r"^\| ([^|]+) \| [\d.]+ \|", text, re.M)


def test_page_has_a_table_and_explains_each_step() -> None:
    with open(page.PAGE) as file:
        text = file.read()
    before, _, table = text.partition(page.BEGIN)
    table, _, _ = table.partition(page.END)
    names = re.findall(r"^\| ([\w -]+) \| [\d.]+ \|", table, re.M)

    assert {"Python", "modules", "ADD bridge"} <= set(names)
    assert set(names) - {BARE} == set(re.findall(r"^\| ([\w -]+) \| [a-z`/]", before, re.M)) - {"step"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "plain,nosuch"], "no group nosuch; --list prints them"),
        (["--plot", "x"], "add --only growth,throughput"),
        (["--attached", "1,x"], "not a list of numbers: 1,x"),
        (["--rounds", "0"], "must be at least 1"),
    ],
)
def test_wrong_arguments_are_rejected(arguments: "list[str]", message: str) -> None:
    process = subprocess.run([f"{CHECKOUT}/scripts/bench", *arguments], capture_output=True, text=True)

    assert process.returncode == 2 and message in process.stderr
