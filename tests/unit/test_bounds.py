# SPDX-License-Identifier: Apache-2.0
"""Bounds on annotations: every part of a request is checked."""

from typing import Any

from cnihook.fast.address import IPNet
from cnihook.request import bounds_file, options
from cnihook.request.bounds import Bounds, Guard
from cnihook.request.request import ContainerRequest, NetworkRequest, PortRequest
from cnihook.types.errors import CniError

# For each part of a request: a value, and the option that allows it; None if its own parts are bounded.
OF_A_NETWORK: dict[str, tuple[Any, str | None]] = {
    "network": ("front", "networks"),
    "ifname": ("eth5", "networks"),
    "ips": (["10.1.0.9"], "ip"),
    "mac": ("02:00:00:00:00:09", "mac-address"),
    "ports": ([PortRequest(80, 8080, 8080, "tcp", "")], "publish"),
    "bandwidth": ({"ingressRate": 1}, "bandwidth"),
    "emulation": ({"egress": {"delay": 80_000}}, "emulate"),
    "quota": ({"egress": 1}, "quota"),
    "aliases": (["db"], "network-alias"),
    "routes": ([(IPNet.parse("192.0.2.0/24"), None)], "route"),
    "no_default_route": (True, "no-default-route"),
    "cni_args": ({"x": "y"}, "cni-args"),
}
OF_A_CONTAINER: dict[str, tuple[Any, str | None]] = {
    "networks": ([NetworkRequest("front")], "networks"),
    "common": (None, None),
    "dns": (None, None),
    "hosts": ([("up", "192.0.2.1")], "add-host"),
    "hostname": ("web", "hostname"),
    "sticky": ("web", "sticky"),
    "mdns": ({"uplinks": ["eth0"]}, "mdns"),
    "weak_policy": (True, "weak-policy"),
    "guard": (None, None),
    "egress": ("none", "egress"),
    "ingress": ("none", "ingress"),
    "policies": (["sandbox"], "policy"),
    "labels": ({"app": "db"}, "label"),
}


def refused(request: ContainerRequest, allow: set[str]) -> bool:
    bounds = Bounds("{}")
    bounds.allow = frozenset(allow)
    try:
        Guard(request, options.NETWORKS, [bounds]).check_options()
    except CniError:
        return True
    return False


def test_every_part_of_a_request_is_bounded() -> None:
    """Add a new part of these classes to the bounds, and to the tables here."""
    assert set(OF_A_NETWORK) == set(NetworkRequest.__slots__) and set(OF_A_CONTAINER) == set(
        ContainerRequest.__slots__
    )
    everything = set(options.BOUNDED)
    for part, (value, option) in OF_A_NETWORK.items():
        want = NetworkRequest("front")
        setattr(want, part, value)
        request = ContainerRequest([want])
        assert option and not refused(request, {option, "networks"}), part
        assert refused(request, everything - {option}), part
        if option != "networks":
            request = ContainerRequest()
            setattr(request.common, part, value)
            assert not refused(request, {option}) and refused(request, everything - {option}), part
    for part, (value, option) in OF_A_CONTAINER.items():
        if option:
            request = ContainerRequest()
            setattr(request, part, value)
            assert not refused(request, {option}) and refused(request, everything - {option}), part


def test_ports_are_ranges_with_commas_between() -> None:
    assert bounds_file.parse_ports("80, 1024-65535,443") == [(80, 80), (1024, 65535), (443, 443)]
