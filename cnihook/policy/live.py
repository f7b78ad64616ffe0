# SPDX-License-Identifier: Apache-2.0
"""Tests of policies with packets: connections from the containers that they name."""

import errno
import socket

from cnihook.linux.netns import NetNS
from cnihook.policy import target
from cnihook.policy.endpoint import World
from cnihook.policy.matcher import Connection
from cnihook.policy.store import Policies
from cnihook.types.errors import CniError

_PATIENCE = 2.0  # seconds for an answer
# The destination or a router behind the host has answered, so the policies let the packet pass.
_ANSWERS = (errno.ECONNREFUSED, errno.ECONNRESET, errno.ENETUNREACH)


def failures(policies: Policies, present: World) -> "list[str]":
    """Return a line for each TCP test whose connection does not show what it expects."""
    lines = []
    for policy in policies.all:
        for number, test in enumerate(policy.tests):
            try:
                connections = target.connections(test.source, test.to, present)
            except CniError:
                continue  # it has failed without packets
            where = f"policy {policy.name}: tests[{number}]"
            for one in connections:
                source = present.by_address.get(one.source)
                if one.protocol != "tcp" or one.name or not (source and source.netns):
                    continue
                is_allowed, answer = _connect(source.netns, one)
                if is_allowed != (test.expect == "allow"):
                    lines.append(f"{where}: expected {test.expect}, but a connection to {one}: {answer}")
    return lines


def _connect(netns: str, connection: Connection) -> "tuple[bool, str]":
    space = NetNS.open(netns)
    try:
        with space.entered():
            one = socket.socket(connection.source.family, socket.SOCK_STREAM)
        with one:
            one.settimeout(_PATIENCE)
            code = one.connect_ex((str(connection.destination), connection.port))
    except TimeoutError:
        return False, "no answer"
    finally:
        space.close()
    if code in (0, *_ANSWERS):
        return True, "was answered"
    return False, "no answer" if code == errno.EAGAIN else errno.errorcode.get(code, str(code))
