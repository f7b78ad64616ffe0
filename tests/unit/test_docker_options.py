# SPDX-License-Identifier: Apache-2.0
"""The command line of docker-run: where IMAGE is, and which part of the plan gets an option."""

import re
import subprocess

import pytest

from cnihook.cli.docker import options
from cnihook.cli.docker.options import UsageError
from cnihook.cli.docker.plan import Plan
from cnihook.types.errors import CniError
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
def test_image_is_the_first_argument_that_is_not_an_option(words: str, run: str) -> None:
    """All arguments after IMAGE belong to the command, even if they look like options."""
    plan = Plan([*words.split(), "sh", "-p", "--network", "x", "--"])

    assert plan.run == run.split()
    assert plan.rest == ["IMAGE", "sh", "-p", "--network", "x", "--"]
    assert "network" not in dict(plan.options)


def test_two_dashes_end_the_options() -> None:
    plan = Plan(["--rm", "--", "IMAGE", "-p"])

    assert (plan.run, plan.rest) == (["--rm"], ["--", "IMAGE", "-p"])


def test_each_option_is_assigned_to_its_part_of_the_plan() -> None:
    """Requests go to the networks, host names to the container that has them, the rest to the container."""
    plan = Plan(
        "-ith web --dns=192.0.2.1 --dns-opt rotate --add-host a:10.0.0.1 --rm --network a --net b:eth5"
        " --userns host --name my_web --restart always --runtime cni IMAGE".split()
    )

    assert plan.naming == "-h web".split()
    assert plan.userns == "--userns host".split()
    assert plan.run == "-i -t --rm --userns host --name my_web --restart always --runtime cni".split()
    assert plan.options == [
        ("network", "a"),
        ("network", "b:ifname=eth5"),
        ("dns", "192.0.2.1"),
        ("dns-option", "rotate"),
        ("add-host", "a:10.0.0.1"),
        ("network-alias", "my_web"),
    ]
    assert (plan.runtime, plan.restart) == ("cni", "always")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--network name=a", "a"),
        ("--network a:eth5", "a:ifname=eth5"),
        (
            "--network Name=a,IP=10.0.0.9,ip6=fd00::9,mac-address=02:00:00:00:00:09,alias=x,alias=y",
            "a:ip=10.0.0.9,ip6=fd00::9,mac=02:00:00:00:00:09,alias=x,alias=y",
        ),
        ("--network alias=x,name=a", "a:alias=x"),
        ("--net a --net b --ip 10.0.0.9 --net-alias x", "a:ip=10.0.0.9,alias=x b"),
        ("--network a:ip=10.0.0.9 --ip6 fd00::9", "a:ip=10.0.0.9,ip6=fd00::9"),
        ("--ip 10.0.0.9", ""),
    ],
)
def test_networks_in_dockers_syntax(words: str, said: str) -> None:
    """An option that names no network applies to the first one, as with docker."""
    plan = Plan([*words.split(), "IMAGE"])

    assert [text for word, text in plan.options if word == "network"] == said.split()
    assert said or plan.options == [("ip", "10.0.0.9")]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("8080:80", "8080:80"),
        ("published=8080,target=80", "8080:80/tcp"),
        ("target=53,published=127.0.0.1:53,protocol=udp,mode=host", "127.0.0.1:53:53/udp"),
        ("target=80", "80/tcp"),
    ],
)
def test_ports_in_dockers_syntax(text: str, said: str) -> None:
    for words in (["-p", text], [f"--publish={text}"], [f"-p={text}"]):
        assert Plan([*words, "IMAGE"]).options == [("publish", said)]


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("--network a:ip=10.0.0.9 --ip 10.0.0.8", "cannot specify both --ip and per-network IPv4 address"),
        ("--network name=a,alias=x --network-alias y", "both --network-alias and per-network alias"),
        ("--network name=a,driver-opt=x=y", "unknown option 'driver-opt'; there are ifname, "),
        ("--network name=a,gw-priority=1", "unknown option 'gw-priority'"),
        ("--network ip=10.0.0.9", "it has no name=NAME"),
        ("--network host --network a", "--network host excludes other networks"),
        ("--network container:x --network a", "--network container:x excludes other networks"),
        ("-p published=80", "invalid publish opts format"),
        ("-p target=80,color=red", "invalid publish opts format"),
        ("--link db", "is not supported with CNI networks; containers on one network find each other by"),
    ],
)
def test_unsupported_option_is_a_one_line_error(words: str, why: str) -> None:
    with pytest.raises((UsageError, CniError), match=re.escape(why)) as refused:
        Plan([*words.split(), "IMAGE"])
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize("network", ["host", "none", "container:x", "name=host"])
def test_networks_of_docker_are_recognized(network: str) -> None:
    assert Plan(["--network", network, "-P", "IMAGE"]).is_dockers


def test_table_agrees_with_the_installed_docker() -> None:
    """In docker's help, only an option with a value is followed by the kind of that value."""
    need("docker")
    text = subprocess.run(["docker", "run", "--help"], capture_output=True, text=True, check=True).stdout

    switches = set(re.findall(r"^ +(?:-\w, )?--([\w-]+)(?:  |$)", text, re.MULTILINE))
    valued = set(re.findall(r"^ +(?:-\w, )?--([\w-]+) \w", text, re.MULTILINE))

    assert {"rm", "detach"} <= switches <= options.SWITCHES
    assert {"name", "network"} <= valued
    assert not valued & options.SWITCHES
