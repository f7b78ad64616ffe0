# SPDX-License-Identifier: Apache-2.0
"""types.versions: the order of versions, the version of a network, the operations of a version."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnihook.types import versions
from cnihook.types.errors import DECODING_FAILURE, INCOMPATIBLE_VERSION, INVALID_CONFIG, CniError
from tests.support.plugins.cni import VERSIONS

NUMBER = st.integers(0, 20)


def test_versions_are_the_specifications() -> None:
    assert list(versions.ALL) == VERSIONS
    assert (versions.OLDEST, versions.CURRENT) == (VERSIONS[0], VERSIONS[-1])


@given(st.lists(NUMBER, min_size=1, max_size=3))
def test_missing_numbers_are_zero(numbers: list[int]) -> None:
    assert versions.parse(".".join(map(str, numbers))) == tuple((numbers + [0, 0])[:3])


def test_missing_version_is_the_oldest() -> None:
    """A configuration of 2015 has no version, so the newest would be wrong."""
    assert versions.parse("") == (0, 1, 0)


@pytest.mark.parametrize(
    "text",
    [
        ".", "1.", ".1", "1..0", "1.0.0.0", "a", "1.a", "1.0.0-rc1", "v1.0.0", " 1.0.0", "1.0.0\n", "-1",
        "+1", "1,0", "\u0661.0.0", "\xb2", "1" * 6000,
    ],
)  # fmt: skip
def test_malformed_version_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a version"):
        versions.parse(text)


@given(st.tuples(NUMBER, NUMBER, NUMBER), st.tuples(NUMBER, NUMBER, NUMBER))
def test_versions_compare_as_numbers(one: tuple[int, ...], other: tuple[int, ...]) -> None:
    """1.10.0 is later than 1.9.0."""
    assert versions.at_least(".".join(map(str, one)), ".".join(map(str, other))) == (one >= other)


@pytest.mark.parametrize(
    ("raw", "chosen"),
    [
        ({}, ""),
        ({"cniVersion": ""}, ""),
        ({"cniVersion": "0.4.0"}, "0.4.0"),
        ({"cniVersion": "1.2.3"}, "1.2.3"),  # verbatim: the plugin reports that it does not support it
        ({"cniVersion": "nonsense"}, "nonsense"),
        ({"cniVersion": "0.3.1", "cniVersions": ["0.4.0", "1.0.0"]}, "1.0.0"),
        ({"cniVersion": "1.1.0", "cniVersions": ["0.4.0", "1.0.0"]}, "1.1.0"),
        ({"cniVersion": "0.3.1", "cniVersions": ["1.2.0", "9.0.0"]}, "0.3.1"),
        ({"cniVersion": "1.2.0", "cniVersions": ["0.4.0", "1.3.0"]}, "0.4.0"),
        ({"cniVersion": "1.2.0", "cniVersions": ["1.3.0"]}, "1.2.0"),
        ({"cniVersion": "1.2.0", "cniVersions": []}, "1.2.0"),
        ({"cniVersions": ["0.4.0", "0.3.1"]}, "0.4.0"),
        ({"cniVersions": ["9.0.0"]}, ""),
        ({"cniVersions": []}, ""),
        ({"cniVersion": "0.4.0", "cniVersions": None}, "0.4.0"),
        ({"cniVersions": ["0.9.0", "0.10.0"]}, "0.10.0"),
    ],
)
def test_highest_supported_version_is_chosen(raw: dict[str, Any], chosen: str) -> None:
    assert versions.negotiate(raw, "10-a.conf") == chosen


@pytest.mark.parametrize(
    ("raw", "named"),
    [
        ({"cniVersion": 1}, "cniVersion"),
        ({"cniVersion": ["1.0.0"]}, "cniVersion"),
        ({"cniVersion": True}, "cniVersion"),
        ({"cniVersion": "1.0.0", "cniVersions": "1.0.0"}, "cniVersions"),
        ({"cniVersion": "1.0.0", "cniVersions": {}}, "cniVersions"),
        ({"cniVersion": "1.0.0", "cniVersions": ["0.4.0", "x"]}, "cniVersions[1]"),
        ({"cniVersion": "1.0.0", "cniVersions": [1.0]}, "cniVersions[0]"),
        ({"cniVersion": "1.0.0", "cniVersions": [None]}, "cniVersions[0]"),
        ({"cniVersion": "1.0.0", "cniVersions": ["1.0.0", "1.0.0.0"]}, "cniVersions[1]"),
        ({"cniVersion": "x", "cniVersions": ["1.0.0"]}, "cniVersion"),
    ],
)
def test_malformed_version_is_reported_with_file_and_key(raw: dict[str, Any], named: str) -> None:
    with pytest.raises(CniError) as refused:
        versions.negotiate(raw, "10-a.conf")

    assert refused.value.code == INVALID_CONFIG
    assert refused.value.msg.startswith(f'10-a.conf: "{named}"')


def test_support_is_exact() -> None:
    """1.0 compares equal to 1.0.0, but no plugin of the reference takes it."""
    assert [versions.check_supported(version) for version in VERSIONS] == VERSIONS
    assert versions.check_supported("") == "0.1.0"
    for version in ("1.0", "1", "01.0.0", "1.2.0", "0.5.0", "x"):
        with pytest.raises(CniError, match="incompatible CNI versions") as refused:
            versions.check_supported(version)
        assert refused.value.code == INCOMPATIBLE_VERSION
        assert version in refused.value.details and '"0.4.0"' in refused.value.details


def test_plugin_may_support_versions_from_a_later_one_on() -> None:
    assert versions.since("0.4.0") == ("0.4.0", "1.0.0", "1.1.0")
    assert versions.since("0.1.0") == versions.ALL


@pytest.mark.parametrize(
    ("command", "since"),
    [("ADD", ""), ("DEL", ""), ("VERSION", ""), ("CHECK", "0.4.0"), ("GC", "1.1.0"), ("STATUS", "1.1.0")],
)
def test_operation_requires_a_minimum_version(command: str, since: str) -> None:
    for version in ["", *VERSIONS, "9.0.0"]:
        if (version or "0.1.0") >= since:
            versions.check_operation(command, version)
        else:
            with pytest.raises(CniError, match=f"config version does not allow {command}") as refused:
                versions.check_operation(command, version)
            assert refused.value.code == INCOMPATIBLE_VERSION


def test_operation_with_a_malformed_version_is_refused() -> None:
    with pytest.raises(CniError, match="cniVersion") as refused:
        versions.check_operation("CHECK", "latest")
    assert refused.value.code == DECODING_FAILURE
