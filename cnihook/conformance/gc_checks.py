# SPDX-License-Identifier: Apache-2.0
"""Checks of GC with every form of its list, and of STATUS."""

import json
import re
import subprocess
import time
from collections.abc import Iterator

from cnihook.conformance import host
from cnihook.conformance.case import FOLDER, Case
from cnihook.conformance.check import CheckFailed, CheckSkipped
from cnihook.conformance.check import plugin_check as check
from cnihook.conformance.host import Container
from cnihook.conformance.plugin import environment

_GC = "2 GC"


def _facts() -> "set[str]":
    """Return all that plugins may leave on a host: interfaces, files, rules."""
    facts = {f"interface {name}" for name in host.links()}
    facts |= {f"file {path}" for path in host.files(without=[str(FOLDER)])}
    return facts | set(_rules())


def _rules() -> "Iterator[str]":
    """Yield every object of the ruleset and every element of its sets, without counters and handles."""
    try:
        listed = subprocess.run(["nft", "-j", "list", "ruleset"], capture_output=True, env=environment({}))
        objects = json.loads(listed.stdout)["nftables"]
    except (OSError, ValueError):
        return  # without nft the ruleset cannot be compared
    for one in objects:
        for kind, content in one.items():
            if kind == "metainfo":
                continue
            content.pop("handle", None)
            elements = content.pop("elem", [])
            place = " ".join(str(content.get(key, "")) for key in ("family", "table", "chain", "name"))
            for element in elements:
                yield f"{kind} {place}: {json.dumps(element)}"
            yield f"{kind} {_uncounted(json.dumps(content))}"


def _uncounted(text: str) -> str:
    return re.sub(r'"(packets|bytes)": \d+', r'"\1": 0', text)


class _Stale:
    """Two containers on one network, one of which is gone, and what the gone one has left on the host."""

    def __init__(self, case: Case) -> None:
        case.need_operation("GC")
        case.require()
        self.case = case
        self.extra = dict(case.profile.gc_conf)
        network = _facts()
        self.living = self._add()
        # The first container also brings what both have in common, such as a bridge or a lock.
        self.of_living = _facts() - network
        links = host.links()
        self.gone = self._add()
        host_ends = host.links() - links
        self.gone.destroy()
        self._settle(host_ends)
        self.of_gone = _facts() - network - self.of_living
        if not self.of_gone:
            raise CheckSkipped("a container whose namespace is gone leaves nothing on the host")

    def _add(self) -> Container:
        container = self.case.container()
        self.case.add(container, **self.extra)
        return container

    @staticmethod
    def _settle(host_ends: "set[str]") -> None:
        """Wait until the kernel has removed the host ends, some time after the namespace has ended."""
        deadline = time.monotonic() + 5
        while host_ends and host_ends <= host.links() and time.monotonic() < deadline:
            time.sleep(0.01)

    def expect(self, what: str, *, living: bool | None = None, gone: bool | None = None) -> None:
        """Raise CheckFailed unless all of the container's objects are left (True), or none (False)."""
        now = _facts()
        for which, facts, stays in (
            ("the living", self.of_living, living),
            ("the gone", self.of_gone, gone),
        ):
            if stays and (lost := facts - now):
                raise CheckFailed(f"{what}: {which} container has lost {_list(lost)}")
            if stays is False and (left := facts & now):
                raise CheckFailed(f"{what}: {which} container still has {_list(left)}")

    def gc(self, *kept: Container, **more: object) -> None:
        conf = {**self.case.conf(self.living, chained=False), **self.extra}
        self.case.gc(*kept, conf=conf, **more)


def _list(facts: "set[str]") -> str:
    return "; ".join(sorted(facts)[:3])


@check("gc-keeps", "GC keeps what belongs to an attachment on the list", _GC, since="1.1.0")
def gc_keeps(case: Case) -> None:
    stale = _Stale(case)
    stale.gc(stale.living, stale.gone)
    stale.expect("GC that lists both", living=True, gone=True)
    stale.gc(stale.living)
    stale.expect("GC that lists the living one", living=True)


@check(
    "gc-removes",
    "GC removes what belongs to an attachment that is not on the list",
    _GC,
    since="1.1.0",
    must=False,
)
def gc_removes(case: Case) -> None:
    stale = _Stale(case)
    stale.gc(stale.living)
    stale.expect("GC that lists the living one", gone=False)


@check(
    "gc-empty-list",
    "with an empty list GC removes everything, and so with null, which Go writes for it",
    _GC,
    since="1.1.0",
    must=False,
)
def gc_empty(case: Case) -> None:
    for what, listed in (("an empty list", []), ("null", None)):
        stale = _Stale(case)
        stale.living.destroy()
        stale.gc(keys={"cni.dev/valid-attachments": listed, "cni.dev/attachments": listed})
        if left := stale.of_gone & _facts():
            raise CheckFailed(f"GC with {what}: this is left: {_list(left)}")


@check("gc-no-list", "without a list GC removes nothing", _GC, since="1.1.0", must=False)
def gc_no_list(case: Case) -> None:
    stale = _Stale(case)
    case.call("GC", {**case.conf(stale.living, chained=False), **stale.extra})  # the plugin may reject it
    stale.expect("GC without a list", living=True, gone=True)


@check(
    "gc-ifname",
    "the list names interfaces: another interface of the same container is not listed",
    _GC,
    since="1.1.0",
    must=False,
)
def gc_ifname(case: Case) -> None:
    stale = _Stale(case)
    listed = [
        {"containerID": stale.living.id, "ifname": case.ifname(stale.living)},
        {"containerID": stale.gone.id, "ifname": "other0"},
    ]
    stale.gc(keys={"cni.dev/valid-attachments": listed, "cni.dev/attachments": listed})
    stale.expect("GC that lists another interface of the gone container", living=True, gone=False)


@check("gc-other-network", "GC of one network changes nothing of another network", _GC, since="1.1.0")
def gc_other_network(case: Case) -> None:
    stale = _Stale(case)
    stale.extra["name"] = "another"
    stale.gc()
    stale.expect("GC of another network", living=True, gone=True)


@check(
    "gc-old-key",
    "a list under cni.dev/attachments, its key in the first 1.1.0, is accepted, too",
    _GC,
    since="1.1.0",
    must=False,
)
def gc_old_key(case: Case) -> None:
    stale = _Stale(case)
    listed = [{"containerID": stale.living.id, "ifname": case.ifname(stale.living)}]
    stale.gc(keys={"cni.dev/attachments": listed})
    stale.expect("GC with cni.dev/attachments", living=True, gone=False)


@check("gc-twice", "GC can be repeated, and works on an empty host", _GC, since="1.1.0", must=False)
def gc_twice(case: Case) -> None:
    case.require()
    case.need_operation("GC")
    case.container()
    case.gc()
    case.added()
    case.gc()
    case.gc()


@check("status", "STATUS succeeds if ADD works", "2 STATUS", since="1.1.0")
def status(case: Case) -> None:
    case.require()
    case.need_operation("STATUS")
    case.container()
    answer = case.call("STATUS", case.conf(case.containers[0], chained=False))
    if answer.status != 0:
        answer.expect_error("STATUS")
        code, message = answer.error()["code"], answer.error()["msg"]
        if code in (50, 51):
            raise CheckSkipped(f"it is not available: {message}")
        case.add(case.containers[0])
        raise CheckFailed(f"STATUS fails with code {code} ({message}), and ADD works")
