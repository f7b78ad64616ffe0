# SPDX-License-Identifier: Apache-2.0
"""portmap: host ports that processes of the host have."""

import json
from typing import Any

import pytest

from tests.netns.test_portmap_config import BOTH, refused
from tests.support.host.host import Host
from tests.support.plugins import cni
from tests.support.plugins.ports import (
    GATEWAY,
    attach,
    conf,
    listening,
    mapping,
)

IGNORES_LISTENERS = pytest.mark.known_difference(
    "accepts a port on which a process of the host listens",
    here='refused, unless "takeOverPorts" is true',
    right="cnihook",
)

OVERLAPS = [
    ("tcp", "0.0.0.0", False, mapping(8080)),
    ("tcp", "127.0.0.1", False, mapping(8080)),
    ("tcp", "::", False, mapping(8080, ip=GATEWAY)),
    ("tcp", "::", True, mapping(8080)),
    ("tcp", "::ffff:127.0.0.1", False, mapping(8080, ip="127.0.0.1")),
    ("udp", "0.0.0.0", False, mapping(8080, 80, "udp", ip=GATEWAY)),
    ("udp", "::", False, mapping(8080, 80, "udp", ip="0.0.0.0")),
]


@pytest.mark.parametrize(("kind", "own", "only_v6", "wanted"), OVERLAPS)
@IGNORES_LISTENERS
def test_port_that_a_process_listens_on_is_refused(
    host: Host, kind: str, own: str, only_v6: bool, wanted: dict[str, Any]
) -> None:
    """The clients of the process would reach the container."""
    with listening(host, kind, own, only_v6=only_v6) as pid:
        (error,) = refused(host, conf(mapping(8081), wanted))

    assert f"8080/{kind}" in error.msg and f"process {pid} (python3)" in error.msg, error.msg
    assert "takeOverPorts" in error.details


@IGNORES_LISTENERS
def test_range_with_a_port_that_a_process_listens_on_is_refused(host: Host) -> None:
    with listening(host):
        (error,) = refused(host, conf(*(mapping(8000 + i, 80 + i) for i in range(100))))

    assert "8080/tcp" in error.msg


APART = [
    ("tcp", "127.0.0.1", False, mapping(8080, ip=GATEWAY)),
    ("tcp", "0.0.0.0", False, mapping(8080, 80, "udp")),
    ("tcp", "0.0.0.0", False, mapping(8080, ip="::")),
    ("tcp", "::", True, mapping(8080, ip="0.0.0.0")),
    ("tcp", "::1", False, mapping(8080)),
]


@pytest.mark.parametrize(("kind", "own", "only_v6", "wanted"), APART)
def test_port_beside_that_of_a_process_is_published(
    host: Host, kind: str, own: str, only_v6: bool, wanted: dict[str, Any]
) -> None:
    container, result = attach(host, *BOTH)
    with listening(host, kind, own, only_v6=only_v6):
        assert not add_and_read(host, container, result, conf(wanted))


@IGNORES_LISTENERS
def test_network_may_take_over_the_port_of_a_process(host: Host) -> None:
    container, result = attach(host, *BOTH)
    with listening(host) as pid:
        stderr = add_and_read(host, container, result, conf(mapping(8080), takeOverPorts=True))

    assert f"process {pid} (python3)" in stderr and "8080/tcp" in stderr and len(stderr.splitlines()) == 1


# nerdctl does so before it calls the plugins: a child that only sleeps holds the socket.
RESERVES = """\
import socket, subprocess, sys
one = socket.socket()
one.bind(("0.0.0.0", 8080))
one.listen()
child = subprocess.Popen(["sleep", "1000"], pass_fds=[one.fileno()])
one.close()
try:
    sys.exit(subprocess.run([sys.argv[1]], stdin=sys.stdin).returncode)
finally:
    child.kill()
"""


def test_port_that_the_runtime_reserves_by_a_sleeping_child_is_published(host: Host) -> None:
    container, result = attach(host)
    stderr = add_and_read(host, container, result, conf(mapping(8080)), "/usr/bin/python3", "-ISc", RESERVES)
    assert not stderr and "8080" in host.nft()


def test_port_that_is_bound_and_not_listened_on_is_published(host: Host) -> None:
    container, result = attach(host)
    with host.socket() as bound:
        bound.bind(("127.0.0.1", 8080))
        assert not add_and_read(host, container, result, conf(mapping(8080)))


def add_and_read(host: Host, container: Any, result: Any, sent: Any, *launcher: str) -> str:
    """Run ADD; return what it prints on stderr."""
    assert host.implementation
    sent = sent | {"prevResult": result}
    attachment = cni.Attachment(sent, container, "eth0", "portmap", {})
    host.attachments.append(attachment)
    program, folder = host.implementation.program("portmap"), host.implementation.folder
    answer = host.run(*launcher, program, input=json.dumps(sent), env=attachment.environment("ADD", folder))
    attachment.result = result
    return answer.stderr
