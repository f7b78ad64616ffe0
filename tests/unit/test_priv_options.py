# SPDX-License-Identifier: Apache-2.0
"""The command line of priv-net-run, which has its own parser."""

import re

import pytest

from cnihook.cli.privnet.options import HELP, Options, UsageError
from cnihook.request import options as request_options
from cnihook.request.request import ContainerRequest


def test_every_request_is_an_option() -> None:
    """The parser repeats their names, because the table of their meanings is imported later."""
    for name, word in request_options.OPTIONS.items():
        options = Options([f"--{name}", *(["x"] if word.value else []), "command"])
        assert options.requested == [(f"--{name}", "x" if word.value else "")]
        assert options.command == ["command"]


def test_every_other_option_is_a_request() -> None:
    own = (
        "conf-dir cni-path netns user root env timeout pcap json help".split()
    )  # --delete is in the line of --netns
    words = re.findall(r"^  --([a-z0-9-]+)", HELP, re.MULTILINE)

    assert sorted(words) == sorted([*request_options.OPTIONS, *own])
    for word in [f"--{word}" for word in words if word not in own] + ["-p"]:
        assert request_options.option_for(word)


def test_help_is_aligned_and_109_columns_wide_at_most() -> None:
    lines = HELP.splitlines()

    assert max(map(len, lines)) <= 109
    described = [line for line in lines if line.startswith("  --") and not line.startswith("  --help")]
    assert {re.search(r"\S  +(?=\S)", line).end() for line in described} == {30}  # type: ignore[union-attr]


def test_arguments_after_the_command_belong_to_it() -> None:
    options = Options(["--root", "command", "--user", "x", "--", "--nonsense"])

    assert (options.root, options.user) == (True, "")
    assert options.command == ["command", "--user", "x", "--", "--nonsense"]
    assert Options(["--", "--root"]).command == ["--root"]


def test_values_come_in_two_forms_and_may_look_like_options() -> None:
    options = Options(
        ["--netns", "--root", "--env=A=--b", "--env", "C=", "--timeout=1.5", "--pcap", "=", "c"]
    )

    assert (options.netns, options.variables, options.timeout, options.pcap) == (
        "--root",
        {"A": "--b", "C": ""},
        1.5,
        "=",
    )


def test_last_value_of_an_option_is_used_but_requests_add_up() -> None:
    options = Options(["--user", "a", "--user", "b", "--dns", "10.0.0.1", "--dns=10.0.0.2", "c"])
    request = ContainerRequest()
    for option, value in options.requested:
        word = request_options.option_for(option)
        assert word
        word.add(request, value)

    assert options.user == "b" and request.dns.nameservers == ["10.0.0.1", "10.0.0.2"]


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
def test_malformed_option_is_refused(argv: list[str]) -> None:
    with pytest.raises(UsageError):
        Options(argv)
