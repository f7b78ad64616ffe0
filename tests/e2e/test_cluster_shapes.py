# SPDX-License-Identifier: Apache-2.0
"""Clusters of other shapes than that of test_cluster.py: plain routes, a server of etcd on each host."""

import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.cluster.etcd import Etcd
from tests.support.cluster.hosts import ETCD, NETWORK, Cluster, wait_for_routes
from tests.support.wait import wait_for

pytestmark = [pytest.mark.needs("etcd", "ping", "nft"), pytest.mark.root]

URL = f"http://{ETCD}:2379"
LOST = 3  # pings that may be lost beside other tests on a busy machine


def test_plain_routes_without_encapsulation(tmp_path: Path) -> None:
    """Two hosts on one link; the MTU is that of the link, and routes and rules are gone after the end."""
    with Cluster(tmp_path, 2) as cluster:
        first, second = cluster.hosts
        net = ("--subnet", "10.60.0.0/22", "--block", "26", "--transport", "routes")
        report = json.loads(first.command("cluster", "init", NETWORK, *net, "--etcd", URL, "--json"))
        assert report["mtu"] == 1500 and report["count"] == 16
        for one in cluster.hosts:
            one.join("--address", one.address)
            one.start_agent()
        wait_for_routes(cluster.hosts)
        peer = second.start("c2")
        assert first.start("c1").reaches(peer)
        peer.container.destroy()
        second.stop_agent()
        second.command("cluster", "leave", NETWORK)
        assert second.routes() == [] and second.host.nft().strip() == ""
        wait_for(lambda: first.routes() == [], "the removal of the route")


def test_etcd_is_parted_in_two_halves(tmp_path: Path) -> None:
    """Each host has a server of etcd and uses only this one; that of h3 loses the others."""
    with Cluster(tmp_path, 3) as cluster:
        first, second, third = cluster.hosts
        initial = ",".join(f"{one.name}=http://{one.address}:2380" for one in cluster.hosts)
        servers = []
        for one in cluster.hosts:
            (tmp_path / one.name).mkdir()
            options = (f"--name={one.name}", f"--initial-cluster={initial}")
            servers.append(Etcd(tmp_path / one.name, address=one.address, on=one.host, options=options))
        with ThreadPoolExecutor(3) as pool, ExitStack() as stack:
            for server in pool.map(stack.enter_context, servers):
                assert server.url
            net = ("--subnet", "10.60.0.0/22", "--block", "26", "--etcd", servers[0].url)
            first.command("cluster", "init", NETWORK, *net)
            for one, server in zip(cluster.hosts, servers, strict=True):
                one.join(url=server.url)
                one.start_agent()
            wait_for_routes(cluster.hosts)
            a, c = first.start("a"), third.start("c")
            stream = a.stream(c)
            peers = ("tcp dport 2380", "tcp sport 2380")
            cluster.cut(third, first.address, second.address, only=peers)
            wait_for(
                lambda: not third.reported["connected"], lambda: f"the loss of the quorum: {third.log()}"
            )
            assert third.start("minority").reaches(a)
            new = cluster.add()
            new.join(url=servers[1].url)
            new.start_agent()
            wait_for(lambda: new.block and new.block in first.routes(), "a new host in the majority")
            assert new.start("new").reaches(a)
            assert new.block not in third.routes() and third.block in first.routes()
            cluster.heal(third)
            wait_for_routes(cluster.hosts)
            sent, received = stream.end()
            assert sent - received <= LOST and received
            for one in cluster.hosts:
                one.kill_agent()
