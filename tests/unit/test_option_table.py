# SPDX-License-Identifier: Apache-2.0
"""The option table: it has the options that the programs read, and no program loads it to read a request."""

import re
import subprocess
import sys

import pytest

from cnihook.cli import hook_help, main
from cnihook.cli.docker import help as docker_run_help
from cnihook.cli.docker.plan import Plan
from cnihook.cli.privnet import help as priv_net_run_help
from cnihook.cli.privnet import options as privnet
from cnihook.cli.shared import candidates
from cnihook.cli.shared.candidates import PROGRAMS
from cnihook.hook import Options as HookOptions
from cnihook.request import option_table
from cnihook.request.option_table import ATTACH, DOCKER_RUN, HOOK, INJECT, PRIV_NET_RUN, TABLE, Entry
from cnihook.request.options import OPTIONS, option_for
from cnihook.request.request import ContainerRequest
from tests.support.plugins.cni import CHECKOUT

REQUESTS = [entry for entry in TABLE if entry.annotation]
HELP = {
    HOOK: hook_help.text(),
    ATTACH: main.load("attach").parser().format_help(),
    INJECT: main.load("inject").parser().format_help(),
    PRIV_NET_RUN: priv_net_run_help.text(),
    DOCKER_RUN: docker_run_help.text(),
}


def named(entry: Entry) -> str:
    return entry.name


def value(entry: Entry) -> str:
    """Return the first example of a request, or a value for another option; empty for a switch."""
    if not entry.metavar:
        return ""
    example = re.search("`(.*?)`", entry.examples)
    return example[1] if example else {"allow": "publish", "env": "A=B"}.get(entry.name, "80")


def arguments(entry: Entry) -> list[str]:
    if entry.metavar and not entry.needs_value:
        return [f"--{entry.name}"]
    return [f"--{entry.name}", *filter(None, [value(entry)])]


def test_table_and_parsers_have_the_same_options() -> None:
    assert sorted(entry.name for entry in REQUESTS) == sorted(OPTIONS)
    assert len({entry.name for entry in TABLE}) == len(TABLE)


@pytest.mark.parametrize("entry", REQUESTS, ids=named)
def test_every_example_of_a_request_is_valid(entry: Entry) -> None:
    examples = re.findall("`(.*?)`", entry.examples)

    assert examples
    for example in examples:
        for single in example.split(",") if OPTIONS[entry.name].most and "=" not in example else [example]:
            OPTIONS[entry.name].add(ContainerRequest(), single)


@pytest.mark.parametrize("entry", TABLE, ids=named)
def test_programs_take_a_value_where_the_table_has_one(entry: Entry) -> None:
    if entry.annotation:
        assert OPTIONS[entry.name].is_switch is not entry.needs_value
        assert option_for(f"--{entry.name}") is OPTIONS[entry.name]
        assert not entry.short or option_for(entry.short) is OPTIONS[entry.name]
    if HOOK in entry.programs:
        HookOptions(arguments(entry))
    for command in {ATTACH, INJECT} & {*entry.programs}:
        main.load(command).parser().parse_args(["/x" if command == INJECT else "x", *arguments(entry)])
    if PRIV_NET_RUN in entry.programs and entry.name != "delete":
        assert privnet.Options([*arguments(entry), "command"]).command == ["command"]
    if DOCKER_RUN in entry.programs:
        plan = Plan([*arguments(entry), "IMAGE", "sh"])
        assert plan.rest == ["IMAGE", "sh"] and [name for name, _ in plan.options] == [entry.name]


@pytest.mark.parametrize("program", HELP)
def test_help_has_the_options_of_the_table_and_no_others(program: str) -> None:
    words = set(re.findall(r"^ +(?:-\w, )?--([a-z0-9-]+)", HELP[program], re.MULTILINE))

    others = (
        {"help", "remove", "dry-run", "runtime", "root", "verbose"}
        if program in (ATTACH, INJECT)
        else {"help"}
    )
    assert words - others == {entry.name for entry in option_table.of(program)} - others


@pytest.mark.parametrize("words", [*(f"cnihook {name}" for name in (*main.HOOK, ATTACH, INJECT)), *PROGRAMS])
def test_completion_has_every_option(words: str) -> None:
    program = words.split()[-1]
    offered = dict(candidates.after([*words.split(), "--"]))

    for entry in option_table.of(HOOK if program in main.HOOK else program):
        assert offered[f"--{entry.name}"] == entry.help


READERS = """\
import sys
from cnihook import hook
from cnihook.cli.privnet import options
hook.Options(["--network", "mynet", "-p", "80", "--allow=publish"])
options.Options(["--network", "mynet", "-p", "80", "true"])
print(*sys.modules)
"""


def test_programs_read_requests_without_the_table() -> None:
    """Each start of a container would pay for the texts."""
    modules = subprocess.run(
        [sys.executable, "-IS", "-c", f"import sys; sys.path.insert(0, {str(CHECKOUT)!r})\n{READERS}"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()

    assert "cnihook.request.options" in modules
    assert "cnihook.request.option_table" not in modules and "argparse" not in modules
