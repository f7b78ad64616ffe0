# SPDX-License-Identifier: Apache-2.0
"""oci.json_edit: a JSON text is changed in places, and all other bytes are kept."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnihook.oci.json_edit import JsonDocument

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=12,
)
OBJECTS = st.dictionaries(st.text(max_size=3), VALUES, max_size=4)
LAYOUTS: list[dict[str, Any]] = [
    {},
    {"separators": (",", ":")},
    {"indent": 2},
    {"indent": "\t"},
    {"indent": 1, "ensure_ascii": False},
]
layouts = st.sampled_from(LAYOUTS)

# Values without a Python equivalent, or in another form.
AWKWARD = """{
\t"big": 123456789012345678901234567890, "small": -0, "exact": 1.10, "power": 1E2, "escaped": "\\u003c\\/",
\t"twice": 1, "twice": 2,
\t"list": [ 1,2 , 3 ],
\t"object": {"a":1}
}
"""


@given(OBJECTS, st.text(), VALUES, layouts)
def test_value_is_added_and_removed(
    before: dict[str, Any], key: str, value: Any, layout: dict[str, Any]
) -> None:
    text = json.dumps(before, **layout)
    document = JsonDocument(text)

    document.set(value, key)
    assert json.loads(document.text) == {**before, key: value} == document.get()
    document.remove(key)
    if key not in before:
        assert document.text == text
    assert document.get() == {name: held for name, held in before.items() if name != key}


@given(st.lists(VALUES, max_size=5), VALUES, layouts)
def test_list_grows_and_shrinks(before: list[Any], value: Any, layout: dict[str, Any]) -> None:
    text = json.dumps({"x": {"y": before}, "z": 1}, **layout)
    document = JsonDocument(text)

    document.append(value, "x", "y")
    assert document.get("x", "y") == [*before, value]
    document.remove("x", "y", len(before))
    assert document.text == text
    while document.get("x", "y"):
        document.remove("x", "y", 0)
    assert json.loads(document.text) == {"x": {"y": []}, "z": 1}


@pytest.mark.parametrize("indent", [2, "\t", None])
def test_new_value_has_the_layout_of_the_text(indent: Any) -> None:
    """The text equals json's output for the whole, so a diff shows only the new values."""
    before = {"a": {"list": [{"k": 1}]}}
    separators = None if indent else (",", ":")
    document = JsonDocument(json.dumps(before, indent=indent, separators=separators))

    document.set({}, "b")
    document.set(["x", {"y": []}], "b", "c")
    document.append({"k": 2}, "a", "list")
    document.set({"k": [3]}, "a", "list", 0)

    after = {"a": {"list": [{"k": [3]}, {"k": 2}]}, "b": {"c": ["x", {"y": []}]}}
    if indent:
        assert document.text == json.dumps(after, indent=indent)
    assert json.loads(document.text) == after


def test_unchanged_value_keeps_its_form() -> None:
    document = JsonDocument(AWKWARD)

    document.set("new", "object", "b")
    document.append(4, "list")
    document.set(3, "twice")

    lines = AWKWARD.splitlines()
    assert document.text.splitlines()[:2] == lines[:2]
    assert document.text.splitlines()[2:] == [
        '\t"twice": 1, "twice": 3,',
        '\t"list": [ 1,2 , 3, 4 ],',
        '\t"object": {"a":1,"b": "new"}',
        "}",
    ]


def test_last_of_two_equal_keys_is_used() -> None:
    document = JsonDocument('{"a": {"x": 1}, "a": {"y": 2}}')
    document.set(3, "a", "z")

    assert document.get("a") == {"y": 2, "z": 3}


@pytest.mark.parametrize("text", ["", "null", "[]", "{", '{"a": 1} x', '{"a": NaN}', "\ufeff{}", '{"a" 1}'])
def test_text_that_is_not_an_object_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        JsonDocument(text)


def test_missing_value_is_none() -> None:
    document = JsonDocument('{"a": [1, {"b": null}]}')

    assert document.get("a", 1, "b") is document.get("a", 5) is document.get("x", "y") is None
    assert document.get("a", "b") is document.get("a", 0, "c") is None
    assert document.get("a", 0) == 1
