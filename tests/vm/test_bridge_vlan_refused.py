# SPDX-License-Identifier: Apache-2.0
"""bridge: invalid VLANs.  ADD rejects them before it creates anything, so any kernel will do."""

from typing import Any

import pytest

from tests.support.host.host import Container, Host
from tests.support.plugins.cni import CniFailure

CONF = {"cniVersion": "1.0.0", "name": "net", "type": "bridge", "bridge": "br0"}


def refuse(host: Host, container: Container, keys: dict[str, Any], problem: str) -> None:
    with pytest.raises(CniFailure, match=problem):
        host.cni("ADD", CONF | keys, container)

    assert host.links() == container.links() == {"lo"}


@pytest.mark.parametrize("vlan", [-1, 4095, 65637])
def test_vlan_must_be_from_0_to_4094(host: Host, container: Container, vlan: int) -> None:
    """65637 would be 100 in the 16 bits of the kernel's attribute."""
    refuse(host, container, {"vlan": vlan}, rf"invalid VLAN ID {vlan} \(must be between 0 and 4094\)")


@pytest.mark.known_difference(
    "does not know vlanTrunk", here="accepts it", right="cnihook", fixed_in="1.9.1", run=False
)
@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ({"id": 0}, "incorrect trunk id parameter"),
        ({"id": 4095}, "incorrect trunk id parameter"),
        ({"id": -1}, "incorrect trunk id parameter"),
        ({"minID": 0, "maxID": 5}, "incorrect trunk minID parameter"),
        ({"minID": 4095, "maxID": 4095}, "incorrect trunk minID parameter"),
        ({"minID": 5, "maxID": 4095}, "incorrect trunk maxID parameter"),
        ({"minID": 5}, "minID and maxID should be configured simultaneously, maxID is missing"),
        ({"maxID": 5}, "minID and maxID should be configured simultaneously, minID is missing"),
        ({"minID": 6, "maxID": 5}, "minID is greater than maxID in trunk parameter"),
        ({"id": "5"}, "integer"),
        (5, "object"),
    ],
)
def test_trunk_entry_must_be_id_or_range(host: Host, container: Container, entry: Any, problem: str) -> None:
    """A bad entry after a good one is rejected, too."""
    refuse(host, container, {"vlanTrunk": [{"id": 7}, entry]}, problem)


@pytest.mark.known_difference(
    "does not know vlanTrunk", here="accepts it", right="cnihook", fixed_in="1.9.1", run=False
)
def test_trunk_must_be_a_list(host: Host, container: Container) -> None:
    refuse(host, container, {"vlanTrunk": {"id": 7}}, "vlanTrunk")
