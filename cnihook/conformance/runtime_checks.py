# SPDX-License-Identifier: Apache-2.0
"""Checks of how a runtime calls its plugins; those of ADD are in runtime_add_checks, and come first."""

import json
from typing import Any

from cnihook.conformance import runtime_add_checks
from cnihook.conformance.check import CheckFailed, Deviation, deviation
from cnihook.conformance.check import runtime_check as check
from cnihook.conformance.fake_plugin import Call
from cnihook.conformance.runtime import NETWORK, PLUGINS, RuntimeCase, expect_same

checks = check
__all__ = ["checks", "runtime_add_checks"]

_DEL = "3 Deleting an attachment"
_CHECK = "3 Checking an attachment"
_GC = "3 Garbage-collecting a network"
_LIST = "1 Configuration format"


# DEL


def _prev_results(calls: "list[Call]", expected: Any) -> None:
    for call in calls:
        expect_same(call.conf.get("prevResult"), expected, f"the prevResult of {call.type}")


@check("del-order", "del calls every plugin once, in reverse order", _DEL)
def del_order(case: RuntimeCase) -> None:
    case.works("add")
    case.works("del").expect_order("DEL", *reversed(PLUGINS))


@check("del-prev-result", "on del every plugin gets the final result of add", _DEL)
def del_prev_result(case: RuntimeCase) -> None:
    case.works("add")
    _prev_results(case.works("del").expect_order("DEL", *reversed(PLUGINS)), case.result(2))


@check("del-same", "del calls the plugins with the same variables as add", _DEL, must=False)
def delexpect_same(case: RuntimeCase) -> None:
    added = case.works("add", CNI_IFNAME="net7").expect_order("ADD", *PLUGINS)[0]
    for call in case.works("del", CNI_IFNAME="net7").expect_order("DEL", *reversed(PLUGINS)):
        for name in ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"):
            expect_same(call.variables.get(name), added.variables[name], f"{name} of {call.type}")


@check(
    "del-old-version",
    "before 0.4.0 no plugin gets a prevResult on del",
    "0.3.1 Network Configuration Lists",
    must=False,
)
def del_old_version(case: RuntimeCase) -> None:
    case.configure(version="0.3.1")
    case.works("add")
    for call in case.works("del").expect_order("DEL", *reversed(PLUGINS)):
        if "prevResult" in call.conf:
            raise CheckFailed(f"{call.type} gets a prevResult")


@check("del-error", "a failed del exits with an error, and can be repeated with the same prevResult", _DEL)
def del_error(case: RuntimeCase) -> None:
    case.works("add")
    case.plugins.fail("second", "DEL", msg="device is busy")
    case.run("del").expect_error("del", "device is busy")
    case.plugins.answer("second", "DEL")
    _prev_results(case.works("del").of("DEL"), case.result(2))


@check(
    "del-past-failure",
    "del goes on after a plugin that fails; the specification says that it halts",
    _DEL,
    must=False,
)
def del_past_failure(case: RuntimeCase) -> None:
    case.works("add")
    case.plugins.fail("second", "DEL")
    case.run("del").expect_order("DEL", *reversed(PLUGINS))


@check(
    "del-twice",
    "a second del, or one without add, succeeds, and has no prevResult",
    "3 Lifecycle & Ordering",
    must=False,
)
def del_twice(case: RuntimeCase) -> None:
    for what in ("without add", "a second time"):
        calls = case.works("del").expect_order("DEL", *reversed(PLUGINS))
        if what == "without add":
            case.works("add")
            case.works("del")
        for call in calls:
            if "prevResult" in call.conf:
                raise CheckFailed(f"del {what}: {call.type} gets a prevResult")


# CHECK


@check("check", "check calls every plugin in order, each with the final result of add", _CHECK)
def check_order(case: RuntimeCase) -> None:
    case.works("add")
    _prev_results(case.works("check").expect_order("CHECK", *PLUGINS), case.result(2))


@check("check-error", "a plugin that fails on CHECK makes check an error", _CHECK)
def check_error(case: RuntimeCase) -> None:
    case.works("add")
    case.plugins.fail("second", "CHECK", msg="address is gone")
    case.run("check").expect_error("check", "address is gone")


@check("check-disabled", "with disableCheck, check succeeds and calls no plugin", _CHECK)
def check_disabled(case: RuntimeCase) -> None:
    case.configure(disableCheck=True)
    case.works("add")
    case.works("check").expect_order("CHECK")


@check(
    "check-old-version",
    "before 0.4.0 there is no CHECK: check is an error, and calls no plugin",
    "2 CHECK",
    must=False,
)
def check_old_version(case: RuntimeCase) -> None:
    case.configure(version="0.3.1")
    case.works("add")
    ran = case.run("check")
    ran.expect_error("check of a network of 0.3.1")
    ran.expect_order("CHECK")


# GC


def _recent(case: RuntimeCase, **keys: Any) -> None:
    case.configure(version="1.1.0", **keys)


@check("gc", "gc calls every plugin in order, for no container", _GC)
def gc(case: RuntimeCase) -> None:
    _recent(case)
    for call in case.works("gc").expect_order("GC", *PLUGINS):
        if "CNI_PATH" not in call.variables:  # required for GC, unlike for ADD
            raise CheckFailed(f"{call.type} gets no CNI_PATH")
        for name in ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"):
            if call.variables.get(name):
                raise Deviation(f"{name} of {call.type} is {call.variables[name]!r}")
        if "prevResult" in call.conf:
            raise Deviation(f"{call.type} gets a prevResult")
        expect_same(call.conf.get("name"), NETWORK, "the name")


@check("gc-list", "gc passes a list of the attachments; any other attachment has got DEL before", _GC)
def gc_list(case: RuntimeCase) -> None:
    _recent(case)
    added = case.works("add").expect_order("ADD", *PLUGINS)[0].variables
    ran = case.works("gc")
    attached = {"containerID": added["CNI_CONTAINERID"], "ifname": added["CNI_IFNAME"]}
    detached = any(one.variables.get("CNI_CONTAINERID") == attached["containerID"] for one in ran.of("DEL"))
    for call in ran.expect_order("GC", *PLUGINS):
        listed = call.conf.get("cni.dev/valid-attachments")
        if not isinstance(listed, list):
            raise CheckFailed(f"cni.dev/valid-attachments is {json.dumps(listed)}, not a list")
        for one in listed:
            if not isinstance(one, dict) or set(one) != {"containerID", "ifname"}:
                raise CheckFailed(
                    f"{json.dumps(one)} is not an attachment, which has containerID and ifname"
                )
        if attached not in listed and not detached:
            raise CheckFailed(f"{json.dumps(attached)} is not on the list, and has got no DEL")


@check(
    "gc-old-key",
    "gc also passes the list under cni.dev/attachments, its key in the first 1.1.0",
    _GC,
    must=False,
)
def gc_old_key(case: RuntimeCase) -> None:
    _recent(case)
    for call in case.works("gc").expect_order("GC", *PLUGINS):
        new = call.conf.get("cni.dev/valid-attachments")
        expect_same(call.conf.get("cni.dev/attachments"), new, "cni.dev/attachments")


@check("gc-error", "gc goes on after a plugin that fails, and exits with an error", _GC)
def gc_error(case: RuntimeCase) -> None:
    _recent(case)
    case.plugins.fail("first", "GC", msg="lock is held")
    ran = case.run("gc")
    ran.expect_error("gc", "lock is held")
    ran.expect_order("GC", *PLUGINS)


@check(
    "gc-old-version",
    "before 1.1.0 there is no GC: gc succeeds and calls no plugin with it",
    _GC,
    must=False,
)
def gc_old_version(case: RuntimeCase) -> None:
    case.works("gc").expect_order("GC")


@check("gc-disabled", "with disableGC, gc succeeds and calls no plugin", _LIST)
def gc_disabled(case: RuntimeCase) -> None:
    _recent(case, disableGC=True)
    ran = case.run("gc")
    if ran.calls:
        raise CheckFailed("plugins are called")
    with deviation():
        ran.expect_success("gc")


# STATUS


@check("status", "status calls every plugin in order", "2 STATUS", must=False)
def status(case: RuntimeCase) -> None:
    _recent(case)
    for call in case.works("status").expect_order("STATUS", *PLUGINS):
        expect_same(call.conf.get("name"), NETWORK, "the name")


@check(
    "status-error",
    "when a plugin reports that it is not available, status prints why and exits with an error",
    "2 STATUS",
    must=False,
)
def status_error(case: RuntimeCase) -> None:
    _recent(case)
    case.plugins.fail("second", "STATUS", 50, "pool is exhausted")
    case.run("status").expect_error("status", "pool is exhausted")


@check(
    "status-old-version",
    "before 1.1.0 there is no STATUS: status succeeds and calls no plugin",
    "2 STATUS",
    must=False,
)
def status_old_version(case: RuntimeCase) -> None:
    case.works("status").expect_order("STATUS")


@check("quiet", "del, check, gc and status print nothing on stdout when they succeed", "none", must=False)
def quiet(case: RuntimeCase) -> None:
    _recent(case)
    case.works("add")
    for verb in ("check", "status", "gc", "del"):
        if case.works(verb).stdout.strip():
            raise CheckFailed(f"{verb} prints on stdout")
