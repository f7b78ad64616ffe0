# SPDX-License-Identifier: Apache-2.0
"""Checks of ADD by a runtime: the calls, their order, the configuration and the result."""

import json
import os

from cnihook.conformance.check import CheckFailed, Deviation, deviation
from cnihook.conformance.check import runtime_check as check
from cnihook.conformance.runtime import NETWORK, PLUGINS, RuntimeCase, expect_same

_REQUIRED = ("CNI_COMMAND", "CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH")  # CNI_ARGS: optional
_ADD = "3 Adding an attachment"
_DERIVING = "3 Deriving request configuration"
_ATTACHMENT = "3 Attachment Parameters"
_LIST = "1 Configuration format"


@check("add-order", "add calls every plugin once, in the order of the list", _ADD)
def add_order(case: RuntimeCase) -> None:
    case.works("add").expect_order("ADD", *PLUGINS)


@check("add-prev-result", "the first plugin gets no prevResult, each other one the previous result", _ADD)
def add_prev_result(case: RuntimeCase) -> None:
    first, *others = case.works("add").expect_order("ADD", *PLUGINS)
    if "prevResult" in first.conf:
        raise CheckFailed("the first plugin gets a prevResult")
    for index, call in enumerate(others):
        expect_same(call.conf.get("prevResult"), case.result(index), f"the prevResult of {call.type}")


@check("add-result", "add prints the result of the last plugin", _ADD)
def add_result(case: RuntimeCase) -> None:
    ran = case.works("add")
    try:
        output = json.loads(ran.stdout)
    except ValueError as error:
        raise CheckFailed(f"stdout is not JSON: {error}") from None
    expect_same(output, case.result(2), "stdout")


@check("name-version", "each plugin gets the list's name and cniVersion, not its own", _DERIVING)
def name_version(case: RuntimeCase) -> None:
    case.configure(plugins=[{"name": "own", "cniVersion": "0.3.1"}, {}, {}])
    for call in case.works("add").expect_order("ADD", *PLUGINS):
        expect_same(call.conf.get("name"), NETWORK, f"the name that {call.type} gets")
        expect_same(call.conf.get("cniVersion"), "1.0.0", f"the cniVersion that {call.type} gets")


@check("variables", "all six variables are set, with the same values for every plugin", "2 Parameters")
def variables(case: RuntimeCase) -> None:
    calls = case.works("add").expect_order("ADD", *PLUGINS)
    for call in calls:
        for name in _REQUIRED:
            if name not in call.variables:
                raise CheckFailed(f"{call.type} gets no {name}")
            expect_same(call.variables[name], calls[0].variables[name], f"{name} of {call.type}")
    mine = calls[0].variables
    if not mine["CNI_CONTAINERID"]:
        raise CheckFailed("CNI_CONTAINERID is empty")
    if not os.path.samefile(mine["CNI_NETNS"], case.container.path):
        raise CheckFailed(f"CNI_NETNS is {mine['CNI_NETNS']!r}, not {case.container.path!r}")
    expect_same(mine["CNI_IFNAME"], "eth0", "CNI_IFNAME")
    if str(case.plugins.bin) not in mine["CNI_PATH"].split(":"):
        raise CheckFailed(f"CNI_PATH is {mine['CNI_PATH']!r}")
    for call in calls:
        if "CNI_ARGS" not in call.variables:
            raise Deviation(f"{call.type} gets no CNI_ARGS")


@check("ifname-args", "CNI_IFNAME and CNI_ARGS reach the plugins", _ATTACHMENT)
def ifname_args(case: RuntimeCase) -> None:
    ran = case.works("add", CNI_IFNAME="net7", CNI_ARGS="IgnoreUnknown=1;A=b")
    for call in ran.expect_order("ADD", *PLUGINS):
        expect_same(call.variables.get("CNI_IFNAME"), "net7", "CNI_IFNAME")
        expect_same(call.variables.get("CNI_ARGS"), "IgnoreUnknown=1;A=b", "CNI_ARGS")


@check("environment", "a plugin gets the rest of the runtime's environment, too", "2 Parameters", must=False)
def rest_of_environment(case: RuntimeCase) -> None:
    for call in case.works("add", SOMETHING_ELSE="kept").expect_order("ADD", *PLUGINS):
        expect_same(call.variables.get("SOMETHING_ELSE"), "kept", "SOMETHING_ELSE")


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
                raise CheckFailed(f"{name} gets no {command}")
            expect_same(
                calls[name].conf.get("runtimeConfig") or None, wanted, f"{command}: runtimeConfig of {name}"
            )
            if wanted is None and "runtimeConfig" in calls[name].conf:
                raise Deviation(f"{command}: {name} gets an empty runtimeConfig")


@check("capabilities", "capabilities are for the runtime only: no plugin gets the key", _DERIVING)
def capabilities(case: RuntimeCase) -> None:
    case.configure(plugins=_CAPABLE)
    for call in case.works("add", CAP_ARGS=_CAP_ARGS).expect_order("ADD", *PLUGINS):
        if "capabilities" in call.conf:
            raise CheckFailed(f"{call.type} gets capabilities")


@check("reserved-keys", "no plugin gets a key cni.dev/ from the file", _DERIVING, must=False)
def reserved_keys(case: RuntimeCase) -> None:
    case.configure(plugins=[{"cni.dev/attachments": [], "cni.dev/other": 1}, {}, {}])
    for call in case.works("add").expect_order("ADD", *PLUGINS):
        if keys := [key for key in call.conf if key.startswith("cni.dev/")]:
            raise CheckFailed(f"{call.type} gets {', '.join(keys)} from the file")


_KEYS = {"nested": {"<&>": ["é", None, True, {}]}, "number": 1234567890, "some.key": "x", "args": {"a": 1}}


@check("other-keys", "every other key reaches its plugin unchanged", _DERIVING)
def other_keys(case: RuntimeCase) -> None:
    case.configure(plugins=[_KEYS, {}, {}])
    first, second, _ = case.works("add").expect_order("ADD", *PLUGINS)
    for key, value in _KEYS.items():
        expect_same(first.conf.get(key), value, key)
        if key in second.conf:
            raise CheckFailed(f"{key} reaches another plugin")


@check("cni-versions", "the runtime uses the highest of cniVersions that it supports", _LIST)
def cni_versions(case: RuntimeCase) -> None:
    case.configure(version="0.4.0", cniVersions=["0.4.0", "1.0.0", "9.9.9"])
    case.plugins.answer("first", "ADD", case.result(0))
    case.plugins.answer("second", "ADD", case.result(1))
    for call in case.works("add").expect_order("ADD", *PLUGINS):
        expect_same(call.conf.get("cniVersion"), "1.0.0", f"the cniVersion that {call.type} gets")


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
        raise CheckFailed("the plugin's stderr is lost")


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
    expect_same(second.conf.get("prevResult"), case.result(0), "the prevResult of second")


@check(
    "result-converted",
    "a result of another version is converted to the list's version for the next plugin",
    "5 ADD Success",
    must=False,
)
def result_converted(case: RuntimeCase) -> None:
    case.plugins.answer("first", "ADD", case.result(0, "0.4.0"))
    second = case.works("add").expect_order("ADD", *PLUGINS)[1]
    expect_same(second.conf.get("prevResult"), case.result(0), "the prevResult of second")


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
