# SPDX-License-Identifier: Apache-2.0
"""The end of a container's networks, for plugins whose links this machine's kernel may lack."""

from typing import Any

import pytest

from tests.e2e.test_endings import end_of, plugin
from tests.support.host.host import Host
from tests.support.runtimes.oci import RESULTS, bridge

VRF = {"type": "vrf", "vrfname": "blue"}
LIMIT = {"type": "bandwidth", "ingressRate": 8000000, "ingressBurst": 8000000}
LIMIT |= {"egressRate": 8000000, "egressBurst": 8000000}
CHAINS: dict[str, dict[str, Any]] = {
    "bridge in VLAN": bridge("mynet", "10.22.0.0/24", vlan=7, isGateway=True),
    "bridge with limit": bridge("mynet", "10.22.0.0/24"),
    "ipvlan": plugin("ipvlan", master="dev0"),
    "vlan": plugin("vlan", master="dev0", vlanId=7),
    "dummy in vrf": plugin("dummy"),
}
CHAINS["bridge with limit"]["plugins"].append(LIMIT)
CHAINS["dummy in vrf"]["plugins"].append(VRF)


@pytest.mark.parametrize("kind", CHAINS)
@pytest.mark.parametrize("is_kept", [False, True], ids=["", "namespace is kept"])
def test_end_leaves_nothing(host: Host, kind: str, is_kept: bool) -> None:
    container = end_of(host, CHAINS[kind], is_kept=is_kept)

    assert host.listdir(RESULTS) == []
    if is_kept:
        assert "eth0" not in container.links()
