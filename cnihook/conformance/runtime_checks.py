# SPDX-License-Identifier: Apache-2.0
"""Checks of how a runtime calls its plugins: the operations, their order, and the configuration."""

import json
import os
from typing import Any

from cnihook.conformance.check import Broken, Deviation, deviation
from cnihook.conformance.check import runtime_check as check
from cnihook.conformance.check import runtime_check as checks
from cnihook.conformance.fake_plugin import Call
from cnihook.conformance.runtime import NETWORK, PLUGINS, RuntimeCase

__all__ = ["checks"]

_REQUIRED = ("CNI_COMMAND", "CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH")  # CNI_ARGS: optional
_ADD = "3 Adding an attachment"
_DEL = "3 Deleting an attachment"
_CHECK = "3 Checking an attachment"
_GC = "3 Garbage-collecting a network"
_DERIVING = "3 Deriving request configuration"
_ATTACHMENT = "3 Attachment Parameters"
_LIST = "1 Configuration format"


def _same(value: Any, expected: Any, what: str) -> None:
    if value != expected:
        raise Broken(f"{what} is {json.dumps(value)}, not {json.dumps(expected)}")


# ADD


@check("add-order", "add calls every plugin once, in the order of the list", _ADD)
def add_order(case: RuntimeCase) -> None:
    case.works("add").expect_order("ADD", *PLUGINS)


@check("add-prev-result", "the first plugin gets no prevResult, each other one the previous result", _ADD)
def add_prev_result(case: RuntimeCase) -> None:
    first, *others = case.works("add").expect_order("ADD", *PLUGINS)
    if "prevResult" in first.conf:
        raise Broken("the first plugin gets a prevResult")
    for index, call in enumerate(others):
        _same(call.conf.get("prevResult"), case.result(index), f"the prevResult of {call.type}")


@check("add-result", "add prints the result of the last plugin", _ADD)
def add_result(case: RuntimeCase) -> None:
    ran = case.works("add")
    try:
        output = json.loads(ran.stdout)
    except ValueError as error:
        raise Broken(f"stdout is not JSON: {error}") from None
    _same(output, case.result(2), "stdout")


@check("name-version", "each plugin gets the list's name and cniVersion, not its own", _DERIVING)
def name_version(case: RuntimeCase) -> None:
    case.configure(plugins=[{"name": "own", "cniVersion": "0.3.1"}, {}, {}])
    for call in case.works("add").expect_order("ADD", *PLUGINS):
        _same(call.conf.get("name"), NETWORK, f"the name that {call.type} gets")
        _same(call.conf.get("cniVersion"), "1.0.0", f"the cniVersion that {call.type} gets")


@check("variables", "all six variables are set, with the same values for every plugin", "2 Parameters")
def variables(case: RuntimeCase) -> None:
    calls = case.works("add").expect_order("ADD", *PLUGINS)
    for call in calls:
        for name in _REQUIRED:
            if name not in call.variables:
                raise Broken(f"{call.type} gets no {name}")
            _same(call.variables[name], calls[0].variables[name], f"{name} of {call.type}")
    mine = calls[0].variables
    if not mine["CNI_CONTAINERID"]:
        raise Broken("CNI_CONTAINERID is empty")
    if not os.path.samefile(mine["CNI_NETNS"], case.container.path):
        raise Broken(f"CNI_NETNS is {mine['CNI_NETNS']!r}, not {case.container.path!r}")
    _same(mine["CNI_IFNAME"], "eth0", "CNI_IFNAME")
    if str(case.plugins.bin) not in mine["CNI_PATH"].split(":"):
        raise Broken(f"CNI_PATH is {mine['CNI_PATH']!r}")
    for call in calls:
        if "CNI_ARGS" not in call.variables:
            raise Deviation(f"{call.type} gets no CNI_ARGS")


@check("ifname-args", "CNI_IFNAME and CNI_ARGS reach the plugins", _ATTACHMENT)
def ifname_args(case: RuntimeCase) -> None:
    ran = case.works("add", CNI_IFNAME="net7", CNI_ARGS="IgnoreUnknown=1;A=b")
    for call in ran.expect_order("ADD", *PLUGINS):
        _same(call.variables.get("CNI_IFNAME"), "net7", "CNI_IFNAME")
        _same(call.variables.get("CNI_ARGS"), "IgnoreUnknown=1;A=b", "CNI_ARGS")


@check("environment", "a plugin gets the rest of the runtime's environment, too", "2 Parameters", must=False)
def rest_of_environment(case: RuntimeCase) -> None:
    for call in case.works("add", SOMETHING_ELSE="kept").expect_order("ADD", *PLUGINS):
        _same(call.variables.get("SOMETHING_ELSE"), "kept", "SOMETHING_ELSE")


_PORTS = [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]
_CAPABLE = [{"capabilities": {"portMappings": True, "mac": False}}, {"capabilities": {"mac": True}}, {}]
_CAP_ARGS = json.dumps({"portMappings": _PORTS, "unasked": 1})


@check(
    "runtime-config",
    "runtimeConfig has the capabilities that the plugin declares and the runtime sets; empty, it is absent",
    "3 Deriving runtimeConfig",
    must=False,
)
def runtime_config(case: RuntimeCase) -> None:
    case.configure(plugins=_CAPABLE)
    for ran, command in (
        (case.works("add", CAP_ARGS=_CAP_ARGS), "ADD"),
        (case.works("check", CAP_ARGS=_CAP_ARGS), "CHECK"),
        (case.works("del", CAP_ARGS=_CAP_ARGS), "DEL"),
    ):
        calls = {call.type: call for call in ran.of(command)}
        for name, wanted in (("first", {"portMappings": _PORTS}), ("second", None), ("third", None)):
            if name not in calls:
                raise Broken(f"{name} gets no {command}")
            _same(
                calls[name].conf.get("runtimeConfig") or None, wanted, f"{command}: runtimeConfig of {name}"
            )
            if wanted is None and "runtimeConfig" in calls[name].conf:
                raise Deviation(f"{command}: {name} gets an empty runtimeConfig")


@check("capabilities", "capabilities are for the runtime only: no plugin gets the key", _DERIVING)
def capabilities(case: RuntimeCase) -> None:
    case.configure(plugins=_CAPABLE)
    for call in case.works("add", CAP_ARGS=_CAP_ARGS).expect_order("ADD", *PLUGINS):
        if "capabilities" in call.conf:
            raise Broken(f"{call.type} gets capabilities")


@check("reserved-keys", "no plugin gets a key cni.dev/ from the file", _DERIVING, must=False)
def reserved_keys(case: RuntimeCase) -> None:
    case.configure(plugins=[{"cni.dev/attachments": [], "cni.dev/other": 1}, {}, {}])
    for call in case.works("add").expect_order("ADD", *PLUGINS):
        if keys := [key for key in call.conf if key.startswith("cni.dev/")]:
            raise Broken(f"{call.type} gets {', '.join(keys)} from the file")


_KEYS = {"nested": {"<&>": ["é", None, True, {}]}, "number": 1234567890, "some.key": "x", "args": {"a": 1}}


@check("other-keys", "every other key reaches its plugin unchanged", _DERIVING)
def other_keys(case: RuntimeCase) -> None:
    case.configure(plugins=[_KEYS, {}, {}])
    first, second, _ = case.works("add").expect_order("ADD", *PLUGINS)
    for key, value in _KEYS.items():
        _same(first.conf.get(key), value, key)
        if key in second.conf:
            raise Broken(f"{key} reaches another plugin")


@check("cni-versions", "the runtime uses the highest of cniVersions that it supports", _LIST)
def cni_versions(case: RuntimeCase) -> None:
    case.configure(version="0.4.0", cniVersions=["0.4.0", "1.0.0", "9.9.9"])
    case.plugins.answer("first", "ADD", case.result(0))
    case.plugins.answer("second", "ADD", case.result(1))
    for call in case.works("add").expect_order("ADD", *PLUGINS):
        _same(call.conf.get("cniVersion"), "1.0.0", f"the cniVersion that {call.type} gets")


@check("add-error", "when a plugin fails, add stops, prints the error, and fails", _ADD)
def add_error(case: RuntimeCase) -> None:
    case.plugins.fail("second", "ADD", 11, "no address is free")
    ran = case.run("add")
    ran.expect_error("add", "no address is free")
    ran.expect_order("ADD", "first", "second")


@check(
    "add-rollback",
    "a failed add is followed by DEL for all its plugins",
    "3 Lifecycle & Ordering",
    must=False,
)
def add_rollback(case: RuntimeCase) -> None:
    case.plugins.fail("second", "ADD")
    case.run("add").expect_order("DEL", *reversed(PLUGINS))


@check("add-odd-errors", "an error or a result that is not JSON makes add fail", _ADD)
def add_odd_errors(case: RuntimeCase) -> None:
    case.plugins.answer("second", "ADD", "", status=1, stderr="boom: no JSON\n")
    case.run("add").expect_error("add, after exit 1 and text on stderr", "boom: no JSON")
    case.plugins.answer("second", "ADD", "panic", status=2)
    case.run("add").expect_error("add, after exit 2 and no JSON")
    for text in ("not json", ""):
        case.plugins.answer("second", "ADD", text)
        with deviation():
            case.run("add").expect_error(f"add, after exit 0 and {text!r} on stdout")


@check("stderr", "what a plugin prints on stderr is passed on to stderr", "2 Overview", must=False)
def stderr(case: RuntimeCase) -> None:
    case.plugins.answer("first", "ADD", case.result(0), stderr="a warning on stderr\n")
    if "a warning on stderr" not in case.works("add").stderr:
        raise Broken("the plugin's stderr is lost")


@check("stdin-unread", "a plugin that does not read its configuration still works", "2 Overview", must=False)
def stdin_unread(case: RuntimeCase) -> None:
    case.configure(plugins=[{"args": {"x": "y" * 300_000}}, {}, {}])
    case.plugins.leave_unread("first")
    case.works("add").expect_order("ADD", *PLUGINS)


@check(
    "result-version",
    "a result without cniVersion counts as one of the list's version",
    "5 ADD Success",
    must=False,
)
def result_version(case: RuntimeCase) -> None:
    result = case.result(0)
    del result["cniVersion"]
    case.plugins.answer("first", "ADD", result)
    second = case.works("add").expect_order("ADD", *PLUGINS)[1]
    _same(second.conf.get("prevResult"), case.result(0), "the prevResult of second")


@check(
    "result-converted",
    "a result of another version is converted to the list's version for the next plugin",
    "5 ADD Success",
    must=False,
)
def result_converted(case: RuntimeCase) -> None:
    case.plugins.answer("first", "ADD", case.result(0, "0.4.0"))
    second = case.works("add").expect_order("ADD", *PLUGINS)[1]
    _same(second.conf.get("prevResult"), case.result(0), "the prevResult of second")


@check("missing", "a missing plugin or network is an error that names it", _ADD)
def missing(case: RuntimeCase) -> None:
    case.run("add", "there-is-no-such-net").expect_error("add to an unknown network", "there-is-no-such-net")
    case.conf["plugins"][1]["type"] = "there-is-no-such-plugin"
    case.write("10-net.conflist", json.dumps(case.conf))
    case.run("add").expect_error("add with an unknown plugin", "there-is-no-such-plugin")


@check("names", "names that are not allowed are refused, and no plugin is called", _ATTACHMENT)
def names(case: RuntimeCase) -> None:
    ran = case.run("add", CNI_IFNAME="a-name-of-16char")
    ran.expect_error("add for an interface name of 16 characters")
    ran.expect_order("ADD")
    case.configure(name="a b")
    ran = case.run("add", "a b")
    ran.expect_error("add to network 'a b'")
    ran.expect_order("ADD")


@check("broken-neighbour", "a file that is not JSON does not hide other networks", "none", must=False)
def broken_neighbour(case: RuntimeCase) -> None:
    case.write("05-broken.conflist", "{")
    case.works("add").expect_order("ADD", *PLUGINS)


# DEL


def _prev_results(calls: "list[Call]", expected: Any) -> None:
    for call in calls:
        _same(call.conf.get("prevResult"), expected, f"the prevResult of {call.type}")


@check("del-order", "del calls every plugin once, in reverse order", _DEL)
def del_order(case: RuntimeCase) -> None:
    case.works("add")
    case.works("del").expect_order("DEL", *reversed(PLUGINS))


@check("del-prev-result", "on del every plugin gets the final result of add", _DEL)
def del_prev_result(case: RuntimeCase) -> None:
    case.works("add")
    _prev_results(case.works("del").expect_order("DEL", *reversed(PLUGINS)), case.result(2))


@check("del-same", "del calls the plugins with the same variables as add", _DEL, must=False)
def del_same(case: RuntimeCase) -> None:
    added = case.works("add", CNI_IFNAME="net7").expect_order("ADD", *PLUGINS)[0]
    for call in case.works("del", CNI_IFNAME="net7").expect_order("DEL", *reversed(PLUGINS)):
        for name in ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"):
            _same(call.variables.get(name), added.variables[name], f"{name} of {call.type}")


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
            raise Broken(f"{call.type} gets a prevResult")


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
                raise Broken(f"del {what}: {call.type} gets a prevResult")


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
            raise Broken(f"{call.type} gets no CNI_PATH")
        for name in ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"):
            if call.variables.get(name):
                raise Deviation(f"{name} of {call.type} is {call.variables[name]!r}")
        if "prevResult" in call.conf:
            raise Deviation(f"{call.type} gets a prevResult")
        _same(call.conf.get("name"), NETWORK, "the name")


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
            raise Broken(f"cni.dev/valid-attachments is {json.dumps(listed)}, not a list")
        for one in listed:
            if not isinstance(one, dict) or set(one) != {"containerID", "ifname"}:
                raise Broken(f"{json.dumps(one)} is not an attachment, which has containerID and ifname")
        if attached not in listed and not detached:
            raise Broken(f"{json.dumps(attached)} is not on the list, and has got no DEL")


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
        _same(call.conf.get("cni.dev/attachments"), new, "cni.dev/attachments")


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
        raise Broken("plugins are called")
    with deviation():
        ran.expect_success("gc")


# STATUS


@check("status", "status calls every plugin in order", "2 STATUS", must=False)
def status(case: RuntimeCase) -> None:
    _recent(case)
    for call in case.works("status").expect_order("STATUS", *PLUGINS):
        _same(call.conf.get("name"), NETWORK, "the name")


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
            raise Broken(f"{verb} prints on stdout")
