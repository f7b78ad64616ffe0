# SPDX-License-Identifier: Apache-2.0
"""DEL of an attachment whose link was changed by a user or a tool: alias, group, name.

Docker Compose and OpenShift label links by their alias, and network managers set groups.
"""

from typing import Any

import pytest

from tests.support.host.host import Container, Host
from tests.support.plugins import cni
from tests.support.plugins.cni import CniFailure, with_previous_result
from tests.support.plugins.ipam import leased

IPAM = {"type": "host-local", "ranges": [[{"subnet": "10.9.0.0/24"}], [{"subnet": "fd09::/64"}]]}
KINDS: dict[str, dict[str, Any]] = {
    "bridge": {"bridge": "br9", "isGateway": True, "ipMasq": True},
    "ptp": {"ipMasq": True},
    "macvlan": {"master": "dev0"},
    "tap": {},
    "host-device": {"device": "dev0"},
}
LABEL = "web server"


@pytest.fixture
def implementation(implementations: dict[str, cni.Implementation]) -> cni.Implementation:
    """Return cnihook's plugins only: the reference does not mark links."""
    return implementations["builtin"]


def attach(host: Host, container: Container, kind: str) -> tuple[dict[str, Any], Any]:
    """Attach the container; return the configuration and the result."""
    if "dev0" in KINDS[kind].values():
        host.run(*"ip link add dev0 address 02:00:00:00:00:07 type veth peer name ved0".split())
        host.run(*"ip link set dev0 up".split())
        host.save_state()
    conf = {"cniVersion": "1.0.0", "name": "net1", "type": kind, "ipam": IPAM, **KINDS[kind]}
    return conf, host.cni("ADD", conf, container)


def host_end(result: Any) -> str:
    names = [each["name"] for each in result["interfaces"] if not each.get("sandbox")]
    return str(next(name for name in names if name.startswith("veth")))


def expect_gone(host: Host, container: Container) -> None:
    assert container.links() == {"lo"} and leased(host) == []


@pytest.mark.parametrize("recorded", [True, False], ids=["with-result", "without-result"])
@pytest.mark.parametrize("change", [f"alias={LABEL}", "alias=", "alias=net1 c1", "group=7"])
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "host-device"])
def test_del_removes_link_whose_mark_was_changed(
    host: Host, container: Container, kind: str, change: str, recorded: bool
) -> None:
    conf, result = attach(host, container, kind)
    container.run("ip", "link", "set", "eth0", *change.split("=", 1))
    if kind in ("bridge", "ptp"):
        host.run("ip", "link", "set", host_end(result), *change.split("=", 1))

    host.cni("DEL", with_previous_result(conf, result) if recorded else conf, container)

    expect_gone(host, container)


@pytest.mark.parametrize("kind", ["bridge", "ptp"])
@pytest.mark.parametrize("alias", [None, LABEL], ids=["alias kept", "alias changed"])
def test_del_removes_pair_whose_host_end_was_renamed(
    host: Host, container: Container, kind: str, alias: str | None
) -> None:
    conf, result = attach(host, container, kind)
    change = ("alias", alias) if alias else ()
    host.run("ip", "link", "set", host_end(result), "name", "web0", *change)

    host.cni("DEL", with_previous_result(conf, result), container)

    expect_gone(host, container)


@pytest.mark.parametrize("kind", ["tap", "macvlan"])
def test_del_removes_link_that_was_renamed_in_the_container(
    host: Host, container: Container, kind: str
) -> None:
    conf, result = attach(host, container, kind)
    container.run("ip", "link", "set", "eth0", "down", "name", "lan0")

    host.cni("DEL", with_previous_result(conf, result), container)

    expect_gone(host, container)


@pytest.mark.parametrize("kind", ["bridge", "ptp", "macvlan", "tap"])
def test_del_that_leaves_the_interface_fails_and_keeps_its_address(
    host: Host, container: Container, kind: str
) -> None:
    """The alias names another network, but the address is leased by this network."""
    conf, result = attach(host, container, kind)
    if kind in ("bridge", "ptp"):
        name = host_end(result)
        host.run("ip", "link", "set", name, "down", "name", "web0", "alias", "net2 c1 eth0")
    else:
        container.run("ip", "link", "set", "eth0", "alias", "net2 c1 eth0")
    conf = with_previous_result(conf, result)

    with pytest.raises(CniFailure, match=r"eth0 in .* still has (10\.9\.0\.2/24|fd09::2/64), which stays"):
        host.cni("DEL", conf, container)
    assert leased(host) == ["10.9.0.2", "fd09::2"]

    container.run("ip", "link", "delete", "eth0")
    host.cni("DEL", conf, container)
    expect_gone(host, container)


def test_device_that_cannot_be_found_keeps_its_address(host: Host, container: Container) -> None:
    """host-device: its file is gone, and the alias was changed."""
    conf, result = attach(host, container, "host-device")
    host.run("rm", "-r", "/run/cnihook/host-device")
    container.run("ip", "link", "set", "eth0", "alias", "a text that is not the name of a link")
    conf = with_previous_result(conf, result)

    with pytest.raises(CniFailure, match="which stays leased"):
        host.cni("DEL", conf, container)
    assert leased(host) == ["10.9.0.2", "fd09::2"]

    container.run("ip", "link", "set", "eth0", "alias", "dev0")
    host.cni("DEL", conf, container)
    host.run("ip", "link", "set", "dev0", "up", "alias", "")


@pytest.mark.parametrize("kind", ["bridge", "ptp", "macvlan", "tap"])
@pytest.mark.parametrize("labelled", [False, True])
def test_late_del_leaves_the_interface_of_another_network(
    host: Host, container: Container, kind: str, labelled: bool
) -> None:
    """net2 has made an interface with the same name since, and a user has labelled it."""
    conf, result = attach(host, container, kind)
    container.run("ip", "link", "delete", "eth0")
    other = conf | {"name": "net2"}
    second = host.cni("ADD", other, container)
    if labelled:
        where = host if kind in ("bridge", "ptp") else container
        name = host_end(second) if kind in ("bridge", "ptp") else "eth0"
        where.run("ip", "link", "set", name, "alias", LABEL)

    host.cni("DEL", with_previous_result(conf, result), container)

    assert container.links() == {"lo", "eth0"} and leased(host) == []
    host.cni("DEL", with_previous_result(other, second), container)
    assert container.links() == {"lo"} and leased(host, "/var/lib/cni/networks/net2") == []


@pytest.mark.parametrize("change", ["group 7", "alias uplink", "name br8", "name br8 alias uplink"])
@pytest.mark.parametrize("namespace", ["alive", "gone"])
def test_changed_bridge_is_removed_with_its_last_port(
    host: Host, container: Container, change: str, namespace: str
) -> None:
    conf, result = attach(host, container, "bridge")
    host.run("ip", "link", "set", "br9", *change.split())
    if namespace == "gone":
        container.destroy()
        if change == "name br8 alias uplink":
            # nothing shows that cnihook made it
            host.leaves("link br8*", "address br8*", "route br8*")

    host.cni("DEL", with_previous_result(conf, result), None, CNI_CONTAINERID="c1", CNI_NETNS=container.path)

    assert leased(host) == []


@pytest.mark.parametrize("kind", ["bridge", "ptp"])
def test_pair_of_the_reference_is_removed_with_a_label(
    host: Host, container: Container, kind: str, implementations: dict[str, cni.Implementation]
) -> None:
    mine, host.implementation = host.implementation, implementations["reference"]
    conf, result = attach(host, container, kind)
    host.implementation = mine
    host.run("ip", "link", "set", host_end(result), "alias", LABEL)
    host.leaves(*implementations["reference"].leaves, "nft: *", "link br9*", "address br9*")

    host.cni("DEL", with_previous_result(conf, result), container)

    expect_gone(host, container)
