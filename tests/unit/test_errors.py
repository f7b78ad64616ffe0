# SPDX-License-Identifier: Apache-2.0
"""types.errors: codes, messages, and their forms."""

import errno
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnihook.linux.netlink import NetlinkError
from cnihook.types import errors
from cnihook.types.errors import CniError, PoolExhaustedError, as_cni_error


def test_codes_are_the_specifications() -> None:
    assert {
        name: value for name, value in vars(errors).items() if name.isupper() and type(value) is int
    } == {
        "INCOMPATIBLE_VERSION": 1,
        "UNSUPPORTED_FIELD": 2,
        "UNKNOWN_CONTAINER": 3,
        "INVALID_ENVIRONMENT": 4,
        "IO_FAILURE": 5,
        "DECODING_FAILURE": 6,
        "INVALID_CONFIG": 7,
        "INVALID_NETNS": 8,
        "TRY_AGAIN_LATER": 11,
        "PLUGIN_NOT_AVAILABLE": 50,
        "LIMITED_CONNECTIVITY": 51,
        "INTERNAL": 999,
    }


def test_text_of_an_error_ends_with_the_details() -> None:
    assert str(CniError(7, "what")) == "what"
    assert str(CniError(7, "what", "do this")) == "what; do this"


def test_json_of_an_error_is_indented_and_has_the_version() -> None:
    assert CniError(7, "what", "do this").to_json("1.0.0") == (
        '{\n    "cniVersion": "1.0.0",\n    "code": 7,\n    "msg": "what",\n    "details": "do this"\n}'
    )
    assert "details" not in json.loads(CniError(7, "what").to_json("1.0.0"))


@given(st.integers(0, 1 << 31), st.text(), st.text())
def test_printed_error_is_read_back(code: int, msg: str, details: str) -> None:
    error = CniError.from_json(json.loads(CniError(code, msg, details).to_json("1.0.0")))

    assert (error.code, error.msg, error.details) == (code, msg, details)


@pytest.mark.parametrize(
    "raw", [{}, {"code": "7", "msg": 7, "details": []}, {"code": True, "msg": None}, {"code": 1.0}]
)
def test_key_that_is_missing_or_of_another_type_is_empty(raw: dict[str, Any]) -> None:
    error = CniError.from_json(raw)

    assert (error.code, error.msg, error.details) == (0, "", "")


def test_wrapped_error_begins_with_the_place_and_keeps_its_code() -> None:
    error = CniError(11, "no address", "wait").wrapped("network mynet")

    assert (error.code, error.msg, error.details) == (11, "network mynet: no address", "wait")


def test_any_exception_becomes_a_cni_error() -> None:
    own = PoolExhaustedError(11, "no address")
    assert as_cni_error(own) is own

    for error, words in [
        (
            FileNotFoundError(errno.ENOENT, "No such file or directory", "/run/x"),
            "/run/x: No such file or directory",
        ),
        (OSError(errno.EPERM, "Operation not permitted"), "Operation not permitted"),
        (NetlinkError(errno.EEXIST, "create veth a", "why."), "create veth a: File exists (why)"),
        (ValueError("no MAC address"), "no MAC address"),
        (KeyError(), "KeyError"),
        (RuntimeError(""), "RuntimeError"),
    ]:
        cni_error = as_cni_error(error)
        assert (cni_error.code, cni_error.msg) == (999, words)


def test_error_of_the_kernel_keeps_its_number_and_text() -> None:
    error = NetlinkError(errno.EEXIST, "create veth veth1 with peer eth0")

    assert (error.errno, error.strerror) == (errno.EEXIST, "File exists")
    assert str(error) == "create veth veth1 with peer eth0: File exists"
