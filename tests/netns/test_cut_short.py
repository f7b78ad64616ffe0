# SPDX-License-Identifier: Apache-2.0
"""ADD of every built-in plugin leaves the machine as it was, at whichever step it fails.

Each run makes one step fail.  The plugin must then clean up by itself, because no DEL follows.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.host.host import Container, Host
from tests.support.plugins import cni
from tests.support.plugins.cni import with_previous_result
from tests.support.plugins.forked import Forked


@pytest.fixture
def implementation(implementations: dict[str, cni.Implementation]) -> cni.Implementation:
    """Return the built-in plugins only: a test cannot get in between the steps of the reference."""
    return implementations["builtin"]


CONF = {"cniVersion": "1.0.0", "name": "net1"}
IPAM = {
    "type": "host-local",
    "ranges": [[{"subnet": "10.9.0.0/24"}], [{"subnet": "2001:db8:9::/64"}]],
}
# If the plugin lets the kernel check whether an IPv6 address is unique, each check would be a step.
IPAM4 = {"type": "host-local", "ranges": [[{"subnet": "10.9.0.0/24"}]]}
PLUGINS: dict[str, dict[str, Any]] = {
    "bridge": {
        "isDefaultGateway": True,
        "ipMasq": True,
        "macspoofchk": True,
        "hairpinMode": True,
        "ipam": IPAM,
    },
    "host-device": {"device": "dev0", "ipam": IPAM4},
    "host-local": {"ipam": IPAM},
    "macvlan": {"master": "up0", "ipam": IPAM4},
    "loopback": {},
    "ptp": {"ipMasq": True, "ipam": IPAM},
    "tap": {"mac": "02:00:00:00:00:99", "owner": 7, "group": 7, "ipam": IPAM},
    "static": {"ipam": {"type": "static", "addresses": [{"address": "10.9.0.2/24"}]}},
}
CHAINED: dict[str, dict[str, Any]] = {
    "bandwidth": {"ingressRate": 10**7, "ingressBurst": 10**6, "egressRate": 10**7, "egressBurst": 10**6},
    "portmap": {
        "runtimeConfig": {
            "portMappings": [
                {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"},
                {"hostPort": 53, "containerPort": 53, "protocol": "udp", "hostIP": "127.0.0.1"},
            ]
        }
    },
    "sbr": {},
    "tuning": {
        "mac": "02:00:00:00:00:99",
        "mtu": 1400,
        "promisc": True,
        "sysctl": {"net.core.somaxconn": "99"},
    },
}


def cut_short(host: Host, container: Container, conf: dict[str, Any], number: int) -> tuple[int, str]:
    """Run an ADD and fail the step of this number.  Return its exit status and its output."""
    assert isinstance(host.implementation, Forked)
    env = cni.Attachment(conf, container, "eth0", conf["type"], {}).environment(
        "ADD", host.implementation.path
    )
    answer = host.implementation.run(host, conf["type"], json.dumps(conf), env, number)
    assert "Traceback" not in answer.stderr, answer.stderr
    assert answer.returncode == 0 or json.loads(answer.stdout)["msg"], "an error has a message"
    return answer.returncode, " ".join([answer.stderr, answer.stdout])


def fail_at_each_step(host: Host, container: Container, conf: dict[str, Any]) -> int:
    """Run an ADD for each of its steps, and fail that step; return the number of steps."""
    number = 0
    while True:
        number += 1
        status, step = cut_short(host, container, conf, number)
        if status == 0:  # there is no such step, or nothing depends on it
            host.cni("DEL", conf, container)
        if "cut short" not in step:
            assert status == 0
            return number - 1
        try:
            host.check_leaks()
        except pytest.fail.Exception as failure:
            pytest.fail(f"{conf['type']}: {step}: {failure}", pytrace=False)


@pytest.mark.parametrize("plugin", PLUGINS)
def test_add_that_fails_at_any_step_leaves_nothing(host: Host, container: Container, plugin: str) -> None:
    if "master" in PLUGINS[plugin]:
        host.outside()
    if "device" in PLUGINS[plugin]:
        host.run(*"ip link add dev0 type veth peer name ved0".split())
    host.save_state()

    steps = fail_at_each_step(host, container, CONF | {"type": plugin} | PLUGINS[plugin])

    assert steps >= (0 if plugin == "static" else 3)


TRACKING = """
table ip track {
    chain out {
        type filter hook output priority 0
        ct state new
    }
}
"""


@pytest.mark.parametrize("plugin", CHAINED)
def test_chained_plugin_that_fails_at_any_step_leaves_nothing(
    host: Host, container: Container, plugin: str
) -> None:
    """The link of the plugin before it stays unchanged.  The host has a flow, so flows are steps as well."""
    host.leaves("dir /run/cni", "dir /run/cni/*")
    host.run("nft", "-f", "-", input=TRACKING)
    host.run("ping", "-c1", "127.0.0.1")
    before = CONF | {"type": "bridge", "isGateway": True, "ipam": IPAM}
    conf = with_previous_result(
        CONF | {"type": plugin} | CHAINED[plugin], host.cni("ADD", before, container)
    )
    pristine = host.before
    host.save_state()

    steps = fail_at_each_step(host, container, conf)

    assert steps >= 3
    host.run("nft", "delete table ip track")
    host.before = pristine


def test_requested_step_fails(host: Host, container: Container, tmp_path: Path) -> None:
    """This tests the tests: the first step of a bridge fails, and the error names it."""
    conf = CONF | {"type": "bridge"} | PLUGINS["bridge"]

    status, step = cut_short(host, container, conf, 1)

    assert status == 1 and step.startswith("cut short at ")
