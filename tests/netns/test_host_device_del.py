# SPDX-License-Identifier: Apache-2.0
"""host-device: DEL returns the device, whatever has happened to it, to its namespace, or to its name.

The leak check after each test compares the host with its state when the device was created.
"""

import json
import re
from typing import Any

import pytest

from tests.netns.differences import NO_GC
from tests.support.host.host import Container, Host
from tests.support.plugins import cni
from tests.support.plugins.cni import CniFailure, with_previous_result
from tests.support.plugins.hostdev import DEVICE, FAR, IPAM, MAC, conf, plug
from tests.support.plugins.ipam import leased

NOT_RESTORED = pytest.mark.known_difference(
    "DEL restores the device's name only",
    here="also MAC, MTU, flags, addresses, routes",
    right="SPEC.md, 2 DEL",
)
FAILS = pytest.mark.known_difference(
    "DEL fails without the device or namespace, and the lease stays",
    here="succeeds, and the lease is released",
    right="SPEC.md, 2 DEL",
)

FILES = "/run/cnihook/host-device"


def without_device(host: Host) -> None:
    """Make the leak check expect neither the device nor its far end: they ended with a namespace."""
    for name in (DEVICE, FAR):
        for part in ("link", "address", "route"):
            host.before = host.before.without(f"{part} {name} ")


def stderr_of_del(host: Host, conf: Any, container: Container) -> str:
    """Return what a DEL that succeeds prints on stderr."""
    assert host.implementation
    attachment = cni.Attachment(conf, container, "eth0", conf["type"], {})
    answer = host.run(
        host.implementation.program("host-device"),
        input=json.dumps(conf),
        env=attachment.environment("DEL", host.implementation.folder),
    )
    host.attachments = []
    return answer.stderr


# The device's state


@NOT_RESTORED
@pytest.mark.parametrize(
    "change",
    [
        "link set eth0 address 02:00:00:00:00:99",
        "link set eth0 mtu 1400",
        "link set eth0 promisc on",
        "link set eth0 allmulticast on",
        "link set eth0 alias another",
        "link set eth0 down",
    ],
)
def test_changes_by_the_container_are_undone(host: Host, container: Container, change: str) -> None:
    plug(host, f"link set {DEVICE} mtu 1480 txqueuelen 77")
    host.cni("ADD", conf(), container)

    container.run("ip", *change.split())
    container.run("ip", "link", "set", "eth0", "txqueuelen", "78")

    host.cni("DEL", conf(), container)
    assert host.link(DEVICE)["txqlen"] == 77


@NOT_RESTORED
def test_modes_of_the_device_are_restored(host: Host, container: Container) -> None:
    plug(host, f"link set {DEVICE} promisc on", f"link set {DEVICE} alias uplink")
    host.cni("ADD", conf(), container)
    container.run("ip", "link", "set", "eth0", "promisc", "off")

    host.cni("DEL", conf(), container)

    assert host.link(DEVICE)["ifalias"] == "uplink"


@NOT_RESTORED
def test_device_is_a_port_of_its_bridge_again(host: Host, container: Container) -> None:
    plug(host, "link add br0 type bridge", "link set br0 up", f"link set {DEVICE} master br0")
    host.cni("ADD", conf(), container)

    host.cni("DEL", conf(), container)


def test_device_that_was_down_stays_down(host: Host, container: Container) -> None:
    plug(host, f"link set {DEVICE} down")
    host.cni("ADD", conf(), container)

    host.cni("DEL", conf(), container)

    assert "UP" not in host.link(DEVICE)["flags"]


@pytest.mark.known_difference("DEL leaves a tap down", here="it is up, as before", right="SPEC.md, 2 DEL")
def test_device_may_be_a_tap(host: Host, container: Container) -> None:
    plug(host, "tuntap add tap0 mode tap", "link set tap0 up")
    host.cni("ADD", conf(device="tap0"), container)
    assert container.link("eth0")["linkinfo"]["info_kind"] == "tun"

    host.cni("DEL", conf(device="tap0"), container)

    assert "UP" in host.link("tap0")["flags"]


# DEL with a part of its input or of the device missing


@FAILS
def test_del_can_be_repeated(host: Host, container: Container) -> None:
    plug(host, f"link set {DEVICE} down")
    host.cni("ADD", conf(ipam=IPAM), container)

    host.cni("DEL", conf(ipam=IPAM), container)
    host.cni("DEL", conf(ipam=IPAM), container)

    assert leased(host) == []


def test_del_without_the_result(host: Host, container: Container) -> None:
    plug(host, f"link set {DEVICE} down")
    host.cni("ADD", conf(ipam=IPAM), container)

    host.cni("DEL", conf(ipam=IPAM), container)

    assert leased(host) == []


@pytest.mark.known_difference(
    "DEL without CNI_NETNS succeeds, but does nothing",
    here="releases the lease and the device",
    right="SPEC.md, 4 Delegation",
)
def test_del_without_the_path_returns_the_device_and_releases_the_lease(
    host: Host, container: Container
) -> None:
    """The runtime may have lost the path of a namespace that is alive."""
    plug(host)
    host.cni("ADD", conf(ipam=IPAM), container)

    host.cni("DEL", conf(ipam=IPAM), container, CNI_NETNS="")

    assert DEVICE in host.links()
    assert leased(host) == []


@FAILS
def test_del_after_the_namespace_is_gone(host: Host, container: Container) -> None:
    """A namespace that ends deletes every device that is not hardware.  DEL reports this and succeeds."""
    plug(host)
    host.cni("ADD", conf(ipam=IPAM), container)
    container.destroy()
    without_device(host)

    stderr = stderr_of_del(host, conf(ipam=IPAM), container)

    assert re.search(f"{DEVICE}.* eth0 of container c1, is gone", stderr)
    assert leased(host) == []


@FAILS
def test_del_with_the_path_of_another_container_leaves_its_links(host: Host, container: Container) -> None:
    """A path that contains a PID is used again.  The links at the path are not the plugin's then."""
    plug(host)
    host.cni("ADD", conf(ipam=IPAM), container)
    other = host.container()
    other.run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "eth1")
    host.before = host.before.plus(line for line in host.state().lines if line.startswith("in c2: "))

    host.cni("DEL", conf(ipam=IPAM), container, CNI_NETNS=other.path)

    assert DEVICE in host.links()
    assert other.links() == {"lo", "eth0", "eth1"}


@FAILS
def test_del_of_a_device_that_the_container_has_deleted(host: Host, container: Container) -> None:
    plug(host)
    host.cni("ADD", conf(ipam=IPAM), container)
    container.run("ip", "link", "del", "eth0")
    without_device(host)

    host.cni("DEL", conf(ipam=IPAM), container)

    assert leased(host) == []


@pytest.mark.known_difference(
    "DEL fails for a device that the container renamed (plugins#773)",
    here="succeeds",
    right="SPEC.md, 2 DEL",
)
@pytest.mark.parametrize(
    "change",
    ["name eth7", "name eth7 alias none-of-its-own", "name eth7 address 02:00:00:00:00:99"],
)
def test_device_that_the_container_renamed_returns_to_the_host(
    host: Host, container: Container, change: str
) -> None:
    plug(host)
    host.cni("ADD", conf(), container)
    container.run("ip", "link", "set", "eth0", "down")
    container.run("ip", "link", "set", "eth0", *change.split())

    host.cni("DEL", conf(), container)


@pytest.mark.known_difference(
    "DEL fails if another link on the host has the device's name",
    here="the device returns as `devN`, with a warning",
    right="SPEC.md, 2 DEL",
)
def test_device_returns_with_another_name_if_its_own_is_taken(host: Host, container: Container) -> None:
    """The namespace ends after DEL, and a device that is still in it would be lost."""
    plug(host)
    host.cni("ADD", conf(), container)
    host.run("ip", "link", "add", DEVICE, "type", "bridge")

    stderr = stderr_of_del(host, conf(), container)

    assert f"{DEVICE} is back from container c1 as dev101" in stderr
    assert host.link("dev101")["address"] == MAC
    host.run("ip", "link", "del", DEVICE)
    host.run("ip", "link", "set", "dev101", "down")
    host.run("ip", "link", "set", "dev101", "name", DEVICE)
    host.run("ip", "link", "set", DEVICE, "up")


@FAILS
@pytest.mark.parametrize("name", [DEVICE, "eth0"])
def test_device_that_was_returned_by_hand_is_restored(host: Host, container: Container, name: str) -> None:
    """An ADD that was killed before the move, or a DEL that was killed half-way, leaves the same state."""
    plug(host)
    host.cni("ADD", conf(ipam=IPAM), container)
    container.run("ip", "link", "set", "eth0", "down")
    container.run("ip", "link", "set", "eth0", "netns", "1", "name", name)

    host.cni("DEL", conf(ipam=IPAM), container)

    assert leased(host) == []


def test_late_del_leaves_a_device_that_another_network_has_taken(host: Host, container: Container) -> None:
    plug(host, f"link set {DEVICE} down")
    host.cni("ADD", conf(), container)
    host.cni("DEL", conf(), container)
    host.cni("ADD", conf(name="net2"), container, "eth1")

    try:
        host.cni("DEL", conf(), container)
    except CniFailure:
        pass  # the reference does not find the device, and fails

    assert container.link("eth1")["ifalias"] == DEVICE


@pytest.mark.known_difference(
    "ADD fails after a crash: the device is gone", here="ADD finds it in the dead container", right="cnihook"
)
def test_add_of_a_container_that_ended_without_del(host: Host, container: Container) -> None:
    """The first namespace still exists, and no process uses it."""
    plug(host)
    host.cni("ADD", conf(), container, CNI_CONTAINERID="same")
    host.attachments = []
    again = host.container()

    host.cni("ADD", conf(), again, CNI_CONTAINERID="same")

    assert again.link("eth0")["address"] == MAC
    assert container.links() == {"lo"}


# Each implementation returns what the other took


def other(host: Host, implementations: dict[str, cni.Implementation]) -> cni.Implementation:
    assert host.implementation
    return implementations["reference" if host.implementation.name == "builtin" else "builtin"]


@pytest.mark.parametrize("change", ["name eth0", "name eth7"])
def test_device_that_the_other_implementation_took_returns_to_the_host(
    host: Host,
    container: Container,
    implementations: dict[str, cni.Implementation],
    change: str,
) -> None:
    """An upgrade between ADD and DEL.  The reference finds the device by its name only."""
    plug(host, f"link set {DEVICE} down")
    attachment = cni.Attachment(conf(), container, "eth0", "host-device", {})
    result = cni.call(host, other(host, implementations), "ADD", attachment)
    reference = host.implementation and host.implementation.name == "reference"
    if reference:
        host.leaves(f"file {FILES}/*", f"dir {FILES}")
    elif change != "name eth0":
        container.run("ip", "link", "set", "eth0", "down")
        container.run("ip", "link", "set", "eth0", *change.split())

    host.cni("DEL", with_previous_result(conf(), result), container)

    assert host.link(DEVICE)["address"] == MAC


# GC


@NO_GC
def test_gc_returns_devices_that_are_not_on_the_list(host: Host) -> None:
    kept, gone = host.container(), host.container()
    plug(host, "link add dev1 type veth peer name far1", "link set dev1 up")
    host.cni("ADD", conf("1.1.0"), gone)
    host.cni("ADD", conf("1.1.0", device="dev1"), kept)
    keep = [{"containerID": "c1", "ifname": "eth0"}]

    host.cni("GC", conf("1.1.0") | {"cni.dev/valid-attachments": keep, "name": "other"})
    assert DEVICE not in host.links()
    host.cni("GC", conf("1.1.0"))
    assert DEVICE not in host.links()

    host.cni("GC", conf("1.1.0") | {"cni.dev/valid-attachments": keep})
    assert DEVICE in host.links()
    assert kept.link("eth0")["ifalias"] == "dev1"
