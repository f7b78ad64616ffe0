# SPDX-License-Identifier: Apache-2.0
"""spec.names: what may become a file name, an identifier, an interface."""

import re
from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cnihook.spec.errors import INVALID_CONFIG, INVALID_ENVIRONMENT, UNKNOWN_CONTAINER, CniError
from cnihook.spec.names import (
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
        assert str(error).isprintable(), "an error is one line, whatever it speaks of"
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
def test_ids_and_network_names_are_the_specifications(name: str) -> None:
    """Its pattern to the very end of the name; a file name has 255 bytes."""
    allowed = bool(IDENTIFIER.fullmatch(name)) and len(name) <= 255

    assert accepts(check_container_id, name) == allowed
    assert accepts(check_network_name, name) == allowed


def test_what_is_missing_and_what_is_wrong_have_codes_of_their_own() -> None:
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


def test_a_network_names_its_file() -> None:
    with pytest.raises(CniError, match="^/etc/cni/net.d/10-a.conf: "):
        check_network_name("a/b", "/etc/cni/net.d/10-a.conf")


def test_a_network_name_that_is_too_long_is_not_said_to_have_wrong_characters() -> None:
    with pytest.raises(CniError, match="long"):
        check_network_name("a" * 256)


@pytest.mark.parametrize("check", [check_container_id, check_network_name, check_ifname])
def test_error_shows_the_name_but_not_a_page_of_it(check: Callable[[str], None]) -> None:
    with pytest.raises(CniError) as refused:
        check("/" + "x" * 5000)

    assert "xxxxxxx" in str(refused.value)
    assert len(str(refused.value)) < 400


@pytest.mark.parametrize(
    "name",
    ["a", "eth0", "eth0.100", "veth1a2b3c4d", "-", "...", "a" * 15, "\u00fc" * 7, "a@b", "\u0416"],
)
def test_interface_names_that_the_kernel_takes(name: str) -> None:
    assert accepts(check_ifname, name)


@pytest.mark.parametrize("name", ["%d", "tap%d", "a%b"])
def test_a_pattern_is_no_interface_name(name: str) -> None:
    """The kernel would make another name of it, or refuse it; nobody would find the interface again."""
    assert not accepts(check_ifname, name)


@pytest.mark.parametrize(
    "name",
    [
        "", ".", "..", "a/b", "a:b", "a b", "a\tb", "a\nb", "eth0\n", "a\x0bb", "a\x0cb", "a\rb",
        "a\xa0b", "a\x85b", "a\u2028b", "a\u3000b", "a\0b", "a" * 16, "\u00fc" * 8, "\u4e2d" * 6,
    ],
)  # fmt: skip
def test_interface_names_that_nobody_takes(name: str) -> None:
    """15 bytes, not characters; Unicode's white space, not only ASCII's."""
    assert not accepts(check_ifname, name)


@pytest.mark.parametrize("name", ["a\x1b[31m", "a\x7f", "a\x9bb", "a\u202eb", "a\u200bb", "a\U000e0041"])
def test_interface_name_that_cannot_be_printed_is_refused(name: str) -> None:
    assert not accepts(check_ifname, name)


@given(st.text(max_size=17))
def test_any_text_is_an_interface_name_or_a_refusal(name: str) -> None:
    allowed = accepts(check_ifname, name)

    assert not allowed or (1 <= len(name.encode()) <= 15 and name.split() == [name] and "/" not in name)


@pytest.mark.parametrize("name", ["eth\udcff", "\ud800"])
def test_an_interface_name_that_is_no_utf8_is_refused(name: str) -> None:
    """Such a name comes in by an argument or a variable, and could not be sent to the kernel."""
    assert not accepts(check_ifname, name)


@pytest.mark.parametrize("name", ["bridge", "host-local", "my_plugin", "a.b", "...", "x y"])
def test_plugin_types_are_file_names(name: str) -> None:
    assert accepts(check_plugin_type, name)


@pytest.mark.parametrize("name", ["", ".", "..", "/", "a/b", "../bridge", "/bin/sh", "a\0b"])
def test_plugin_types_are_no_paths(name: str) -> None:
    assert not accepts(check_plugin_type, name)


def test_name_of_a_record_is_libcnis() -> None:
    assert record_name("mynet", "c1", "eth0") == "mynet-c1-eth0"


def test_name_of_a_record_fits_a_file_name() -> None:
    """Each of the three may be long, all together not; to be known before anything is attached."""
    assert len(record_name("n" * 100, "c" * 149, "eth0")) == 255
    with pytest.raises(CniError, match="too long"):
        record_name("n" * 100, "c" * 150, "eth0")
    with pytest.raises(CniError, match="too long"):
        record_name("n" * 100, "c" * 142, "\u00e9" * 6)  # 12 bytes, 6 characters
