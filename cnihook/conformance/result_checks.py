# SPDX-License-Identifier: Apache-2.0
"""Checks of the result that an ADD prints: its form, and that it is true."""

import json
from typing import Any

from cnihook.conformance import host, result_schema
from cnihook.conformance.case import Case
from cnihook.conformance.check import CheckFailed, CheckSkipped, Deviation
from cnihook.conformance.check import plugin_check as check
from cnihook.conformance.profiles import STAND_IN
from cnihook.linux import route_lookup
from cnihook.types import versions
from cnihook.types.result import Result

_ADD = "5 ADD Success"


@check("add", "ADD works with its configuration", "2 ADD")
def add(case: Case) -> None:
    if case.subject.unable:
        raise CheckSkipped(case.subject.unable)
    container = case.container()
    case.keep(container, case.call("ADD", case.conf(container), container))


@check("add-only-json", "a successful ADD prints its result and nothing else on stdout", _ADD)
def add_only_json(case: Case) -> None:
    case.require()
    container = case.container()
    answer = case.call("ADD", case.conf(container), container)
    answer.expect_success("ADD")
    try:
        output = json.loads(answer.stdout)
    except ValueError as error:
        raise CheckFailed(f"stdout is not JSON alone: {error}") from None
    if not isinstance(output, dict):
        raise CheckFailed("stdout is not a JSON object")


def _shape(version: str) -> None:
    @check(f"result-{version}", f"its result has the form and the cniVersion of {version}", _ADD)
    def shape(case: Case) -> None:
        if version not in case.subject.versions:
            raise CheckSkipped(f"it does not support {version}")
        if case.kind == "chained" and version in result_schema.LEGACY:
            raise CheckSkipped(f"{version} has no chains")
        case.version = version
        container = case.container()
        wrong = result_schema.problems(case.add(container), version)
        if wrong:
            raise CheckFailed("; ".join(wrong))


for _version in versions.ALL:
    _shape(_version)


def _modern(case: Case) -> None:
    case.require()
    if case.version in result_schema.LEGACY:
        raise CheckSkipped("it supports no version that has interfaces in a result")


def _interfaces(result: Any) -> "list[dict[str, Any]]":
    return [one for one in result.get("interfaces") or [] if isinstance(one, dict)]


@check(
    "result-interface",
    "CNI_IFNAME is in the container and in the result, with its MAC address",
    _ADD,
    kinds=("interface",),
)
def result_interface(case: Case) -> None:
    _modern(case)
    container = case.container(ifname="net1")
    result = case.add(container)
    if "net1" not in container.links():
        raise CheckFailed("there is no net1 in the container")
    matches = [one for one in _interfaces(result) if one.get("name") == "net1" and one.get("sandbox")]
    if not matches:
        raise CheckFailed("net1 with a sandbox is not among the result's interfaces")
    with container.inside() as rtnl:
        mac = rtnl.link("net1").mac
    listed_mac = str(matches[0].get("mac", "")).lower()
    if listed_mac and listed_mac != mac:
        raise CheckFailed(f"net1 has MAC address {mac}, the result says {listed_mac}")


@check(
    "result-sandbox",
    "an interface in the container has CNI_NETNS as its sandbox, an interface of the host has none",
    _ADD,
    kinds=("interface", "loopback", "chained"),
    must=False,
)
def result_sandbox(case: Case) -> None:
    _modern(case)
    container = case.container()
    result = case.add(container)
    inside, outside = container.links(), host.links()
    if not _interfaces(result):
        raise CheckFailed("the result has no interfaces")
    for one in _interfaces(result):
        name, sandbox = one.get("name"), one.get("sandbox", "")
        if sandbox not in ("", container.path):
            raise CheckFailed(f"{name} has sandbox {sandbox!r}, not {container.path!r}")
        if name not in (inside if sandbox else outside):
            raise CheckFailed(f"there is no {name} {'in the container' if sandbox else 'on the host'}")


@check(
    "result-indexes",
    "an address's interface is an index into interfaces, of an interface in the container",
    _ADD,
    kinds=("interface", "loopback", "chained"),
)
def result_indexes(case: Case) -> None:
    _modern(case)
    container = case.container()
    result = case.add(container)
    interfaces = _interfaces(result)
    ips = result.get("ips") or []
    if not ips:
        raise CheckSkipped("the result has no addresses")
    for index, ip in enumerate(ips):
        number = ip.get("interface")
        if number is None:
            raise Deviation(f"ips[{index}] has no interface")
        if not isinstance(number, int) or not 0 <= number < len(interfaces):
            raise CheckFailed(f"ips[{index}]: there is no interfaces[{number}]")
        if interfaces[number].get("sandbox") != container.path:
            raise Deviation(f"ips[{index}]: interfaces[{number}] is not in the container")


@check(
    "result-addresses",
    "the interface has the addresses of the result, with their host bits",
    _ADD,
    kinds=("interface",),
)
def result_addresses(case: Case) -> None:
    _modern(case)
    container = case.container()
    result = case.add(container)
    listed = [str(ip.get("address")) for ip in result.get("ips") or []]
    if not listed:
        raise CheckSkipped("the result has no addresses")
    if missing := set(listed) - set(container.addresses(container.ifname)):
        raise CheckFailed(f"{container.ifname} does not have {', '.join(sorted(missing))}")
    if case.profile.delegates and case.profile.conf.get("ipam") == {"type": STAND_IN}:
        assigned = [str(ip.net) for ip in case.addresses(container)]
        if listed != assigned:
            raise Deviation(f"the IPAM plugin assigned {assigned}, the result has {listed}")


@check(
    "result-routes",
    "the IPAM plugin's routes are in the result and in the container",
    "5 Delegated plugins (IPAM)",
    kinds=("interface",),
    must=False,
)
def result_routes(case: Case) -> None:
    _modern(case)
    _need_stand_in(case)
    container = case.container()
    result = case.add(container)
    if "198.51.100.0/24" not in [route.get("dst") for route in result.get("routes") or []]:
        raise CheckFailed("the route to 198.51.100.0/24 is not in the result")
    with container.inside() as rtnl:
        if "198.51.100.0/24" not in [str(route.dst) for route in route_lookup.routes(rtnl, 4)]:
            raise CheckFailed("the route to 198.51.100.0/24 is not in the container")


@check(
    "result-dns",
    "the IPAM plugin's DNS is in the result",
    "5 Delegated plugins (IPAM)",
    kinds=("interface",),
    must=False,
)
def result_dns(case: Case) -> None:
    _modern(case)
    _need_stand_in(case)
    result = case.added_result()
    if (result.get("dns") or {}).get("nameservers") != ["10.77.0.53"]:
        raise CheckFailed(
            f"the IPAM plugin returned nameserver 10.77.0.53, the result has {result.get('dns')}"
        )


def _need_stand_in(case: Case) -> None:
    if case.profile.conf.get("ipam") != {"type": STAND_IN}:
        raise CheckSkipped("its IPAM plugin is its own")


@check(
    "ipam-abbreviated",
    "an IPAM plugin's result has addresses and no interfaces, which it cannot know",
    "5 Delegated plugins (IPAM)",
    kinds=("ipam",),
)
def ipam_abbreviated(case: Case) -> None:
    _modern(case)
    result = case.added_result()
    if result.get("interfaces"):
        raise CheckFailed("the result has interfaces")
    ips = result.get("ips") or []
    if not ips:
        raise Deviation("the result has no addresses")
    if any("interface" in ip for ip in ips):
        raise CheckFailed("an address has an interface")


@check(
    "add-existing",
    "ADD is refused if the interface exists already, and the interface stays as it is",
    "2 ADD",
    kinds=("interface",),
)
def add_existing(case: Case) -> None:
    case.require()
    container = case.container()
    with container.inside() as rtnl:
        rtnl.add_veth(container.ifname, "far0")
        index = rtnl.link(container.ifname).index
    before = host.links()
    answer = case.call("ADD", case.conf(container), container)
    answer.expect_error(f"ADD with {container.ifname} in the container already")
    with container.inside() as rtnl:
        link = rtnl.find_link(container.ifname)
        if not link or link.index != index:
            raise Deviation(f"the {container.ifname} that existed before is gone")
    left = {name for name in host.links() - before if not name.startswith("cnf")}
    if left:
        raise Deviation(f"left on the host: {', '.join(sorted(left))}")


@check(
    "add-other-ifname",
    "a container can have two attachments, under two interface names",
    "3 Attachment Parameters",
    kinds=("interface", "ipam"),
    must=False,
)
def add_other_ifname(case: Case) -> None:
    case.require()
    container = case.container()
    if case.profile.own(1) != case.profile.own(2):
        raise CheckSkipped("its configuration works for one interface only")
    case.add(container)
    case.ipam.answer(STAND_IN, "ADD", _another(case), container_id=container.id)
    answer = case.call("ADD", case.conf(container), container, CNI_IFNAME="eth1")
    answer.expect_success("ADD for eth1, after ADD for eth0")
    case.delete(container, "DEL of eth1", CNI_IFNAME="eth1")
    if case.kind == "interface" and not case.created(container):
        raise CheckFailed("DEL of eth1 has removed eth0")


def _another(case: Case) -> "dict[str, Any]":
    container = case.containers[0]
    ips = case.addresses(container)
    for ip in ips:
        ip.net.address = ip.net.address + 100
    return Result(None, ips).to_json(case.version)
