# SPDX-License-Identifier: Apache-2.0
"""The words of priv-net-run, read by hand."""

import re

import pytest

from cnihook.cli.priv_options import HELP, Options, Refused
from cnihook.oci import wants
from cnihook.runtime.wants import Wants


def test_every_want_is_an_option() -> None:
    """Their names stand here a second time, since the table of their meanings is imported later."""
    for name, word in wants.WORDS.items():
        made = Options([f"--{name}", *(["x"] if word.value else []), "command"])
        assert made.wants == [(f"--{name}", "x" if word.value else "")]
        assert made.command == ["command"]


def test_every_option_that_is_no_own_one_is_a_want() -> None:
    own = (
        "conf-dir cni-path netns user root env timeout pcap json help".split()
    )  # --delete goes with --netns
    words = re.findall(r"^  --([a-z0-9-]+)", HELP, re.MULTILINE)

    assert sorted(words) == sorted([*wants.WORDS, *own])
    for word in [f"--{word}" for word in words if word not in own] + ["-p"]:
        assert wants.word_of(word)


def test_help_is_aligned_and_fits() -> None:
    lines = HELP.splitlines()

    assert max(map(len, lines)) <= 109
    described = [line for line in lines if line.startswith("  --") and not line.startswith("  --help")]
    assert {re.search(r"\S  +(?=\S)", line).end() for line in described} == {30}  # type: ignore[union-attr]


def test_all_from_the_command_on_is_the_commands() -> None:
    made = Options(["--root", "command", "--user", "x", "--", "--nonsense"])

    assert (made.root, made.user) == (True, "")
    assert made.command == ["command", "--user", "x", "--", "--nonsense"]
    assert Options(["--", "--root"]).command == ["--root"]


def test_values_come_in_two_forms_and_may_look_like_options() -> None:
    made = Options(["--netns", "--root", "--env=A=--b", "--env", "C=", "--timeout=1.5", "--pcap", "=", "c"])

    assert (made.netns, made.variables, made.timeout, made.pcap) == (
        "--root",
        {"A": "--b", "C": ""},
        1.5,
        "=",
    )


def test_last_of_several_counts_but_wants_add_up() -> None:
    made = Options(["--user", "a", "--user", "b", "--dns", "10.0.0.1", "--dns=10.0.0.2", "c"])
    understood = Wants()
    for option, value in made.wants:
        word = wants.word_of(option)
        assert word
        word.add(understood, value)

    assert made.user == "b" and understood.dns.nameservers == ["10.0.0.1", "10.0.0.2"]


@pytest.mark.parametrize(
    "argv",
    [
        ["--root=yes", "c"],
        ["--delete=yes", "--netns", "x"],
        ["--env", "=x", "c"],
        ["--env"],
        ["--timeout", "inf", "c"],
        ["--pcap", "", "c"],
        ["--conf-dir", "", "c"],
        ["--json=", "c"],
        ["--user", "", "c"],
        ["-x", "c"],
        ["-", "c"],
    ],
    ids=" ".join,
)
def test_words_without_sense_are_refused(argv: list[str]) -> None:
    with pytest.raises(Refused):
        Options(argv)
