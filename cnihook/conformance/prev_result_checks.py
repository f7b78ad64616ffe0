# SPDX-License-Identifier: Apache-2.0
"""Checks of CHECK, and of how a chained plugin treats the previous result."""

from typing import Any

from cnihook.conformance import host
from cnihook.conformance.case import Case
from cnihook.conformance.check import CheckFailed, CheckSkipped
from cnihook.conformance.check import plugin_check as check
from cnihook.conformance.profiles import STAND_IN
from cnihook.fast.address import IPNet
from cnihook.types.result import Result, Route

_CHECK = "2 CHECK"
_CHAINED = "5 ADD Success"


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
