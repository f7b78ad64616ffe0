# SPDX-License-Identifier: Apache-2.0
"""oci.resolv_conf: the text that several networks come to.  Where it is put is a matter of tests/e2e."""

import os
from pathlib import Path

import pytest

from cnihook.oci import resolv_conf
from cnihook.spec.errors import CniError
from cnihook.spec.result import DNS


@pytest.fixture(autouse=True)
def host(state: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The files of a host that is not this one."""
    monkeypatch.setattr(resolv_conf, "HOST", str(state / "resolv.conf"))
    monkeypatch.setattr(resolv_conf, "WITHOUT_STUB", str(state / "without-stub"))
    (state / "resolv.conf").write_text("# mine\nnameserver 192.0.2.53\nnameserver\noptions ndots:1\n")
    (state / "without-stub").write_text("nameserver 192.0.2.54\nsearch example.org\n")
    return state


def test_file_that_is_missing_or_masked_is_empty(host: Path) -> None:
    (host / "link").symlink_to("resolv.conf")
    (host / "masked").symlink_to("/dev/null")

    assert resolv_conf.read(str(host / "link")) == resolv_conf.read(str(host / "resolv.conf")) != ""
    assert resolv_conf.read(str(host / "masked")) == resolv_conf.read(str(host / "none")) == ""


def test_file_that_is_too_long_or_unreadable_is_an_error(host: Path) -> None:
    """The names of the host could be hidden, and its servers."""
    os.truncate(host / "resolv.conf", 1 << 40)
    with pytest.raises(CniError, match="resolv.conf: is longer than 16 MiB"):
        resolv_conf.read(str(host / "resolv.conf"))

    (host / "loop").symlink_to("loop")
    with pytest.raises(OSError, match="loop"):
        resolv_conf.read(str(host / "loop"))


def test_nothing_said_is_no_file() -> None:
    assert resolv_conf.text([]) == resolv_conf.text([DNS(), DNS()]) == ""


def test_all_that_is_said_once() -> None:
    found = resolv_conf.text(
        [
            DNS(["10.1.0.53", "10.2.0.53"], "a.example", ["x.example"], ["ndots:2"]),
            DNS(["10.2.0.53", "10.3.0.53"], "b.example", ["y.example", "x.example"], ["ndots:2", "rotate"]),
        ]
    )

    assert (
        found
        == """\
domain a.example
search x.example y.example
nameserver 10.1.0.53
nameserver 10.2.0.53
nameserver 10.3.0.53
options ndots:2 rotate
"""
    )


def test_without_a_server_the_hosts_serve() -> None:
    assert resolv_conf.text([DNS(search=["x.example"])]) == "search x.example\nnameserver 192.0.2.53\n"


@pytest.mark.parametrize("server", ["127.0.0.53", "127.0.0.1", "::1"])
def test_a_server_on_the_hosts_loopback_serves_nobody_else(host: Path, server: str) -> None:
    (host / "resolv.conf").write_text(f"nameserver {server}\n")

    assert resolv_conf.text([DNS(domain="x.example")]) == "domain x.example\nnameserver 192.0.2.54\n"
    assert resolv_conf.instead_of_stub() == "nameserver 192.0.2.54\nsearch example.org\n"


def test_a_server_that_all_can_ask_needs_no_replacement(host: Path) -> None:
    assert resolv_conf.instead_of_stub() == ""
    (host / "resolv.conf").unlink()
    assert resolv_conf.instead_of_stub() == ""
    assert resolv_conf.text([DNS(options=["rotate"])]) == "options rotate\n"


SAID = DNS(["10.1.0.53"], "a.example", ["x.example"], ["ndots:2"])


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (DNS(["192.0.2.1"]), "domain a.example\nsearch x.example\nnameserver 192.0.2.1\noptions ndots:2\n"),
        (DNS(search=["y.example"]), "search y.example\nnameserver 10.1.0.53\noptions ndots:2\n"),
        (DNS(search=["."]), "nameserver 10.1.0.53\noptions ndots:2\n"),
        (
            DNS(options=["rotate"]),
            "domain a.example\nsearch x.example\nnameserver 10.1.0.53\noptions rotate\n",
        ),
        (DNS(["::1", "::1"], search=["y"], options=["a"]), "search y\nnameserver ::1\noptions a\n"),
    ],
)
def test_what_was_asked_for_goes_before_it_kind_by_kind(asked: DNS, expected: str) -> None:
    assert resolv_conf.text([SAID], asked) == expected


def test_what_was_asked_for_alone_has_the_hosts_servers() -> None:
    assert resolv_conf.text([], DNS(search=["y"])) == "search y\nnameserver 192.0.2.53\n"


@pytest.mark.parametrize(
    ("of_host", "expected"),
    [
        ("# mine\n; old\n\nsearch a\nnameserver 192.0.2.1\n", "search a\nnameserver 192.0.2.1\n"),
        ("nameserver 127.0.0.1\nnameserver 192.0.2.1", "nameserver 192.0.2.1\n"),
        ("nameserver fe80::1%eth0\nnameserver 2001:db8::1\n", "nameserver 2001:db8::1\n"),
        ("nameserver 127.0.0.53\nsearch a\n", "nameserver 192.0.2.54\nsearch example.org\n"),
        ("search a\n", ""),
        ("", ""),
    ],
)
def test_the_hosts_for_who_does_not_share_its_loopback(host: Path, of_host: str, expected: str) -> None:
    (host / "resolv.conf").write_text(of_host)

    assert resolv_conf.of_host() == expected


@pytest.mark.parametrize(
    ("dns", "lines"),
    [
        (DNS(["10.1.0.53\nnameserver 192.0.2.66"]), 1),
        (DNS(["10.1.0.53"], "a\noptions x"), 2),
        (DNS(["10.1.0.53"], "", ["a\nb"]), 2),
        (DNS(["10.1.0.53"], "", [], ["a\nb"]), 2),
    ],
)
def test_a_line_break_in_a_value_makes_no_line(dns: DNS, lines: int) -> None:
    """What a plugin answers is its word; it may add a server but no setting of another kind."""
    assert len(resolv_conf.text([dns]).splitlines()) == lines
