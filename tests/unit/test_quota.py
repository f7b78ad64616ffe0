# SPDX-License-Identifier: Apache-2.0
"""--quota: its syntax, and how it is passed to the network that can do it."""

import pytest

from cnihook.request import options
from cnihook.request.quota import parse, to_text
from cnihook.request.request import NetworkRequest
from cnihook.request.resolve import resolve
from cnihook.types.errors import CniError
from tests.unit.test_request import want
from tests.unit.test_request_plugins import BRIDGE, net


def test_sizes_are_bytes_with_units_of_1000() -> None:
    assert parse("out=10G, in=500M,total=1T") == {
        "egress": 10 * 10**9,
        "ingress": 500 * 10**6,
        "total": 10**12,
    }
    assert parse("out=1500") == {"egress": 1500}
    assert parse("total=unlimited") == {"total": (1 << 63) - 1}


def test_text_of_a_quota_is_the_value_of_the_option() -> None:
    for value in ("out=10G,in=1500k,total=1T", "out=unlimited", "in=1"):
        assert to_text(parse(value)) == value


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "it takes out=BYTES, in=BYTES and total=BYTES"),
        ("10G", "'10G'; it takes out=BYTES"),
        ("up=10G", "'up=10G'; it takes out=BYTES"),
        ("out=0", "'0' is not a size; such as 500M"),
        ("out=1.5G", "'1.5G' is not a size"),
        ("out=9999999999G", "is not a size"),
    ],
)
def test_bad_value_is_refused(text: str, problem: str) -> None:
    with pytest.raises(CniError) as refused:
        parse(text)
    assert problem in str(refused.value)
    assert str(refused.value).startswith("quota ") and "\n" not in str(refused.value)


def test_request_goes_to_the_network_that_can_serve_it() -> None:
    network = net(BRIDGE, {"type": "bandwidth", "capabilities": {"quota": True}})

    (served,) = resolve([(network, NetworkRequest("mynet"))], want(quota="out=10G,total=1T").common)
    assert served.capability_args == {"quota": {"egress": 10 * 10**9, "total": 10**12}}
    assert options.to_annotations([("quota", "out=1M"), ("quota", "in=2M")]) == {
        "cnihook.quota": "out=1M,in=2M"
    }
    assert "quota" in options.BOUNDED
