# SPDX-License-Identifier: Apache-2.0
"""names.resolv_conf: the text for several networks.  The tests of where it is written are in tests/e2e."""

import os
from pathlib import Path

import pytest

from cnihook.names import resolv_conf
from cnihook.request import host_file
from cnihook.types.errors import CniError
from cnihook.types.result import DNS


@pytest.fixture(autouse=True)
def host(state: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Replace the files of the host."""
    monkeypatch.setattr(resolv_conf, "HOST", str(state / "resolv.conf"))
    monkeypatch.setattr(resolv_conf, "WITHOUT_STUB", str(state / "without-stub"))
    (state / "resolv.conf").write_text("# mine\nnameserver 192.0.2.53\nnameserver\noptions ndots:1\n")
    (state / "without-stub").write_text("nameserver 192.0.2.54\nsearch example.org\n")
    return state


def test_missing_or_masked_file_is_empty(host: Path) -> None:
    (host / "link").symlink_to("resolv.conf")
    (host / "masked").symlink_to("/dev/null")

    assert host_file.read(str(host / "link")) == host_file.read(str(host / "resolv.conf")) != ""
    assert host_file.read(str(host / "masked")) == host_file.read(str(host / "none")) == ""


def test_file_that_is_too_long_or_unreadable_is_an_error(host: Path) -> None:
    """Otherwise the host's names and servers could be missed."""
    os.truncate(host / "resolv.conf", 1 << 40)
    with pytest.raises(CniError, match="resolv.conf: is longer than 16 MiB"):
        host_file.read(str(host / "resolv.conf"))

    (host / "loop").symlink_to("loop")
    with pytest.raises(OSError, match="loop"):
        host_file.read(str(host / "loop"))


def test_networks_without_dns_have_no_file() -> None:
    assert resolv_conf.text([]) == resolv_conf.text([DNS(), DNS()]) == ""


def test_values_of_all_networks_are_listed_once() -> None:
    text = resolv_conf.text(
        [
            DNS(["10.1.0.53", "10.2.0.53"], "a.example", ["x.example"], ["ndots:2"]),
            DNS(["10.2.0.53", "10.3.0.53"], "b.example", ["y.example", "x.example"], ["ndots:2", "rotate"]),
        ]
    )

    assert (
        text
        == """\
domain a.example
search x.example y.example
nameserver 10.1.0.53
nameserver 10.2.0.53
nameserver 10.3.0.53
options ndots:2 rotate
"""
    )


def test_servers_of_the_host_are_used_if_the_networks_have_none() -> None:
    assert resolv_conf.text([DNS(search=["x.example"])]) == "search x.example\nnameserver 192.0.2.53\n"


@pytest.mark.parametrize("server", ["127.0.0.53", "127.0.0.1", "::1"])
def test_server_on_the_hosts_loopback_is_replaced(host: Path, server: str) -> None:
    (host / "resolv.conf").write_text(f"nameserver {server}\n")

    assert resolv_conf.text([DNS(domain="x.example")]) == "domain x.example\nnameserver 192.0.2.54\n"
    assert resolv_conf.of_host().endswith("\nnameserver 192.0.2.54\nsearch example.org\n")


def test_file_of_the_host_follows_until_it_is_edited(host: Path) -> None:
    """An empty file gets the servers of the host, once there are some."""
    file = resolv_conf.of_host()
    assert resolv_conf.is_unchanged(file) and resolv_conf.renewed(file) == ""
    searching = resolv_conf.marked("as asked for", "search x\nnameserver 192.0.2.53\n", is_following=True)
    (host / "resolv.conf").write_text("nameserver 192.0.2.77\n")
    assert resolv_conf.renewed(file) == resolv_conf.renewed("\n") == resolv_conf.of_host() != file
    assert resolv_conf.renewed(searching).endswith("\nsearch x\nnameserver 192.0.2.77\n")
    for edited in (f"{file}#\n", file.partition("\n")[2], "nameserver 192.0.2.1\n"):
        assert resolv_conf.renewed(edited) == ""
        assert not resolv_conf.is_unchanged(edited)
    (host / "resolv.conf").write_text("")
    assert resolv_conf.renewed(file) == resolv_conf.renewed(searching) == resolv_conf.renewed("") == ""


def test_host_without_a_file_has_no_servers(host: Path) -> None:
    (host / "resolv.conf").unlink()
    assert resolv_conf.of_host() == ""
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
def test_request_replaces_the_networks_values_of_the_same_kind(asked: DNS, expected: str) -> None:
    assert resolv_conf.text([SAID], asked) == expected
    written = resolv_conf.marked(resolv_conf.AS_ASKED, expected, is_following=False)
    asked.nameservers = asked.nameservers[:1]
    assert resolv_conf.difference(written, [SAID]) == asked


def test_request_alone_is_completed_by_the_hosts_servers() -> None:
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
def test_file_of_the_host_is_copied_without_loopback_servers(
    host: Path, of_host: str, expected: str
) -> None:
    (host / "resolv.conf").write_text(of_host)

    assert resolv_conf.host_text() == expected


@pytest.mark.parametrize(
    ("dns", "lines"),
    [
        (DNS(["10.1.0.53\nnameserver 192.0.2.66"]), 1),
        (DNS(["10.1.0.53"], "a\noptions x"), 2),
        (DNS(["10.1.0.53"], "", ["a\nb"]), 2),
        (DNS(["10.1.0.53"], "", [], ["a\nb"]), 2),
    ],
)
def test_line_break_in_a_value_adds_no_line(dns: DNS, lines: int) -> None:
    """A plugin's answer may add a server, but not a setting of another kind."""
    assert len(resolv_conf.text([dns]).splitlines()) == lines
