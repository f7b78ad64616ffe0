# SPDX-License-Identifier: Apache-2.0
"""The comparison of a record with the edited file of its network."""

import copy
import json
from typing import Any

import pytest

from cnihook.cli.shared import behind
from cnihook.container import edited
from cnihook.fast.address import IPNet
from cnihook.protocol import invoke
from cnihook.request import routes
from cnihook.request.request import NetworkRequest
from cnihook.runtime import networks, records
from cnihook.runtime.identity import ProcessIdentity
from cnihook.runtime.pending import Input
from cnihook.types.fields import IN_PLACE, NEW_ONLY, REATTACH, Field

WEB: dict[str, Any] = {
    "cniVersion": "1.0.0",
    "name": "web",
    "plugins": [
        {
            "type": "bridge",
            "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.1.0.0/24"}]]},
        },
        {"type": "portmap", "capabilities": {"portMappings": True}},
        {"type": "tuning", "sysctl": {"net.ipv4.conf.IFNAME.arp_filter": "1"}},
        {"type": "other", "level": 1},
    ],
}
ADDED = {"sysctl": {"net.ipv4.conf.IFNAME.arp_filter": "1", "net.ipv4.tcp_ecn": "1"}}


def network(raw: dict[str, Any], indent: "int | None" = None) -> networks.Network:
    return networks.parse(json.dumps(raw, indent=indent).encode(), "/etc/cni/net.d/10-web.conflist")


def changed(index: int, **keys: Any) -> dict[str, Any]:
    raw = copy.deepcopy(WEB)
    raw["plugins"][index] |= keys
    return raw


def record(raw: "networks.Network | dict[str, Any]" = WEB, **more: Any) -> records.Record:
    own = network(raw) if isinstance(raw, dict) else raw
    more = {"process": ProcessIdentity(boot="b", pid=1, start=1, netns_id=(1, 1))} | more
    if own.requested:
        more["extra"] = {"requested": own.requested}
    return records.Record("web", "c1", "eth0", config=own.text, netns="/x", **more)


def keys(one: records.Record, raw: dict[str, Any]) -> dict[str, str]:
    return {each.key: each.change for each in edited.differences(one, network(raw))}


IPAM = {"type": "host-local", "ranges": [[{"subnet": "10.1.0.0/24"}]]}
OTHER = [[{"subnet": "10.2.0.0/24"}]]


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (WEB, {}),
        (changed(0, hairpinMode=True), {"bridge.hairpinMode": REATTACH}),
        # What a plugin reads is the same: a default, another case, a key that no plugin reads.
        (changed(0, hairpinMode=False, MTU=0, comment="x"), {}),
        (changed(0, mtu="wrong"), {"bridge.mtu": IN_PLACE}),
        (changed(0, ipam={**IPAM, "ranges": OTHER}), {"bridge.ipam.ranges": NEW_ONLY}),
        (changed(0, ipam={**IPAM, "routes": [{"dst": "0.0.0.0/0"}]}), {"bridge.ipam.routes": NEW_ONLY}),
        (changed(0, ipam={"type": "dhcp"}), {"bridge.ipam.type": REATTACH}),
        (changed(0, capabilities={"ips": True}), {"bridge.capabilities.ips": IN_PLACE}),
        (changed(1, snat=False), {"portmap.snat": IN_PLACE}),
        (changed(1, capabilities={}), {"portmap.capabilities.portMappings": IN_PLACE}),
        (changed(2, **ADDED), {"tuning.sysctl.net.ipv4.tcp_ecn": IN_PLACE}),
        (changed(2, mac="02:00:00:00:00:01"), {"tuning.mac": REATTACH}),
        (changed(2, args={"cni": {"mtu": 1400}}), {"tuning.args.cni.mtu": IN_PLACE}),
        # A plugin of another program, which can be removed and added again alone.
        (changed(3, level=2), {"other.level": IN_PLACE}),
        ({**WEB, "plugins": WEB["plugins"][:3]}, {"plugins": "refused"}),
        ({**WEB, "plugins": WEB["plugins"][::-1]}, {"plugins": "refused"}),
        ({**WEB, "cniVersion": "1.1.0"}, {"cniVersion": REATTACH}),
        ({**WEB, "disableCheck": True}, {"disableCheck": IN_PLACE}),
        ({**WEB, "cnihook": {"annotations": False}}, {"annotations": NEW_ONLY}),
    ],
)  # fmt: skip
def test_difference_is_found_and_classified(raw: dict[str, Any], expected: dict[str, str]) -> None:
    assert keys(record(), raw) == expected
    assert keys(record(process=None), raw) == dict.fromkeys(expected, "refused")


def test_interface_plugin_of_another_program_has_to_be_attached_again() -> None:
    own = {**WEB, "plugins": [{"type": "other", "level": 1}, *WEB["plugins"][1:]]}
    new = copy.deepcopy(own)
    new["plugins"][0]["level"] = 2
    assert keys(record(own), new) == {"other.level": REATTACH}


def test_single_plugin_may_become_a_list() -> None:
    plugin = WEB["plugins"][0]
    one = record({"cniVersion": "1.0.0", "name": "web", **plugin})
    listed = {"cniVersion": "1.0.0", "name": "web", "plugins": [plugin]}
    assert keys(one, listed) == {}
    assert keys(one, {**listed, "plugins": [plugin | {"vlan": 5}]}) == {"bridge.vlan": REATTACH}


def test_capability_in_use_is_changed_by_its_plugin() -> None:
    one = record(changed(0, capabilities={"ips": True}), capability_args={"ips": ["10.1.0.5"]})
    assert keys(one, WEB) == {"bridge.capabilities.ips": REATTACH}


def test_requested_routes_are_not_a_difference() -> None:
    requested = NetworkRequest("web")
    requested.routes = [(IPNet.parse("10.9.0.0/16"), None)]
    requested.no_default_route = True
    raw = changed(0, isDefaultGateway=True)
    (own,) = routes.with_requested([network(raw)], [requested], NetworkRequest(""))
    assert own.requested == ["0.isDefaultGateway", "0.isGateway", "0.ipam.routes"]
    assert keys(record(own), raw) == {}
    raw["plugins"][2] |= ADDED
    assert keys(record(own), raw) == {"tuning.sysctl.net.ipv4.tcp_ecn": IN_PLACE}


def test_edit_takes_the_text_of_the_file_if_nothing_else_differs() -> None:
    one = record()
    new = network(changed(2, **ADDED), indent=2)
    assert edited.edit_of(one, new)(Input.of(one)).config == new.text


def test_edit_makes_what_can_be_made_in_place_only() -> None:
    one = record(changed(2, SYSCTL={"net.ipv4.tcp_ecn": "0"}, mtu=1400), capability_args={"x": 1})
    raw = changed(2, sysctl={"net.ipv4.tcp_ecn": "1"}) | {"disableCheck": True}
    raw["plugins"][0]["vlan"] = 5
    new = edited.edit_of(one, network(raw))(Input.of(one))
    assert new.capability_args == {"x": 1}
    own = json.loads(new.config)
    assert own["disableCheck"] is True and "vlan" not in own["plugins"][0]
    one.config = new.config
    assert keys(one, raw) == {"bridge.vlan": REATTACH}
    assert "mtu" not in own["plugins"][2]


@pytest.mark.parametrize("plugin_type", invoke.built_in_types())
def test_declared_changes_have_an_update(plugin_type: str) -> None:
    """A key can be changed in place if the plugin has update(); and update() serves at least one key."""
    default = edited.change_of(plugin_type)
    fields: tuple[Field, ...] = (*invoke.fields(plugin_type), *invoke.traits(plugin_type).args)
    changes = {field.change or default for field in fields}
    assert (IN_PLACE in changes) is hasattr(invoke.load(plugin_type), "update")
    assert changes <= behind.COLOURS.keys()
