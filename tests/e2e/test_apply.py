# SPDX-License-Identifier: Apache-2.0
"""diff and apply: edited network files, and the containers that run on them."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.support.commands.apply import ACCEPT, ARP, edited, record, run, set_sysctl, sysctl
from tests.support.commands.repair import WEB, WebContainer, cnihook, detach
from tests.support.host.echo import echo, expect_undisturbed
from tests.support.host.faults import fault
from tests.support.host.host import Host, Outside
from tests.support.runtimes.oci import CNIHOOK, RESULTS, configure, external


@pytest.fixture
def outside(host: Host) -> Outside:
    host.leaves("dir /run/cni", "dir /run/cni/tuning", "dir /run/crun", "dir /run/runc")
    host.leaves("file /run/cnihook/log/*", "dir /run/.host/plugins", "file /run/.host/plugins/*")
    return host.outside()


@pytest.fixture
def web(host: Host, outside: Outside) -> WebContainer:
    configure(host, WEB)
    return WebContainer(host, outside, "c1", publish="8080:80")


@contextmanager
def undisturbed(first: WebContainer, second: WebContainer) -> Iterator[None]:
    """Expect that connections to both lose nothing, and that the first one is never late."""
    with (
        echo(first.outside, first.space, Outside.HOST, 8080) as one,
        echo(first.outside, second.space, Outside.HOST, 9090) as other,
    ):
        yield
    assert (other.lost, other.error) == (0, "")
    expect_undisturbed(one, other)


def test_edit_is_shown_and_applied_without_a_lost_packet(host: Host, web: WebContainer) -> None:
    second = WebContainer(host, web.outside, "c2", publish="9090:80")
    assert run(host, "diff") == []
    assert run(host, "apply") == []
    before = record(host)
    new = edited(
        portmap={"conditionsV4": ["ip saddr 0.0.0.0/0"]},
        tuning={"mtu": 1400, "sysctl": {ARP: "0", ACCEPT: "1"}},
    )
    new["plugins"][0]["ipam"]["ranges"] = [[{"subnet": "10.22.0.0/16"}]]
    with undisturbed(web, second):
        configure(host, new)
        # Nothing happens by itself.
        assert record(host) == before and sysctl(web, ARP) == "1"
        lines = [line.split() for line in run(host, "diff", code=2)]
        assert lines[0] == ["NETWORK", "CONTAINER", "KEY", "RECORD", "FILE", "CHANGE"]
        assert [line for line in lines if line[1] == "c1"] == [
            ["web", "c1", "bridge.ipam.ranges", '[[{"subnet":"10.22.0.0/24"}]]',
             '[[{"subnet":"10.22.0.0/16"}]]', "new-only"],
            ["web", "c1", "portmap.conditionsV4", "-", '["ipsaddr0.0.0.0/0"]', "in-place"],
            ["web", "c1", "tuning.mtu", "-", "1400", "in-place"],
            ["web", "c1", f"tuning.sysctl.{ARP}", "1", "0", "in-place"],
            ["web", "c1", f"tuning.sysctl.{ACCEPT}", "-", "1", "in-place"],
        ]  # fmt: skip
        assert [line.split()[2] for line in run(host, "ps")] == ["STATE", "attached*", "attached*"]
        keys = f"portmap.conditionsV4, tuning.mtu, tuning.sysctl.{ARP}, tuning.sysctl.{ACCEPT}"
        preview = run(host, "apply", "--dry-run", code=2)
        assert preview == [f"would-change {name} web eth0, revision 0: {keys}" for name in ("c1", "c2")]
        assert record(host) == before
        assert run(host, "apply", "web") == [
            f"changed {name} web eth0, revision 1: {keys}" for name in ("c1", "c2")
        ]
    assert (sysctl(web, ARP), sysctl(web, ACCEPT)) == ("0", "1")
    assert web.space.link("eth0")["mtu"] == 1400
    assert run(host, "check", "--all") == ["well c1 web eth0", "well c2 web eth0"]
    assert [line.split()[2] for line in run(host, "ps")] == ["STATE", "attached", "attached"]
    assert len(run(host, "diff", code=2)) == 3  # the range is for new containers only
    assert run(host, "apply") == []

    configure(host, WEB)
    run(host, "apply")
    assert (sysctl(web, ARP), sysctl(web, ACCEPT)) == ("1", "0")
    assert web.space.link("eth0")["mtu"] == 1500
    assert run(host, "diff") == []
    detach(web, second)


def test_what_cannot_be_changed_in_place_is_left(host: Host, web: WebContainer) -> None:
    new = edited(bridge={"hairpinMode": False}, tuning={"sysctl": {ARP: "0"}})
    configure(host, new)
    assert run(host, "apply", code=2) == [
        f"changed c1 web eth0, revision 1: tuning.sysctl.{ARP}",
        "left c1 web eth0, revision 1: bridge.hairpinMode (re-attach)",
    ]
    assert run(host, "apply", code=2) == ["left c1 web eth0, revision 1: bridge.hairpinMode (re-attach)"]
    (listed,) = json.loads("\n".join(run(host, "diff", "--json", code=2)))
    assert listed["differences"] == [
        {"plugin": 0, "type": "bridge", "key": "hairpinMode", "record": True, "file": False,
         "change": "re-attach"},
    ]  # fmt: skip
    assert (listed["container"], listed["revision"], listed["kernel"]) == ("c1", 1, [])

    del new["plugins"][4]
    configure(host, new)
    types = "bridge,portmap,bandwidth,firewall"
    refused = ["plugins", f"{types},tuning", types, "refused"]
    assert run(host, "diff", code=2)[1].split()[2:] == refused
    (listed,) = json.loads("\n".join(run(host, "ps", "--json")))
    assert listed["behind"] is True
    notes = json.loads(cnihook(host, "doctor", "--verbose", "--json").stdout)
    assert [note["remedy"] for note in notes if note["kind"] == "network-edited"] == ["cnihook diff web"]
    inspected = host.run(sys.executable, CNIHOOK, "inspect", "c1").stdout  # it needs pyroute2
    assert "`cnihook diff web`" in inspected
    detach(web)


def test_routes_that_a_container_requests_do_not_count(host: Host, outside: Outside) -> None:
    configure(host, edited(bridge={"isDefaultGateway": True}))
    web = WebContainer(host, outside, "c1", route="198.51.100.0/24", **{"no-default-route": "true"})
    assert run(host, "diff") == []
    configure(host, edited(bridge={"isDefaultGateway": True}, tuning={"sysctl": {ARP: "0"}}))
    run(host, "apply")
    assert run(host, "diff") == []
    assert sysctl(web, ARP) == "0"
    assert "isDefaultGateway" not in str(record(host)["config"])
    detach(web)


def test_container_of_another_runtime_is_left_to_it(host: Host, web: WebContainer) -> None:
    """libcni's record does not have the key of cnihook."""
    own = record(host)
    other = {key: value for key, value in own.items() if key != "cnihook"}
    host.write(f"{RESULTS}/web-c1-eth0", json.dumps(other), 0o600)
    configure(host, edited(tuning={"sysctl": {ARP: "0"}}))
    assert run(host, "diff", code=2)[1].split()[-1] == "refused"
    left = f"left c1 web eth0, revision 0: tuning.sysctl.{ARP} (refused)"
    assert run(host, "apply", code=2) == [left]
    assert record(host) == other and sysctl(web, ARP) == "1"
    host.write(f"{RESULTS}/web-c1-eth0", json.dumps(own), 0o600)
    detach(web)


@pytest.mark.needs("strace")
def test_container_whose_record_cannot_be_read_is_not_passed_over(host: Host, web: WebContainer) -> None:
    configure(host, edited(tuning={"sysctl": {ARP: "0", ACCEPT: "1"}}))
    path = f"{RESULTS}/web-c1-eth0"
    for command in ("diff", "apply"):
        argv = ("/usr/bin/python3", "-IS", CNIHOOK, command)
        process = host.run(*fault("read", "error=EIO", path), *argv, check=False)
        assert (process.returncode, process.stderr.count("\n")) == (1, 1), process
        assert path in process.stderr
    assert sysctl(web, ARP) == "1"
    detach(web)


def test_failure_stops_and_leaves_the_container_as_before(host: Host, web: WebContainer) -> None:
    others = [WebContainer(host, web.outside, name) for name in ("c2", "c3")]
    before = record(host, "c2")
    configure(host, edited(tuning={"sysctl": {ARP: "0", ACCEPT: "1"}}))
    set_sysctl(others[0], ARP, "0")  # not as it was set up

    process = cnihook(host, "apply")
    assert process.returncode == 1
    assert process.stdout.splitlines() == [
        f"changed c1 web eth0, revision 1: tuning.sysctl.{ARP}, tuning.sysctl.{ACCEPT}",
        "failed c2 web eth0, revision 0",
        "not-tried c3 web eth0, revision 0",
    ]
    assert "container c2 is as before" in process.stderr and process.stderr.count("\n") == 1
    assert record(host, "c2") == before
    run(host, "repair", "c2")
    assert len(run(host, "apply")) == 2
    detach(web, *others)


FAILING = """\
if [ $CNI_COMMAND = VERSION ]; then
    echo '{"cniVersion": "1.0.0", "supportedVersions": ["1.0.0"]}'
fi
if [ $CNI_COMMAND = ADD ]; then
    if [ $CNI_CONTAINERID-$(printf '%s' "$stdin" | jq .level) = c2-2 ]; then
        echo '{"code": 101, "msg": "no level 2"}'
        exit 1
    fi
    prev
fi
"""


def test_change_that_fails_half_way_is_undone(host: Host, outside: Outside) -> None:
    """The executable, which gets DEL and ADD, rejects the second container, after tuning was changed."""
    folder = external(host, "level", FAILING)

    def leveled(level: int, arp: str) -> dict[str, Any]:
        network = edited(tuning={"sysctl": {ARP: arp}})
        network["plugins"].append({"type": "level", "level": level})
        return network

    configure(host, leveled(1, "1"))
    containers = [WebContainer(host, outside, name, plugins=folder) for name in ("c1", "c2")]
    before = record(host, "c2")
    configure(host, leveled(2, "0"))
    process = cnihook(host, "apply")
    assert process.returncode == 1
    assert process.stdout.splitlines() == [
        f"changed c1 web eth0, revision 1: tuning.sysctl.{ARP}, level.level",
        "failed c2 web eth0, revision 0",
    ]
    assert "no level 2" in process.stderr and "container c2 is as before" in process.stderr
    assert [sysctl(each, ARP) for each in containers] == ["0", "1"]
    assert record(host, "c2") == before

    process = cnihook(host, "apply", "--try", "60")  # on trial, all are changed back
    assert process.returncode == 1 and record(host, "c2") == before
    configure(host, leveled(3, "0"))
    assert cnihook(host, "apply").returncode == 0
    assert [sysctl(each, ARP) for each in containers] == ["0", "0"]
    detach(*containers)
