# SPDX-License-Identifier: Apache-2.0
"""Three hosts on a switch, with a real etcd and real traffic: whatever happens to etcd, to hosts or agents.

The hosts are shared, and each test leaves them as a working cluster, because a cluster takes a second.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from cnihook.cluster.etcd import EtcdStore
from cnihook.cluster.etcd_http import Access
from cnihook.cluster.model import Settings
from cnihook.cluster.store import Keys, Store, under
from tests.support.cluster.hosts import (
    ETCD,
    FOLDER,
    NETWORK,
    PROGRAM,
    Cluster,
    ClusterHost,
    wait_for_routes,
)
from tests.support.wait import patience, wait_for

pytestmark = [
    pytest.mark.needs("etcd", "ping", "nft"),
    pytest.mark.root,
    pytest.mark.long,
    pytest.mark.xdist_group("cluster"),
]

KEYS = Keys(NETWORK)
URL = f"http://{ETCD}:2379"
LOST = 3  # pings that may be lost beside other tests on a busy machine; an outage would be dozens

# An agent whose clock is a year ahead.
LATER = """\
import sys, time
now = time.time
time.time = lambda: now() + 365 * 86400
sys.argv[0:2] = [sys.argv[1]]
with open(sys.argv[0]) as file:
    exec(compile(file.read(), sys.argv[0], "exec"), {"__name__": "__main__", "__file__": sys.argv[0]})
"""


class World:
    """The cluster, and a container on each of its first three hosts."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.h1, self.h2, self.h3 = cluster.hosts
        nets = ("--subnet", "10.60.0.0/22", "--block", "26", "--subnet", "fd00:60::/56", "--block", "64")
        self.init_output = self.h1.command("cluster", "init", NETWORK, *nets, "--etcd", URL)
        for one in cluster.hosts:
            one.join()
            one.start_agent()
        wait_for_routes(cluster.hosts)
        self.a, self.b, self.c = (one.start(f"c{one.number}") for one in cluster.hosts)

    def in_etcd(self, function: Callable[[Store], object]) -> object:
        """Call a function with the store; etcd is on the switch."""
        return self.cluster.switch.inside(lambda: function(EtcdStore(Access((URL,)))))

    def keys(self, prefix: str) -> list[str]:
        """Return the last parts of the keys that begin so."""
        items = self.in_etcd(lambda store: store.items(under(f"{KEYS.root}{prefix}"))[0])
        assert isinstance(items, list)
        return [item.key.rpartition("/")[2] for item in items]

    def expire(self, one: ClusterHost) -> None:
        """End the lease of a host's agent, as etcd does 30 s after its last renewal."""

        def revoke(store: Store) -> None:
            item = store.get(KEYS.live(one.machine_id))
            if item:
                store.revoke(item.lease)

        self.in_etcd(revoke)

    @contextmanager
    def traffic(self) -> Iterator[None]:
        """Fail if packets between the hosts are lost."""
        streams = [self.a.stream(self.c), self.c.stream(self.b)]
        yield
        for stream in streams:
            sent, received = stream.end()
            assert sent - received <= LOST and received, (sent, received)

    def connected(self, *hosts: ClusterHost) -> None:
        def right() -> bool:
            return all(one.reported.get("connected") and not one.reported["problems"] for one in hosts)

        wait_for(right, lambda: f"connection: {[(one.name, one.reported, one.log()) for one in hosts]}")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with Cluster(tmp_path_factory.mktemp("cluster"), 3) as cluster:
        yield World(cluster)


def test_containers_reach_each_other_and_status_shows_the_hosts(world: World) -> None:
    assert world.init_output == f"{NETWORK}: 16 blocks; `cnihook cluster join {NETWORK}` on each host\n"
    assert world.a.reaches(world.b) and world.b.reaches(world.c) and world.c.reaches(world.a)
    assert world.a.reaches(world.b.address6) and world.c.reaches(world.a.address6)
    report = world.h1.status()
    assert report["problems"] == [] and report["block"] == world.h1.block
    hosts = {host["name"]: host for host in report["hosts"]}
    assert {name: host["block"] for name, host in hosts.items()} == {
        one.name: one.block for one in world.cluster.hosts
    }
    assert all(host["live"] and host["confirmed"] for host in hosts.values())
    lines = world.h1.command("cluster", "status").splitlines()
    assert lines[0] == f"{NETWORK}: 10.60.0.0/22 fd00:60::/56 vxlan MTU 1450"
    rows = [(one.name, one.address, one.block, "live") for one in world.cluster.hosts]
    assert sorted(tuple(line.split()) for line in lines[2:]) == rows
    # What is there already is refused.
    assert "exists in etcd already" in world.h1.refusal(
        "cluster", "init", NETWORK, "--subnet", "10.61.0.0/22", "--block", "26", "--etcd", URL
    )
    overlap = world.h1.refusal(
        "cluster", "init", "other", "--subnet", "10.60.1.0/24", "--block", "26", "--etcd", URL
    )
    assert "subnet 10.60.1.0/24 overlaps" in overlap
    assert "has joined network wide already" in world.h1.refusal("cluster", "join", NETWORK, "--etcd", URL)
    assert f"network {NETWORK}: the agent runs" in world.h1.refusal("cluster", "leave", NETWORK)
    assert "this host shares it with others" in world.h1.refusal("network", "rm", "--force", NETWORK)
    world.h1.command("doctor")  # finds nothing


def test_etcd_is_down(world: World) -> None:
    """Containers run and start, and an agent that starts has its block and its routes."""
    with world.traffic():
        world.cluster.etcd.kill()
        wait_for(lambda: not world.h1.reported["connected"], "the agent's report")
        figures = world.h1.figures()
        assert (figures["agent_running"], figures["connected"], figures["hosts"]) == (1, 0, 3)
        assert "hosts_live" not in figures and figures["problems"] == 1
        other = world.h1.start("down1")
        assert other.reaches(world.c)
        world.h2.kill_agent()
        world.h2.start_agent()
        wait_for(
            lambda: world.h2.reported.get("pid") and not world.h2.reported["connected"], "the agent of h2"
        )
        assert world.h2.start("down2").reaches(other)
    # A boot: the kernel has nothing, and etcd does not answer.
    world.h3.kill_agent()
    world.h3.host.run("ip", "link", "delete", f"vx-{NETWORK}")
    assert world.h3.routes() == [] and not world.c.reaches(world.a)
    world.h3.start_agent()
    wait_for(
        lambda: world.h3.routes() == sorted([world.h1.block, world.h2.block]), "routes from the snapshot"
    )
    assert world.c.reaches(world.a)
    report = world.h1.status()
    assert any("Connection refused" in problem for problem in report["problems"])
    assert [host["live"] for host in report["hosts"]] == [None] * 3
    world.cluster.etcd.start()
    world.connected(*world.cluster.hosts)
    wait_for(lambda: not world.h1.status()["problems"], "all hosts live")
    wait_for(lambda: world.h1.reported["absent"] == [], "the agent's view of the hosts")
    figures = world.h1.figures()
    assert (figures["connected"], figures["hosts_live"], figures["problems"]) == (1, 3, 0)
    assert figures["connection_timestamp_seconds"] >= figures["kernel_timestamp_seconds"] - 600 > 0
    lines = [line.split() for line in world.h1.command("graph").splitlines()]
    assert ["└─", "2", "other", "hosts:", "2", "live"] in [line[:6] for line in lines]
    for one in (world.h2, world.h3):
        (words,) = [line for line in lines if one.address in line]
        assert one.block in words and words[-1] == "live"
    (shown,) = json.loads(world.h1.command("network", "inspect", NETWORK))
    assert shown["Scope"] == "global"


def test_kernel_loses_routes(world: World) -> None:
    """Another program flushes what the agent made."""
    world.h1.host.run("ip", "nexthop", "flush", "proto", "117")  # and the routes with them
    wait_for_routes(world.cluster.hosts)
    world.h1.host.run("ip", "link", "set", f"vx-{NETWORK}", "down")
    wait_for_routes(world.cluster.hosts)
    wait_for(lambda: world.a.reaches(world.c), "a way to the other host")


def test_etcd_lost_its_data(world: World) -> None:
    """Hosts claim their blocks again; a new host waits until an operator has written the settings."""
    before = [one.block for one in world.cluster.hosts]
    epoch = world.h1.file("block.json")["epoch"]
    new = world.cluster.add()
    with world.traffic():
        world.cluster.etcd.empty()
        wait_for(lambda: len(world.keys("blocks/")) == 3, "the claims of the hosts")
        assert world.h2.start("lost").reaches(world.c)
        error = new.refusal("cluster", "join", NETWORK, "--etcd", URL)
        assert "etcd does not have it; `cnihook cluster init wide` makes it" in error
        assert "--recover` on a host of the network" in world.h1.refusal(
            "cluster", "init", NETWORK, "--subnet", "10.62.0.0/22", "--block", "26", "--etcd", URL
        )
        assert any("--recover` writes them again" in problem for problem in world.h1.status()["problems"])
        world.h1.command("cluster", "init", NETWORK, "--recover")
        wait_for(
            lambda: all(one.file("block.json")["epoch"] != epoch for one in world.cluster.hosts[:3]),
            "the epoch",
        )
        new.join()
        new.start_agent()
        wait_for_routes(world.cluster.hosts)
    assert [one.block for one in world.cluster.hosts[:3]] == before and new.block not in before
    assert new.start("new").reaches(world.c)


def test_etcd_has_no_quorum(world: World) -> None:
    """A second server is a member that never starts, so the first one alone decides nothing."""
    with world.traffic():
        add = json.dumps({"peerURLs": [f"http://{ETCD}:9"]})
        world.cluster.switch.run("curl", "-sf", f"{URL}/v3/cluster/member/add", "-d", add)
        wait_for(
            lambda: not any(one.reported["connected"] for one in world.cluster.hosts),
            "the loss of the quorum",
        )
        assert world.h1.start("quorum").reaches(world.c)
        assert world.h1.status()["block"] == world.h1.block
    world.cluster.etcd.kill()
    world.cluster.etcd.start("--force-new-cluster")
    world.connected(*world.cluster.hosts)
    wait_for_routes(world.cluster.hosts)


def test_host_is_cut_off_from_etcd(world: World) -> None:
    with world.traffic():
        world.cluster.cut(world.h3, ETCD)
        world.expire(world.h3)
        assert world.h3.start("cut").reaches(world.a) and world.a.reaches(world.c)
        assert any(problem == "not live: h3" for problem in world.h1.status()["problems"])
        assert world.h3.block in world.h1.routes()
        world.cluster.heal(world.h3)
    wait_for(lambda: not world.h1.status()["problems"], "all hosts live")


def test_host_is_cut_off_from_the_other_hosts(world: World) -> None:
    blocks = [one.block for one in world.cluster.hosts]
    local = world.h3.start("local")
    world.cluster.cut(world.h3, *(one.address for one in world.cluster.hosts if one is not world.h3))
    assert local.reaches(world.c) and not world.c.reaches(world.a)
    assert world.h3.start("alone").reaches(local)
    assert not world.h1.status()["problems"] and [one.block for one in world.cluster.hosts] == blocks
    world.cluster.heal(world.h3)
    assert world.c.reaches(world.a)


def test_agent_is_dead_and_a_forgotten_host_returns(world: World) -> None:
    """The block of a forgotten host is in quarantine; when it returns, it starts nothing."""
    gone = world.cluster.hosts[3]
    old = gone.block
    stays = gone.start("stays")
    gone.kill_agent()
    gone.host.run("ip", "link", "set", "eth0", "down")
    assert "the agent of h4 (172.16.0.4) runs" in world.h1.refusal("cluster", "forget", "h4", "--yes")
    world.expire(gone)
    assert "--yes takes it" in world.h1.refusal("cluster", "forget", "h4")
    assert "has no host 'h9'" in world.h1.refusal("cluster", "forget", "h9", "--yes")
    world.h1.command("cluster", "forget", "h4", "--yes")
    wait_for_routes(world.cluster.hosts[:3])
    assert world.keys("quarantine/") == [old.replace("/", "-")]

    # The agent of h2 dies; it misses what happens now, and nothing else.
    world.h2.kill_agent()
    assert world.h2.start("dead").reaches(world.c)
    assert any("the agent does not run" in problem for problem in world.h2.status()["problems"])
    assert "the agent does not run" in world.h2.host.run(*PROGRAM, "doctor", check=False).stdout

    gone.host.run("ip", "link", "set", "eth0", "up")
    gone.start_agent()
    wait_for(lambda: gone.file("block.json")["fenced"], lambda: f"the fence: {gone.log()}")
    error = gone.refusal("add", NETWORK, gone.host.container("refused").path)
    assert (
        "this host may not start containers" in error and "was taken from this host by an operator" in error
    )
    assert any("may not start containers" in problem for problem in gone.status()["problems"])
    assert stays.reaches(f"{stays.address.rpartition('.')[0]}.{int(old.split('.')[3].split('/')[0]) + 1}")
    assert world.keys("blocks/") and old not in world.h1.routes()

    assert "the agent runs" in gone.refusal("cluster", "leave", NETWORK, "--force")
    gone.stop_agent()
    assert "in use by" in gone.refusal("cluster", "leave", NETWORK)
    gone.command("cluster", "leave", NETWORK, "--force")
    assert gone.host.listdir("/etc/cni/net.d") == [] and gone.routes() == []
    assert gone.host.listdir("/var/lib/cnihook/cluster") == [] and gone.host.links() == {"lo", "eth0"}
    gone.join()
    gone.start_agent()
    wait_for(lambda: gone.block, "the new block")
    assert gone.block != old and gone.block not in world.h2.routes()
    world.h2.start_agent()
    wait_for_routes(world.cluster.hosts)
    assert gone.start("again").reaches(world.b)


def test_agents_of_other_versions(world: World) -> None:
    """Unknown keys are ignored; settings that need a newer agent change nothing on this host."""

    def write(value: bytes) -> None:
        def replace(store: Store) -> None:
            item = store.get(KEYS.config)
            assert item and store.replace(KEYS.config, value, item.value)

        world.in_etcd(replace)

    item = world.in_etcd(lambda store: store.get(KEYS.config))
    config = bytes(item.value)  # type: ignore[attr-defined]
    write(config[:-1] + b',"later":[1]}')
    world.connected(*world.cluster.hosts)
    with world.traffic():
        write(config.replace(b'"min":1', b'"min":2'))
        wait_for(lambda: "newer agent" in str(world.h1.reported["problems"]), "the report")
        wait_for_routes(world.cluster.hosts)
        assert world.h1.start("newer").reaches(world.c)
        write(config)
        world.connected(*world.cluster.hosts)
    assert Settings.from_json(config).transport == "vxlan"


def test_clocks_differ(world: World) -> None:
    world.h3.kill_agent()
    world.h3.start_agent(("/usr/bin/python3", "-ISc", LATER, PROGRAM[-1]))
    a_year = 365 * 86400
    wait_for(lambda: world.h3.reported["since"] - world.h1.reported["since"] > a_year / 2, "the clock")
    world.connected(*world.cluster.hosts)
    wait_for_routes(world.cluster.hosts)
    assert world.h3.start("clock").reaches(world.a)
    wait_for(lambda: not world.h1.status()["problems"], "all hosts live")
    world.h3.kill_agent()
    world.h3.start_agent()
    world.connected(world.h3)


def test_address_of_a_host_changes(world: World) -> None:
    """The agent finds out by itself."""
    world.h3.host.run("ip", "-batch", "-", input="""\
address add 172.16.0.33/24 dev eth0
address delete 172.16.0.3/24 dev eth0
address add 172.16.0.33/24 dev eth0
""", check=False)  # fmt: skip
    wait_for(lambda: world.a.reaches(world.c), "a way to the new address", timeout=2 * patience())
    hosts = {host["name"]: host for host in world.h1.status()["hosts"]}
    assert hosts["h3"]["address"] == "172.16.0.33" and hosts["h3"]["block"] == world.h3.block


def test_host_leaves(world: World) -> None:
    leaving = world.cluster.hosts[3]
    leaving.stop_agent()
    leaving.command("cluster", "leave", NETWORK, "--force")
    wait_for_routes(world.cluster.hosts[:3])
    assert leaving.machine_id not in world.keys("live/")


def test_copy_of_a_host_is_fenced(world: World) -> None:
    """A copy has the files of the first host, and another machine ID."""
    copy = world.cluster.hosts[3]
    for name in ("member.json", "block.json", "snapshot.json"):
        copy.host.write(f"{FOLDER}/{name}", json.dumps(world.h1.file(name)))
    copy.start_agent()
    wait_for(lambda: copy.file("block.json")["fenced"], lambda: f"the fence: {copy.log()}")
    assert "its machine ID is another one" in copy.file("block.json")["fenced"]
    copy.stop_agent()
    assert world.a.reaches(world.c) and not world.h1.status()["problems"]
    copy.command("cluster", "leave", NETWORK)
    assert not world.h1.file("block.json")["fenced"] and len(world.keys("blocks/")) == 3
    copy.host.write("/etc/machine-id", f"{world.h1.machine_id}\n")
    error = copy.refusal("cluster", "join", NETWORK, "--etcd", URL)
    assert "h1 (172.16.0.1) has this host's machine ID" in error
