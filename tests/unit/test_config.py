# SPDX-License-Identifier: Apache-2.0
"""types.config: the typed reader of a configuration, and errors that name the place."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnihook.fast import fastjson
from cnihook.types.config import LenientConf, NetConf, json_name, lookup
from cnihook.types.errors import INVALID_CONFIG, CniError

WHERE = "web.conflist: plugins[1] (portmap)"

READERS: dict[str, tuple[Callable[[NetConf], Any], Any, type | None]] = {
    "string": (lambda conf: conf.string("key"), "", str),
    "string with a default": (lambda conf: conf.string("key", default="x"), "x", str),
    "boolean": (lambda conf: conf.boolean("key"), False, bool),
    "boolean that is on": (lambda conf: conf.boolean("key", default=True), True, bool),
    "integer": (lambda conf: conf.integer("key", default=3, low=1, high=9), 3, int),
    "list": (lambda conf: conf.list("key"), [], list),
    "strings": (lambda conf: conf.strings("key"), [], list),
    "objects": (lambda conf: conf.objects("key"), [], list),
    "object": (lambda conf: conf.object("key").raw, {}, dict),
    "address": (lambda conf: conf.address("key"), None, str),
    "network": (lambda conf: conf.network("key"), None, str),
    "loose boolean": (lambda conf: conf.loose_boolean("key"), False, None),
}
VALUES: list[Any] = ["text", True, 5, 5.0, [], {}]


def refusal(conf: NetConf, read: Callable[[NetConf], Any]) -> CniError:
    with pytest.raises(CniError) as refused:
        read(conf)
    assert refused.value.code == INVALID_CONFIG
    return refused.value


@pytest.mark.parametrize("reader", READERS)
def test_absent_key_and_null_give_the_default(reader: str) -> None:
    read, default, _kind = READERS[reader]

    for raw in ({}, {"key": None}, {"KEY": None}):
        assert read(NetConf(raw)) == default
        assert not NetConf(raw).has("key")


@pytest.mark.parametrize("text", ["a\0b", "\ud800", "\u00fc\0"])
def test_text_that_no_name_can_contain_is_refused_with_place_and_key(text: str) -> None:
    """The system call would fail with "embedded null byte", and the error would name no key."""
    conf = NetConf({"key": text, "keys": ["x", text]}, WHERE)

    assert refusal(conf, lambda conf: conf.string("key")).msg == f'{WHERE}: "key" is not text: {text!r}'
    assert refusal(conf, lambda conf: conf.strings("keys")).msg.startswith(f'{WHERE}: "keys[1]" is not text')
    assert NetConf({"key": "\u00fc"}).string("key") == "\u00fc"


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_every_other_type_is_refused_with_place_and_key(reader: str, value: Any) -> None:
    """true is not an integer, neither is 5.0, and no value is converted."""
    read, _default, kind = READERS[reader]
    if type(value) is kind or (reader == "loose boolean" and value is True):
        return

    error = refusal(NetConf({"key": value}, WHERE), read)

    assert error.msg.startswith(f'{WHERE}: "key" must be ')
    assert error.msg.endswith(json_name(value)) or reader == "loose boolean"


def test_errors_use_the_names_of_json_types() -> None:
    names = [json_name(fastjson.loads(text)) for text in ("{}", "[]", '""', "true", "1", "1.0", "null")]

    assert names == ["an object", "a list", "a string", "a boolean", "an integer", "a number", "null"]


def test_error_without_a_place_names_the_key_only() -> None:
    assert refusal(NetConf({"mtu": "1"}), lambda c: c.integer("mtu", default=0, low=0, high=9)).msg == (
        '"mtu" must be an integer, not a string'
    )


def test_keys_are_found_in_any_case() -> None:
    """Go's decoder does so, and configurations rely on it."""
    conf = NetConf({"isgateway": True, "MTU": 9000, "IPAM": {"Type": "host-local"}, "bandWidth": {}})

    assert conf.boolean("isGateway") is True
    assert conf.integer("mtu", default=0, low=0, high=65535) == 9000
    assert conf.object("ipam").string("type") == "host-local"
    assert conf.has("bandwidth")


def test_last_of_duplicate_keys_is_used() -> None:
    assert NetConf(fastjson.loads('{"mtu": 1, "mtu": 2}')).integer("mtu", default=0, low=0, high=9) == 2
    assert lookup(fastjson.loads('{"Mtu": 1, "MTU": 2}'), "mtu") == 2
    assert lookup(fastjson.loads('{"MTU": 2, "Mtu": 1}'), "mtu") == 1


def test_exact_key_is_preferred_to_other_cases() -> None:
    """A plugin behind libcni does so too, because libcni sorts the keys, capitals first."""
    assert lookup({"mtu": 1, "MTU": 2}, "mtu") == 1


@given(st.integers())
def test_integers_have_a_range(value: int) -> None:
    conf = NetConf({"vlan": value}, WHERE)

    def read(conf: NetConf) -> int:
        return conf.integer("vlan", default=0, low=0, high=4094)

    if 0 <= value <= 4094:
        assert read(conf) == value
    else:
        assert refusal(conf, read).msg == f'{WHERE}: "vlan" must be between 0 and 4094, not {value}'


def test_choices() -> None:
    conf = NetConf({"mode": "l4"}, "10-a.conf")

    assert conf.string("mode", choices=("l3", "l4")) == "l4"
    error = refusal(conf, lambda conf: conf.string("mode", choices=("l2", "l3")))
    assert error.msg == "10-a.conf: \"mode\" must be one of l2, l3, not 'l4'"


@pytest.mark.parametrize(
    ("value", "meant"),
    [(True, True), (False, False), ("true", True), ("False", False), ("TRUE", True), ("false", False)],
)
def test_loose_booleans(value: Any, meant: bool) -> None:
    assert NetConf({"disableCheck": value}).loose_boolean("disableCheck") is meant


@pytest.mark.parametrize("value", ["", "yes", "1", " true", 1, 0, 0.0, [], {}, [True]], ids=repr)
def test_other_values_are_not_loose_booleans(value: Any) -> None:
    error = refusal(
        NetConf({"disableCheck": value}, "a.conf"), lambda conf: conf.loose_boolean("disableCheck")
    )
    assert error.msg == f'a.conf: "disableCheck" must be true or false, not {value!r}'


def test_error_names_the_place_at_each_depth() -> None:
    conf = NetConf(
        {"ipam": {"ranges": [{"subnet": "10.1.0.0/16"}, {"subnet": "10.1.0.0/99"}, 7], "dns": ["x", 7]}},
        "a.conf",
    )
    ipam = conf.object("ipam")

    assert refusal(ipam, lambda ipam: ipam.objects("ranges")).msg == (
        'a.conf: ipam: "ranges[2]" must be an object, not an integer'
    )
    assert refusal(ipam, lambda ipam: ipam.strings("dns")).msg == (
        'a.conf: ipam: "dns[1]" must be a string, not an integer'
    )
    del ipam.raw["ranges"][2]
    second = ipam.objects("ranges")[1]
    assert refusal(second, lambda conf: conf.network("subnet")).msg == (
        "a.conf: ipam: ranges[1]: \"subnet\" is wrong: '10.1.0.0/99' is not an address in CIDR notation"
    )


def test_empty_address_is_none() -> None:
    assert NetConf({"gateway": ""}).address("gateway") is None
    assert NetConf({"subnet": ""}).network("subnet") is None


def test_malformed_address_is_quoted_as_given() -> None:
    error = refusal(NetConf({"gateway": "10.1.2.256\n"}), lambda conf: conf.address("gateway"))

    assert error.msg == "\"gateway\" is wrong: '10.1.2.256\\n' is not an IP address"


@given(st.dictionaries(st.text(max_size=4), st.none() | st.integers() | st.text(max_size=4), max_size=6))
def test_reading_changes_nothing(raw: dict[str, Any]) -> None:
    """The plugin gets the raw object."""
    before = fastjson.dumps(raw)
    conf = NetConf(raw)

    for key in [*raw, "a", "A"]:
        assert conf.has(key) == (lookup(raw, key) is not None)
        conf.object("no such key").raw["new"] = 1

    assert fastjson.dumps(raw) == before
    assert not conf.has("no such key")


def test_lenient_reader_treats_a_malformed_value_as_absent() -> None:
    """A DEL must not fail because of a value for which its ADD was refused."""
    raw = {key: ["x", {"a": 1}, 7] for key in ("s", "b", "i", "o", "a", "n")} | {"l": "x", "f": 1.5}
    conf = LenientConf(raw | {"deep": {"s": 7}}, "here")

    assert (conf.string("s"), conf.boolean("b"), conf.loose_boolean("b")) == ("", False, False)
    assert conf.integer("i", default=3, low=0, high=9) == 3
    assert (conf.object("o").raw, conf.address("a"), conf.network("n")) == ({}, None, None)
    assert (conf.list("l"), conf.strings("s"), [item.raw for item in conf.objects("s")]) == (
        [], ["x"], [{"a": 1}]
    )  # fmt: skip
    assert conf.object("deep").string("s") == ""
    assert LenientConf({"a": "1.2.3"}).address("a") is None
    assert LenientConf({"i": 99}).integer("i", default=3, low=0, high=9) == 3
