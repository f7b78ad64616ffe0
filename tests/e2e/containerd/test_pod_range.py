# SPDX-License-Identifier: Apache-2.0
"""containerd writes the network's file itself, from conf_template and the pod CIDRs of the node."""

import json
import re

import pytest

from cnihook.fast.address import Address, IPNet
from tests.support.host.host import Host, Outside
from tests.support.host.sockets import connect
from tests.support.pages import PAGES
from tests.support.runtimes.containerd import Containerd
from tests.support.runtimes.cri import CallError
from tests.support.runtimes.oci import CNIHOOK, NET_D, wait_for

pytestmark = [pytest.mark.root, pytest.mark.needs("containerd", "curl", "runc")]

RANGES, RANGES6 = "10.55.7.0/24", "fd00:55:7::/64"
OTHER_NODE = "10.55.8.9"
PAGE = (PAGES / "kubernetes.md").read_text()
(TEMPLATE,) = re.findall(r"^```text\n(\{$.*?)^```$", PAGE, re.M | re.S)
RULES = re.findall(r"^nft .*$", PAGE, re.M)


def test_pods_have_addresses_of_the_range_of_the_node(
    containerd: Containerd, host: Host, outside: Outside
) -> None:
    assert "not initialized" in containerd.network_problem()

    containerd.set_pod_range(RANGES, RANGES6)
    wait_for(lambda: containerd.network_problem() == "", "the network")
    name = "10-containerd-net.conflist"
    assert host.listdir(NET_D) == [name]
    assert json.loads(host.read(f"{NET_D}/{name}"))["plugins"][0]["bridge"] == "cni0"
    assert host.run(CNIHOOK, "validate", f"{NET_D}/{name}").returncode == 0

    pods = [containerd.run("first"), containerd.run("second", annotations={"cnihook.ip": "10.55.7.20"})]
    with pytest.raises(CallError) as failure:
        containerd.run("third", annotations={"cnihook.publish": "8080:80"})
    assert "annotation cnihook.publish: " in str(failure.value) and "`hostPort`" in str(failure.value)
    for pod in pods:
        ip, ip6 = pod.ips
        assert Address.parse(ip) in IPNet.parse(RANGES) and Address.parse(ip6) in IPNet.parse(RANGES6)
    assert [pod.ips[0] for pod in pods] == ["10.55.7.2", "10.55.7.20"]
    # The pod's own address reaches the cluster, and the node's address what is outside of it.
    for rule in RULES:
        host.run("sh", "-c", rule)
    assert connect(pods[0], outside, Outside.ADDRESS) == Outside.HOST
    outside.run("ip", "address", "add", f"{OTHER_NODE}/24", "dev", "up0")
    host.run("ip", "route", "add", OTHER_NODE, "via", Outside.ADDRESS)
    outside.run("ip", "route", "add", RANGES, "via", Outside.HOST)
    assert connect(pods[0], outside, OTHER_NODE) == pods[0].ips[0]
    host.run("nft", "delete", "table", "inet", "pods")
    host.run("ip", "route", "delete", OTHER_NODE)
    for pod in pods:
        pod.stop()
        pod.remove()
