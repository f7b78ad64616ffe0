# SPDX-License-Identifier: Apache-2.0
"""`cnihook update --egress` and `--ingress`: the connections of a container that runs."""

import json

import pytest

from tests.support.commands.repair import cnihook
from tests.support.host.host import Host
from tests.support.policies import LEAVES, NO_BR_NETFILTER, Sandbox, network, tcp
from tests.support.runtimes.oci import RESULTS, configure
from tests.support.wait import wait_for

RESOLVER = "/run/cnihook/resolver"


@pytest.fixture
def stage(host: Host) -> Host:
    host.leaves(*LEAVES, "file /run/cnihook/log/*")  # of a command that failed
    host.run("sh", "-c", NO_BR_NETFILTER)
    return host


def test_lists_of_a_running_container_change(stage: Host) -> None:
    loopback = {"cniVersion": "1.0.0", "name": "lo", "plugins": [{"type": "loopback"}]}
    configure(stage, network(), loopback)
    one, two = Sandbox(stage, "one"), Sandbox(stage, "two")
    try:
        for version in (4, 6):
            assert tcp(one.space, two.space, two.address(version), 99, expected=True)
        dry = cnihook(stage, "update", "one", "--egress", "container:two:7/tcp", "--dry-run")
        assert (dry.returncode, dry.stdout) == (2, "would limit egress on front to container:two:7/tcp\n")
        limited = cnihook(stage, "update", "one", "--egress", "container:two:7/tcp")
        assert (limited.returncode, limited.stdout) == (
            0, "limited egress on front to container:two:7/tcp\n"
        )  # fmt: skip
        for version in (4, 6):
            assert tcp(one.space, two.space, two.address(version), 7, expected=True)
            assert not tcp(one.space, two.space, two.address(version), 99, expected=False)
        again = cnihook(stage, "update", "one", "--egress", "container:two:7/tcp")
        assert (again.returncode, again.stdout) == (0, "")

        assert cnihook(stage, "update", "two", "--ingress", "none").returncode == 0
        assert not tcp(one.space, two.space, two.v4, 7, expected=False)
        assert cnihook(stage, "update", "two", "--ingress", "all").returncode == 0
        assert cnihook(stage, "update", "one", "--egress", "none", "--for", "1s").returncode == 0
        assert not tcp(one.space, two.space, two.v4, 7, expected=False)
        own = f"{RESULTS}/front-one-eth0"
        wait_for(lambda: "until" not in json.loads(stage.read(own))["cnihook"], "the end of the list")
        assert tcp(one.space, two.space, two.v4, 7, expected=True)
        assert cnihook(stage, "update", "one", "--egress", "all").returncode == 0
        assert tcp(one.space, two.space, two.v6, 99, expected=True)
    finally:
        one.stop()
        two.stop()


def test_list_that_cannot_be_in_force_changes_nothing(stage: Host) -> None:
    """The ports of the same command are taken back, too."""
    configure(stage, network(enabledad=True))
    one = Sandbox(stage, "one")
    try:
        malformed = cnihook(stage, "update", "one", "--publish-add", "8080:80", "--egress", "10.0.0.0/33")
        refused = cnihook(stage, "update", "one", "--publish-add", "8080:80", "--egress", "none")
        assert (malformed.returncode, refused.returncode) == (1, 1)
        assert "10.0.0.0/33" in malformed.stderr
        assert "a policy cannot be enforced" in refused.stderr
        assert cnihook(stage, "port", "one").stdout == ""
        assert cnihook(stage, "check", "one").returncode == 0
    finally:
        one.stop()


def test_list_whose_names_cannot_be_resolved_is_taken_back(stage: Host) -> None:
    """The rules of the kernel are made before the resolver starts."""
    configure(stage, network())
    one, two = Sandbox(stage, "one"), Sandbox(stage, "two")
    try:
        stage.run("sh", "-c", f"mkdir -p /run/cnihook; rm -rf {RESOLVER}; touch {RESOLVER}")
        failed = cnihook(stage, "update", "one", "--egress", "name:a.example:7/tcp")
        stage.run("rm", RESOLVER)
        assert failed.returncode == 1, failed.stderr
        assert tcp(one.space, two.space, two.v4, 99, expected=True)
        assert cnihook(stage, "check", "one").returncode == 0
    finally:
        one.stop()
        two.stop()
