# SPDX-License-Identifier: Apache-2.0
"""Checks of what containers share: a plugin that runs for several at once, and a pool of addresses."""

from typing import Any

from cnihook.conformance import host
from cnihook.conformance.case import Case
from cnihook.conformance.check import CheckFailed, CheckSkipped, Deviation
from cnihook.conformance.check import plugin_check as check
from cnihook.conformance.host import Container

# Several at the same time

_AT_ONCE = 4


@check("parallel", "ADDs and DELs for different containers work at the same time", "3 Lifecycle & Ordering")
def parallel(case: Case) -> None:
    case.require()
    containers = [case.container() for _ in range(_AT_ONCE)]
    answers = case.call_all("ADD", [(one, case.conf(one)) for one in containers])
    for container, answer in zip(containers, answers, strict=True):
        case.keep(container, answer, f"ADD of {container.id}, at once with others")
    if case.profile.allocates or case.kind == "ipam":
        _expect_different(case, containers)
    if case.kind == "interface":
        names = [name for one in containers for name in _on_host(case, one)]
        if len(set(names)) < len(names):
            raise CheckFailed(f"two containers have one interface of the host: {', '.join(names)}")
    for answer in case.call_all("DEL", [(one, case.later(one)) for one in containers]):
        answer.expect_success("DEL, at once with others")


def _on_host(case: Case, container: Container) -> "list[str]":
    with host.host() as rtnl:
        bridges = {link.name for link in rtnl.links() if link.kind == "bridge"}
    interfaces = case.results[container.id].get("interfaces") or []
    return [one["name"] for one in interfaces if not one.get("sandbox") and one["name"] not in bridges]


def _expect_different(case: Case, containers: "list[Container]") -> None:
    """Raise if two containers have the same address.

    Raises Deviation if containers that are added one after the other also have it, otherwise CheckFailed.
    """
    listed = [str(ip.get("address")) for one in containers for ip in case.results[one.id].get("ips") or []]
    twice = ", ".join(sorted({one for one in listed if listed.count(one) > 1}))
    if twice:
        one, other = case.added(), case.added()
        if _addresses(case, one) & _addresses(case, other):
            raise Deviation(f"two containers have address {twice}, also when added one after the other")
        raise CheckFailed(f"two containers that are added at the same time have address {twice}")


# IPAM plugins


def _addresses(case: Case, container: Container) -> "set[str]":
    return {str(ip.get("address")) for ip in case.results[container.id].get("ips") or []}


@check(
    "ipam-different",
    "two containers get different addresses",
    "5 Delegated plugins (IPAM)",
    kinds=("ipam",),
    must=False,
)
def ipam_different(case: Case) -> None:
    case.require()
    if not case.profile.allocates:
        raise CheckSkipped("its addresses are those of its configuration")
    one, other = case.added(), case.added()
    if both := _addresses(case, one) & _addresses(case, other):
        raise CheckFailed(f"two containers have {', '.join(sorted(both))}")


@check(
    "ipam-released",
    "an address is free again after DEL, though the namespace is gone",
    "2 DEL",
    kinds=("ipam",),
    must=False,
)
def ipam_released(case: Case) -> None:
    case.require()
    if case.subject.name != "host-local":
        raise CheckSkipped("the suite has no configuration with a small pool for it")
    conf: dict[str, Any] = {
        "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.77.0.0/30"}]]}
    }  # one address
    for number in range(3):
        container = case.container()
        answer = case.call("ADD", case.conf(container, **conf), container)
        case.keep(container, answer, f"ADD number {number + 1}, after DEL")
        container.destroy()
        case.delete(container, conf={**case.later(container), **conf}, CNI_NETNS="")
