# SPDX-License-Identifier: Apache-2.0
"""What holds for each command that shows what is attached, however it is called."""

import json

import pytest

from tests.support.host import Host
from tests.support.namespace import base_environment
from tests.support.oci import CNIHOOK, RESULTS
from tests.support.seeing import (
    COLOUR,
    INSTALLED,
    damage,
    on_screen,
    plain,
    populated,
    show,
    shown,
    shown_json,
)
from tests.support.skip import need

READERS = ["ps", "graph", "stats", "metrics", "check --all", "inspect web"]
TABLES = ["ps", "graph", "stats --once", "inspect web"]


@pytest.mark.parametrize(
    "words",
    [
        "ps web",
        "ps --network ../x",
        "ps --network",
        "ps --json --quiet",
        "ps --format {nothing}",
        "ps --format {container",
        "ps --format {container.__class__}",
        "inspect",
        "inspect ../web",
        "inspect web db",
        "stats web db",
        "stats --interval 0",
        "stats --interval soon",
        "graph web",
        "graph --format gif",
        "graph --output picture.gif",
        "graph --output picture",
        "logs -f a b",
        "metrics web",
        "check --all --container web",
        "check mynet --all",
        "check --container ../x",
    ],
)
def test_wrong_words_are_a_usage_error(host: Host, words: str) -> None:
    done = show(host, *words.split())

    assert (done.returncode, done.stdout) == (2, "")
    assert (
        done.stderr.endswith(f"; see `cnihook {words.split()[0]} --help`\n") and done.stderr.count("\n") == 1
    )


def test_machine_without_containers_is_no_error(host: Host) -> None:
    """Nor is one where nothing ever was attached, and no folder made."""
    assert shown(host, "ps").split()[0] == "CONTAINER" and shown(host, "ps").count("\n") == 1
    assert shown_json(host, "ps") == shown_json(host, "stats") == []
    assert shown(host, "ps", "--quiet") == shown(host, "check", "--all") == shown(host, "logs") == ""
    assert "0 networks, 0 containers" in shown(host, "graph")
    assert 'cnihook_attachments{network="cnihook",state="attached"} 0\n' in shown(host, "metrics")
    done = show(host, "inspect", "web")
    assert done.returncode == 1
    assert done.stderr == (
        "cnihook: inspect: no network of container web is on record; no container is on record\n"
    )


def test_each_shows_what_is_there(host: Host) -> None:
    with populated(host):
        for words in READERS:
            if words != "metrics":
                assert "web" in shown(host, *words.split()), words


def test_container_nobody_knows_is_told_with_those_there_are(host: Host) -> None:
    with populated(host):
        for command in ("inspect", "stats"):
            done = show(host, command, "nosuch")
            assert done.returncode == 1 and done.stdout == ""
            assert "container nosuch is on record; containers on record: db, job, web" in done.stderr
        assert show(host, "check", "--container", "nosuch").returncode == 2


def test_without_privilege_the_reason_is_told(host: Host) -> None:
    """To monitoring, not to be able to look is something else than to find something."""
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    with populated(host):
        for words in READERS:
            done = host.run(*nobody, INSTALLED, *words.split(), check=False)
            assert done.returncode == (2 if words == "check --all" else 1)
            assert done.stdout == ""
            assert (
                done.stderr
                == f"cnihook: {words.split()[0]}: {RESULTS}: Permission denied; only root can do that\n"
            )


def test_checkout_with_nothing_installed_will_do(host: Host) -> None:
    with populated(host):
        for words in READERS:
            if not words.startswith("inspect"):
                done = host.run(CNIHOOK, *words.split())
                assert done.stdout and done.stderr == ""


def test_damaged_record_is_told_and_hides_nothing(host: Host) -> None:
    with populated(host):
        path = damage(host)
        for words in ("ps", "stats", "check --all"):
            done = show(host, *words.split())
            assert done.returncode == (2 if words == "check --all" else 1)
            assert path in done.stdout + done.stderr
            assert "web" in done.stdout
        assert "cnihook_damaged_records 1\n" in shown(host, "metrics")
        assert "web" in shown(host, "graph")


def test_record_whose_parts_are_damaged_is_shown_for_what_it_is(host: Host) -> None:
    """A configuration that is none, a result of no version, a holder of nobody."""
    record = {
        "kind": "cniCacheV1", "containerId": "odd", "ifName": "eth0", "networkName": "front",
        "config": "e30=", "result": {"cniVersion": "9.9.9", "ips": 7}, "netns": "/run/netns/odd",
        "capabilityArgs": {"portMappings": {"a": 1}}, "cnihook": {"pid": "x"},
    }  # fmt: skip
    host.write(f"{RESULTS}/front-odd-eth0", json.dumps(record))
    host.leaves(f"file {RESULTS}/front-odd-eth0")

    for words in ("ps", "graph", "graph --format svg", "stats", "metrics", "check --all"):
        done = show(host, *words.split())
        assert words.startswith(("graph", "metrics")) or "front-odd-eth0" in done.stdout + done.stderr


def test_reader_that_has_enough_is_nothing_to_complain_of(host: Host) -> None:
    with populated(host):
        for words in (*READERS, "logs -f", "ps --json", "graph --format html"):
            assert host.run("sh", "-c", f"{INSTALLED} {words} | true").stderr == ""


def test_narrow_terminal_is_kept_to(host: Host) -> None:
    """And all that matters is still there."""
    with populated(host):
        for words in TABLES:
            text = plain(on_screen(host, 40, *words.split()))
            by_variable = plain(on_screen(host, 200, *words.split(), env={"COLUMNS": "40"}))
            for lines in (text.splitlines(), by_variable.splitlines()):
                assert lines and max(map(len, lines)) <= 40, max(lines, key=len)
            assert "web" in text and ("10.30.0.2" in text or words.startswith("stats"))


def test_colour_is_for_terminals_that_want_it(host: Host) -> None:
    with populated(host):
        for words in TABLES:
            assert COLOUR.search(on_screen(host, 120, *words.split()))
            for env in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
                assert not COLOUR.search(on_screen(host, 120, *words.split(), env=env))
            assert not COLOUR.search(shown(host, *words.split()))


def test_terminal_gets_plain_text_where_rich_is_not_installed(host: Host) -> None:
    """As from a checkout; and stats, which has no live view then, ends."""
    need("script")
    with populated(host):
        for words in ("ps", "stats", "inspect web", "graph"):
            done = host.run(
                *("script", "-qec", f"{CNIHOOK} {words}", "/dev/null"),
                env=base_environment() | {"TERM": "xterm"},
                check=False,
            )
            assert not COLOUR.search(done.stdout)
            assert "10.30.0.2" in done.stdout or words == "stats" or "pyroute2" in done.stdout
