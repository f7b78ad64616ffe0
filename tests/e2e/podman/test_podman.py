# SPDX-License-Identifier: Apache-2.0
"""Podman, which has its own libcni, with the plugins of cnihook instead of the reference's."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.host.host import Host
from tests.support.runtimes.oci import CNIHOOK, LEAVES, wait_for
from tests.support.runtimes.podman import FOR_EVER, IMAGE, Podman, install_plugins

NETWORK = "net1"


@pytest.fixture
def podman(host: Host, rootfs: Path) -> Iterator[Podman]:
    engine = Podman(host, rootfs, [install_plugins(host)])
    host.leaves(*LEAVES, "file /etc/cni/net.d/*", "dir /run/libpod*", "file /run/libpod*", "dir /run/cni*")
    host.leaves("dir /var/lib/containers*", "file /var/lib/containers/*")
    host.leaves("dir /run/containers*", "file /run/containers*", "file /run/xtables.lock", "dir /run/lock*")
    host.leaves("file /etc/cni/net.d/cni.lock", "dir /etc/containers*", "dir /run/netns", "mount /run/netns")
    engine("network", "create", NETWORK)
    yield engine
    engine.close()


def ping(podman: Podman, name: str, address: str) -> None:
    podman("exec", name, "ping", "-c1", "-W30", address)


def test_container_reaches_the_gateway_and_another_container(podman: Podman, host: Host) -> None:
    for name in ("one", "two"):
        podman.run("-d", "--name", name, "--network", NETWORK, IMAGE, *FOR_EVER)

    address = podman.address("two", NETWORK)
    ping(podman, "one", address)
    ping(podman, "one", "10.89.0.1")
    # The record of podman 4 does not name the namespace, but its result does.
    host.run(CNIHOOK, "gc", NETWORK)
    ping(podman, "one", address)
    podman("rm", "-f", "-t", "0", "one", "two")


def test_published_ports_lead_to_the_container(podman: Podman, host: Host) -> None:
    """The port is reachable from the host, by its address and by loopback, and from outside."""
    outside = host.outside()
    serve = ("nc", "-ll", "-p", "80", "-e", "echo", "hello")
    podman.run("-d", "--name", "web", "--network", NETWORK, "-p", "8080:80", IMAGE, *serve)
    ask = ("busybox", "nc", "-w", "3", "127.0.0.1", "8080")
    wait_for(lambda: host.run(*ask, check=False).stdout, "an answer of the server, once it listens")

    for client, address in ((host, "127.0.0.1"), (host, outside.HOST), (outside, outside.HOST)):
        outcome = client.run("busybox", "nc", "-w", "3", address, "8080", check=False)
        assert outcome.stdout == "hello\n", (client, address, outcome)
    podman("rm", "-f", "-t", "0", "web")
    assert "8080" not in host.nft()


def test_port_of_a_container_on_two_networks_is_published_once(podman: Podman, host: Host) -> None:
    podman("network", "create", "net2")
    networks = f"{NETWORK},net2"
    podman.run("-d", "--name", "web", "--network", networks, "-p", "8080:80", IMAGE, *FOR_EVER)
    assert "8080" in host.nft()

    podman("rm", "-f", "-t", "0", "web")
    assert "8080" not in host.nft()


def test_podman_shows_the_error_of_a_port_in_use(podman: Podman) -> None:
    podman.run("-d", "--name", "web", "--network", NETWORK, "-p", "8080:80", IMAGE, *FOR_EVER)

    outcome = podman.run(
        "--name", "other", "--network", NETWORK, "-p", "8080:81", IMAGE, "true", check=False
    )
    assert outcome.returncode != 0 and "8080" in outcome.stderr
    podman("rm", "-f", "-t", "0", "web", "other")


def test_requested_addresses_of_both_families_are_used(podman: Podman, host: Host) -> None:
    podman("network", "create", "--ipv6", "--subnet", "fd00:77::/64", "--subnet", "10.77.0.0/24", "dual")
    podman.run("-d", "--name", "one", "--network", "dual:ip=10.77.0.9,ip6=fd00:77::9", IMAGE, *FOR_EVER)
    podman.run("-d", "--name", "two", "--network", "dual", IMAGE, *FOR_EVER)

    assert podman.address("one", "dual") == "10.77.0.9"
    assert podman.address("one", "dual", "GlobalIPv6Address") == "fd00:77::9"
    for address in ("10.77.0.9", "fd00:77::9"):
        ping(podman, "two", address)
    podman("rm", "-f", "-t", "0", "one", "two")


def test_ten_containers_started_at_once_get_ten_addresses(podman: Podman, host: Host) -> None:
    script = " & ".join(
        f'"$@" run -d --ulimit nofile=1024:1024 --ulimit nproc=1024:1024 --name c{n} --network {NETWORK} '
        f"{IMAGE} {' '.join(FOR_EVER)} > /dev/null"
        for n in range(10)
    )
    host.run("sh", "-c", f"{script} & wait", "sh", *podman._argv, env=podman.env, timeout=120)

    addresses = {podman.address(f"c{n}", NETWORK) for n in range(10)}
    assert len(addresses) == 10 and all(re.fullmatch(r"10\.89\.0\.\d+", each) for each in addresses)
    podman("rm", "--all", "--force", "--time", "0", timeout=120)


def test_running_container_can_leave_and_join_networks(podman: Podman, host: Host) -> None:
    podman.run("-d", "--name", "one", "--network", NETWORK, IMAGE, *FOR_EVER)
    podman("network", "create", "net2")
    podman("network", "connect", "net2", "one")
    assert podman.address("one", "net2").startswith("10.89.1.")

    podman("network", "disconnect", NETWORK, "one")
    shown = podman("exec", "one", "ip", "-o", "addr").stdout
    assert "10.89.1." in shown and "10.89.0." not in shown
    podman("rm", "-f", "-t", "0", "one")
