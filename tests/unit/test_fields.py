# SPDX-License-Identifier: Apache-2.0
"""Plugins read what they declare, and declare what they read."""

from collections.abc import Iterator
from typing import Any

import pytest

from cnihook.cli.shared import declared
from cnihook.fast.address import Address, IPNet
from cnihook.protocol import invoke
from cnihook.protocol.call import Call, Invocation
from cnihook.types import config
from cnihook.types.config import LenientConf, NetConf
from cnihook.types.errors import CniError
from cnihook.types.fields import POD_ANNOTATIONS, Field, check_link_name, read
from cnihook.types.result import Route
from tests.unit.test_validate_keys import DNS, SAMPLES

TYPES = invoke.built_in_types()
KINDS = {"interface", "loopback", "ipam", "chained"}
MAC = "02:00:00:00:00:09"
IPAM = {"type": "host-local", "subnet": "10.1.0.0/24"}
# More than the reference's keys: those of cnihook, and what a runtime passes.
MORE: list[dict[str, Any]] = [
    {"type": "host-device", "pciBusID": "0000:00:1f.6", "runtimeConfig": {"deviceID": "x"}},
    {
        "type": "portmap",
        "takeOverPorts": True,
        "runtimeConfig": {
            "portMappings": [{"hostPort": 80, "containerPort": 80, "protocol": "tcp", "hostIP": "192.0.2.1"}]
        },
    },
    {"type": "firewall", "forwardPolicy": "published"},
    {"type": "bridge", "ipam": {"type": "host-local", "block": "wide"}},
    {"type": "bridge", "ipMasqSubnets": ["10.0.0.0/8"]},
    {"type": "ptp", "ipMasqSubnets": ["10.0.0.0/8"], "ipam": IPAM},
    {
        "type": "bandwidth",
        "runtimeConfig": {
            "bandwidth": {"ingressRate": 8000, "ingressBurst": 8000},
            "emulate": {"egress": {"delay": 80_000}},
        },
    },
    {
        "type": "dummy",
        "ipam": {**IPAM, "statusWhenFull": True},
        "args": {"cni": {"ips": ["10.1.0.9"]}},
        "runtimeConfig": {"ipRanges": [[{"subnet": "10.2.0.0/24"}]], "ips": ["10.2.0.9"]},
    },
    {
        "type": "dummy",
        "ipam": {"type": "static"},
        "args": {"cni": {"ips": ["10.1.0.9/24"]}},
        "runtimeConfig": {"ips": ["10.1.0.9/24"]},
    },
    {"type": "dummy", "ipam": {"type": "dhcp", "timeout": 9}},
    *(
        {"type": name, "master": "eth0", "device": "eth0", "ipam": IPAM, "dns": DNS}
        for name in ("host-device", "ipvlan", "macvlan", "dummy", "tap", "vlan")
    ),
    *(
        {"type": name, **place}
        for name in ("bridge", "macvlan", "tap", "tuning")
        for place in ({"args": {"cni": {"mac": MAC}}}, {"runtimeConfig": {"mac": MAC}})
    ),
]
CONFS = [*SAMPLES.values(), *MORE]
# IP.from_json() also reads the index of an interface, which no configuration has.
NOT_OPTIONS = {"interface"}
# Read by _requested() of host-local and by nftables.quota, which ADD calls, and by arguments of the runtime.
READ_BY_ADD = {
    ("host-local", "ips"),
    *(("bandwidth", key) for key in ("shapedSubnets", "unshapedSubnets", "quota")),
}


def paths(fields: Any, above: str = "") -> Iterator[tuple[str, Field]]:
    for field in fields:
        yield f"{above}{field.name}", field
        yield from paths(field.fields, f"{above}{field.name}.")


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> dict[int, set[str]]:
    """Return the keys that are looked up, by the id() of their object."""
    keys: dict[int, set[str]] = {}
    lookup = config.lookup

    def recording(raw: dict[str, Any], key: str) -> Any:
        keys.setdefault(id(raw), set()).add(key)
        return lookup(raw, key)

    monkeypatch.setattr(config, "lookup", recording)
    return keys


def conf_of(plugin_type: str, raw: dict[str, Any]) -> None:
    """Read a configuration as an ADD does.  A device or a file that does not exist is not of interest."""
    reader = getattr(invoke.load(plugin_type), "Conf", None)
    if reader:
        try:
            reader(Call("ADD", NetConf(raw), Invocation("c1", "", "eth0")))
        except CniError as error:
            assert (
                "not found" in error.msg
                or "resolvConf" in error.msg
                or "SELinux" in error.msg
                or "there is no" in error.msg
                or "has no block" in error.msg
            ), error


@pytest.mark.parametrize("plugin_type", TYPES)
def test_every_plugin_declares_itself(plugin_type: str) -> None:
    traits = invoke.traits(plugin_type)
    assert traits.kind in KINDS
    for _, field in paths((*invoke.fields(plugin_type), *traits.capabilities, *traits.args)):
        assert field.doc and "\n" not in field.doc and "|" not in field.doc, field
        assert field.doc[-1] not in ".;:" and len(field.doc) < 100, field
        assert bool(field.of) or field.type is not list, field
    names = [field.name for field in invoke.fields(plugin_type)]
    assert len(names) == len(set(names))
    assert traits.link is None or traits.link in invoke.fields(plugin_type)
    assert traits.keeps_sysctls is hasattr(invoke.load(plugin_type), "settings_file")


def undeclared(raw: Any, fields: Any, keys: dict[int, set[str]]) -> Iterator[str]:
    """Yield each key that was looked up and is not declared."""
    if isinstance(raw, list):
        for item in raw:
            yield from undeclared(item, fields, keys)
    if isinstance(raw, dict) and fields:
        by_name = {field.name: field for field in fields}
        yield from keys.get(id(raw), set()) - by_name.keys() - NOT_OPTIONS
        for name, item in raw.items():
            yield from undeclared(item, by_name[name].fields if name in by_name else (), keys)


def declared_for(raw: dict[str, Any]) -> tuple[Field, ...]:
    types = [raw["type"], *filter(None, [raw.get("ipam", {}).get("type", "")])]
    capabilities = [field for name in types for field in invoke.traits(name).capabilities]
    others = ("cniVersion", "name", "prevResult", "ipam", "dns")
    own = declared.fields_of(*types)
    names = {field.name for field in own}
    more = [Field(name, dict) for name in others if name not in names]
    return (*own, Field("runtimeConfig", dict, fields=capabilities), *more)


@pytest.mark.parametrize("raw", CONFS, ids=lambda raw: raw["type"])
def test_plugin_reads_declared_keys_only(raw: dict[str, Any], keys: dict[int, set[str]]) -> None:
    whole = {"cniVersion": "1.1.0", "name": "x", **raw}
    for plugin_type in (raw["type"], raw.get("ipam", {}).get("type", "")):
        if plugin_type:
            conf_of(plugin_type, whole)

    assert sorted(undeclared(whole, declared_for(raw), keys)) == []


@pytest.mark.parametrize("plugin_type", TYPES)
def test_plugin_reads_every_key_that_it_declares(plugin_type: str, keys: dict[int, set[str]]) -> None:
    """Each is in a sample, and is looked up there."""
    missing = {name for name, _ in paths(invoke.fields(plugin_type))}
    traits = invoke.traits(plugin_type)
    missing |= {f"args.cni.{field.name}" for field in traits.args}
    missing |= {f"runtimeConfig.{field.name}" for field in traits.capabilities}
    missing.discard(f"runtimeConfig.{POD_ANNOTATIONS}")  # request.pod_annotations reads it, for any plugin
    missing -= {
        path for path in missing for name, key in READ_BY_ADD
        if name == plugin_type and path.rpartition(".")[2] == key
    }  # fmt: skip

    def remove(raw: Any, above: str) -> None:
        for item in raw if isinstance(raw, list) else ():
            remove(item, above)
        for name, item in raw.items() if isinstance(raw, dict) else ():
            if name in keys.get(id(raw), ()):
                missing.discard(f"{above}{name}")
            remove(item, f"{above}{name}.")

    for sample in CONFS:
        ipam = sample.get("ipam", {})
        if plugin_type in (sample["type"], ipam.get("type")):
            whole = {"cniVersion": "1.1.0", "name": "x", **sample}
            conf_of(plugin_type, whole)
            if plugin_type == sample["type"]:
                remove(whole, "")
            else:
                remove(ipam, "")
                remove({key: whole[key] for key in ("args", "runtimeConfig") if key in whole}, "")
    assert {path for path in missing if not path.endswith("ipam.type")} == set()


def test_unknown_plugin_has_the_defaults() -> None:
    for name in ("no-such-plugin", "", "../bridge", "__init__"):
        traits = invoke.traits(name)
        assert (traits.kind, traits.takes, traits.makes, traits.link) == ("", (), (), None)
        assert traits.host_link({"bridge": "br0"}) == "" and not traits.is_gateway({"isGateway": True})


@pytest.mark.parametrize(
    ("plugin_type", "raw", "link", "gateway"),
    [
        ("bridge", {}, "cni0", False),
        ("bridge", {"Bridge": "br0", "isdefaultgateway": True}, "br0", True),
        ("bridge", {"bridge": 5, "isGateway": "true"}, "cni0", False),
        ("ptp", {}, "", True),
        ("macvlan", {"master": "eth1"}, "eth1", False),
        ("host-device", {"device": "eth1"}, "eth1", False),
        ("tap", {"bridge": "br0"}, "", False),
    ],
)
def test_traits_of_a_configuration(plugin_type: str, raw: dict[str, Any], link: str, gateway: bool) -> None:
    traits = invoke.traits(plugin_type)
    assert (traits.host_link(raw), traits.is_gateway(raw)) == (link, gateway)


FIELDS = (
    Field("name", str, "x", check=check_link_name, doc="a name"),
    Field("mode", str, "l2", choices=("l2", "l3"), doc="a mode"),
    Field("on", bool, doc="a boolean"),
    Field("off", bool, True, doc="a boolean"),
    Field("mtu", int, 0, high=9, doc="a number"),
    Field("table", int, low=1, high=9, doc="a number that may be absent"),
    Field("gateway", Address, doc="an address"),
    Field("subnet", IPNet, doc="a subnet"),
    Field("texts", list, of=str, doc="texts"),
    Field("routes", list, of=dict, fields=Route.FIELDS, doc="objects"),
    Field("ipam", dict, doc="an object"),
)
ABSENT: dict[str, Any] = {
    "name": "x", "mode": "l2", "on": False, "off": True, "mtu": 0, "table": None, "gateway": None,
    "subnet": None, "texts": [], "routes": [], "ipam": {},
}  # fmt: skip


def values(conf: NetConf) -> dict[str, Any]:
    read_values = read(conf, FIELDS)
    return {**read_values, "ipam": read_values["ipam"].raw}


@pytest.mark.parametrize("raw", [{}, dict.fromkeys(ABSENT), {"name": "", "mode": "", "gateway": ""}])
def test_absent_null_and_empty_are_the_default(raw: dict[str, Any]) -> None:
    assert values(NetConf(raw)) == ABSENT


def test_case_of_a_key_has_no_effect() -> None:
    conf = NetConf({"NAME": "eth0", "MTU": 5, "Gateway": "10.0.0.1", "TEXTS": ["a"]})

    assert values(conf) == {
        **ABSENT, "name": "eth0", "mtu": 5, "gateway": Address.parse("10.0.0.1"), "texts": ["a"],
    }  # fmt: skip


WRONG = {
    "name": ("a/b", "\"name\" is wrong: interface name 'a/b' contains / or : or whitespace characters"),
    "mode": ("l4", "\"mode\" must be one of l2, l3, not 'l4'"),
    "on": ("true", '"on" must be a boolean, not a string'),
    "mtu": (10, '"mtu" must be between 0 and 9, not 10'),
    "table": (0, '"table" must be between 1 and 9, not 0'),
    "gateway": ("x", "\"gateway\" is wrong: 'x' is not an IP address"),
    "subnet": ("10.0.0.0", "\"subnet\" is wrong: '10.0.0.0' is not an address in CIDR notation"),
    "texts": ([1], '"texts[0]" must be a string, not an integer'),
    "routes": ([1], '"routes[0]" must be an object, not an integer'),
    "ipam": ([], '"ipam" must be an object, not a list'),
}


@pytest.mark.parametrize("key", WRONG)
def test_wrong_value_is_refused_and_absent_for_a_del(key: str) -> None:
    value, message = WRONG[key]

    with pytest.raises(CniError) as refused:
        read(NetConf({key: value}), FIELDS)
    assert refused.value.msg == message
    assert values(LenientConf({key: value})) == ABSENT
