# SPDX-License-Identifier: Apache-2.0
"""The operations that a soak interrupts, and the ways to release what they left."""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.support.plugins.cni import CHECKOUT
from tests.support.soak import state
from tests.support.soak.rig import PYTHON, Box, Problem, Rig, write
from tests.support.soak.tracer import Fault, Outcome

ID = "c1"
NEW_POLICY = "/run/.host/new-policy.json"
PORTS = {"cnihook.publish": "8080:80"}
UPDATE = (
    "update",
    ID,
    "--publish-rm=8080",
    "--publish-add=8081:80",
    "--publish-add=53:53/udp",
    "--mtu=1300",
)


def _bridge(link: str, net4: str, net6: str, **keys: Any) -> dict[str, Any]:
    ranges = [[{"subnet": net4}], [{"subnet": net6}]]
    ipam = {"type": "host-local", "ranges": ranges, "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]}
    return {"type": "bridge", "bridge": link, "isGateway": True, "ipMasq": True, "ipam": ipam, **keys}


RATES = {"ingressRate": 1000000, "ingressBurst": 100000, "egressRate": 1000000, "egressBurst": 100000}
FULL = {
    "plugins": [
        _bridge("br-full", "10.2.0.0/24", "fd02::/120", macspoofchk=True),
        {"type": "portmap", "capabilities": {"portMappings": True}},
        {"type": "firewall", "ingressPolicy": "same-bridge"},
        {"type": "tuning", "sysctl": {"net.core.somaxconn": "500"}, "mtu": 1400},
        {"type": "bandwidth", **RATES},
    ]
}
EDITED = {
    "plugins": [
        FULL["plugins"][0],
        {**FULL["plugins"][1], "masqAll": True},
        FULL["plugins"][2],
        {"type": "tuning", "sysctl": {"net.core.somaxconn": "600"}, "promisc": True},
        *FULL["plugins"][4:],
    ]
}
FAILING = {"plugins": [*FULL["plugins"], {"type": "tuning", "sysctl": {"net.core.nonsense": "1"}}]}
PLAIN = {"plugins": [_bridge("br-plain", "10.3.0.0/24", "fd03::/120")]}
PTP = {"plugins": [{**_bridge("", "10.4.0.0/24", "fd04::/120"), "type": "ptp"}]}
# Two addresses in addition to the gateway's.
SMALL = {"plugins": [_bridge("br-small", "10.5.0.0/29", "fd05::/125")]}
SMALL["plugins"][0]["ipam"]["ranges"] = [[{"subnet": "10.5.0.0/29", "rangeEnd": "10.5.0.3"}]]


@dataclass(frozen=True)
class Scenario:
    name: str
    networks: Mapping[str, Any]
    prepare: Callable[[Rig], Box]
    traced: Callable[[Rig, Box, "Fault | None", bool], Outcome]
    releases: tuple[str, ...]
    attaches: bool = True  # after success the container is attached; False: it is released
    neighbours: tuple[int, ...] = (0, 1)
    named: bool = False  # containers have a bundle, with /etc/hosts
    statuses: tuple[int, ...] = field(default=(0,))  # of a run without a fault


def make_rig(scenario: Scenario, neighbours: int) -> Rig:
    """Return a host with the networks and with neighbours, which must not change, after one run in it."""
    rig = Rig(scenario.networks)
    for number in range(neighbours):
        name = f"n{number}"
        bundle = rig.bundle(name, folder="/run/.host/neighbours") if scenario.named else ""
        ports = {"cnihook.publish": f"{9000 + number}:80"} if "full" in scenario.networks else {}
        neighbour = Box(
            name, annotations={"cnihook.networks": next(iter(scenario.networks)), **ports}, bundle=bundle
        )
        rig.neighbours.append(neighbour)
        rig.must(rig.hook("createRuntime", neighbour), f"createRuntime of {name}")
    # Folders, lock files and settings of the whole host stay with the first container.
    undisturbed(rig, scenario)
    rig.settle()
    return rig


def undisturbed(rig: Rig, scenario: Scenario, *, record: bool = False) -> "tuple[Outcome, Counter[str]]":
    """Run an operation without a fault.  Returns its outcome, and the state that it sets up."""
    box = scenario.prepare(rig)
    outcome = scenario.traced(rig, box, None, record)
    if outcome.status not in scenario.statuses:
        raise Problem(f"{scenario.name} without a fault exited with {outcome.status}: {outcome.stderr}")
    view = shape(rig, box) if scenario.attaches else Counter()
    release(rig, box, scenario.releases[0])
    rig.end_boxes()
    return outcome, view


def shape(rig: Rig, box: Box) -> "Counter[str]":
    """Return the kernel's state on both sides, without values that differ between containers."""
    lines = [*state.kernel(), *(f"in: {line}" for line in box.view())]
    # IPv6 adds the local route of an address some time after the address.
    return Counter(line for line in _normal(lines) if not re.search(r"^(in: )?route \S+ local fd", line))


def _normal(lines: Iterable[str]) -> Iterable[str]:
    for line in lines:
        line = re.sub(r"\b(veth|bwp|ptp)[0-9a-f]+", r"\1N", line)
        line = re.sub(r"\b([0-9a-f]{2}:){5}[0-9a-f]{2}\b", "MAC", line)
        # the subnet and the first address, which is the gateway's, do not differ
        line = re.sub(r"\b(10\.\d+\.\d+)\.(?![01]\b)\d+\b", r"\1.N", line)
        yield re.sub(r"\b(fd\d\d)::(?!1\b)[0-9a-f]+", r"\1::N", line)


# Ways to release


def release(rig: Rig, box: Box, way: str) -> None:
    """Release what a container left, in one of the ways that must suffice.  Raises Problem if it fails."""
    if way == "repair":
        rig.must(rig.command("repair", box.id), "repair")
        rig.must(rig.command("check", box.id), "check after repair")
        way = "poststop"
    elif way == "policy":
        _apply(rig, _policy("80"))
        outcome = rig.must(rig.command("policy", "diff"), "policy diff")
        if outcome.stdout:
            raise Problem(f"policy diff: {outcome.stdout}")
        rig.must(rig.command("check", box.id), "check after a policy is applied again")
        way = "poststop"
    box.kill()
    if way == "poststop":
        rig.must(rig.hook("poststop", box), "poststop")
    elif way == "gc":
        outcome = rig.must(rig.command("gc"), "gc")
        if outcome.stderr:
            raise Problem(f"gc: {outcome.stderr}")
    elif way == "createRuntime":
        again = rig.box(box.id, annotations=box.annotations, bundle=box.bundle)
        rig.must(rig.hook("createRuntime", again), "createRuntime with the same ID")
        if not any(line.startswith("address eth0") for line in again.view()):
            raise Problem("createRuntime with the same ID exited with 0, and the container has no address")
        again.kill()
        rig.must(rig.hook("poststop", again), "poststop")
    elif way == "del":
        name = next(iter(rig.networks))
        rig.must(rig.command("del", name, box.netns, "--container-id", box.id), "del")
    elif way == "gc-network":
        rig.must(rig.command("gc", next(iter(rig.networks))), "gc NETWORK")
    else:
        raise ValueError(way)


# Operations


def _box(rig: Rig) -> Box:
    return rig.box(ID, annotations=PORTS)


def _plain_box(rig: Rig) -> Box:
    return rig.box(ID)


def _named_box(rig: Rig) -> Box:
    annotations = {"cnihook.network-alias": "db,store", "cnihook.add-host": "gate:host-gateway"}
    return rig.box(ID, annotations=annotations, bundle=rig.bundle(ID))


def _attached(make: Callable[[Rig], Box]) -> Callable[[Rig], Box]:
    def prepare(rig: Rig) -> Box:
        box = make(rig)
        rig.must(rig.hook("createRuntime", box), "createRuntime")
        return box

    return prepare


def _ended(make: Callable[[Rig], Box]) -> Callable[[Rig], Box]:
    def prepare(rig: Rig) -> Box:
        box = _attached(make)(rig)
        box.kill()
        return box

    return prepare


def _restarted(rig: Rig) -> Box:
    """End a container without poststop, and return a new one with the same ID."""
    _ended(_box)(rig)
    return _box(rig)


def _exhausted(rig: Rig) -> Box:
    for number in range(2):
        rig.attach(f"dead{number}").kill()
    return _plain_box(rig)


def _harmed(rig: Rig) -> Box:
    """Return a container after its link was deleted and the ruleset flushed."""
    box = _attached(_box)(rig)
    state.flush_ruleset()
    state.in_namespace(box.netns, lambda: state.delete_link("eth0"))
    return box


def _edited(rig: Rig) -> Box:
    """Return a container whose network was edited since it was attached."""
    rig.write_network("full", FULL)
    box = _attached(_box)(rig)
    rig.write_network("full", EDITED)
    return box


def _limited(rig: Rig) -> Box:
    """Return a container with a policy, and write another one."""
    _apply(rig, _policy("80"))
    box = _attached(_plain_box)(rig)
    write(NEW_POLICY, json.dumps(_policy("81")))
    return box


def _policy(port: str) -> dict[str, Any]:
    rule = {"to": ["10.9.0.0/16", "fd09::/64"], "ports": [port]}
    return {"name": "box", "select": {"containers": [ID]}, "egress": {"allow": [rule]}}


def _apply(rig: Rig, policy: Mapping[str, Any]) -> None:
    path = "/run/.host/policy.json"
    write(path, json.dumps(policy))
    rig.must(rig.command("policy", "apply", path), "policy apply")


def _hook(event: str) -> "Callable[[Rig, Box, Fault | None, bool], Outcome]":
    return lambda rig, box, fault, record: rig.hook(event, box, fault, record=record)


def _command(*arguments: str) -> "Callable[[Rig, Box, Fault | None, bool], Outcome]":
    return lambda rig, box, fault, record: rig.command(*arguments, fault=fault, record=record)


def _library(command: str) -> "Callable[[Rig, Box, Fault | None, bool], Outcome]":
    def call(rig: Rig, box: Box, fault: "Fault | None", record: bool) -> Outcome:
        words = (command, next(iter(rig.networks)), box.netns, "--container-id", box.id)
        return rig.command(*words, fault=fault, record=record)

    return call


def _added(rig: Rig) -> Box:
    box = _plain_box(rig)
    rig.must(_library("add")(rig, box, None, False), "add")
    return box


def _privnet(rig: Rig, _box: Box, fault: "Fault | None", record: bool) -> Outcome:
    launcher = str(CHECKOUT / "scripts" / "priv-net-run")
    statuses = (125, 127, 137)  # 127: of the loader of /bin/true
    return rig.run(*PYTHON, launcher, "--", "/bin/true", fault=fault, record=record, statuses=statuses)


HOOK = ("poststop", "gc", "createRuntime")
LIBRARY = ("del", "gc-network")
SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario("create", {"full": FULL}, _box, _hook("createRuntime"), HOOK),
        Scenario("poststop", {"full": FULL}, _ended(_box), _hook("poststop"), HOOK, attaches=False),
        Scenario("two", {"plain": PLAIN, "ptp": PTP}, _plain_box, _hook("createRuntime"), HOOK),
        Scenario(
            "two-poststop",
            {"plain": PLAIN, "ptp": PTP},
            _ended(_plain_box),
            _hook("poststop"),
            HOOK,
            attaches=False,
        ),
        Scenario(
            "rollback",
            {"full": FAILING},
            _box,
            _hook("createRuntime"),
            ("poststop", "gc"),
            False,
            (0,),
            False,
            (1,),
        ),
        Scenario("restart", {"full": FULL}, _restarted, _hook("createRuntime"), HOOK),
        Scenario("gc", {"full": FULL}, _ended(_box), _command("gc"), HOOK, attaches=False),
        Scenario(
            "exhausted", {"small": SMALL}, _exhausted, _hook("createRuntime"), ("gc",), neighbours=(0,)
        ),
        Scenario("update", {"full": FULL}, _attached(_box), _command(*UPDATE), ("repair", *HOOK)),
        Scenario(
            "apply", {"full": FULL}, _edited, _command("apply", "full"), ("repair", *HOOK), neighbours=(0,)
        ),
        Scenario("policy", {"ptp": PTP}, _limited, _command("policy", "apply", NEW_POLICY), ("policy",)),
        Scenario("repair", {"full": FULL}, _harmed, _command("repair", ID), HOOK, neighbours=(0,)),
        Scenario(
            "names",
            {"plain": PLAIN},
            _named_box,
            _hook("createRuntime"),
            HOOK,
            neighbours=(1, 2),
            named=True,
        ),
        Scenario(
            "names-poststop",
            {"plain": PLAIN},
            _ended(_named_box),
            _hook("poststop"),
            HOOK,
            False,
            (1, 2),
            True,
        ),
        Scenario("add", {"full": FULL}, _plain_box, _library("add"), LIBRARY),
        Scenario("del", {"full": FULL}, _added, _library("del"), LIBRARY, attaches=False),
        Scenario("priv-net-run", {"full": FULL}, _plain_box, _privnet, ("gc",), attaches=False),
    )
}
