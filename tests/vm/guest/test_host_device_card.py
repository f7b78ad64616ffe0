# SPDX-License-Identifier: Apache-2.0
"""host-device with hardware: two network cards on a PCI bus, with a cable between them.

When a card's namespace ends, the kernel moves the card to the initial network namespace, not to the
throw-away host.
"""

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from tests.netns.differences import SPEC_1_1
from tests.support.host.host import Container, Host
from tests.support.host.namespace import Namespace
from tests.support.host.sockets import connect
from tests.support.plugins import cni
from tests.support.plugins.cni import CniFailure
from tests.support.plugins.hostdev import IPAM, conf
from tests.support.plugins.ipam import leased

E1000, VIRTIO = "0000:00:10.0", "0000:00:11.0"
DEVICES = Path("/sys/bus/pci/devices")
LEFT_DOWN = pytest.mark.known_difference(
    "DEL leaves the card down", here="up, as it was", right="SPEC.md, 2 DEL"
)


def interface(card: str) -> str:
    """Return the name of a card's interface, when the kernel has moved it to this process's namespace."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        for name in (*DEVICES.glob(f"{card}/net/*"), *DEVICES.glob(f"{card}/virtio*/net/*")):
            return name.name
        time.sleep(0.05)
    raise TimeoutError(f"the card {card} has not returned to the initial namespace")


@pytest.fixture(autouse=True, scope="module")
def drivers() -> None:
    subprocess.run(["modprobe", "-a", "e1000", "virtio_net"], check=True)


@pytest.fixture
def cards(host: Host) -> Iterator[None]:
    """Move the cards to the host, as nic0 (e1000) and nic1 (virtio), both down, until the host ends."""
    for name, card in (("nic0", E1000), ("nic1", VIRTIO)):
        ifname = interface(card)
        subprocess.run(["ip", "link", "set", ifname, "down"], check=True)
        subprocess.run(["ip", "link", "set", ifname, "netns", str(host.holder), "name", name], check=True)
    host.save_state()
    yield


def kernelpath(host: Host, name: str) -> str:
    return host.run("realpath", f"/sys/class/net/{name}/device").stdout.strip()


@pytest.mark.parametrize(("name", "card"), [("nic0", E1000), ("nic1", VIRTIO)])
@pytest.mark.usefixtures("cards")
def test_card_is_found_on_its_bus(host: Host, container: Container, name: str, card: str) -> None:
    """The interface of a virtio card belongs to a device below the card."""
    mac = host.link(name)["address"]
    for keys in (
        {"pciBusID": card},
        {"kernelpath": kernelpath(host, name)},
        {"pciBusID": "0000:ff:ff.7", "runtimeConfig": {"deviceID": card}},
    ):
        sent = conf(device=None, **cast(dict[str, Any], keys))
        result = host.cni("ADD", sent, container)

        assert result["interfaces"] == [{"name": "eth0", "mac": mac, "sandbox": container.path}]
        assert "UP" in container.link("eth0")["flags"]
        host.cni("DEL", sent, container)
        assert host.link(name)["address"] == mac


@pytest.mark.known_difference(
    "`device` wins over the runtime's deviceID", here="deviceID wins", right="cnihook"
)
@pytest.mark.usefixtures("cards")
def test_device_id_of_the_runtime_takes_precedence(host: Host, container: Container) -> None:
    """Every container of the network would get `device`; the runtime has reserved another for this one."""
    host.cni("ADD", conf(device="nic0", runtimeConfig={"deviceID": VIRTIO}), container)

    assert container.link("eth0")["ifalias"] == "nic1"


@LEFT_DOWN
@pytest.mark.usefixtures("cards")
def test_traffic_goes_from_card_to_card(host: Host, container: Container) -> None:
    host.run("ip", "address", "add", "10.9.0.1/24", "dev", "nic0")
    host.run("ip", "link", "set", "nic0", "up")
    host.run("ip", "link", "set", "nic1", "up")
    host.save_state()

    host.cni("ADD", conf(device=None, pciBusID=VIRTIO, ipam=IPAM), container)

    assert connect(container, host, "10.9.0.1") == "10.9.0.2"


@pytest.mark.known_difference(
    "DEL leaves the container's MAC address", here="restored", right="SPEC.md, 2 DEL"
)
@pytest.mark.usefixtures("cards")
def test_card_has_its_mac_address_again(host: Host, container: Container) -> None:
    host.cni("ADD", conf(device=None, pciBusID=VIRTIO), container)

    container.run("ip", "link", "set", "eth0", "address", "02:00:00:00:00:99")

    host.cni("DEL", conf(device=None, pciBusID=VIRTIO), container)


@pytest.mark.known_difference(
    "an ADD that fails leaves the card in the container", here="it returns to the host", right="cnihook"
)
@pytest.mark.usefixtures("cards")
def test_failed_add_returns_the_card_to_the_host(host: Host, container: Container) -> None:
    ipam = {"type": "host-local", "ranges": []}
    with pytest.raises(CniFailure):
        host.cni("ADD", conf(device=None, pciBusID=E1000, ipam=ipam), container)


@pytest.fixture
def driven_by_a_program() -> Iterator[None]:
    """Bind the card to a stub driver, as DPDK needs it; then it has no interface."""
    subprocess.run(["modprobe", "uio_pci_generic"], check=True)
    interface(E1000)  # wait until the previous test's card is back, or the kernel would lose it
    card = DEVICES / E1000
    bind(card, "uio_pci_generic")
    yield
    bind(card, "e1000")


def bind(card: Path, driver: str) -> None:
    (card / "driver_override").write_text(driver)
    (card / "driver/unbind").write_text(card.name)
    Path("/sys/bus/pci/drivers_probe").write_text(card.name)
    assert (card / "driver").resolve().name == driver


@pytest.mark.usefixtures("driven_by_a_program")
@pytest.mark.parametrize("keys", [{"pciBusID": E1000}, {"runtimeConfig": {"deviceID": E1000}}])
@SPEC_1_1
def test_card_without_interface_is_not_moved(host: Host, container: Container, keys: dict[str, Any]) -> None:
    """The result names the card, and has the addresses for the program that drives it."""
    sent = conf("1.1.0", device=None, ipam=IPAM, **keys)
    result = host.cni("ADD", sent, container)

    assert result["interfaces"] == [{"name": "eth0", "sandbox": container.path, "pciID": E1000}]
    assert result["ips"][0]["interface"] == 0
    assert container.links() == {"lo"}
    host.cni("CHECK", sent | {"prevResult": result}, container)

    host.cni("DEL", sent, container)
    assert leased(host) == []
    del sent["ipam"]
    assert host.cni("ADD", sent, container)["interfaces"] == result["interfaces"]


# On the machine itself


@pytest.mark.known_difference(
    "after the namespace has ended, the card keeps the container's name, and the lease stays",
    here="both are restored",
    right="SPEC.md, 2 DEL",
)
@pytest.mark.parametrize("changed", [False, True], ids=["as it was", "changed"])
def test_card_whose_namespace_ended_gets_its_name_back(
    implementation: cni.Implementation, changed: bool
) -> None:
    """The kernel returns it as eth7; the hardware path identifies the card."""
    machine = Namespace(os.getpid(), "/proc/self/ns/net", "machine")
    name = interface(VIRTIO)
    machine.run("ip", "link", "set", name, "down")
    machine.run("ip", "link", "set", name, "name", "nic1", "alias", "uplink", "mtu", "1400")
    machine.run("ip", "link", "set", "nic1", "up")
    container = subprocess.Popen(["unshare", "--net", "sleep", "2147483647"])
    env = {"CNI_CONTAINERID": "c1", "CNI_NETNS": f"/proc/{container.pid}/ns/net", "CNI_ARGS": ""}
    attachment = cni.Attachment(conf(device="nic1", ipam=IPAM), None, "eth7", "host-device", env)
    while os.readlink(env["CNI_NETNS"]) == os.readlink("/proc/self/ns/net"):
        time.sleep(0.01)
    cni.call(cast(Host, machine), implementation, "ADD", attachment)
    if changed:
        enter = ["nsenter", f"--net={env['CNI_NETNS']}", "ip", "link", "set", "eth7"]
        subprocess.run([*enter, "mtu", "1300"], check=True)
        subprocess.run([*enter, "alias", "mine"], check=True)

    container.kill()
    container.wait()
    try:
        cni.call(cast(Host, machine), implementation, "DEL", attachment)

        link = machine.link("nic1")
        assert (link["ifalias"], link["mtu"], "UP" in link["flags"]) == ("uplink", 1400, True)
        assert leases() == []
        assert not os.path.exists("/run/cnihook/host-device")
    finally:
        machine.run("ip", "link", "set", interface(VIRTIO), "down", "alias", "", "mtu", "1500")


def leases() -> list[str]:
    return [name for name in os.listdir("/var/lib/cni/networks/net1") if name[0].isdigit()]
