# SPDX-License-Identifier: Apache-2.0
"""bandwidth: DEL with parts missing, CHECK, GC, and the change from one implementation to the other."""

from typing import Any

import pytest

from tests.netns.differences import NO_GC, SPEC_1_1
from tests.support.host.host import Container, Host
from tests.support.host.sockets import connect
from tests.support.plugins import bridge, cni
from tests.support.plugins.bandwidth import (
    CONTAINER,
    EGRESS,
    HOST,
    INGRESS,
    add,
    addressed,
    conf,
    ifb_name,
    ifbs,
    linked,
    outer_of,
    pair,
    qdiscs,
)
from tests.support.plugins.cni import CniFailure
from tests.support.runtimes.oci import wait_for

BOTH = INGRESS | EGRESS
IFB = ifb_name("c1")
OUTER = "vc1eth0"

LEAVES_QDISCS = pytest.mark.known_difference(
    "DEL removes the ifb, and packets redirected to it are lost",
    here="DEL removes both limits",
    right="cnihook",
)
NOT_SEEN = pytest.mark.known_difference(
    "CHECK does not find a missing or changed limit", here="finds it", right="SPEC.md, 2 CHECK"
)


@pytest.fixture
def container(host: Host) -> Container:
    return linked(host)


def destroy(host: Host, container: Container) -> None:
    """Delete the namespace; wait for its link to go, which takes the kernel a second on a busy machine."""
    container.destroy()
    host.before = host.before.without(f"link {OUTER}")
    wait_for(lambda: OUTER not in host.links(), f"{OUTER} to go")


# DEL


@LEAVES_QDISCS
@pytest.mark.parametrize("with_result", [True, False], ids=["result", "no result"])
def test_del_leaves_the_link_without_limits(host: Host, container: Container, with_result: bool) -> None:
    """The link may stay in use, so it has to work."""
    addressed(host, container)
    sent = add(host, container, conf(**BOTH))
    if not with_result:
        # Only the result names the host end, which another program made.  The plugin knows the other end.
        del sent["prevResult"]

    host.cni("DEL", sent, container)

    assert qdiscs(host) == set()
    assert connect(container, host, HOST) == CONTAINER


@LEAVES_QDISCS
def test_del_removes_a_foreign_filter_with_the_qdisc(host: Host, container: Container) -> None:
    """The qdisc is the plugin's, and the container's packets must not be lost."""
    addressed(host, container)
    sent = add(host, container, conf(**BOTH))
    rule = "protocol all prio 9 u32 match u32 0 0 action mirred ingress redirect dev lo"
    host.run(*f"tc filter add dev {OUTER} ingress {rule}".split())

    host.cni("DEL", sent, container)

    assert qdiscs(host) == set()
    assert connect(container, host, HOST) == CONTAINER


@pytest.mark.parametrize("netns", ["/run/netns/c1", ""], ids=["path", "no path"])
@pytest.mark.parametrize("with_result", [True, False], ids=["result", "no result"])
def test_del_after_the_namespace_has_gone(
    host: Host, container: Container, netns: str, with_result: bool
) -> None:
    sent = add(host, container, conf(**BOTH))
    destroy(host, container)
    if not with_result:
        del sent["prevResult"]

    host.cni("DEL", sent, container, CNI_NETNS=netns)

    assert ifbs(host) == set()


def test_del_after_the_network_lost_its_limits(host: Host, container: Container) -> None:
    sent = add(host, container, conf(**BOTH))

    host.cni("DEL", conf(prevResult=sent["prevResult"]), container)

    assert ifbs(host) == set()


@pytest.mark.known_difference(
    "DEL fails with a damaged previous result", here="succeeds", right="SPEC.md, 2 DEL"
)
@pytest.mark.parametrize("alive", [True, False], ids=["alive", "gone"])
@pytest.mark.parametrize("result", [{"interfaces": 7}, {"cniVersion": "9.9"}], ids=["shape", "version"])
def test_del_succeeds_with_an_unreadable_result(
    host: Host, container: Container, result: Any, alive: bool
) -> None:
    add(host, container, conf(**BOTH))
    if not alive:
        destroy(host, container)

    host.cni("DEL", conf(**BOTH, prevResult=result), container)

    assert ifbs(host) == set()


@pytest.mark.known_difference(
    "DEL fails with limits that ADD refuses", here="succeeds", right="SPEC.md, 2 DEL"
)
def test_del_succeeds_with_invalid_limits(host: Host, container: Container) -> None:
    sent = add(host, container, conf(**BOTH))

    host.cni("DEL", sent | {"egressBurst": 0}, container)

    assert qdiscs(host) == set()


@pytest.mark.parametrize("version", ["0.3.0", "1.0.0"])
def test_del_can_be_repeated(host: Host, container: Container, version: str) -> None:
    """Before 0.4.0, DEL gets no result."""
    sent = add(host, container, conf(version, **BOTH))

    for _ in range(2):
        host.cni("DEL", sent, container)

    assert ifbs(host) == set()


def test_del_without_an_add_succeeds(host: Host, container: Container) -> None:
    host.cni("DEL", conf(**BOTH), container)


@pytest.mark.parametrize("end", ["host", "container"])
def test_del_after_the_link_has_gone(host: Host, container: Container, end: str) -> None:
    sent = add(host, container, conf(**BOTH))
    (host if end == "host" else container).run("ip", "link", "del", OUTER if end == "host" else "eth0")
    host.before = host.before.without(f"link {OUTER}").without("in c1: link eth0")

    host.cni("DEL", sent, container)

    assert ifbs(host) == set()


def test_del_after_the_ifb_has_gone(host: Host, container: Container) -> None:
    sent = add(host, container, conf(**BOTH))
    host.run("ip", "link", "del", IFB)

    host.cni("DEL", sent, container)


def test_del_of_one_container_leaves_the_others(host: Host, container: Container) -> None:
    second = linked(host)
    first = add(host, container, conf(**BOTH))
    sent = add(host, second, conf(**BOTH))
    before = {qdisc for qdisc in qdiscs(host) if outer_of(second) in qdisc}

    host.cni("DEL", first, container)

    assert ifbs(host) == {ifb_name("c2")}
    assert before <= qdiscs(host)
    host.cni("CHECK", sent, second)


@pytest.mark.known_difference(
    "DEL removes any link with the ifb's name", here="removes an ifb only", right="cnihook"
)
def test_foreign_link_with_the_name_of_the_ifb_stays(host: Host, container: Container) -> None:
    host.run("ip", "link", "add", IFB, "type", "bridge")
    host.save_state()

    sent = add(host, container, conf(**BOTH))
    host.cni("CHECK", sent, container)
    host.cni("DEL", sent, container)

    assert IFB in host.links()


# The change from one plugin to the other


@pytest.mark.parametrize("broken", ["nothing", "namespace", "result", "both"])
def test_the_other_plugin_can_check_and_delete(
    host: Host, container: Container, implementations: dict[str, cni.Implementation], broken: str
) -> None:
    """A host may change from one implementation to the other while containers run."""
    sent = add(host, container, conf(**BOTH))
    (other,) = (one for one in implementations.values() if one is not host.implementation)
    host.implementation = other
    host.cni("CHECK", sent, container)
    if broken in ("namespace", "both"):
        destroy(host, container)
    if broken in ("result", "both"):
        del sent["prevResult"]

    host.cni("DEL", sent, container)

    assert ifbs(host) == set()


@pytest.mark.known_difference(
    "DEL of one interface removes the ifb of another", here="leaves it", right="SPEC.md, 2 DEL"
)
@pytest.mark.parametrize("with_result", [True, False], ids=["result", "no result"])
def test_del_leaves_what_the_reference_made_for_another_interface(
    host: Host,
    container: Container,
    implementations: dict[str, cni.Implementation],
    implementation: cni.Implementation,
    with_result: bool,
) -> None:
    pair(host, container, "eth1")
    host.implementation = implementations["reference"]
    first = add(host, container, conf(**BOTH))
    host.implementation = implementation
    second = add(host, container, conf(**INGRESS), "eth1")
    if not with_result:
        del second["prevResult"]

    host.cni("DEL", second, container, "eth1")

    assert ifbs(host) == {IFB}
    host.cni("CHECK", first, container)


# CHECK


@pytest.mark.parametrize(
    ("version", "limits"),
    [("0.4.0", BOTH), ("1.0.0", INGRESS), ("1.0.0", EGRESS), pytest.param("1.1.0", BOTH, marks=SPEC_1_1)],
    ids=["0.4.0", "ingress", "egress", "1.1.0"],
)
def test_check_accepts_what_add_made(
    host: Host, container: Container, version: str, limits: dict[str, int]
) -> None:
    host.cni("CHECK", add(host, container, conf(version, **limits)), container)


def test_check_ignores_other_qdiscs(host: Host, container: Container) -> None:
    """A qdisc below a limit may set the order in which packets are sent."""
    sent = add(host, container, conf(**BOTH))
    for dev in (OUTER, IFB):
        host.run(*f"tc qdisc add dev {dev} parent 1:1 handle 5: pfifo limit 100".split())

    host.cni("CHECK", sent, container)


TBF = "tbf rate 20mbit burst 50000 limit 112500"
EGRESS_TBF = "tbf rate 16mbit burst 40000 limit 90000"


@pytest.mark.parametrize(
    "damage",
    [
        f"tc qdisc change dev {OUTER} handle 1: root {TBF.replace('20mbit', '21mbit')}",
        f"tc qdisc change dev {OUTER} handle 1: root {TBF.replace('50000', '60000')}",
        f"tc qdisc change dev {OUTER} handle 1: root {TBF.replace('112500', '200000')}",
        f"tc qdisc change dev {IFB} handle 1: root {EGRESS_TBF.replace('16mbit', '17mbit')}",
        pytest.param(f"tc qdisc del dev {OUTER} root", marks=NOT_SEEN),
        pytest.param(f"tc qdisc replace dev {OUTER} root handle 2: pfifo", marks=NOT_SEEN),
        pytest.param(f"tc qdisc del dev {IFB} root", marks=NOT_SEEN),
        f"ip link del {IFB}",
        pytest.param(f"ip link set {IFB} down", marks=NOT_SEEN),
        pytest.param(f"tc qdisc del dev {OUTER} ingress", marks=NOT_SEEN),
        pytest.param(f"tc filter del dev {OUTER} ingress", marks=NOT_SEEN),
        f"ip link del {OUTER}",
    ],
    ids=[
        "rate", "burst", "limit", "rate of the ifb", "none", "another kind", "none on the ifb", "no ifb",
        "ifb down", "no redirection", "no filter", "no link",
    ],
)  # fmt: skip
def test_check_finds_damage(host: Host, container: Container, damage: str) -> None:
    sent = add(host, container, conf(**BOTH))
    host.run(*f"tc qdisc change dev {OUTER} handle 1: root {TBF}".split())
    host.run(*f"tc qdisc change dev {IFB} handle 1: root {EGRESS_TBF}".split())
    host.cni("CHECK", sent, container)  # so the error below comes from the damage

    host.run(*damage.split())
    if damage.endswith(f"link del {OUTER}"):
        host.before = host.before.without(f"link {OUTER}").without("in c1: link eth0")

    with pytest.raises(CniFailure):
        host.cni("CHECK", sent, container)


def test_check_finds_a_changed_configuration(host: Host, container: Container) -> None:
    sent = add(host, container, conf(**BOTH))

    with pytest.raises(CniFailure, match="(?i)rate"):
        host.cni("CHECK", sent | {"ingressRate": 8_000_000}, container)


# GC


@NO_GC
def test_gc_removes_the_ifbs_that_are_not_kept(host: Host) -> None:
    """The ifbs stay if DEL never ran, because they are not in the container."""
    stale, kept = linked(host), linked(host)
    pair(host, kept, "eth1")
    for container in (stale, kept):
        add(host, container, conf("1.1.0", **BOTH))
    add(host, kept, conf("1.1.0", **EGRESS) | {"name": "net2"}, "eth1")

    keep = [{"containerID": kept.name, "ifname": "eth0"}]
    host.cni("GC", conf("1.1.0", **{"cni.dev/valid-attachments": keep}))

    assert ifbs(host) == {ifb_name("c2"), ifb_name("c2", "net2")}


@SPEC_1_1
def test_gc_without_a_list_changes_nothing(host: Host, container: Container) -> None:
    add(host, container, conf("1.1.0", **BOTH))

    host.cni("GC", conf("1.1.0", **BOTH))

    assert ifbs(host) == {IFB}


@SPEC_1_1
def test_status_always_succeeds(host: Host) -> None:
    host.cni("STATUS", conf("1.1.0"))


# A link that bridge made


@pytest.mark.parametrize("with_result", [True, False], ids=["result", "no result"])
def test_del_of_a_chain_removes_the_ifb(host: Host, container: Container, with_result: bool) -> None:
    network = bridge.network("10.8.0.0/24", isGateway=True)
    bridged, result = bridge.add(host, network)
    limited = host.cni("ADD", conf(**BOTH, prevResult=result), bridged)
    previous = {"prevResult": limited} if with_result else {}

    host.cni("DEL", conf(**BOTH, **previous), bridged)
    host.cni("DEL", network | previous, bridged)

    assert ifbs(host) == set()
