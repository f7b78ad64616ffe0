# SPDX-License-Identifier: Apache-2.0
"""--emulate: its syntax, and how it is passed to the network that can do it."""

import pytest

from cnihook.request import options
from cnihook.request.emulation import parse, to_text
from cnihook.request.option_table import TABLE
from cnihook.request.request import NetworkRequest
from cnihook.request.resolve import resolve
from cnihook.types.errors import CniError
from tests.unit.test_request import want
from tests.unit.test_request_plugins import ALL, BRIDGE, net

EMULATES = {"type": "bandwidth", "capabilities": {"bandwidth": True, "emulate": True}}


def test_values_have_units_and_a_direction() -> None:
    assert parse("delay=80ms,jitter=500us,loss=1%,duplicate=0.25%,corrupt=0.0001%") == {
        "egress": {"delay": 80_000, "jitter": 500, "loss": 10_000, "duplicate": 2_500, "corrupt": 1}
    }
    assert parse("delay=1.5s, reorder=25%,in-rate=2M,in-loss=100%") == {
        "egress": {"delay": 1_500_000, "reorder": 250_000},
        "ingress": {"rate": 2_000_000, "loss": 1_000_000},
    }


def test_text_of_effects_is_the_value_of_the_option() -> None:
    value = "delay=1500ms,jitter=500us,loss=1%,corrupt=0.0001%,in-delay=2s,in-reorder=12.5%,in-rate=2M"
    assert to_text(parse(value)) == value


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "''; it takes delay=TIME"),
        ("delay", "'delay'; it takes delay=TIME"),
        ("lag=80ms", "each also with in- before it"),
        ("delay=80", "'80' is not a time; such as 80ms"),
        ("delay=ms", "'ms' is not a time"),
        ("delay=1e3ms", "'1e3ms' is not a time"),
        ("delay=\u0661ms", "is not a time"),
        ("delay=90s", "delay of 90s: 60s is the most"),
        ("delay=9s,jitter=3s", "jitter of 3s: 2s is the most"),
        ("loss=1", "'1' is not a share; such as 1%"),
        ("loss=101%", "loss of 101%: 100% is the most"),
        ("loss=-1%", "is not a share"),
        ("rate=fast", "'fast' is not a rate"),
        ("rate=7", "7 bits are less than a byte"),
        ("jitter=5ms", '"jitter" is wrong: it needs a delay'),
        ("delay=5ms,in-reorder=1%", '"reorder" is wrong: it needs a delay'),
    ],
)
def test_bad_value_is_refused(text: str, problem: str) -> None:
    with pytest.raises(CniError) as refused:
        parse(text)
    assert problem in str(refused.value)
    assert str(refused.value).startswith("emulate ") and "\n" not in str(refused.value)


def test_request_goes_to_the_network_that_can_serve_it() -> None:
    plain, able = net(BRIDGE, ALL, name="plain"), net(BRIDGE, EMULATES, name="able")
    request = want(emulate="delay=80ms,in-loss=1%")

    first, second = resolve([(one, NetworkRequest(one.name)) for one in (plain, able)], request.common)
    assert "emulate" not in first.capability_args
    assert second.capability_args["emulate"] == {"egress": {"delay": 80_000}, "ingress": {"loss": 10_000}}

    with pytest.raises(CniError, match="none of its plugins takes a network to emulate") as refused:
        resolve([(plain, NetworkRequest("plain"))], request.common)
    assert '{"type": "bandwidth", "capabilities": {"emulate": true}}' in refused.value.details


def test_several_options_become_one_annotation() -> None:
    values = [("emulate", "delay=80ms"), ("emulate", "in-loss=1%")]

    annotations = options.to_annotations(values)
    assert annotations == {"cnihook.emulate": "delay=80ms,in-loss=1%"}
    assert options.from_annotations(annotations).common.emulation == {
        "egress": {"delay": 80_000},
        "ingress": {"loss": 10_000},
    }
    assert "emulate" in options.BOUNDED
    (entry,) = [each for each in TABLE if each.name == "emulate"]
    assert {"hook", "attach", "inject", "priv-net-run", "docker-run"} <= set(entry.programs)
