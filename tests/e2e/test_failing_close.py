# SPDX-License-Identifier: Apache-2.0
"""Errors of close(2): the work is done by then, so nothing fails, and no program waits for its own lock."""

import pytest

from tests.support.host.faults import fault
from tests.support.host.host import Host
from tests.support.runtimes.oci import CNIHOOK, MYNET, configure

LOCKS = ("container-c1", "network-mynet", "bridge-cni0", "nft")


@pytest.fixture(autouse=True)
def implementation() -> None:
    """Run each test once, without the reference plugins: only cnihook is tested."""


@pytest.mark.needs("strace")
@pytest.mark.parametrize("target", ["locks", "namespaces", "lease lock", "sockets"])
def test_failing_close_is_not_an_error(host: Host, target: str) -> None:
    """The injected fault leaves the descriptor open, so a lock is held until it is released explicitly."""
    configure(host, **{"10-mynet.conf": MYNET})
    container = host.container("c1")
    paths = {
        "locks": [f"/run/cnihook/lock/{name}.lock" for name in LOCKS],
        "namespaces": ["/run/netns/c1", "/proc/thread-self/ns/net"],
        "lease lock": ["/var/lib/cni/networks/mynet/lock"],
        "sockets": ["socket:"],
    }[target]

    for path in paths:
        launcher = fault("close", "error=EIO", path)
        for command in ("add", "del"):
            words = ("timeout", "20", *launcher, "/usr/bin/python3", "-IS", CNIHOOK, command, "mynet", "c1")
            outcome = host.run(*words, check=False)
            assert (outcome.returncode, outcome.stderr) == (0, ""), (path, command)
            assert ("eth0" in container.run("ip", "link").stdout) == (command == "add")
