# SPDX-License-Identifier: Apache-2.0
"""Checks for every kind of plugin: environment, standard input and output, versions and errors."""

import json
from typing import Any

from cnihook.conformance.case import Case
from cnihook.conformance.check import CheckFailed, CheckSkipped
from cnihook.conformance.check import plugin_check as check
from cnihook.conformance.plugin import CLOSED, Answer, call
from cnihook.types import versions

_COMMANDS = ("ADD", "DEL", "CHECK", "GC", "STATUS")
_PARAMETERS = "2 Parameters"
_CODES = "5 Error"


def _commands(case: Case) -> "list[str]":
    """Return the operations of the plugin's latest version."""
    return [c for c in _COMMANDS if versions.at_least(case.version, versions.SINCE.get(c, "0.1.0"))]


def _refused(case: Case, command: str, conf: Any = None, **env: Any) -> Answer:
    """Call the plugin with a wrong request.  Its namespace does not exist, in case the plugin accepts it."""
    container = {
        "CNI_CONTAINERID": "container-1",
        "CNI_NETNS": "/run/netns/nowhere",
        "CNI_IFNAME": "eth0",
    }
    if command in ("GC", "STATUS"):
        container = dict.fromkeys(container, "")
    conf = case.conf() if conf is None else conf
    return case.call(command, conf, None, **{**container, **env})


@check("about", "without CNI_COMMAND it prints nothing that looks like a result", _PARAMETERS, must=False)
def about(case: Case) -> None:
    answer = case.call("", case.conf(), CNI_COMMAND=None)
    if answer.status == 0:
        if answer.stdout.strip():
            raise CheckFailed("without CNI_COMMAND it prints on stdout, where a runtime expects a result")
    else:
        answer.expect_error("without CNI_COMMAND", [4])


@check(
    "unknown-command",
    "an unknown operation is refused with code 4 and named in the error",
    _CODES,
    must=False,
)
def unknown_command(case: Case) -> None:
    _refused(case, "EXPLODE").expect_error("CNI_COMMAND=EXPLODE", [4], ["EXPLODE"])
    _refused(case, "add").expect_error("CNI_COMMAND=add", [4], ["add"])


def _missing(command: str, *names: str) -> None:
    @check(
        f"env-{command.lower()}",
        f"{command} without {', '.join(names)} is refused with code 4",
        _PARAMETERS,
        since=versions.SINCE.get(command, ""),
        must=command == "ADD",  # ADD cannot succeed without them; for the others there is no rule
    )
    def env(case: Case) -> None:
        for name in names:
            codes = [3, 4] if name == "CNI_CONTAINERID" else [4]
            answer = _refused(case, command, **{name: None})
            answer.expect_error(f"{command} without {name}", codes, [] if 3 in codes else [name])
        answer = _refused(case, command, **{names[-1]: ""})
        answer.expect_error(f"{command} with {names[-1]} empty", [4], [names[-1]])


_missing("ADD", "CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME")
_missing("DEL", "CNI_CONTAINERID", "CNI_IFNAME")
_missing("CHECK", "CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME")
_missing("GC", "CNI_PATH")


@check(
    "container-id",
    "a container ID with characters that are not allowed is refused with code 4",
    "3 Attachment Parameters",
    must=False,
)
def container_id(case: Case) -> None:
    for bad in ("../../etc/x", "a b", "a\n", "é"):
        _refused(case, "ADD", CNI_CONTAINERID=bad).expect_error(f"ADD for container {bad!r}", [4])
    _refused(case, "DEL", CNI_CONTAINERID="a/b").expect_error("DEL for container 'a/b'", [4])


@check(
    "ifname",
    "an interface name that Linux does not allow is refused with code 4",
    "2 Parameters",
    must=False,
)
def ifname(case: Case) -> None:
    for bad in ("a-name-of-16char", "a:b", "..", "eth0\n", "é" * 8):
        _refused(case, "ADD", CNI_IFNAME=bad).expect_error(f"ADD for interface {bad!r}", [4])
    _refused(case, "DEL", CNI_IFNAME="a/b").expect_error("DEL for interface 'a/b'", [4])


@check(
    "network-name",
    "a network name that is empty or has characters that are not allowed is refused with code 7",
    "1 Configuration format",
    must=False,
)
def network_name(case: Case) -> None:
    for bad in ("../x", "a\n", ""):
        conf = case.conf(name=bad)
        _refused(case, "ADD", conf).expect_error(f"ADD to network {bad!r}", [7])
    for command in _commands(case)[1:]:
        conf = case.conf(name="a/b")
        _refused(case, command, conf).expect_error(f"{command} of network 'a/b'", [7])


@check("version-lists", "VERSION prints cniVersion and all supported versions", "5 VERSION Success")
def version_lists(case: Case) -> None:
    _versions(case.call("VERSION", b'{"cniVersion": "1.0.0"}'))


@check("version-alone", "VERSION needs no other variable", "2 VERSION")
def version_alone(case: Case) -> None:
    _expect_same_versions(case, _VERSION_INPUT, "no other variable")


@check("version-stdin", "VERSION needs no configuration", "none", must=False)
def version_stdin(case: Case) -> None:
    for stdin, what in ((b"", "empty stdin"), (CLOSED, "stdin closed")):
        _expect_same_versions(case, stdin, what)


_VERSION_INPUT = b'{"cniVersion": "1.0.0"}'


def _expect_same_versions(case: Case, stdin: bytes, what: str) -> None:
    usual = _versions(case.call("VERSION", _VERSION_INPUT))
    answer = call(case.subject.executable, {"CNI_COMMAND": "VERSION"}, stdin)
    case.answers.append(answer)
    if _versions(answer) != usual:
        raise CheckFailed(f"with {what}, VERSION prints other versions")


def _versions(answer: Answer) -> "list[str]":
    answer.expect_success("VERSION")
    try:
        output = json.loads(answer.stdout)
    except ValueError as error:
        raise CheckFailed(f"the output of VERSION is not JSON: {error}") from None
    if not isinstance(output, dict) or not isinstance(output.get("cniVersion"), str):
        raise CheckFailed('the output of VERSION has no "cniVersion"')
    listed = output.get("supportedVersions")
    if not isinstance(listed, list) or not listed or not all(isinstance(one, str) for one in listed):
        raise CheckFailed('the output of VERSION has no list "supportedVersions"')
    return listed


@check(
    "error-json",
    "on an error stdout has only JSON with a code and a message, and the exit status is not 0",
    _CODES,
)
def error_json(case: Case) -> None:
    for command in ("ADD", "DEL"):
        answer = _refused(case, command, case.conf(name="a/b"))
        if answer.status == 0 and not answer.looks_like_error():
            raise CheckSkipped(f"the plugin accepts {command} of network 'a/b'")
        answer.expect_error(f"{command} of network 'a/b'")


@check("error-version", "an error has a cniVersion", _CODES, must=False)
def error_version(case: Case) -> None:
    error = _refused(case, "ADD", case.conf(name="a/b")).error()
    if not isinstance(error.get("cniVersion"), str):
        raise CheckFailed('the error has no "cniVersion"')


@check(
    "stdin-broken",
    "a configuration that is not a JSON object is refused with code 6 or 7",
    _CODES,
    must=False,
)
def stdin_broken(case: Case) -> None:
    for text in (b"", b"{", b"[]", b"null", b'{"name":"x"} trailing'):
        answer = _refused(case, "ADD", text)
        answer.expect_error(f"ADD with {text!r} on stdin", [5, 6, 7])


@check("stdin-absent", "with stdin closed it fails, and does not wait for ever", _CODES, must=False)
def stdin_absent(case: Case) -> None:
    _refused(case, "ADD", CLOSED).expect_error("ADD with stdin closed", [5, 6, 7])


@check("stdin-late", "a configuration that comes in two parts, late, is read to its end", "2 Overview")
def stdin_late(case: Case) -> None:
    case.require()
    container = case.container()
    answer = case.call("ADD", case.conf(container), container, in_parts=True)
    case.keep(container, answer, "ADD whose configuration came late")


@check(
    "stdin-huge",
    "args of a megabyte that are not for this plugin do no harm",
    "1 Plugin configuration objects",
    must=False,
)
def stdin_huge(case: Case) -> None:
    case.require()
    container = case.container()
    conf = case.conf(container, args={"org.example": {"labels": ["x" * 1000] * 1000}})
    case.keep(container, case.call("ADD", conf, container), "ADD with large args")


_UNKNOWN: dict[str, Any] = {"org.example/key": {"a": [1]}, "somethingElse": True}


@check(
    "unknown-keys",
    "unknown keys are ignored",
    "1 Plugin configuration objects",
    must=False,
)
def unknown_keys(case: Case) -> None:
    case.require()
    container = case.container()
    conf = case.conf(container, **_UNKNOWN)
    case.keep(container, case.call("ADD", conf, container), "ADD with unknown keys")


@check(
    "key-case",
    "the case of a key does not matter, as in the reference; the specification has no rule",
    "none",
    must=False,
)
def key_case(case: Case) -> None:
    case.require()
    container = case.container()
    conf = case.conf(container)
    conf["NAME"] = conf.pop("name")
    case.keep(container, case.call("ADD", conf, container), 'ADD with "NAME" for "name"')


@check("version-unknown", "a cniVersion that it does not support is refused with code 1", _CODES, must=False)
def version_unknown(case: Case) -> None:
    for command, bad in (("ADD", "9.9.9"), ("ADD", "0.0.1"), ("DEL", "9.9.9")):
        answer = _refused(case, command, case.conf(cniVersion=bad))
        answer.expect_error(f"{command} with cniVersion {bad}", [1])
    answer = _refused(case, "ADD", case.conf(cniVersion=1))
    answer.expect_error("ADD with a number as cniVersion", [1, 6, 7])


@check(
    "version-missing",
    "a configuration without cniVersion counts as 0.1.0, or is refused with code 1",
    _CODES,
    must=False,
)
def version_missing(case: Case) -> None:
    case.require()
    case.version = "0.1.0"
    container = case.container()
    conf = case.conf(container, cniVersion=None)
    answer = case.call("ADD", conf, container)
    if answer.status == 0 and "0.1.0" in case.subject.versions:
        result = case.keep(container, answer)
        if result.get("cniVersion") not in ("0.1.0", "", None):
            raise CheckFailed(f"the result has cniVersion {result['cniVersion']}")
    elif "0.1.0" not in case.subject.versions:
        answer.expect_error("ADD without cniVersion", [1])
    elif case.kind == "chained":
        answer.expect_error("ADD without cniVersion and without prevResult")
    else:
        answer.expect_success("ADD without cniVersion")


@check(
    "operation-version",
    "an operation that the configuration's version does not have is refused",
    "2 CNI operations",
    must=False,
)
def operation_version(case: Case) -> None:
    refused = 0
    for command, since in versions.SINCE.items():
        older = [
            one for one in case.subject.versions if one in versions.ALL and not versions.at_least(one, since)
        ]
        if older:
            refused += 1
            answer = _refused(case, command, case.conf(cniVersion=older[-1]))
            # Code 3 or 4: a plugin that is older than the operation does not know it.
            answer.expect_error(f"{command} with cniVersion {older[-1]}", [1, 3, 4])
    if not refused:
        raise CheckSkipped("all versions that it supports have all operations")


@check(
    "netns-missing",
    "ADD into a namespace that does not exist is refused, and nothing is left",
    "2 ADD",
    kinds=("interface", "loopback", "chained"),
)
def netns_missing(case: Case) -> None:
    case.require()
    container = case.container()
    conf = case.conf(container)
    answer = case.call("ADD", conf, container, CNI_NETNS="/run/netns/nowhere")
    if case.kind != "chained" or answer.status != 0:  # some chained plugins change the host only
        answer.expect_error("ADD into /run/netns/nowhere")


@check(
    "cni-args",
    "CNI_ARGS for other plugins do no harm if IgnoreUnknown is among them",
    "2 Parameters",
    must=False,
)
def cni_args(case: Case) -> None:
    case.require()
    container = case.container()
    args = "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=pod-1"
    answer = case.call("ADD", case.conf(container), container, CNI_ARGS=args)
    case.keep(container, answer, f"ADD with CNI_ARGS={args}")
    case.delete(container, CNI_ARGS=args)


@check("names-longest", "the longest allowed names work", "2 Parameters", must=False)
def names_longest(case: Case) -> None:
    container = case.container(container_id="0" + "a" * 56 + "B_.-9.-", ifname="abcdefghijklm.9")
    case.add(container)
    case.delete(container)
