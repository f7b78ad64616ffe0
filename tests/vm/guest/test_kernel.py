# SPDX-License-Identifier: Apache-2.0
"""The guest itself: the features on which the other tests in this folder rely."""

from pathlib import Path

import pytest

from tests.support.host.namespace import Namespace


@pytest.fixture
def implementation() -> None:
    """Run once, because no plugin is tested."""


KINDS = """\
ip link add d0 type dummy
for kind in "vlan id 5" ipvlan macvlan; do ip link add x0 link d0 type $kind; ip link del x0; done
for kind in "vrf table 9" bond ifb "bridge vlan_filtering 1"; do
  ip link add x0 type $kind; ip link del x0
done
ip tuntap add x0 mode tap
tc qdisc add dev x0 root netem delay 1ms
ip link del x0
ip link del d0
"""


def test_every_kind_of_link_can_be_made(host: Namespace) -> None:
    """This machine's own kernel may have none of these kinds, so the guest must have them."""
    host.run("sh", "-exc", KINDS)


def test_machine_is_the_same_and_stays_as_it_is() -> None:
    """Tests find the checkout and all installed programs; their writes are lost with the guest."""
    assert Path.cwd() == Path(__file__).parents[3]
    (root,) = [line for line in Path("/proc/mounts").read_text().splitlines() if line.split()[1] == "/"]
    assert root.startswith("root / overlay rw,") and "upperdir=/over/upper," in root
