# SPDX-License-Identifier: Apache-2.0
"""Attach with one implementation and detach with the other, in both directions."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.host.host import Container, Host
from tests.support.host.namespace import base_environment
from tests.support.plugins.cni import CHECKOUT, REFERENCE
from tests.support.runtimes.oci import NET_D, NETWORKS, RESULTS, leases, make_rootfs
from tests.support.runtimes.podman import FOR_EVER, IMAGE, Podman, install_plugins
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


def remove_own_key(host: Host) -> None:
    """Turn the record into one of libcni: remove cnihook's key."""
    (name,) = host.listdir(RESULTS)
    record = json.loads(host.read(f"{RESULTS}/{name}"))
    del record["cnihook"]
    host.write(f"{RESULTS}/{name}", json.dumps(record), 0o600)


@pytest.mark.parametrize(
    ("first", "second"), [(REFERENCE, None), (None, REFERENCE)], ids=["reference first", "cnihook first"]
)
def test_del_removes_what_the_other_implementation_attached(
    host: Host, container: Container, first: Path | None, second: Path | None
) -> None:
    cnihook(host, "add", container, first)
    assert len(leases(host)) == 2
    remove_own_key(host)

    cnihook(host, "check", container, second)
    cnihook(host, "del", container, second)

    assert leases(host) == [] and host.listdir(RESULTS) == []
    assert container.links() == {"lo"} and not any(link.startswith("veth") for link in host.links())


@pytest.mark.needs("podman")
@pytest.mark.root
@pytest.mark.xdist_group("podman")
def test_detach_releases_what_podman_attached(host: Host, tmp_path: Path) -> None:
    """libcni and the reference's plugins attach; cnihook removes lease, link and record."""
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
def test_reference_releases_what_podman_attached_with_cnihook(host: Host, tmp_path: Path) -> None:
    """The network has no masquerading.

    Otherwise the reference's DEL fails because its own rules are missing: podman's record stays, although
    the rest is removed.
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
    result = podman("rm", "-f", "-t", "0", "one")
    assert result.stderr == ""

    assert leases(host, "net1") == [] and host.listdir(RESULTS) == []
    assert not any(link.startswith("veth") for link in host.links())
