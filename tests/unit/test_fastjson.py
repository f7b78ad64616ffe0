# SPDX-License-Identifier: Apache-2.0
"""fast.fastjson, compared with json of the standard library."""

import json
import math
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cnihook.fast import fastjson
from tests.support.plugins.cni import CHECKOUT

NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
TEXTS = st.text(st.characters(codec=None), max_size=20)  # with lone surrogates: JSON can express them
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(TEXTS, inner, max_size=5),
    max_leaves=20,
)
# Text that is nearly JSON: two parsers differ most on it.
NEARLY = st.text("{}[]:,\"\\'/ \t\n\r\x0b\xa0\ufefftruefalsnNaIiy0123456789.eE+-#", max_size=30)


def same(left: Any, right: Any) -> bool:
    """Return True if both are equal and of the same types: to Python, 1, 1.0 and True are equal."""
    return repr(left) == repr(right)


def strictly(text: str) -> Any:
    """Read as json does, but reject NaN and Infinity, which no other parser accepts."""

    def refuse(name: str) -> None:
        raise ValueError(name)

    return json.loads(text, parse_constant=refuse)


@given(VALUES)
def test_any_value_is_read_as_json_reads_it(value: Any) -> None:
    for text in (json.dumps(value), json.dumps(value, ensure_ascii=False, indent=1)):
        assert same(fastjson.loads(text), json.loads(text))


@given(NEARLY | st.text(max_size=30))
@example("")
@example("  ")
@example("nul")
@example("[1,]")
@example('{"a":1,}')
@example('{"a" 1}')
@example("{'a':1}")
@example("1 2")
@example("01")
@example("-")
@example("1.")
@example(".5")
@example("+1")
@example("NaN")
@example("[Infinity]")
@example("-Infinity")
@example('"\n"')
@example('"\\x"')
@example('"\\u12"')
@example('"\\ud800"')
@example('"\\ud83d\\ude00"')
@example("\ufeff{}")
@example("\xa01")
@example('{"a":1,"a":2}')
@example("[" * 50 + "]" * 50)
@example("1" * 5000)
def test_any_text_is_read_or_refused_as_json_does(text: str) -> None:
    try:
        expected = strictly(text)
    except ValueError:
        with pytest.raises(ValueError, match=r"."):
            fastjson.loads(text)
    else:
        assert same(fastjson.loads(text), expected)


def test_error_names_the_place() -> None:
    """The user has to find the place in the file."""
    with pytest.raises(ValueError, match="line 3 column 3"):
        fastjson.loads('{\n  "type": "bridge"\n  "mtu": 1\n}')


def test_deep_nesting_is_an_error_and_not_a_crash() -> None:
    for text in ("[" * 100_000, "[" * 100_000 + "]" * 100_000, '{"a":' * 100_000):
        with pytest.raises(ValueError, match=r"."):
            fastjson.loads(text)


@pytest.mark.parametrize("text", ["{", "[1,]", "NaN", "1 2", "", '{"a":"\\ud800"', "[" * 100_000])
def test_error_is_the_same_while_json_is_not_loaded(text: str) -> None:
    """The C scanner looks for json's own exception; without json, CPython 3.11 fails with another error."""
    script = f"""\
import sys
sys.path.insert(0, {str(CHECKOUT)!r})
from cnihook.fast import fastjson
assert fastjson.loads('{{"a": [1, 2.5, "x", null, true]}}') == {{"a": [1, 2.5, "x", None, True]}}
assert "json" not in sys.modules
try:
    fastjson.loads(sys.stdin.read())
except ValueError as error:
    print("refused", error)
"""
    process = subprocess.run(
        [sys.executable, "-IS", "-c", script], input=text, capture_output=True, text=True, timeout=30
    )

    assert (process.returncode, process.stderr) == (0, "")
    assert process.stdout.startswith("refused ")


@given(VALUES)
def test_written_value_is_read_back(value: Any) -> None:
    assert same(fastjson.loads(fastjson.dumps(value)), value)


@given(VALUES)
def test_written_as_json_writes_it(value: Any) -> None:
    """Indented, the text is the reference's; otherwise it is one line of ASCII."""
    assert fastjson.dumps(value, indent=4) == json.dumps(value, indent=4)
    plain = fastjson.dumps(value)
    assert plain == json.dumps(value, separators=(",", ":"))
    assert plain.isascii() and "\n" not in plain


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan, [math.nan], {"a": math.inf}])
def test_number_that_json_cannot_express_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="no form in JSON"):
        fastjson.dumps(value)


@pytest.mark.parametrize("value", [b"x", {1, 2}, object(), [b""]])
def test_other_types_are_refused(value: Any) -> None:
    with pytest.raises(TypeError, match="no form in JSON"):
        fastjson.dumps(value)


@pytest.mark.parametrize("text", ["1e999", "[-1e999]", '{"a": 1e400}'])
def test_number_that_is_too_large_is_refused(text: str) -> None:
    """Read as infinity, it could not be written for a plugin or a record.  Go rejects it as well."""
    with pytest.raises(ValueError, match=r"."):
        fastjson.loads(text)


def test_deep_nesting_is_an_error_for_the_writer_too() -> None:
    """A value that can be read cannot always be written; each writer handles ValueError."""
    for depth in range(50, 3000, 150):
        try:
            value = fastjson.loads("[" * depth + "]" * depth)
        except ValueError:
            continue
        try:
            assert len(fastjson.dumps(value)) == 2 * depth
        except ValueError:
            assert depth > 200


@pytest.mark.parametrize("text", ["9" * 5000, '{"mtu": ' + "1" * 100_000 + "}"])
def test_number_of_too_many_digits_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="^a number of [0-9]+ digits is too long$"):
        fastjson.loads(text)
