# SPDX-License-Identifier: Apache-2.0
"""Names of containers across the hosts of a cluster, and ports that are published on one of them."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from cnihook.cluster.etcd import EtcdStore
from cnihook.cluster.etcd_http import Access
from cnihook.cluster.store import Keys, Store, under
from tests.support.cluster.hosts import ETCD, NETWORK, Cluster, ClusterHost, wait_for_routes
from tests.support.host.namespace import Failed
from tests.support.runtimes.oci import Running, Runtime, make_rootfs
from tests.support.wait import wait_for

pytestmark = [
    pytest.mark.needs("etcd", "nft", "runc"),
    pytest.mark.root,
    pytest.mark.long,
    pytest.mark.xdist_group("cluster"),
]

KEYS = Keys(NETWORK)
URL = f"http://{ETCD}:2379"


class World:
    """Three hosts, each with a runtime."""

    def __init__(self, cluster: Cluster, folder: Path, ends: ExitStack) -> None:
        self.cluster = cluster
        self.folder = folder
        nets = ("--subnet", "10.60.0.0/22", "--block", "26", "--names")
        cluster.hosts[0].command("cluster", "init", NETWORK, *nets, "--etcd", URL)
        self.runtimes = {}
        for one in cluster.hosts:
            one.join()
            one.start_agent()
            self.runtimes[one] = Runtime(one.host, "runc", folder)
            ends.callback(self.runtimes[one].close)
        wait_for_routes(cluster.hosts)

    def start(self, one: ClusterHost, name: str, *options: str, command: tuple[str, ...] = ()) -> Running:
        """Start a container on the network; other containers call it by its ID, and by its aliases."""
        runtime = self.runtimes[one]
        runtime.rootfs = self.folder / name
        if not runtime.rootfs.exists():
            make_rootfs(runtime.rootfs)
        more = {"command": command} if command else {}
        return runtime.run(name, *(options or ("--network", NETWORK)), **more)

    def delete(self, one: ClusterHost, name: str) -> None:
        self.runtimes[one].delete(name)

    def in_etcd(self, function: Callable[[Store], object]) -> object:
        return self.cluster.switch.inside(lambda: function(EtcdStore(Access((URL,)))))

    def keys(self) -> set[str]:
        """Return the containers whose names are in etcd."""
        items = self.in_etcd(lambda store: store.items(under(f"{KEYS.root}names/"))[0])
        assert isinstance(items, list)
        return {item.key.rpartition("/")[2] for item in items}

    def has_its_lease(self, one: ClusterHost, name: str) -> bool:
        """Return True if the names of a container end with its host's agent."""

        def leases(store: Store) -> list[int]:
            items = map(store.get, (KEYS.live(one.machine_id), KEYS.names(one.machine_id, name)))
            return [item.lease for item in items if item]

        pair = self.in_etcd(leases)
        assert isinstance(pair, list)
        return len(pair) == 2 and pair[0] == pair[1]

    def expire(self, one: ClusterHost) -> None:
        """End the lease of a host's agent, as etcd does 30 s after its last renewal."""

        def revoke(store: Store) -> None:
            item = store.get(KEYS.live(one.machine_id))
            assert item
            store.revoke(item.lease)

        self.in_etcd(revoke)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("cluster-names")
    with Cluster(folder, 3) as cluster, ExitStack() as ends:
        yield World(cluster, folder, ends)


def known(reader: Running, name: str) -> list[str]:
    """Return the addresses that a name has in a container's hosts file, in their order."""
    lines = [line.partition("#")[0].split() for line in reader.exec("cat", "/etc/hosts").splitlines()]
    return [address for address, *names in filter(None, lines) if name in names]


def wait_for_name(reader: Running, name: str, *containers: Running) -> None:
    expected = [one.address for one in containers]
    wait_for(lambda: known(reader, name) == expected, lambda: reader.exec("cat", "/etc/hosts"))


def wait_for_names(reader: Running, name: str, *containers: Running) -> None:
    """Wait for the addresses of a name on other hosts, whose order is that of the machine IDs."""
    expected = sorted(one.address for one in containers)
    wait_for(lambda: sorted(known(reader, name)) == expected, lambda: reader.exec("cat", "/etc/hosts"))


def test_containers_find_those_of_other_hosts_by_name(world: World) -> None:
    """Whatever happens to etcd and to agents; a start has the names at once."""
    h1, h2, h3 = world.cluster.hosts
    reader = world.start(h1, "reader")
    before = reader.exec("cat", "/etc/hosts")
    two = world.start(h2, "two", "--network", f"{NETWORK}:alias=db")
    three = world.start(h3, "three", "--network", f"{NETWORK}:alias=db")
    wait_for_names(reader, "db", two, three)
    wait_for_name(two, "reader", reader)
    assert two.address in reader.exec("ping", "-c1", "-W30", "two")

    # On its own host first, in the file of a container that runs and in that of one that starts.
    one = world.start(h1, "one", "--network", f"{NETWORK}:alias=db")
    wait_for(lambda: known(reader, "db")[0] == one.address, "the container of this host first")
    world.cluster.etcd.kill()
    wait_for(lambda: not h1.reported["connected"], "the loss of etcd")
    late = world.start(h1, "late")
    assert known(late, "db")[0] == one.address
    assert sorted(known(late, "db")) == sorted([one.address, two.address, three.address])

    # Without etcd, the names stay; afterwards they are as they should be.
    world.delete(h2, "two")
    four = world.start(h2, "four")
    assert known(four, "reader") == [reader.address] and len(known(late, "db")) == 3
    world.cluster.etcd.start()
    wait_for_name(late, "four", four)
    wait_for_name(late, "two")
    wait_for_name(late, "db", one, three)

    # The names outlast a restart of the agent, but not the end of their host.
    h3.stop_agent()
    assert "three" in world.keys() and known(late, "three") == [three.address]
    h3.start_agent()
    wait_for(lambda: world.has_its_lease(h3, "three"), "the lease of the new agent")
    h3.kill_agent()
    wait_for_name(reader, "three", three)
    world.expire(h3)
    wait_for_name(late, "db", one)
    wait_for_name(reader, "three")
    h3.start_agent()
    wait_for_name(late, "db", one, three)

    for host, name in ((h1, "one"), (h1, "late"), (h2, "four"), (h3, "three")):
        world.delete(host, name)
    wait_for(lambda: reader.exec("cat", "/etc/hosts") == before, "the end of all names")
    wait_for(lambda: world.keys() == {"reader"}, "the end of the keys")
    world.delete(h1, "reader")


def test_wrong_names_in_etcd_change_nothing(world: World) -> None:
    """Only names that a container may have, and addresses of the network, are taken over."""
    h1, h2, _ = world.cluster.hosts
    reader = world.start(h1, "reader")
    before = reader.exec("cat", "/etc/hosts")
    wrong = [
        b"\xff",
        b"[]",
        b'{"names": 1, "addresses": []}',
        b'{"names": ["far"], "addresses": ["192.0.2.1", 7]}',
        b'{"names": ["far"], "addresses": ["nowhere"]}',
        b'{"names": ["localhost", "a.example", "a\\nb", "", 5, "-"], "addresses": ["10.60.0.9"]}',
        b'{"names": ["' + b"x" * 5000 + b'"], "addresses": ["10.60.0.9"]}',
    ]

    def write(store: Store) -> None:
        for number, value in enumerate([*wrong, b'{"names": ["h", "_right"], "addresses": ["10.60.3.9"]}']):
            assert store.create(KEYS.names("f" * 32, f"x{number}"), value)

    world.in_etcd(write)
    wait_for(lambda: known(reader, "_right"), "the right name")
    added = reader.exec("cat", "/etc/hosts").removeprefix(before)
    assert added == f"10.60.3.9\th _right\t# cnihook: @other-hosts on {NETWORK}\n"

    def delete(store: Store) -> None:
        for item in store.items(under(KEYS.names("f" * 32)))[0]:
            assert store.delete(item.key, item.value)

    world.in_etcd(delete)
    wait_for(lambda: reader.exec("cat", "/etc/hosts") == before, "the end of the name")
    world.delete(h1, "reader")


def test_published_port_is_on_the_host_of_its_container_only(world: World) -> None:
    h1, h2, h3 = world.cluster.hosts
    answer = ("nc", "-ll", "-p", "80", "-e", "/bin/busybox", "echo", "hello")
    world.start(h2, "web", "--network", NETWORK, "--publish", "8080:80", command=answer)
    client = world.start(h1, "client")
    wait_for(lambda: _answer(client, h2) == "hello\n", "the published port")
    for other in (h1, h3):
        assert _answer(client, other) == ""
        assert "8080" not in other.host.nft()
    listed = json.loads(h2.command("ps", "--json"))
    assert "8080" in json.dumps(listed)
    world.delete(h2, "web")
    world.delete(h1, "client")


def _answer(client: Running, one: ClusterHost) -> str:
    try:
        return client.exec("nc", "-w", "2", one.address, "8080")
    except Failed:
        return ""


def test_host_that_leaves_has_no_names_of_others(world: World) -> None:
    h1, h2, h3 = world.cluster.hosts
    one = world.start(h1, "one")
    h3.command("doctor")  # finds nothing
    folder = f"/run/cnihook/names/{NETWORK}"
    wait_for(lambda: one.address in h3.host.read(f"{folder}/@other-hosts"), "the name")
    h3.stop_agent()
    h3.command("cluster", "leave", NETWORK)
    assert not h3.host.exists("/run/cnihook/names")
    assert h2.host.exists(folder)
    world.delete(h1, "one")
