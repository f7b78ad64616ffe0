# SPDX-License-Identifier: Apache-2.0
"""Calls of `cnihook network`, and the files that it writes."""

import json
import subprocess
from typing import Any

from tests.support.host.host import Host
from tests.support.host.namespace import base_environment
from tests.support.runtimes.oci import CNIHOOK, NET_D


def network(
    host: Host, *words: str, status: int = 0, input: str = "", **env: str
) -> "subprocess.CompletedProcess[str]":
    """Run `cnihook network`; it must exit with this status, and each line on stderr must be of cnihook."""
    process = host.run(CNIHOOK, "network", *words, check=False, input=input, env=base_environment() | env)
    assert process.returncode == status, process
    assert all(line.startswith("cnihook: ") for line in process.stderr.splitlines()), process.stderr
    return process


def create(host: Host, *words: str) -> dict[str, Any]:
    """Create a network, which must be valid.  Returns the content of its file."""
    host.leaves(f"file {NET_D}/*")
    process = network(host, "create", *words)
    name = process.stdout.strip()
    assert process.stderr == "" and name in words
    path = f"{NET_D}/90-{name}.conflist"
    assert host.run(CNIHOOK, "validate", path).stdout == "1 file checked: no problem found\n"
    conf: dict[str, Any] = json.loads(host.read(path))
    return conf


def subnets(conf: dict[str, Any]) -> list[str]:
    return [part["subnet"] for one in conf["plugins"][0]["ipam"]["ranges"] for part in one]


def refused(host: Host, *words: str) -> str:
    """Return the single line of an error; nothing may be written."""
    before = host.listdir(NET_D)
    process = network(host, *words, status=1)
    assert host.listdir(NET_D) == before and process.stdout == ""
    (line,) = process.stderr.splitlines()
    return line.removeprefix("cnihook: network ")
