# SPDX-License-Identifier: Apache-2.0
"""Requests of a container, checked from inside and on the wire, by each way of requesting."""

import json
from typing import Any

import pytest

from tests.support.host.host import Host
from tests.support.host.namespace import Failed
from tests.support.plugins.cni import CHECKOUT
from tests.support.runtimes.oci import CNIHOOK, RESULTS, Runtime, bridge, configure, leases

RUN = str(CHECKOUT / "scripts" / "priv-net-run")
DEFAULT = {"dst": "0.0.0.0/0"}


@pytest.fixture
def networks(host: Host) -> None:
    def network(name: str, subnet: str) -> dict[str, Any]:
        raw = bridge(name, subnet)
        raw["plugins"][0]["ipam"]["routes"] = [DEFAULT]
        return raw

    configure(host, network("front", "10.1.0.0/24"), network("back", "10.2.0.0/24"))


@pytest.mark.usefixtures("networks")
def test_annotations_name_address_and_mac_of_each_network(runtime: Runtime) -> None:
    request = "front:ip=10.1.0.77,mac=02:00:00:00:00:77 back:ifname=data0,ip=10.2.0.9"
    container = runtime.run(annotations={"cnihook.networks": request})

    assert container.addresses("eth0") == ["10.1.0.77/24"]
    assert container.link("eth0")["address"] == "02:00:00:00:00:77"
    assert container.addresses("data0") == ["10.2.0.9/24"]


@pytest.mark.usefixtures("networks")
def test_arguments_of_the_hook_take_precedence_over_annotations(runtime: Runtime) -> None:
    annotations = {"cnihook.networks": "front", "cnihook.ip": "10.1.0.5"}
    container = runtime.run("c1", "--ip", "10.1.0.6", annotations=annotations)

    assert container.addresses("eth0") == ["10.1.0.6/24"]


def test_containers_started_at_once_get_different_ports(host: Host, runtime: Runtime) -> None:
    """Each requests one port of a range; the free ones change while they choose."""
    network = bridge("web", "10.1.0.0/24")
    network["plugins"].append({"type": "portmap", "capabilities": {"portMappings": True}})
    configure(host, network)
    names = [f"c{number}" for number in range(6)]
    for name in names:
        runtime.bundle(name, "--publish", "8000-8005:80")

    starting = {name: runtime.start(name) for name in names}
    for name, process in starting.items():
        runtime.started(name, process)

    records = [json.loads(host.read(f"{RESULTS}/web-{name}-eth0")) for name in names]
    ports = [port["hostPort"] for one in records for port in one["capabilityArgs"]["portMappings"]]
    assert sorted(ports) == list(range(8000, 8006))
    runtime.delete_at_once(names)


@pytest.mark.usefixtures("networks")
def test_annotation_of_the_working_group_is_read(runtime: Runtime) -> None:
    item = {"name": "back", "interface": "net1", "ips": ["10.2.0.7/24"]}
    container = runtime.run(annotations={"k8s.v1.cni.cncf.io/networks": json.dumps([item])})

    assert container.addresses("net1") == ["10.2.0.7/24"]


@pytest.mark.usefixtures("networks")
def test_requested_routes_are_set(runtime: Runtime) -> None:
    annotations = {
        "cnihook.networks": "front",
        "cnihook.route": "192.0.2.0/24=10.1.0.9,198.51.100.0/24",
        "cnihook.no-default-route": "true",
    }
    container = runtime.run(annotations=annotations)

    assert sorted(container.routes()) == [
        ("10.1.0.0/24", None, "eth0"),
        ("192.0.2.0/24", "10.1.0.9", "eth0"),
        ("198.51.100.0/24", "10.1.0.1", "eth0"),
    ]


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("order", [("inner", "outer"), ("outer", "inner")], ids="first-{0[0]}".format)
def test_default_route_uses_the_network_that_requests_it(
    runtime: Runtime, host: Host, order: tuple[str, str], version: int
) -> None:
    subnets = {"inner": "10.1.0.0/24", "outer": "10.2.0.0/24"}
    if version == 6:
        subnets = {"inner": "fd11::/64", "outer": "fd12::/64"}
    default = {"dst": "::/0" if version == 6 else "0.0.0.0/0"}
    networks: list[Any] = [bridge(name, subnet) for name, subnet in subnets.items()]
    for each in networks:
        each["plugins"][0]["ipam"]["routes"] = [default]
    configure(host, *networks)
    gateway = "fd12::1" if version == 6 else "10.2.0.1"
    items: list[Any] = [{"name": "inner"}, {"name": "outer", "default-route": [gateway]}]
    items.sort(key=lambda item: order.index(item["name"]))
    container = runtime.run(annotations={"k8s.v1.cni.cncf.io/networks": json.dumps(items)})

    listed = json.loads(container.run("ip", f"-{version}", "-j", "route", "show", "default").stdout)
    assert [(route.get("gateway"), route["dev"]) for route in listed] == [
        (gateway, f"eth{order.index('outer')}")
    ]


@pytest.mark.usefixtures("networks")
@pytest.mark.parametrize(
    ("annotations", "message"),
    [
        ({"cnihook.networks": "front", "cnihook.ip": "10.9.9.9"}, "10.9.9.9"),
        ({"cnihook.networks": "front", "cnihook.publish": "8080:80"}, "portmap"),
        ({"cnihook.ip": "10.1.0.5"}, "on 2 networks"),
        ({"cnihook.mac-address": "01:00:00:00:00:01"}, "multicast"),
        ({"cnihook.publish": "70000:80"}, "from 1 to 65535"),
        ({"cnihook.netwrks": "front"}, "unknown annotation"),
    ],
)
def test_request_that_cannot_be_served_stops_the_container(
    runtime: Runtime, host: Host, annotations: dict[str, str], message: str
) -> None:
    with pytest.raises(Failed) as failed:
        runtime.run(annotations=annotations)

    if runtime.name == "runc":  # crun shows nothing of a hook's output
        assert message in failed.value.stderr
    assert message in host.run(CNIHOOK, "logs", "c1").stdout
    assert leases(host, "front") == leases(host, "back") == []
    host.leaves("file /run/cnihook/log/c1")


@pytest.mark.usefixtures("networks")
def test_running_container_is_attached_as_requested(runtime: Runtime, host: Host) -> None:
    container = runtime.run(annotations={"cnihook.networks": ""})
    words = ("--network", "front:mac=02:00:00:00:00:01", "--ip", "10.1.0.99", "--no-default-route")
    host.run(CNIHOOK, "attach", "c1", *words)

    assert container.addresses("eth0") == ["10.1.0.99/24"]
    assert container.routes() == [("10.1.0.0/24", None, "eth0")]
    host.run(CNIHOOK, "detach", "c1")


@pytest.mark.usefixtures("networks")
def test_command_gets_what_it_requests(host: Host) -> None:
    words = ("--network", "front", "--ip=10.1.0.50", "--mac-address", "02:00:00:00:00:50")
    outcome = host.run(RUN, *words, "ip", "-j", "addr", "show", "eth0")

    (link,) = json.loads(outcome.stdout)
    assert link["address"] == "02:00:00:00:00:50"
    assert link["addr_info"][0]["local"] == "10.1.0.50"


@pytest.mark.usefixtures("networks")
def test_command_with_an_invalid_request_is_refused(host: Host) -> None:
    for words in (("--ip", "x"), ("--publish", "0:80"), ("--ip", "10.1.0.5"), ("--network", "none")):
        outcome = host.run(RUN, *words, "true", check=False)
        assert (outcome.returncode, outcome.stdout) == (125, "")
        assert outcome.stderr.startswith("priv-net-run: ") and outcome.stderr.count("\n") == 1
