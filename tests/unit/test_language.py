# SPDX-License-Identifier: Apache-2.0
"""Plain English in comments, strings, names of tests and pages, for readers with other first languages.

A habit is a pattern that such readers have to read twice, with the form to use instead.  This file contains
the patterns, but must not match itself.  So each `~` is removed before a pattern or an example is used.
"""

import io
import re
import tokenize
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
PLACES = ("cnihook", "tests", "scripts", "oci-examples", "README.md")


class Habit(NamedTuple):
    name: str
    instead: str
    pattern: "re.Pattern[str]"


class Finding(NamedTuple):
    line: int
    habit: str
    text: str


def plain(text: str) -> str:
    return text.replace("~", "")


def habit(name: str, instead: str, *patterns: str) -> Habit:
    return Habit(name, instead, re.compile(plain("|".join(f"(?:{each})" for each in patterns))))


IN_TEXT = (
    habit(
        "person",
        "name the caller, the container or the process; the user is they",
        r"(?i:\b(w~ho|w~hoever|w~hom|n~obody|s~omebody|a~nybody|e~verybody)\b)",
        r"\b([Hh]~e|[Hh]~im|[Hh]~is|[Hh]~imself|[Ss]h~e|[Hh]~er)\b",
    ),
    habit("possessive", "of cnihook, the other program's", r"(?i:\b(o~urs|t~heirs)\b)"),
    habit("speech", "print, report, log, pass", r"(?i:\b(t~old|t~ells?|t~elling)\b)"),
    habit(
        "negated noun",
        "is not a",
        r"(?i:(?<!there )\b(i~s|a~re|w~as|w~ere) n~o\b(?! (longer|more|such)\b))",
    ),
    habit(
        "old connective",
        "now, in between, also, except, because, instead of, again",
        r"(?i:\b(by n~ow|m~eanwhile|b~esides|in v~ain|but f~or)\b)",
        r"(?i:\b(for w~ant of|in the p~lace of|as good a~s|a~new)\b)",
    ),
    habit(
        "tale",
        "fix, carry, request, wrong, restore, return",
        # The kinds of findings are identifiers: no match after a hyphen.
        r"(?i:(?<!-)\b(m~end(s|ed|ing)?|b~ears?|b~orne|w~ish(es)?|a~stray|a~ffair|a~miss)\b)",
        r"(?i:\b(g~oes? with|g~ives? back|g~iven back|s~tands? upon|c~omes? home)\b)",
        r"(?i:\b((is|are|at|way) h~ome|h~ome (again|as|from))\b)",
    ),
    habit(
        "words",
        "option, argument, value, message",
        r"(?i:\b(in w~ords|(the|these|its) w~ords?|a w~ord (on|of|to)|without a w~ord)\b)",
    ),
    habit(
        "for",
        "because",
        r", f~or (it|its|both|between|when|without|these|one|older|such|0|there|they)\b",
        r", f~or (the (others|address)|a (table|trunk))\b",
    ),
    habit("preposition first", "the subject first", r"\.  ?(O~f|T~o|F~rom|B~y) [a-z`]"),
    habit(
        "docstring without a verb",
        "begin with an imperative or a noun",
        r'"""(I~t|I~ts|T~hey|T~hat|T~hose|O~urs|O~f|T~o|B~y|F~or|F~rom|W~ith|W~ithout|U~ntil|U~nder)\b',
    ),
    habit(
        "docstring as a question",
        "begin with an imperative or a noun",
        r'"""(W~hether|W~hat|W~hich|W~here|W~hose|W~hen|W~hy|H~ow|A~s|N~ot|N~one|N~othing|E~mpty)\b',
    ),
)
IN_CODE = (
    habit(
        "participle as a name",
        "the noun of its value",
        r"^\s+(f~ound|m~ade|s~aid|t~old|p~assed|g~oing)\b(: [^=]+)? = ",
        r"^\s+(k~nown|a~sked|g~iven|w~anted|t~aken|d~one)\b(: [^=]+)? = ",
    ),
    habit(
        "name of a test",
        "subject, verb, condition",
        r"def test_\w*?(^|_)(w~ho|w~hoever|w~hom|n~obody|s~omebody|a~nybody|t~old|t~ells?)(_|\()",
        r"def test_\w*?(^|_)(by_n~ow|m~eanwhile|m~ends?|b~esides)(_|\()",
        r"def test_\w*_(is|are)_n~o_",
    ),
)
INSTEAD = {one.name: one.instead for one in (*IN_TEXT, *IN_CODE)}
# The parts of an f-string are tokens of their own from Python 3.12 on.
TEXT_TOKENS = {tokenize.COMMENT, tokenize.STRING} | {
    getattr(tokenize, name) for name in ("FSTRING_MIDDLE", "TSTRING_MIDDLE") if hasattr(tokenize, name)
}


def check(habits: "tuple[Habit, ...]", line: int, text: str) -> Iterator[Finding]:
    for one in habits:
        if one.pattern.search(text):
            yield Finding(line, one.name, text.strip())


def in_python(text: str) -> Iterator[Finding]:
    """Check the comments, the strings, and the lines of code."""
    within_strings: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type in TEXT_TOKENS:
            within_strings |= set(range(token.start[0] + 1, token.end[0] + 1))
            for number, part in enumerate(token.string.split("\n"), token.start[0]):
                yield from check(IN_TEXT, number, part)
    for number, line in enumerate(text.split("\n"), 1):
        if number not in within_strings:
            yield from check(IN_CODE, number, line)


def in_markdown(text: str) -> Iterator[Finding]:
    """Check all lines outside code blocks and comments."""
    end = ""
    for number, line in enumerate(text.split("\n"), 1):
        if end:
            end = "" if end in line else end
        elif line.startswith("```"):
            end = "```"
        elif line.startswith("<!--"):
            end = "" if "-->" in line else "-->"
        elif not line.startswith("    "):
            yield from check(IN_TEXT, number, line)


def in_shell(text: str) -> Iterator[Finding]:
    """Check the lines that are comments, also in units of systemd."""
    for number, line in enumerate(text.split("\n"), 1):
        if line.lstrip().startswith("#"):
            yield from check(IN_TEXT, number, line)


BY_SUFFIX = {".py": in_python, ".md": in_markdown} | dict.fromkeys(
    (".sh", ".service", ".socket", ".timer"), in_shell
)


def checker(path: Path) -> "Callable[[str], Iterator[Finding]] | None":
    """Return the check for a file, by its suffix or its first line; None for other files, such as JSON."""
    if path.suffix in BY_SUFFIX:
        return BY_SUFFIX[path.suffix]
    with path.open("rb") as file:
        first = file.readline()
    if not first.startswith(b"#!"):
        return None
    return in_python if b"python" in first else in_shell


def files() -> Iterator[Path]:
    for place in PLACES:
        path = CHECKOUT / place
        for each in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if each.is_file() and "__pycache__" not in each.parts:
                yield each


@pytest.mark.long
def test_language_is_plain() -> None:
    report = []
    for path in files():
        if check_file := checker(path):
            report += [
                f"{path.relative_to(CHECKOUT)}:{line}: {name} ({INSTEAD[name]}): {text}"
                for line, name, text in check_file(path.read_text())
            ]

    assert not report, "\n".join(report)


# For each habit its name, a line with it, and the line in plain English.
EXAMPLES = [
    (
        "person",
        "# W~hoever holds the lock is waited for.",
        "# The process that holds the lock is waited for.",
    ),
    ("person", 'text = "ask the user for h~is password"', 'text = "ask the user for the password"'),
    ("possessive", "# The table is o~urs.", "# The table belongs to cnihook."),
    ("speech", 'log("the kernel t~ells the index")', 'log("the kernel reports the index")'),
    ("negated noun", 'error = f"{path} i~s n~o folder"', 'error = f"{path} is not a folder"'),
    ("old connective", "# all links b~ut for lo", "# all links except lo"),
    ("tale", '"""Add the rule, which g~oes with the container."""', '"""Add the container\'s rule."""'),
    ("words", "# The reason follows, in w~ords.", "# The reason follows, as text."),
    ("for", "# Sort the names, f~or they are compared.", "# Sort the names, because they are compared."),
    ("preposition first", "# Two exist.  O~f these one is used.", "# Two exist.  One of these is used."),
    ("docstring without a verb", '"""O~f the host."""', '"""Return the links of the host."""'),
    ("docstring as a question", '"""W~hether it runs."""', '"""Return True if it runs."""'),
    ("participle as a name", "def f():\n    f~ound: int = 1\n", "def f():\n    count: int = 1\n"),
    ("name of a test", "def test_user_is_t~old(): ...", "def test_user_sees_the_reason(): ..."),
]


@pytest.mark.parametrize(("name", "bad", "good"), EXAMPLES, ids=[name for name, _, _ in EXAMPLES])
def test_habit_is_found_in_a_bad_line_only(name: str, bad: str, good: str) -> None:
    assert [each.habit for each in in_python(plain(bad))] == [name]
    assert list(in_python(good)) == []


def test_every_habit_has_an_example() -> None:
    assert {name for name, _, _ in EXAMPLES} == set(INSTEAD)


def test_finding_has_the_line_of_its_text() -> None:
    text = plain('"""Add a rule.\n\n    The rule i~s n~o jump.\n    """\n')

    assert list(in_python(text)) == [Finding(3, "negated noun", plain("The rule i~s n~o jump."))]


def test_code_blocks_and_comments_of_markdown_are_not_checked() -> None:
    bad = plain("It i~s n~o folder.")
    text = f"{bad}\n\n```console\n{bad}\n```\n\n    {bad}\n<!-- run\n{bad}\n-->\n{bad}\n"

    assert [each.line for each in in_markdown(text)] == [1, 11]


def test_comments_of_shell_are_checked() -> None:
    bad = plain("it i~s n~o folder")

    assert [each.line for each in in_shell(f"# {bad}\necho {bad}\n  # {bad}\n")] == [1, 3]


def test_files_are_checked_by_suffix_or_first_line() -> None:
    assert checker(CHECKOUT / "scripts" / "cnihook") is in_python
    assert checker(CHECKOUT / "scripts" / "test") is in_shell
    assert checker(CHECKOUT / "README.md") is in_markdown
    assert checker(CHECKOUT / "tests" / "conftest.py") is in_python
    assert checker(CHECKOUT / "LICENSE") is None
