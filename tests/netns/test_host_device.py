# SPDX-License-Identifier: Apache-2.0
"""host-device: what ADD does with an interface of the host.

Each test also shows that DEL restores it: the leak check compares its name, state, MAC, MTU and modes.
"""

from typing import Any

import pytest

from tests.netns.differences import NO_STATUS
from tests.support.host.host import Container, Host
from tests.support.host.sockets import connect
from tests.support.plugins.cni import CniFailure
from tests.support.plugins.hostdev import DEVICE, FAR_ADDRESS, IPAM, MAC, NEAR_ADDRESS, conf, plug
from tests.support.plugins.ipam import leased

LEFT_DOWN = pytest.mark.known_difference(
    "DEL leaves the device down on the host", here="it is up, as before", right="SPEC.md, 2 DEL"
)
STAYS_INSIDE = pytest.mark.known_difference(
    "an ADD that fails leaves the device in the container", here="it returns to the host", right="cnihook"
)


def test_device_is_in_the_container_with_the_requested_name(host: Host, container: Container) -> None:
    """The device is down before ADD: the reference leaves it down, which the leak check would report."""
    plug(host, f"link set {DEVICE} down")

    result = host.cni("ADD", conf(), container)

    assert result == {
        "cniVersion": "1.0.0",
        "interfaces": [{"name": "eth0", "mac": MAC, "sandbox": container.path}],
    }
    assert "UP" in container.link("eth0")["flags"]
    assert DEVICE not in host.links()


@LEFT_DOWN
def test_del_restores_the_state_of_the_device(host: Host, container: Container) -> None:
    plug(host)
    host.cni("ADD", conf(), container)

    host.cni("DEL", conf(), container)

    assert "UP" in host.link(DEVICE)["flags"]


@LEFT_DOWN
def test_traffic_passes_through_the_device(host: Host, container: Container) -> None:
    plug(host)
    result = host.cni("ADD", conf(ipam=IPAM), container)

    assert result["ips"] == [{"interface": 0, "address": f"{NEAR_ADDRESS}/24", "gateway": FAR_ADDRESS}]
    assert connect(container, host, FAR_ADDRESS) == NEAR_ADDRESS
    host.cni("CHECK", conf(ipam=IPAM, prevResult=result), container)


@LEFT_DOWN
def test_routes_of_ipam_are_set(host: Host, container: Container) -> None:
    plug(host)
    routes = [{"dst": "0.0.0.0/0"}, {"dst": "192.0.2.0/24", "gw": "10.9.0.9"}]

    result = host.cni("ADD", conf(ipam=IPAM | {"routes": routes}), container)

    assert result["routes"] == routes
    assert {("default", FAR_ADDRESS, "eth0"), ("192.0.2.0/24", "10.9.0.9", "eth0")} < set(container.routes())


@pytest.mark.parametrize("hwaddr", [MAC, MAC.upper(), MAC.replace(":", "-")])
def test_device_is_found_by_its_hardware_address(host: Host, container: Container, hwaddr: str) -> None:
    plug(host, f"link set {DEVICE} address 02:00:00:00:00:aa", f"link set {DEVICE} down")
    hwaddr = hwaddr.replace("11", "aa")

    host.cni("ADD", conf(device=None, hwaddr=hwaddr), container)

    assert container.link("eth0")["ifalias"] == DEVICE


@pytest.mark.known_difference(
    "looks for deviceID on the PCI bus only", here="also on the auxiliary bus", right="cnihook"
)
def test_device_id_may_be_on_the_auxiliary_bus(host: Host, container: Container) -> None:
    """Parts of a split network card are there.  /sys is a fake, because no test machine has such a card."""
    plug(host, f"link set {DEVICE} down")
    host.run("busybox", "mount", "-t", "tmpfs", "tmpfs", "/sys/bus")
    host.run("mkdir", "-p", f"/sys/bus/auxiliary/devices/mlx5_core.sf.4/net/{DEVICE}")

    host.cni("ADD", conf(device=None, runtimeConfig={"deviceID": "mlx5_core.sf.4"}), container)
    host.run("busybox", "umount", "/sys/bus")

    assert container.link("eth0")["ifalias"] == DEVICE


@pytest.mark.known_difference(
    "drops the DNS of its IPAM plugin",
    here="keeps it, unless the network has its own",
    right="SPEC.md, 5 Success",
)
def test_dns_of_ipam_is_kept_unless_the_network_has_its_own(host: Host, container: Container) -> None:
    host.write("/etc/resolv.d", "nameserver 192.0.2.53\n")
    plug(host, f"link set {DEVICE} down")
    own = {"nameservers": ["192.0.2.99"]}
    ipam = IPAM | {"resolvConf": "/etc/resolv.d"}

    assert host.cni("ADD", conf(ipam=ipam), container)["dns"] == {"nameservers": ["192.0.2.53"]}
    host.cni("DEL", conf(ipam=ipam), container)
    assert host.cni("ADD", conf(ipam=ipam, dns=own), container)["dns"] == own


# Configurations that are refused


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"device": None}, 'specify either "device", "hwaddr", "kernelpath" or "pciBusID"'),
        ({"device": "absent0"}, "failed to find host device"),
        ({"device": None, "hwaddr": "02:00:00:00:00"}, "02:00:00:00:00"),
        ({"device": None, "hwaddr": "02:00:00:00:00:99"}, "failed to find host device"),
        (
            {"device": None, "kernelpath": "/sys/class/net/dev0"},
            "absolute and begin with /sys/devices/",
        ),
        ({"device": None, "kernelpath": "/sys/devices/virtual/none"}, "failed to find"),
        ({"device": None, "pciBusID": "0000:99:99.9"}, "0000:99:99.9"),
        ({"device": None, "pciBusID": "../../../devices/virtual"}, ""),
    ],
)
def test_invalid_or_missing_device_is_refused(
    host: Host, container: Container, keys: dict[str, Any], message: str
) -> None:
    plug(host)

    with pytest.raises(CniFailure) as caught:
        host.cni("ADD", conf(**keys), container)

    assert message in caught.value.msg


@pytest.mark.known_difference(
    "accepts any deviceID, and uses `device` instead", here="refused", right="cnihook", fixed_in="1.9.1"
)
def test_unknown_device_id_is_refused(host: Host, container: Container) -> None:
    """The runtime has promised this device to the container, so another one is wrong."""
    plug(host)

    with pytest.raises(CniFailure, match="runtime config DeviceID 0000:99:99.9 not found or unsupported"):
        host.cni("ADD", conf(runtimeConfig={"deviceID": "0000:99:99.9"}), container)


@pytest.mark.parametrize("name", ["lo", "br0"])
def test_device_that_cannot_leave_its_namespace_stays(host: Host, container: Container, name: str) -> None:
    plug(host, "link add br0 type bridge", "link set br0 up")

    with pytest.raises(CniFailure) as caught:
        host.cni("ADD", conf(device=name, ipam=IPAM), container)

    assert "nvalid argument" in str(caught.value)


@pytest.mark.known_difference(
    'the error for a device in another container is "not found"',
    here="the error names the container",
    right="either",
)
def test_error_names_the_container_that_has_the_device(host: Host, container: Container) -> None:
    plug(host, f"link set {DEVICE} down")
    host.cni("ADD", conf(), container)

    with pytest.raises(CniFailure) as caught:
        host.cni("ADD", conf(), host.container())

    assert caught.value.details == f"container c1 has {DEVICE} as eth0"


@STAYS_INSIDE
def test_interface_name_that_the_container_has_already_is_refused(host: Host, container: Container) -> None:
    plug(host, f"address add 10.8.0.1/24 dev {DEVICE}")
    container.run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "eth1")
    host.save_state()

    with pytest.raises(CniFailure, match="eth0 already exists"):
        host.cni("ADD", conf(), container)


@pytest.mark.known_difference(
    "moving fails if the container has a link with the device's name on the host",
    here="renames the device for the move",
    right="cnihook",
)
def test_container_may_have_a_link_with_the_devices_name_on_the_host(
    host: Host, container: Container
) -> None:
    """On neither way may the plugin confuse the device with a link that has its name."""
    plug(host)
    container.run("ip", "link", "add", DEVICE, "type", "veth", "peer", "name", "far1")
    host.save_state()

    host.cni("ADD", conf(), container)
    assert container.link("eth0")["address"] == MAC

    host.cni("DEL", conf(), container)
    assert host.link(DEVICE)["address"] == MAC


@pytest.mark.known_difference(
    "if the version cannot express the result, the error comes after the device is moved",
    here="the error comes before",
    right="cnihook",
)
def test_version_that_cannot_express_the_result_is_refused_first(host: Host, container: Container) -> None:
    """Before 0.3.0 a result has addresses only, and without IPAM there are none."""
    plug(host)

    with pytest.raises(CniFailure, match="no valid IP addresses"):
        host.cni("ADD", conf("0.2.0"), container)


# A failed ADD


@STAYS_INSIDE
def test_device_returns_to_the_host_if_ipam_fails(host: Host, container: Container) -> None:
    plug(host)
    host.leaves("dir /var/lib/cni/networks/*")

    with pytest.raises(CniFailure):
        host.cni("ADD", conf(ipam={"type": "host-local", "ranges": []}), container)

    assert "eth0" not in container.links()


@STAYS_INSIDE
def test_failed_add_restores_the_addresses_and_routes_of_the_host(host: Host, container: Container) -> None:
    """A mistake in a configuration must not cut the host off."""
    plug(
        host,
        f"link set {DEVICE} alias uplink",
        f"address add 10.8.0.1/24 dev {DEVICE}",
        f"address add 2001:db8:8::1/64 dev {DEVICE} nodad",
        f"route add default via 10.8.0.254 dev {DEVICE} metric 7",
        f"route add 10.8.0.254 dev {DEVICE}",
        f"route add 192.0.2.0/24 via 10.8.0.254 dev {DEVICE} table 77",
        f"route add 2001:db8:1::/48 via 2001:db8:8::2 dev {DEVICE}",
    )
    unreachable = {"dst": "192.0.2.0/24", "gw": "203.0.113.1"}

    with pytest.raises(CniFailure, match="192.0.2.0/24"):
        host.cni("ADD", conf(ipam=IPAM | {"routes": [unreachable]}), container)

    assert host.link(DEVICE)["ifalias"] == "uplink"
    assert leased(host) == []


@NO_STATUS
def test_status_reports_an_invalid_configuration(host: Host) -> None:
    plug(host)

    host.cni("STATUS", conf("1.1.0", ipam=IPAM))
    with pytest.raises(CniFailure, match="specify either"):
        host.cni("STATUS", conf("1.1.0", device=None))


# CHECK


@LEFT_DOWN
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("link set eth0 name eth9", "eth0"),
        ("link set eth0 address 02:00:00:00:00:99", "02:00:00:00:00:99"),
        (f"address del {NEAR_ADDRESS}/24 dev eth0", NEAR_ADDRESS),
    ],
)
def test_check_finds_what_has_changed(host: Host, container: Container, change: str, message: str) -> None:
    plug(host)
    result = host.cni("ADD", conf(ipam=IPAM), container)
    sent = conf(ipam=IPAM, prevResult=result)
    host.cni("CHECK", sent, container)

    container.run("ip", *change.split())

    with pytest.raises(CniFailure, match=message):
        host.cni("CHECK", sent, container)


def test_check_needs_the_result(host: Host, container: Container) -> None:
    plug(host, f"link set {DEVICE} down")
    host.cni("ADD", conf(), container)

    with pytest.raises(CniFailure, match="prevResult missing"):
        host.cni("CHECK", conf(), container)
