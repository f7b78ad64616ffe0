# SPDX-License-Identifier: Apache-2.0
"""Checks of DEL in every situation, of CHECK, and of how a chained plugin treats the previous result."""

from typing import Any

from cnihook.conformance import host
from cnihook.conformance.case import Case
from cnihook.conformance.check import CheckFailed, CheckSkipped, Deviation
from cnihook.conformance.check import plugin_check as check
from cnihook.conformance.host import Container
from cnihook.conformance.profiles import STAND_IN
from cnihook.fast.address import IPNet
from cnihook.types import versions
from cnihook.types.result import Result, Route

_DEL = "2 DEL"
_CHECK = "2 CHECK"
_CHAINED = "5 ADD Success"


# DEL


@check("quiet", "DEL, CHECK, GC and STATUS print nothing when they succeed", "2 CNI operations", must=False)
def quiet(case: Case) -> None:
    container = case.added()
    for command, since in {**versions.SINCE, "DEL": "0.1.0"}.items():
        if not versions.at_least(case.version, since):
            continue
        if command in ("GC", "STATUS"):
            answer = case.call(command, case.conf(container, chained=False))
        else:
            answer = case.call(command, case.later(container), container)
        if answer.status == 0 and answer.stdout.strip():
            raise CheckFailed(f"{command} prints on stdout")


@check("del", "after DEL the interface is gone from the container", _DEL, kinds=("interface",), must=False)
def delete(case: Case) -> None:
    container = case.added()
    case.delete(container)
    if case.created(container):
        raise CheckFailed(f"{container.ifname} is still in the container")


@check(
    "del-host",
    "after DEL no interface of the result is left on the host, except a bridge",
    _DEL,
    kinds=("interface", "chained"),
    must=False,
)
def delete_host(case: Case) -> None:
    container = case.container()
    before = host.links()
    case.add(container)
    case.delete(container)
    with host.host() as rtnl:
        left = [link.name for link in rtnl.links() if link.name not in before and link.kind != "bridge"]
    if left:
        raise CheckFailed(f"left on the host: {', '.join(left)}")


@check("del-twice", "a second DEL succeeds", _DEL)
def delete_twice(case: Case) -> None:
    container = case.added()
    case.delete(container, "the first DEL")
    case.delete(container, "the second DEL")


@check("del-empty-netns", "DEL succeeds with CNI_NETNS empty, or not set", _DEL, must=False)
def delete_empty_netns(case: Case) -> None:
    container = case.added()
    case.delete(container, "DEL with CNI_NETNS empty", CNI_NETNS="")
    case.delete(container, "DEL without CNI_NETNS", CNI_NETNS=None)


@check("del-netns-gone", "DEL succeeds when the namespace is gone", _DEL, must=False)
def delete_netns_gone(case: Case) -> None:
    container = case.added()
    container.destroy()
    case.delete(container, "DEL with the namespace gone")
    case.delete(container, "a second DEL with the namespace gone")


@check("del-link-gone", "DEL succeeds when the interface is gone", _DEL, kinds=("interface", "chained"))
def delete_link_gone(case: Case) -> None:
    container = case.added()
    with container.inside() as rtnl:
        rtnl.delete_link(rtnl.link(container.ifname))
    case.delete(container, f"DEL with {container.ifname} gone")


@check(
    "del-host-links-gone",
    "DEL succeeds when the host's links are gone: the plugin's own, a bridge, a parent link",
    _DEL,
    kinds=("interface", "chained"),
    must=False,
)
def delete_host_links_gone(case: Case) -> None:
    container = case.added()
    with host.host() as rtnl:
        for name in {link.name for link in rtnl.links()} - {"lo"}:
            if rtnl.find_link(name):  # the kernel deletes a veth's peer with it
                rtnl.delete_link_named(name)
    case.delete(container, "DEL with nothing but lo on the host")


@check("del-no-prev-result", "DEL succeeds without prevResult", _DEL, must=False)
def delete_no_prev_result(case: Case) -> None:
    container = case.added()
    case.delete(container, "DEL without prevResult", conf=case.conf(container, chained=False))


@check("del-never-added", "DEL succeeds for a container that was never ADDed", _DEL, must=False)
def delete_never_added(case: Case) -> None:
    container = case.container()
    conf = case.conf(container, chained=False)
    case.delete(container, "DEL without ADD", conf=conf)
    case.delete(container, "DEL without ADD or namespace", conf=conf, CNI_NETNS="")


@check("del-failed-add", "DEL succeeds after an ADD that failed", "3 Lifecycle & Ordering", must=False)
def delete_failed_add(case: Case) -> None:
    case.require()
    container = case.container()
    answer = case.call("ADD", case.conf(container), container, CNI_NETNS="/run/netns/nowhere")
    conf = case.conf(container, chained=False)
    what = "failed" if answer.status else "was for another namespace"
    case.delete(container, f"DEL with the true namespace after an ADD that {what}", conf=conf)
    case.delete(container, f"DEL after an ADD that {what}", conf=conf, CNI_NETNS="/run/netns/nowhere")


@check("del-bad-prev-result", "DEL succeeds when prevResult makes no sense", _DEL, must=False)
def delete_bad_prev_result(case: Case) -> None:
    container = case.added()
    case.need_operation("CHECK")
    bad = {"cniVersion": case.version, "ips": [{"address": "x"}]}
    case.delete(container, conf=case.later(container, prevResult=bad), what="DEL with a bad prevResult")


@check("del-others", "DEL of one container leaves another container's interface and addresses", _DEL)
def delete_others(case: Case) -> None:
    one, other = case.added(), case.added()
    before = other.addresses(case.ifname(other))
    case.delete(one)
    if other.addresses(case.ifname(other)) != before:
        raise CheckFailed(f"DEL of {one.id} has changed {case.ifname(other)} of {other.id}")
    if versions.at_least(case.version, "0.4.0"):
        answer = case.call("CHECK", case.later(other), other)
        answer.expect_success(f"CHECK of {other.id} after DEL of {one.id}")


@check(
    "add-after-del",
    "after DEL, ADD works again for the same container",
    _DEL,
    kinds=("interface", "loopback", "ipam"),
    must=False,
)
def add_after_delete(case: Case) -> None:
    container = case.added()
    case.delete(container)
    case.add(container)


@check(
    "del-undoes",
    "DEL undoes the plugin's own changes, so that ADD works again, and leaves the interface",
    _DEL,
    kinds=("chained",),
    must=False,
)
def delete_undoes(case: Case) -> None:
    container = case.added()
    case.delete(container)
    if not case.created(container):
        raise CheckFailed(f"DEL has removed {container.ifname}, which another plugin made")
    case.add(container)


# CHECK


@check("check", "CHECK succeeds right after ADD", _CHECK, since="0.4.0")
def check_after_add(case: Case) -> None:
    container = case.added()
    case.call("CHECK", case.later(container), container).expect_success("CHECK after ADD")


@check(
    "check-route",
    "CHECK finds a route without a gateway of its own, which ADD made with the address's gateway",
    _CHECK,
    kinds=("interface",),
    since="0.4.0",
)
def check_route(case: Case) -> None:
    case.require()
    container = case.container()
    if case.profile.conf.get("ipam") != {"type": STAND_IN}:
        raise CheckSkipped("its IPAM plugin is its own")
    result = Result(None, case.addresses(container), [Route(IPNet.parse("203.0.113.0/24"))])
    case.ipam.answer(STAND_IN, "ADD", result.to_json(case.version), container_id=container.id)
    case.add(container)
    case.call("CHECK", case.later(container), container).expect_success("CHECK after ADD")


@check(
    "check-prev-result",
    "CHECK without prevResult is refused",
    _CHECK,
    kinds=("interface", "chained"),
    since="0.4.0",
    must=False,
)
def check_prev_result(case: Case) -> None:
    container = case.added()
    answer = case.call("CHECK", case.conf(container, chained=False), container)
    answer.expect_error("CHECK without prevResult")


@check(
    "check-later-plugins", "CHECK accepts what a later plugin of the chain has added", _CHECK, since="0.4.0"
)
def check_later_plugins(case: Case) -> None:
    container = case.added()
    result = case.results[container.id]
    with host.host() as rtnl:
        rtnl.add_veth("later0", "later1")
        mac = rtnl.link("later0").mac
    interfaces = [*(result.get("interfaces") or []), {"name": "later0", "mac": mac}]
    changed = {**result, "interfaces": interfaces, "dns": {"nameservers": ["10.77.0.54"]}}
    answer = case.call("CHECK", case.later(container, prevResult=changed), container)
    answer.expect_success("CHECK with an interface and DNS added to prevResult")


@check(
    "check-link-gone",
    "CHECK notices that the interface is gone",
    _CHECK,
    kinds=("interface",),
    since="0.4.0",
    must=False,
)
def check_link_gone(case: Case) -> None:
    container = case.added()
    with container.inside() as rtnl:
        rtnl.delete_link(rtnl.link(container.ifname))
    answer = case.call("CHECK", case.later(container), container)
    answer.expect_error(f"CHECK with {container.ifname} gone")


@check(
    "check-address-gone",
    "CHECK notices that an address is gone",
    _CHECK,
    kinds=("interface",),
    since="0.4.0",
    must=False,
)
def check_address_gone(case: Case) -> None:
    container = case.added()
    with container.inside() as rtnl:
        link = rtnl.link(container.ifname)
        mine = [one.net for one in rtnl.addresses(link) if one.net.address.version == 4]
        if not mine:
            raise CheckSkipped("it sets no IPv4 address")
        rtnl.delete_address(link, mine[0])
    answer = case.call("CHECK", case.later(container), container)
    answer.expect_error(f"CHECK with {mine[0]} gone from {container.ifname}")


@check(
    "check-not-added",
    "CHECK of a container that is not attached is refused",
    _CHECK,
    kinds=("interface", "ipam"),
    since="0.4.0",
    must=False,
)
def check_not_added(case: Case) -> None:
    one, other = case.added(), case.container()
    conf = case.later(one)
    answer = case.call("CHECK", {**case.conf(other), "prevResult": conf["prevResult"]}, other)
    answer.expect_error(f"CHECK of {other.id}, with the prevResult of {one.id}")


# Chains


def _keeps(result: Any, before: Any) -> "list[str]":
    """Return the parts of the previous result that are not in this one."""
    lost = []
    for key in ("interfaces", "ips", "routes"):
        names = {"interfaces": "name", "ips": "address", "routes": "dst"}
        now = {str(one.get(names[key])) for one in result.get(key) or [] if isinstance(one, dict)}
        lost += [f"{key}: {one[names[key]]}" for one in before.get(key) or [] if one[names[key]] not in now]
    if before.get("dns") and (result.get("dns") or {}) != before["dns"]:
        lost.append("dns")
    return lost


@check(
    "prev-result-passed-on",
    "a chained plugin's result contains the previous result",
    _CHAINED,
    kinds=("chained",),
)
def prev_result_passed_on(case: Case) -> None:
    case.require()
    for version in (one for one in ("0.3.1", "0.4.0", case.version) if one in case.subject.versions):
        case.version = version
        container = case.container()
        conf = case.conf(container)
        result = case.add(container)
        if lost := _keeps(result, conf["prevResult"]):
            raise CheckFailed(f"in version {version} it has lost {', '.join(lost)}")


@check(
    "prev-result-missing",
    "without prevResult, ADD succeeds or reports what is missing",
    "2 ADD",
    kinds=("chained",),
    must=False,
)
def prev_result_missing(case: Case) -> None:
    case.require()
    container = case.container()
    answer = case.call("ADD", case.conf(container, chained=False), container)
    if answer.status == 0:
        answer.result("ADD without prevResult")
    else:
        answer.expect_error("ADD without prevResult")


@check(
    "prev-result-tolerated",
    "an interface plugin that gets a prevResult works, or rejects it",
    _CHAINED,
    kinds=("interface", "loopback"),
    must=False,
)
def prev_result_tolerated(case: Case) -> None:
    case.require()
    container = case.container()
    before = {
        "cniVersion": case.version,
        "interfaces": [{"name": "other0", "mac": "02:00:00:00:00:01", "sandbox": container.path}],
        "ips": [{"interface": 0, "address": "10.78.0.2/24"}],
    }
    if case.version < "1.0.0":
        before["ips"] = [{"version": "4", "interface": 0, "address": "10.78.0.2/24"}]
    answer = case.call("ADD", case.conf(container, prevResult=before), container)
    if answer.status == 0:
        case.keep(container, answer)
    else:
        answer.expect_error("ADD with a prevResult")


@check(
    "prev-result-bad",
    "an ADD whose prevResult makes no sense is refused",
    "5 Error",
    kinds=("chained",),
    must=False,
)
def prev_result_bad(case: Case) -> None:
    case.require()
    container = case.container()
    for bad in ("x", {"cniVersion": case.version, "ips": [{"address": "x"}]}):
        answer = case.call("ADD", case.conf(container, prevResult=bad), container)
        answer.expect_error(f"ADD with prevResult {bad!r}")


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

    Raises Deviation if containers that are added one after the other also have it, otherwise Broken.
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
    _DEL,
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
