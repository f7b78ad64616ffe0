# SPDX-License-Identifier: Apache-2.0
"""firewall on the hot path: no costly import and no process, also if iptables drops forwarded packets."""

import json
from pathlib import Path

import pytest

from tests.netns.test_hot_path import expect_cheap, imports, starts
from tests.support.host.host import Host
from tests.support.plugins import cni
from tests.support.plugins.firewall import NET, NET6, attach, drop_forwarded


@pytest.fixture
def implementation(implementations: dict[str, cni.Implementation]) -> cni.Implementation:
    """Return the built-in plugins only: the reference is not written in Python."""
    return implementations["builtin"]


@pytest.mark.parametrize("drop", [False, True], ids=["open", "dropped"])
def test_firewall_is_cheap(
    host: Host, implementation: cni.Implementation, tmp_path: Path, drop: bool
) -> None:
    if drop:
        drop_forwarded(host)
    attached = attach(host, NET, NET6, ingressPolicy="isolated" if drop else "open")
    log, program, conf = tmp_path / "log", implementation.program("firewall"), json.dumps(attached.sent)
    for command in ("DEL", "ADD"):
        env = {
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": "c1",
            "CNI_NETNS": attached.container.path,
            "CNI_IFNAME": "eth0",
            "CNI_PATH": "/nowhere",
        }
        for _ in range(2):
            expect_cheap(imports(host, log, program, input=conf, env=env))
            assert starts(host, log, program, input=conf, env=env) == []
            log.unlink()
