# SPDX-License-Identifier: Apache-2.0
"""Checks of how an interface plugin calls its IPAM plugin.  A stand-in IPAM plugin records the calls."""

import json
from typing import Any

from cnihook.conformance import host
from cnihook.conformance.case import Case
from cnihook.conformance.check import CheckFailed, CheckSkipped, Deviation, deviation
from cnihook.conformance.check import plugin_check as check
from cnihook.conformance.fake_plugin import Call
from cnihook.conformance.profiles import STAND_IN
from cnihook.fast.address import Address, IPNet
from cnihook.types.result import Result, Route

_PROTOCOL = "4 Delegated Plugin protocol"
_PROCEDURE = "4 Delegated plugin execution procedure"
_KIND = ("interface",)
# With this key the plugin calls the stand-in, whatever IPAM plugin its own configuration names.
_WITH_STAND_IN: dict[str, Any] = {"ipam": {"type": STAND_IN}}
_SAME = ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_ARGS", "CNI_PATH")


def _need_delegate(case: Case) -> None:
    case.require()
    if not case.profile.delegates:
        raise CheckSkipped("it calls no IPAM plugin")


def _calls(case: Case, command: str) -> "list[Call]":
    return [call for call in case.ipam.calls() if call.command == command]


def _call(case: Case, command: str, what: str) -> Call:
    calls = _calls(case, command)
    if not calls:
        raise CheckFailed(f"{what}: the IPAM plugin gets no {command}")
    return calls[-1]


@check(
    "delegate-add",
    "on ADD the IPAM plugin gets the whole configuration and the same variables",
    _PROTOCOL,
    kinds=_KIND,
)
def delegate_add(case: Case) -> None:
    _need_delegate(case)
    container = case.container()
    conf = case.conf(container, **_WITH_STAND_IN, args={"org.example": ["<&>", "é", 1]})
    answer = case.call("ADD", conf, container, CNI_ARGS="IgnoreUnknown=1;A=b")
    case.keep(container, answer)
    call = _call(case, "ADD", "ADD")
    for name in _SAME:
        if call.variables.get(name) != answer.variables[name]:
            raise CheckFailed(
                f"{name} is {call.variables.get(name)!r} there, {answer.variables[name]!r} here"
            )
    if call.conf != conf:
        raise Deviation(f"it gets another configuration: {call.stdin}")


@check("delegate-del", "on DEL the IPAM plugin gets DEL, with the same variables", _PROCEDURE, kinds=_KIND)
def delegate_del(case: Case) -> None:
    _need_delegate(case)
    container = case.container()
    case.add(container, **_WITH_STAND_IN)
    case.delete(container, conf={**case.later(container), **_WITH_STAND_IN})
    call = _call(case, "DEL", "DEL")
    if call.variables.get("CNI_CONTAINERID") != container.id:
        raise CheckFailed("the IPAM plugin gets the DEL of something else")
    if call.conf.get("name") != "conformance":
        raise Deviation(f"the IPAM plugin gets another configuration: {call.stdin}")


@check("delegate-del-no-netns", "the IPAM plugin gets DEL without a namespace, too", _PROCEDURE, kinds=_KIND)
def delegate_del_no_netns(case: Case) -> None:
    _need_delegate(case)
    for what in ("CNI_NETNS empty", "the namespace gone"):
        container = case.container()
        case.add(container, **_WITH_STAND_IN)
        conf = {**case.later(container), **_WITH_STAND_IN}
        if what == "the namespace gone":
            container.destroy()
            answer = case.call("DEL", conf, container)
        else:
            answer = case.call("DEL", conf, container, CNI_NETNS="")
        if answer.status != 0 and not _calls(case, "DEL"):  # the specification says "should"
            raise Deviation(f"DEL with {what}: refused, and the IPAM plugin gets no DEL")
        _call(case, "DEL", f"DEL with {what}")
        case.ipam.forget()


@check(
    "delegate-del-error", "an IPAM plugin's error on DEL is reported", _PROCEDURE, kinds=_KIND, must=False
)
def delegate_del_error(case: Case) -> None:
    _need_delegate(case)
    container = case.container()
    case.add(container, **_WITH_STAND_IN)
    case.ipam.fail(STAND_IN, "DEL", msg="lease is stuck")
    answer = case.call("DEL", {**case.later(container), **_WITH_STAND_IN}, container)
    answer.expect_error("DEL whose IPAM plugin fails", names=["lease is stuck"])


@check(
    "delegate-check",
    "on CHECK the IPAM plugin gets CHECK, and its error is reported",
    _PROCEDURE,
    kinds=_KIND,
    since="0.4.0",
    must=False,
)
def delegate_check(case: Case) -> None:
    _need_delegate(case)
    container = case.container()
    case.add(container, **_WITH_STAND_IN)
    conf = {**case.later(container), **_WITH_STAND_IN}
    case.call("CHECK", conf, container).expect_success("CHECK")
    if "prevResult" not in _call(case, "CHECK", "CHECK").conf:
        raise CheckFailed("the IPAM plugin's CHECK has no prevResult")
    case.ipam.fail(STAND_IN, "CHECK", msg="lease is lost")
    answer = case.call("CHECK", conf, container)
    answer.expect_error("CHECK whose IPAM plugin fails", names=["lease is lost"])


@check(
    "delegate-gc",
    "on GC the IPAM plugin gets GC with the list, and its error is reported",
    "2 GC",
    kinds=_KIND,
    since="1.1.0",
)
def delegate_gc(case: Case) -> None:
    _need_delegate(case)
    container = case.container()
    case.add(container, **_WITH_STAND_IN)
    conf = {**case.conf(container, chained=False), **_WITH_STAND_IN}
    sent = json.loads(case.gc(container, conf=conf).stdin)
    if _call(case, "GC", "GC").conf != sent:
        raise Deviation("the IPAM plugin's GC has another configuration")
    case.ipam.fail(STAND_IN, "GC", msg="pool is stuck")
    with deviation():
        case.call("GC", sent).expect_error("GC whose IPAM plugin fails", names=["pool is stuck"])


@check(
    "delegate-status",
    "on STATUS the IPAM plugin gets STATUS, and its error is reported",
    "2 STATUS",
    kinds=_KIND,
    since="1.1.0",
)
def delegate_status(case: Case) -> None:
    _need_delegate(case)
    case.container()
    conf = {**case.conf(case.containers[0], chained=False), **_WITH_STAND_IN}
    case.call("STATUS", conf).expect_success("STATUS")
    _call(case, "STATUS", "STATUS")
    case.ipam.fail(STAND_IN, "STATUS", code=50, msg="pool is empty")
    case.call("STATUS", conf).expect_error(
        "STATUS whose IPAM plugin has code 50", [50], names=["pool is empty"]
    )


@check("delegate-refuses", "an IPAM plugin's error on ADD is reported", _PROCEDURE, kinds=_KIND, must=False)
def delegate_refuses(case: Case) -> None:
    _need_delegate(case)
    container = case.container()
    case.ipam.answer(STAND_IN, "ADD", _pool_is_empty(case), container_id=container.id, status=1)
    answer = case.call("ADD", case.conf(container, **_WITH_STAND_IN), container)
    answer.expect_error("ADD whose IPAM plugin fails", names=["pool is empty"])


def _pool_is_empty(case: Case) -> "dict[str, object]":
    return {"cniVersion": case.version, "code": 11, "msg": "pool is empty"}


@check(
    "delegate-refuses-clean",
    "an ADD whose IPAM plugin fails leaves no interface, even without a DEL",
    "2 ADD",
    kinds=_KIND,
    must=False,
)
def delegate_refuses_clean(case: Case) -> None:
    _need_delegate(case)
    container = case.container()
    case.ipam.answer(STAND_IN, "ADD", _pool_is_empty(case), container_id=container.id, status=1)
    before = host.links()
    case.call("ADD", case.conf(container, **_WITH_STAND_IN), container)
    if case.created(container):
        raise CheckFailed(f"{container.ifname} is in the container")
    with host.host() as rtnl:
        left = [one.name for one in rtnl.links() if one.name not in before and one.kind != "bridge"]
    if left:
        raise CheckFailed(f"left on the host: {', '.join(left)}")
    if missing := before - host.links():
        raise CheckFailed(f"gone from the host: {', '.join(sorted(missing))}")


@check(
    "delegate-released",
    "when ADD fails after that of the IPAM plugin, the IPAM plugin gets DEL",
    _PROCEDURE,
    kinds=_KIND,
    must=False,
)
def delegate_released(case: Case) -> None:
    _need_delegate(case)
    container = case.container()
    # No interface is in this gateway's subnet, so the kernel rejects a route through it.
    route = Route(IPNet.parse("198.51.100.0/24"), Address.parse("203.0.113.1"))
    result = Result(None, case.addresses(container), [route])
    case.ipam.answer(STAND_IN, "ADD", result.to_json(case.version), container_id=container.id)
    answer = case.call("ADD", case.conf(container, **_WITH_STAND_IN), container)
    if answer.status == 0:
        raise CheckSkipped("it sets no routes, and the suite has no other way to make it fail")
    _call(case, "DEL", "an ADD that failed on a route")


@check(
    "delegate-missing",
    "an IPAM plugin that is not in CNI_PATH is an error",
    _PROCEDURE,
    kinds=_KIND,
    must=False,
)
def delegate_missing(case: Case) -> None:
    _need_delegate(case)
    container = case.container()
    conf = case.conf(container, ipam={"type": "there-is-no-such-plugin"})
    answer = case.call("ADD", conf, container)
    answer.expect_error("ADD with an unknown IPAM plugin", names=["there-is-no-such-plugin"])


@check(
    "delegate-stderr",
    "what an IPAM plugin prints on stderr is passed on to stderr",
    _PROCEDURE,
    kinds=_KIND,
    must=False,
)
def delegate_stderr(case: Case) -> None:
    _need_delegate(case)
    container = case.container()
    result = Result(None, case.addresses(container)).to_json(case.version)
    case.ipam.answer(STAND_IN, "ADD", result, container_id=container.id, stderr="a warning on stderr\n")
    answer = case.call("ADD", case.conf(container, **_WITH_STAND_IN), container)
    case.keep(container, answer)
    if "a warning on stderr" not in answer.stderr:
        raise CheckFailed("the IPAM plugin's stderr is lost")
