# SPDX-License-Identifier: Apache-2.0
"""Rules for all commands that list attachments, in any way of calling them."""

import json

import pytest

from tests.support.commands.listings import (
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
from tests.support.host.host import Host
from tests.support.host.namespace import base_environment
from tests.support.runtimes.oci import CNIHOOK, RESULTS
from tests.support.skip import need

READERS = ["ps", "graph", "stats", "metrics", "check --all", "inspect web"]
TABLES = ["ps", "graph", "stats --once", "inspect web"]


@pytest.mark.parametrize(
    "words",
    [
        "ps ../web",
        "ps --filter soon",
        "ps --sort size",
        "ps --format {{.Nothing}}",
        "ps --format {{range}}",
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
def test_wrong_arguments_are_a_usage_error(host: Host, words: str) -> None:
    outcome = show(host, *words.split())

    assert (outcome.returncode, outcome.stdout) == (2, "")
    assert outcome.stderr.endswith(f" see `cnihook {words.split()[0]} --help`\n")
    assert outcome.stderr.count("\n") == 1


def test_machine_without_containers_is_accepted(host: Host) -> None:
    """This includes a machine on which nothing was ever attached, so that folders are missing."""
    assert shown(host, "ps").split()[0] == "CONTAINER" and shown(host, "ps").count("\n") == 1
    assert shown_json(host, "ps") == shown_json(host, "stats") == []
    assert shown(host, "ps", "--quiet") == shown(host, "check", "--all") == shown(host, "logs") == ""
    assert "0 networks, 0 containers" in shown(host, "graph")
    assert 'cnihook_attachments{network="cnihook",state="attached"} 0\n' in shown(host, "metrics")
    outcome = show(host, "inspect", "web")
    assert outcome.returncode == 1
    assert outcome.stderr == (
        "cnihook: inspect: no network of container web is on record; no container is on record\n"
    )


def test_each_command_shows_the_containers(host: Host) -> None:
    with populated(host):
        for words in READERS:
            if words != "metrics":
                assert "web" in shown(host, *words.split()), words


def test_unknown_container_is_reported_with_the_known_ones(host: Host) -> None:
    with populated(host):
        for command in ("inspect", "stats"):
            outcome = show(host, command, "nosuch")
            assert outcome.returncode == 1 and outcome.stdout == ""
            assert "container nosuch is on record; containers on record: db, job, web" in outcome.stderr
        assert show(host, "check", "--container", "nosuch").returncode == 2


def test_missing_privilege_is_reported(host: Host) -> None:
    """A monitor has to distinguish a failed check from one that finds a problem."""
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    with populated(host):
        for words in READERS:
            outcome = host.run(*nobody, INSTALLED, *words.split(), check=False)
            assert outcome.returncode == (2 if words == "check --all" else 1)
            assert outcome.stdout == ""
            assert (
                outcome.stderr
                == f"cnihook: {words.split()[0]}: {RESULTS}: Permission denied; only root can do that\n"
            )


def test_checkout_with_nothing_installed_is_enough(host: Host) -> None:
    with populated(host):
        for words in READERS:
            if not words.startswith("inspect"):
                outcome = host.run(CNIHOOK, *words.split())
                assert outcome.stdout and outcome.stderr == ""


def test_damaged_record_is_reported_and_hides_nothing(host: Host) -> None:
    with populated(host):
        path = damage(host)
        for words in ("ps", "stats", "check --all"):
            outcome = show(host, *words.split())
            assert outcome.returncode == (2 if words == "check --all" else 1)
            assert path in outcome.stdout + outcome.stderr
            assert "web" in outcome.stdout
        assert "cnihook_damaged_records 1\n" in shown(host, "metrics")
        assert "web" in shown(host, "graph")


def test_record_with_damaged_parts_is_shown(host: Host) -> None:
    """The configuration is empty, the version of the result unknown, the process malformed."""
    record = {
        "kind": "cniCacheV1", "containerId": "odd", "ifName": "eth0", "networkName": "front",
        "config": "e30=", "result": {"cniVersion": "9.9.9", "ips": 7}, "netns": "/run/netns/odd",
        "capabilityArgs": {"portMappings": {"a": 1}}, "cnihook": {"pid": "x"},
    }  # fmt: skip
    host.write(f"{RESULTS}/front-odd-eth0", json.dumps(record))
    host.leaves(f"file {RESULTS}/front-odd-eth0")

    for words in ("ps", "graph", "graph --format svg", "stats", "metrics", "check --all"):
        outcome = show(host, *words.split())
        assert words.startswith(("graph", "metrics")) or "front-odd-eth0" in outcome.stdout + outcome.stderr


def test_closed_output_causes_no_message(host: Host) -> None:
    with populated(host):
        for words in (*READERS, "logs -f", "ps --json", "graph --format html"):
            assert host.run("sh", "-c", f"{INSTALLED} {words} | true").stderr == ""


def test_output_fits_a_narrow_terminal(host: Host) -> None:
    """The important values are still shown."""
    with populated(host):
        for words in TABLES:
            text = plain(on_screen(host, 40, *words.split()))
            by_variable = plain(on_screen(host, 200, *words.split(), env={"COLUMNS": "40"}))
            for lines in (text.splitlines(), by_variable.splitlines()):
                assert lines and max(map(len, lines)) <= 40, max(lines, key=len)
            assert "web" in text and ("10.30.0.2" in text or words.startswith("stats"))


def test_colour_is_used_only_on_terminals_that_allow_it(host: Host) -> None:
    with populated(host):
        for words in TABLES:
            assert COLOUR.search(on_screen(host, 120, *words.split()))
            for env in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
                assert not COLOUR.search(on_screen(host, 120, *words.split(), env=env))
            assert not COLOUR.search(shown(host, *words.split()))


def test_tables_fit_80_columns(host: Host) -> None:
    """This is so from a checkout, too, with nothing installed."""
    need("script")
    with populated(host):
        for words, titles in (
            ("ps", "CONTAINER PID STATE NETWORK IFNAME ADDRESSES PORTS AGE"),
            ("stats --once --interval 0.1", "CONTAINER NETWORK IFNAME RX/s TX/s RX DROPPED TX DROPPED"),
        ):
            outcome = host.run(
                *("script", "-qec", f"{CNIHOOK} {words}", "/dev/null"),
                env=base_environment() | {"TERM": "xterm", "COLUMNS": "80"},
            )
            lines = plain(outcome.stdout).splitlines()
            assert (lines[0].split(), len(lines)) == (titles.split(), 5)
            assert max(map(len, lines)) <= 80 and COLOUR.search(outcome.stdout)
