# SPDX-License-Identifier: Apache-2.0
"""Attached by one implementation, detached by the other: a machine may change from either to the other."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.cni import CHECKOUT, REFERENCE
from tests.support.host import Container, Host
from tests.support.namespace import base_environment
from tests.support.oci import NET_D, NETWORKS, RESULTS, leases, make_rootfs
from tests.support.podman import FOR_EVER, IMAGE, Podman, install_plugins
from tests.support.skip import skip_or_fail

CNIHOOK = str(CHECKOUT / "scripts" / "cnihook")
BRIDGE: dict[str, Any] = {
    "type": "bridge",
    "bridge": "cni0",
    "isGateway": True,
    "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.9.0.0/24"}], [{"subnet": "fd00:9::/64"}]]},
}
NETWORK: dict[str, Any] = {
    "cniVersion": "1.0.0",
    "name": "mynet",
    "plugins": [BRIDGE, {"type": "tuning", "mtu": 1400}],
}
LEAVES = ("empty bridges", "dir /run/cni", "dir /run/cni/tuning")


@pytest.fixture
def container(host: Host) -> Container:
    if not REFERENCE.is_dir():
        skip_or_fail(f"no reference plugins in {REFERENCE}")
    host.write(f"{NET_D}/10-mynet.conflist", json.dumps(NETWORK))
    host.leaves(f"file {NET_D}/*", *LEAVES)
    return host.container()


def cnihook(host: Host, command: str, container: Container, plugins: Path | None) -> None:
    env = base_environment() | ({"CNI_PATH": str(plugins)} if plugins else {})
    host.run(CNIHOOK, command, "mynet", container.path, env=env)


def forget_who_it_was(host: Host) -> None:
    """Make the record one of libcni's own: without the key that is ours."""
    (name,) = host.listdir(RESULTS)
    record = json.loads(host.read(f"{RESULTS}/{name}"))
    del record["cnihook"]
    host.write(f"{RESULTS}/{name}", json.dumps(record), 0o600)


@pytest.mark.parametrize(("first", "second"), [(REFERENCE, None), (None, REFERENCE)], ids=["theirs", "ours"])
def test_nothing_is_left_of_what_the_other_attached(
    host: Host, container: Container, first: Path | None, second: Path | None
) -> None:
    cnihook(host, "add", container, first)
    assert len(leases(host)) == 2
    forget_who_it_was(host)

    cnihook(host, "check", container, second)
    cnihook(host, "del", container, second)

    assert leases(host) == [] and host.listdir(RESULTS) == []
    assert container.links() == {"lo"} and not any(link.startswith("veth") for link in host.links())


@pytest.mark.needs("podman")
@pytest.mark.root
@pytest.mark.xdist_group("podman")
def test_what_podman_attached_is_taken_down_by_its_record(host: Host, tmp_path: Path) -> None:
    """libcni's record and the reference's plugins, then ours alone: lease, link and record go."""
    podman = Podman(host, make_rootfs(tmp_path / "rootfs"), [str(REFERENCE)])
    for line in ("dir /run/*", "file /run/*", "mount /run/netns", "dir /var/lib/containers*", "dir /etc/*"):
        host.leaves(line)
    host.leaves("file /var/lib/containers/*", "file /etc/cni/net.d/*", "nft: table ip*", *LEAVES)
    podman("network", "create", "net1")
    podman.run("-d", "--name", "one", "--network", "net1", IMAGE, *FOR_EVER)
    container_id = podman.inspect("one")["Id"]
    assert leases(host, "net1") == ["10.89.0.2"]

    host.run(CNIHOOK, "detach", container_id)

    assert leases(host, "net1") == []
    assert [name for name in host.listdir(RESULTS) if container_id in name] == []
    assert "eth0" not in podman("exec", "one", "ip", "link").stdout
    podman.close()


@pytest.mark.needs("podman")
@pytest.mark.root
@pytest.mark.xdist_group("podman")
def test_what_our_plugins_attached_under_podman_the_reference_takes_down(host: Host, tmp_path: Path) -> None:
    """A network without masquerading: else the reference's DEL complains of rules that it would have made,
    and podman's record stays, though all the rest has gone.
    """
    podman = Podman(host, make_rootfs(tmp_path / "rootfs"), [install_plugins(host)])
    for line in ("dir /run/*", "file /run/*", "mount /run/netns", "dir /var/lib/containers*", "dir /etc/*"):
        host.leaves(line)
    host.leaves("file /var/lib/containers/*", "file /etc/cni/net.d/*", "nft: *", *LEAVES)
    podman("network", "create", "--internal", "net1")
    podman.run("-d", "--name", "one", "--network", "net1", IMAGE, *FOR_EVER)
    assert host.listdir(f"{NETWORKS}/net1")

    host.write(
        "/run/.host/podman/containers.conf",
        host.read("/run/.host/podman/containers.conf").replace("/run/.host/podman/plugins", str(REFERENCE)),
    )
    done = podman("rm", "-f", "-t", "0", "one")
    assert done.stderr == ""

    assert leases(host, "net1") == [] and host.listdir(RESULTS) == []
    assert not any(link.startswith("veth") for link in host.links())
