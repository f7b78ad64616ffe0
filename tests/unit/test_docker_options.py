# SPDX-License-Identifier: Apache-2.0
"""The words behind docker-run: where IMAGE is, and who gets which option."""

import re
import subprocess

import pytest

from cnihook.cli import docker_options
from cnihook.cli.docker_options import Plan
from tests.support.skip import need


@pytest.mark.parametrize(
    ("words", "run"),
    [
        ("-it IMAGE", "-i -t"),
        ("--rm -eA=B IMAGE", "--rm -e A=B"),
        ("-e A=B IMAGE", "-e A=B"),
        ("-ite A IMAGE", "-i -t -e A"),
        ("-d=false -v=/a:/b IMAGE", "-d=false -v /a:/b"),
        ("--rm=true --name=web IMAGE", "--rm=true --name web"),
        ("--name web --init IMAGE", "--name web --init"),
        ("--future value IMAGE", "--future value"),
        ("-tw/srv IMAGE", "-t -w /srv"),
    ],
)
def test_image_is_the_first_word_that_is_no_option(words: str, run: str) -> None:
    """What stands behind it is the command's, whatever it looks like."""
    plan = Plan([*words.split(), "sh", "-p", "--network", "x", "--"])

    assert plan.run == run.split()
    assert plan.rest == ["IMAGE", "sh", "-p", "--network", "x", "--"]
    assert plan.networks is None


def test_two_dashes_end_the_options() -> None:
    plan = Plan(["--rm", "--", "IMAGE", "-p"])

    assert (plan.run, plan.rest) == (["--rm"], ["--", "IMAGE", "-p"])


def test_names_go_to_the_pause_container() -> None:
    words = (
        "-ith web --dns=192.0.2.1 --dns-search lan --add-host a:10.0.0.1 --rm --network a --net b:eth5 IMAGE"
    )
    plan = Plan(words.split())

    assert plan.pause == "-h web --dns 192.0.2.1 --dns-search lan --add-host a:10.0.0.1".split()
    assert plan.run == "-i -t --rm".split()
    assert plan.networks == ["a", "b:eth5"]
    assert plan.own_dns == {"dns", "dns-search"}


def test_table_agrees_with_the_docker_that_is_installed() -> None:
    """In its help a switch stands alone, and what takes a value is followed by the value's kind."""
    need("docker")
    text = subprocess.run(["docker", "run", "--help"], capture_output=True, text=True, check=True).stdout

    switches = set(re.findall(r"^ +(?:-\w, )?--([\w-]+)(?:  |$)", text, re.MULTILINE))
    valued = set(re.findall(r"^ +(?:-\w, )?--([\w-]+) \w", text, re.MULTILINE))

    assert {"rm", "detach"} <= switches <= docker_options.SWITCHES
    assert {"name", "network"} <= valued
    assert not valued & docker_options.SWITCHES
