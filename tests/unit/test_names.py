# SPDX-License-Identifier: Apache-2.0
"""types.names: which texts may be a file name, an identifier, an interface name."""

import re
from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cnihook.types.errors import INVALID_CONFIG, INVALID_ENVIRONMENT, UNKNOWN_CONTAINER, CniError
from cnihook.types.names import (
    check_container_id,
    check_ifname,
    check_network_name,
    check_plugin_type,
    record_name,
)

IDENTIFIER = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.\-]*")
NEARLY = st.text("abzAZ059_.-/\n \0\u00e9\u0660", max_size=12) | st.text(max_size=12)


def accepts(check: Callable[[str], None], name: str) -> bool:
    try:
        check(name)
    except CniError as error:
        assert str(error).isprintable(), "an error is one line, with any name in it"
        return False
    return True


@given(NEARLY)
@example("a\n")
@example("a\nb")
@example(".")
@example("..")
@example("../../etc/x")
@example("-a")
@example("_a")
@example("a b")
@example("\u0430")
@example("a\0")
@example("\udcff")
@example("a" * 255)
@example("a" * 256)
@example("a" * 300)
def test_ids_and_network_names_follow_the_specification(name: str) -> None:
    """The specification's pattern has to match the whole name; a file name has 255 bytes at most."""
    allowed = bool(IDENTIFIER.fullmatch(name)) and len(name) <= 255

    assert accepts(check_container_id, name) == allowed
    assert accepts(check_network_name, name) == allowed


def test_missing_name_and_malformed_name_have_their_codes() -> None:
    for check, name, code in [
        (check_container_id, "", UNKNOWN_CONTAINER),
        (check_container_id, "a/b", INVALID_ENVIRONMENT),
        (check_container_id, "a" * 256, INVALID_ENVIRONMENT),
        (check_network_name, "", INVALID_CONFIG),
        (check_network_name, "a/b", INVALID_CONFIG),
        (check_ifname, "", INVALID_ENVIRONMENT),
        (check_ifname, "a/b", INVALID_ENVIRONMENT),
        (check_plugin_type, "", INVALID_CONFIG),
        (check_plugin_type, "a/b", INVALID_CONFIG),
    ]:
        with pytest.raises(CniError) as refused:
            check(name)
        assert refused.value.code == code, (check, name)


def test_error_of_a_network_name_names_its_file() -> None:
    with pytest.raises(CniError, match="^/etc/cni/net.d/10-a.conf: "):
        check_network_name("a/b", "/etc/cni/net.d/10-a.conf")


def test_error_of_a_long_network_name_names_its_length() -> None:
    with pytest.raises(CniError, match="long"):
        check_network_name("a" * 256)


@pytest.mark.parametrize("check", [check_container_id, check_network_name, check_ifname])
def test_error_quotes_a_long_name_only_in_part(check: Callable[[str], None]) -> None:
    with pytest.raises(CniError) as refused:
        check("/" + "x" * 5000)

    assert "xxxxxxx" in str(refused.value)
    assert len(str(refused.value)) < 400


@pytest.mark.parametrize(
    "name",
    ["a", "eth0", "eth0.100", "veth1a2b3c4d", "-", "...", "a" * 15, "\u00fc" * 7, "a@b", "\u0416"],
)
def test_interface_name_of_the_kernel_is_accepted(name: str) -> None:
    assert accepts(check_ifname, name)


@pytest.mark.parametrize("name", ["%d", "tap%d", "a%b"])
def test_pattern_is_not_an_interface_name(name: str) -> None:
    """The kernel would replace the pattern or reject it, so the interface could not be found by its name."""
    assert not accepts(check_ifname, name)


@pytest.mark.parametrize(
    "name",
    [
        "", ".", "..", "a/b", "a:b", "a b", "a\tb", "a\nb", "eth0\n", "a\x0bb", "a\x0cb", "a\rb",
        "a\xa0b", "a\x85b", "a\u2028b", "a\u3000b", "a\0b", "a" * 16, "\u00fc" * 8, "\u4e2d" * 6,
    ],
)  # fmt: skip
def test_malformed_interface_name_is_refused(name: str) -> None:
    """The limit is 15 bytes, not characters; white space of Unicode counts as well."""
    assert not accepts(check_ifname, name)


@pytest.mark.parametrize("name", ["a\x1b[31m", "a\x7f", "a\x9bb", "a\u202eb", "a\u200bb", "a\U000e0041"])
def test_interface_name_that_cannot_be_printed_is_refused(name: str) -> None:
    assert not accepts(check_ifname, name)


@given(st.text(max_size=17))
def test_any_text_is_an_interface_name_or_refused(name: str) -> None:
    allowed = accepts(check_ifname, name)

    assert not allowed or (1 <= len(name.encode()) <= 15 and name.split() == [name] and "/" not in name)


@pytest.mark.parametrize("name", ["eth\udcff", "\ud800"])
def test_interface_name_that_is_not_utf8_is_refused(name: str) -> None:
    """Such a name may come from an argument or a variable, but cannot be sent to the kernel."""
    assert not accepts(check_ifname, name)


@pytest.mark.parametrize("name", ["bridge", "host-local", "my_plugin", "a.b", "...", "x y"])
def test_plugin_types_are_file_names(name: str) -> None:
    assert accepts(check_plugin_type, name)


@pytest.mark.parametrize("name", ["", ".", "..", "/", "a/b", "../bridge", "/bin/sh", "a\0b"])
def test_path_is_not_a_plugin_type(name: str) -> None:
    assert not accepts(check_plugin_type, name)


def test_name_of_a_record_is_that_of_libcni() -> None:
    assert record_name("mynet", "c1", "eth0") == "mynet-c1-eth0"


def test_name_of_a_record_fits_a_file_name() -> None:
    """Each of the three may be long, but not all together; the check comes before anything is attached."""
    assert len(record_name("n" * 100, "c" * 149, "eth0")) == 255
    with pytest.raises(CniError, match="too long"):
        record_name("n" * 100, "c" * 150, "eth0")
    with pytest.raises(CniError, match="too long"):
        record_name("n" * 100, "c" * 142, "\u00e9" * 6)  # 12 bytes, 6 characters
