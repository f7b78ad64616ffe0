# SPDX-License-Identifier: Apache-2.0
"""Bounds on what annotations request: in the file, in the hook's arguments, in a network."""

import json
from typing import Any

import pytest

from cnihook.request import options
from tests.support.host.host import Container, Host
from tests.support.plugins.cni import CHECKOUT
from tests.support.runtimes.oci import CNIHOOK, NET_D, RESULTS, Runtime, bridge, call_hook, configure

BOUNDS = "/etc/cnihook/config.json"
NPWG = "k8s.v1.cni.cncf.io/networks"


def network(name: str, subnet: str, **keys: Any) -> dict[str, Any]:
    conf = bridge(name, subnet)
    conf["plugins"][0]["capabilities"] = {"ips": True, "mac": True}
    conf["plugins"] += [
        {"type": "portmap", "capabilities": {"portMappings": True}},
        {"type": "bandwidth", "capabilities": {"bandwidth": True}},
    ]
    return conf | keys


FRONT = network("front", "10.1.0.0/24")
BACK = network("back", "10.2.0.0/24")
CLOSED = network("closed", "10.3.0.0/24", cnihook={"annotations": False})


def write_bounds(host: Host, text: Any, mode: int = 0o644) -> None:
    host.write(BOUNDS, text if isinstance(text, str) else json.dumps({"annotations": text}), mode)
    host.leaves("* /etc/cnihook*")


class Hook:
    """The hook for one container, whose process is a namespace of its own."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.container: Container = host.container("c1", process=True)
        host.leaves("file /run/cnihook/log/*")

    def __call__(self, annotations: dict[str, str], *arguments: str, event: str = "createRuntime") -> str:
        """Call the hook; return its message if it rejects the container, "" if it attaches it."""
        state = {"id": "c1", "pid": self.container.pid, "bundle": "/", "annotations": annotations}
        outcome = call_hook(self.host, event, state | {"ociVersion": "1.0.2"}, *arguments)
        refused = outcome.returncode == 1
        if refused:
            assert outcome.stderr.startswith(f"cnihook: {event} of container c1: "), outcome.stderr
            assert outcome.stderr.count("\n") == 1
            assert not self.records
        elif event == "createRuntime":
            assert outcome.returncode == 0, outcome.stderr
        return outcome.stderr if refused else ""

    @property
    def records(self) -> list[str]:
        return self.host.listdir(RESULTS) if self.host.exists(RESULTS) else []

    def end(self) -> None:
        self({}, event="poststop")
        assert self.records == []


@pytest.fixture
def hook(host: Host) -> Hook:
    configure(host, FRONT, BACK)
    return Hook(host)


# Each option: its annotation, a value, and the keys of an NPWG element with the same meaning.
OPTIONS: list[tuple[str, str, dict[str, Any] | None]] = [
    ("networks", "front", {}),
    ("publish", "8080:80", {"portMappings": [{"hostPort": 8080, "containerPort": 80}]}),
    ("publish", "80", None),
    ("ip", "10.1.0.9", {"ips": ["10.1.0.9/24"]}),
    ("ip6", "fd01::9", {"ips": ["fd01::9/64"]}),
    ("mac-address", "02:00:00:00:00:09", {"mac": "02:00:00:00:00:09"}),
    ("bandwidth", "in=10M", {"bandwidth": {"ingressRate": 10_000_000, "ingressBurst": 10_000_000}}),
    ("route", "192.0.2.0/24=10.1.0.9", {"default-route": ["10.1.0.9"]}),
    ("ip", "10.1.0.9", {"cni-args": {"IP": "10.1.0.9"}}),
    ("mac-address", "02:00:00:00:00:09", {"cni-args": {"MAC": "02:00:00:00:00:09"}}),
    ("route", "0.0.0.0/0=10.1.0.9", {"cni-args": {"GATEWAY": "10.1.0.9"}}),
    ("cni-args", "", {"cni-args": {"other": "x"}}),
    ("no-default-route", "true", None),
    ("network-alias", "db", None),
    ("hostname", "web", None),
    ("dns", "192.0.2.1", None),
    ("dns-search", "example.org", None),
    ("dns-option", "ndots:2", None),
    ("add-host", "up:192.0.2.1", None),
    ("emulate", "delay=80ms", None),
    ("quota", "out=1G", None),
    ("label", "app=web", None),
    ("egress", "dns", None),
    ("ingress", "none", None),
    ("policy", "web", None),
    ("sticky", "web", None),
    ("mdns", "true", None),
    ("weak-policy", "true", None),
]
ALL = sorted({option for option, _, _ in OPTIONS})


def test_every_option_can_be_bounded() -> None:
    assert set(ALL) == set(options.BOUNDED)


@pytest.mark.parametrize(("option", "value", "element"), OPTIONS)
@pytest.mark.parametrize("by", ["file", "argument"])
def test_container_with_disallowed_annotation_is_refused(
    host: Host, hook: Hook, option: str, value: str, element: dict[str, Any] | None, by: str
) -> None:
    others = [name for name in ALL if name != option]
    arguments: tuple[str, ...] = ()
    if by == "file":
        write_bounds(host, {"allow": others})
    else:
        arguments = ("--allow", ",".join(others))

    if value:
        refused = hook({f"cnihook.{option}": value}, *arguments)
        assert f"annotation cnihook.{option}" in refused
        assert (BOUNDS if by == "file" else "--allow") in refused and others[0] in refused
    if element is not None:
        refused = hook({NPWG: json.dumps([{"name": "front"} | element])}, *arguments)
        assert f"annotation {NPWG}" in refused and option in refused


@pytest.mark.parametrize(
    ("value", "option"),
    [
        ("front:ip=10.1.0.9", "ip"),
        ("front:mac=02:00:00:00:00:09", "mac-address"),
        ("front:alias=db", "network-alias"),
        ("name=front,ip6=fd01::9", "ip6"),
    ],
)
def test_option_inside_networks_annotation_is_bounded(
    host: Host, hook: Hook, value: str, option: str
) -> None:
    write_bounds(host, {"allow": ["networks"]})

    assert option in hook({"cnihook.networks": value})


def test_allowed_annotations_work_and_flags_are_not_bounded(host: Host, hook: Hook) -> None:
    write_bounds(host, {"allow": ["networks", "ip"], "networks": ["front"], "ports": "8000-8999"})

    assert not hook({"cnihook.networks": "front", "cnihook.ip": "10.1.0.9"}, "--publish", "22:80")
    assert hook.container.addresses("eth0") == ["10.1.0.9/24"]
    hook.end()
    assert not hook({"io.other": "x"}, "--network", "back", "--mac-address", "02:00:00:00:00:09")
    hook.end()


def test_container_without_annotations_does_not_read_the_file(host: Host, hook: Hook) -> None:
    write_bounds(host, "{")

    assert not hook({"io.other": "x"})
    hook.end()


# Networks


@pytest.mark.parametrize("annotation", ["cnihook.networks", NPWG])
@pytest.mark.parametrize("value", ["back", "front,back"])
def test_unlisted_network_is_refused(host: Host, hook: Hook, annotation: str, value: str) -> None:
    write_bounds(host, {"networks": ["front"]})

    refused = hook({annotation: value})
    assert f"annotation {annotation}" in refused and "network back" in refused and BOUNDS in refused


def test_default_of_all_networks_is_limited_to_allowed_ones(host: Host, hook: Hook) -> None:
    """Otherwise any annotation would attach the container to the other networks."""
    host.write(f"{NET_D}/30-closed.conflist", json.dumps(CLOSED))
    write_bounds(host, {"networks": ["front", "closed"]})

    assert not hook({"cnihook.dns": "192.0.2.1"})
    assert hook.records == ["front-c1-eth0"]
    hook.end()
    write_bounds(host, {"networks": ["nonet"]})
    assert "may request no network" in hook({"cnihook.dns": "192.0.2.1"})


@pytest.mark.parametrize(
    "annotations",
    [{"cnihook.networks": "closed"}, {"cnihook.networks": "closed:ip=10.3.0.9"}, {NPWG: "closed"}],
)
def test_closed_network_cannot_be_requested(host: Host, hook: Hook, annotations: dict[str, str]) -> None:
    host.write(f"{NET_D}/30-closed.conflist", json.dumps(CLOSED))

    refused = hook(annotations)
    assert (
        "network closed" in refused and f"{NET_D}/30-closed.conflist" in refused and "--network" in refused
    )
    assert not hook({}, "--network", "closed")
    hook.end()


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("publish", "8080:80"),
        ("ip", "10.3.0.9"),
        ("mac-address", "02:00:00:00:00:09"),
        ("bandwidth", "in=10M"),
        ("network-alias", "db"),
        ("hostname", "db"),
        ("route", "192.0.2.0/24"),
        ("no-default-route", "true"),
    ],
)
def test_nothing_on_a_closed_network_can_be_requested(
    host: Host, hook: Hook, option: str, value: str
) -> None:
    host.write(f"{NET_D}/30-closed.conflist", json.dumps(CLOSED))

    refused = hook({f"cnihook.{option}": value}, "--network", "closed")
    assert f"cnihook.{option}" in refused and "network closed" in refused
    assert not hook({"cnihook.dns": "192.0.2.1"}, "--network", "closed")
    hook.end()


def test_single_plugin_can_be_closed_as_well(host: Host, hook: Hook) -> None:
    single = {
        "cniVersion": "0.4.0",
        "name": "single",
        **CLOSED["plugins"][0],
        "cnihook": {"annotations": False},
    }
    host.write(f"{NET_D}/30-single.conf", json.dumps(single))

    assert "network single" in hook({"cnihook.networks": "single"})
    assert not hook({}, "--network", "single", "--route", "192.0.2.0/24=10.3.0.9")
    hook.end()


@pytest.mark.parametrize(
    ("keys", "plugin", "problem"),
    [
        ({"cnihook": {"annotations": None}}, {}, "is null"),
        ({"cnihook": {"annotation": False}}, {}, "is unknown"),
        ({"cnihook": {"annotations": "false"}}, {}, "must be a boolean"),
        ({"cnihook": False}, {}, "must be an object"),
        ({}, {"cnihook": {"annotations": False}}, "has no effect on a plugin"),
    ],
)
def test_network_with_malformed_bounds_is_not_used(
    host: Host, hook: Hook, keys: dict[str, Any], plugin: dict[str, Any], problem: str
) -> None:
    conf = network("closed", "10.3.0.0/24", **keys)
    conf["plugins"][0] |= plugin
    host.write(f"{NET_D}/30-closed.conflist", json.dumps(conf))

    state = {"ociVersion": "1", "id": "c1", "pid": hook.container.pid, "bundle": "/"}
    outcome = call_hook(host, "createRuntime", state, "--network", "closed")
    assert outcome.returncode == 1 and "no network 'closed'" in outcome.stderr and problem in outcome.stderr
    outcome = host.run(CNIHOOK, "validate", check=False)
    assert outcome.returncode == 1 and problem in outcome.stdout


# Ports


@pytest.mark.parametrize(
    ("value", "allowed"),
    [
        ("22:22", False),
        ("1023-1024:80", False),
        ("8080:80", True),
        ("9000-9001:80-81", True),
        ("9001-9002:80", False),
        ("127.0.0.1:22:22/udp", False),
    ],
)
@pytest.mark.parametrize("by", ["file", "argument"])
def test_ports_are_bounded(host: Host, hook: Hook, value: str, allowed: bool, by: str) -> None:
    ports = "1024-8999,9000-9001"
    arguments = ("--ports", ports) if by == "argument" else ()
    if by == "file":
        write_bounds(host, {"ports": ports})

    refused = hook({"cnihook.networks": "front", "cnihook.publish": value}, *arguments)
    assert (refused == "") is allowed
    if refused:
        assert ports in refused and (BOUNDS if by == "file" else "--ports") in refused
    else:
        hook.end()
    first = int(value.split(":")[-2].partition("-")[0])
    element = {"name": "front", "portMappings": [{"hostPort": first, "containerPort": 80}]}
    assert bool(hook({NPWG: json.dumps([element])}, *arguments)) is (first < 1024)
    if first >= 1024:
        hook.end()


def test_automatic_host_port_is_within_all_bounds(host: Host, hook: Hook) -> None:
    write_bounds(host, {"ports": "7000-7003,8000-8009"})
    annotations = {"cnihook.publish": "80", "cnihook.networks": "front"}

    assert not hook(annotations, "--ports", "7003-8004")
    record = json.loads(host.read(f"{RESULTS}/front-c1-eth0"))
    assert [port["hostPort"] for port in record["capabilityArgs"]["portMappings"]] == [8000]
    hook.end()
    refused = hook(annotations, "--ports", "1-10")
    assert "publish" in refused and "--ports" in refused


def test_cni_args_pair_cannot_contain_another_pair(hook: Hook) -> None:
    for pairs in ({"a": "x;IP=10.1.0.9"}, {"a;IP=10.1.0.9;b": "x"}, {"IP=10.1.0.9": "x"}):
        refused = hook(
            {NPWG: json.dumps([{"name": "front", "cni-args": pairs}])}, "--allow", "networks,cni-args"
        )
        assert "more than one pair" in refused


# The other ways to attach


def test_attach_obeys_bounds_on_annotations(runtime: Runtime, host: Host) -> None:
    configure(host, FRONT, BACK)
    write_bounds(host, {"allow": ["dns"], "networks": ["front"]})
    runtime.run(hooks={}, annotations={"cnihook.publish": "22:22"})
    runtime.run("c2", hooks={}, annotations={"cnihook.dns": "192.0.2.1"})

    outcome = host.run(CNIHOOK, "attach", "c1", "--network", "front", check=False)
    assert (
        outcome.returncode == 1
        and "annotation cnihook.publish" in outcome.stderr
        and BOUNDS in outcome.stderr
    )
    host.run(CNIHOOK, "attach", "c2", "--network", "back", "--publish", "22:22")
    host.run(CNIHOOK, "detach", "c2")
    host.leaves("file /run/cnihook/log/*")


def test_inject_writes_bounds_into_the_hook(runtime: Runtime, host: Host) -> None:
    configure(host, FRONT)
    folder = runtime.bundle("c1", hooks={}, annotations={"cnihook.publish": "22:22"})
    for _ in range(2):
        host.run(CNIHOOK, "inject", str(folder), "--allow", "networks,publish", "--ports", "1024-65535")
    hooks = runtime.config("c1")["hooks"]

    assert [len(hooks[stage]) for stage in hooks] == [1, 1]
    assert hooks["createRuntime"][0]["args"][-2:] == ["--allow=networks,publish", "--ports=1024-65535"]
    starting = runtime.start("c1")
    assert starting.wait(30) != 0
    assert "--ports among the hook's arguments" in host.run(CNIHOOK, "logs", "c1").stdout
    host.run(CNIHOOK, "inject", str(folder))
    assert "--ports=1024-65535" not in runtime.config("c1")["hooks"]["createRuntime"][0]["args"]
    host.leaves("file /run/cnihook/log/*")


def test_built_in_network_exists_only_without_other_networks(
    host: Host, hook: Hook, runtime: Runtime
) -> None:
    run = str(CHECKOUT / "scripts" / "priv-net-run")
    runtime.run("c2", hooks={})
    attempts = (
        [run, "--network", "cnihook", "true"],
        [run, "--network", "front", "--network", "cnihook:eth1", "true"],
        [CNIHOOK, "attach", "c2", "--network", "cnihook"],
    )
    for text in (None, "{"):
        if text:  # a malformed file counts as a network
            host.run("sh", "-c", f"rm {NET_D}/*")
            host.write(f"{NET_D}/10-net.conflist", text)
        for annotations, arguments in (
            ({"cnihook.networks": "cnihook"}, ()),
            ({NPWG: "cnihook"}, ()),
            ({}, ("--network", "cnihook")),
        ):
            outcome = call_hook(
                host,
                "createRuntime",
                {
                    "ociVersion": "1",
                    "id": "c1",
                    "pid": hook.container.pid,
                    "bundle": "/",
                    "annotations": annotations,
                },
                *arguments,
            )
            assert outcome.returncode == 1 and "no network 'cnihook'" in outcome.stderr
        for argv in attempts:
            outcome = host.run(*argv, check=False)
            assert outcome.returncode and (
                "no network 'cnihook'" in outcome.stderr or "no network 'front'" in outcome.stderr
            )
    host.run("sh", "-c", f"rm {NET_D}/*")
    host.run(*attempts[0])
    host.run(*attempts[2])
    host.run(CNIHOOK, "detach", "c2")
    host.leaves("file /run/cnihook/log/*")
