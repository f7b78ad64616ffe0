# SPDX-License-Identifier: Apache-2.0
"""The command line of priv-net-run, which has its own parser."""

import re

import pytest

from cnihook.cli.privnet import help
from cnihook.cli.privnet.options import Options, UsageError
from cnihook.request import options as request_options
from cnihook.request.request import ContainerRequest


def test_requests_are_kept_for_later() -> None:
    """Their values are understood while the command's process makes its namespace."""
    for name, request in request_options.OPTIONS.items():
        value = "" if request.is_switch else "x"
        options = Options([f"--{name}", *filter(None, [value]), "command"])
        assert options.requested == [(f"--{name}", value)]
        assert options.command == ["command"]


@pytest.mark.parametrize("columns", [80, 110])
def test_help_is_aligned_and_fits_the_terminal(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    lines = help.text().splitlines()

    assert columns - 12 < max(map(len, lines)) <= columns
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
