# SPDX-License-Identifier: Apache-2.0
"""cnihook inspect: the record beside the kernel's state, and their differences."""

import subprocess
from typing import Any

import pytest

from tests.support.commands.listings import attach, detach_all, populated, show, shown, shown_json
from tests.support.host.host import Container, Host
from tests.support.runtimes.oci import CNIHOOK, MYNET, Runtime, bridge, configure
from tests.support.skip import skip_or_fail


@pytest.fixture
def web(host: Host) -> Container:
    network = bridge("front", "10.30.0.0/24", ipMasq=True)
    network["plugins"][0]["ipam"]["routes"] = [{"dst": "0.0.0.0/0"}]
    network["plugins"].append({"type": "tuning", "sysctl": {"net.ipv4.conf.IFNAME.arp_filter": "1"}})
    network["plugins"].append({"type": "bandwidth", "ingressRate": 8000000, "ingressBurst": 800000})
    configure(host, network)
    host.leaves("dir /run/cni", "dir /run/cni/tuning")
    return attach(host, "web", "front")


def differences(host: Host) -> Any:
    (attachment,) = shown_json(host, "inspect", "web")["attachments"]
    return attachment["differences"]


def test_record_and_kernel_state_are_shown(host: Host, web: Container) -> None:
    (attachment,) = shown_json(host, "inspect", "web")["attachments"]
    text = shown(host, "inspect", "web")

    assert attachment["differences"] == [] and "!" not in text
    assert (
        attachment["record"]["config"]["name"] == "front"
        and attachment["record"]["holder"]["pid"] == web.pid
    )
    kernel = attachment["kernel"]
    link = web.link("eth0")
    assert (kernel["link"]["kind"], kernel["link"]["mac"]) == ("veth", link["address"])
    assert "10.30.0.2/24" in [one["address"] for one in kernel["addresses"]]
    assert ("0.0.0.0/0", "10.30.0.1") in [(one["dst"], one["gw"]) for one in kernel["routes"]]
    assert kernel["sysctls"] == [{"name": "net/ipv4/conf/eth0/arp_filter", "set": "1", "now": "1"}]
    assert kernel["nft"] == [{"in": "masq4", "key": "10.30.0.2", "to": "jump masq-front-10.30.0.0/24"}]
    veth = next(name for name in kernel["host"] if name.startswith("veth"))
    assert kernel["host"][veth]["link"]["master"] == "br-front"
    assert "tbf" in [one["kind"] for one in kernel["host"][veth]["qdiscs"]]
    for words in ("10.30.0.2/24", "route 0.0.0.0/0 via 10.30.0.1", "arp_filter = 1", veth, "qdisc tbf"):
        assert words in text
    detach_all(host)


def test_neighbours_are_limited_to_the_container(host: Host, web: Container) -> None:
    """The bridge has neighbour entries for all its containers."""
    attach(host, "other", "front")
    for address in ("10.30.0.2", "10.30.0.3"):
        host.run("ping", "-c1", "-W30", address)

    (attachment,) = shown_json(host, "inspect", "web")["attachments"]
    assert [one["address"] for one in attachment["kernel"]["host"]["br-front"]["neighbours"]] == [
        "10.30.0.2"
    ]
    assert [one["address"] for one in attachment["kernel"]["neighbours"]] == ["10.30.0.1"]
    detach_all(host)


def test_each_difference_is_reported(host: Host, web: Container) -> None:
    def changed(*argv: str) -> Any:
        web.run(*argv)
        return differences(host)

    assert changed("ip", "addr", "add", "10.9.9.9/24", "dev", "eth0") == [
        "10.9.9.9/24 on eth0 is not on record"
    ]
    assert changed("ip", "addr", "del", "10.9.9.9/24", "dev", "eth0") == []
    assert changed("ip", "route", "del", "default") == ["the route 0.0.0.0/0 does not exist"]
    web.run("ip", "route", "add", "default", "via", "10.30.0.1")
    host.run("nft", "flush", "map", "inet", "cnihook", "masq4")
    assert differences(host) == ["10.30.0.2 is not masqueraded"]
    assert "eth0 is down" in changed("ip", "link", "set", "eth0", "down")
    assert "! eth0 is down" in shown(host, "inspect", "web").splitlines()
    web.run("ip", "link", "del", "eth0")
    assert "eth0 is not in the container" in differences(host)
    detach_all(host)


def test_dead_container_is_shown_until_it_is_deleted(host: Host, runtime: Runtime) -> None:
    configure(host, MYNET)
    container = runtime.run("c1")
    assert shown_json(host, "inspect", "c1")["attachments"][0]["differences"] == []
    container.kill()

    (attachment,) = shown_json(host, "inspect", "c1")["attachments"]
    assert (attachment["state"], attachment["alive"]) == ("dead", False)
    assert attachment["differences"] == ["its container is gone; `cnihook gc` releases it"]
    assert "dead, " in shown(host, "inspect", "c1")
    runtime.delete("c1")
    assert show(host, "inspect", "c1").returncode == 1


def test_missing_namespace_is_reported(host: Host, web: Container) -> None:
    web.destroy()
    host.run("sh", "-c", "while [ -e /sys/class/net/veth* ]; do sleep 0.01; done")

    assert differences(host)[0] == "its namespace is gone"
    detach_all(host)


def test_missing_package_is_named(host: Host) -> None:
    """In a checkout without pyroute2, inspect prints what to install before it reads anything."""
    if subprocess.run(["/usr/bin/python3", "-c", "import pyroute2"], capture_output=True).returncode == 0:
        skip_or_fail("this machine's own Python has pyroute2")
    with populated(host):
        result = host.run(CNIHOOK, "inspect", "web", check=False)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == (
        "cnihook: inspect: the Python package pyroute2 is not installed; "
        "`apt-get install python3-pyroute2`, or `pip install pyroute2`\n"
    )


def test_each_network_has_a_section(host: Host) -> None:
    with populated(host):
        report = shown_json(host, "inspect", "web")
        text = shown(host, "inspect", "web")

    assert [one["network"] for one in report["attachments"]] == ["front", "back"]
    assert text.startswith("web  front  eth0\n") and "\n\nweb  back  eth1\n" in text


def test_missing_published_port_is_reported(host: Host) -> None:
    network = bridge("front", "10.30.0.0/24")
    network["plugins"].append({"type": "portmap", "capabilities": {"portMappings": True}})
    configure(host, network)
    attach(host, "web", "front", port=8080)

    assert differences(host) == []
    assert "ports4: tcp . 8080 : 10.30.0.2 . 80" in shown(host, "inspect", "web")
    host.run("nft", "flush", "map", "inet", "cnihook", "ports4")
    assert differences(host) == ["port 8080 is not published"]
    detach_all(host)
