# SPDX-License-Identifier: Apache-2.0
"""Marks for differences from the reference in more than one test; pages/differences.md has all of them."""

import pytest

SPEC_1_1 = pytest.mark.known_difference(
    "speaks the specification up to 1.0.0", here="up to 1.1.0", right="SPEC.md, 2 VERSION", fixed_in="1.9.1"
)
OLD_KEYS = pytest.mark.known_difference(
    "does not know the key", here="served", right="cnihook", fixed_in="1.9.1"
)
NO_GC = pytest.mark.known_difference(
    "GC removes nothing", here="removes what is not on the list", right="SPEC.md, 2 GC"
)
NO_STATUS = pytest.mark.known_difference(
    "STATUS succeeds whatever ADD would do", here="reports why ADD would fail", right="SPEC.md, 2 STATUS"
)
BACKEND = pytest.mark.known_difference(
    "the error of an unknown ipMasqBackend does not name it, or leaves the link",
    here="the error names the key, and nothing is left",
    right="either",
)
LEAKS_LINK = pytest.mark.known_difference(
    "an ADD that fails leaves links, in some cases the lease",
    here="leaves nothing, at whichever step it fails",
    right="cnihook",
)
LEAVES_RULES = pytest.mark.known_difference(
    "chains stay, and without prevResult the rules", here="leaves nothing", right="SPEC.md, 2 DEL"
)
NO_LEGACY = pytest.mark.known_difference(
    "uses one kind of iptables; a host may have two", here="both", right="cnihook"
)
LEAKS_INVALID = pytest.mark.known_difference(
    "packets that conntrack calls invalid leave with the container's address",
    here="dropped",
    right="cnihook",
)
HOST_NETNS = pytest.mark.known_difference(
    "CNI_NETNS of the host's own namespace: the interface is made on the host",
    here="refused",
    right="cnihook",
)
RELEASES_EARLY = pytest.mark.known_difference(
    "DEL releases the address before the link is gone", here="the link goes first", right="cnihook"
)
LEAVES_HOST_END = pytest.mark.known_difference(
    "DEL without CNI_NETNS leaves the host's end of the link", here="removes it", right="SPEC.md, 2 DEL"
)
LINK_RULES = pytest.mark.known_difference(
    "DEL without the link leaves the rules of masquerading", here="leaves nothing", right="SPEC.md, 2 DEL"
)
WAITS_FOR_DAD = pytest.mark.known_difference(
    "IPv6 addresses wait for duplicate address detection, on a link without neighbours",
    here="can be used at once",
    right="cnihook",
)
TAKES_ADDRESS = pytest.mark.known_difference(
    "accepts an address of another container, and the host reaches the last one",
    here="refused",
    right="cnihook",
)
KEEPS_LEASE = pytest.mark.known_difference(
    "an ADD that fails in IPAM does not release",
    here="the IPAM plugin gets DEL",
    right="SPEC.md, 4 Delegation",
)
ONE_CODE = pytest.mark.known_difference(
    "an error has code 999", here="a wrong configuration has code 7", right="SPEC.md, 5 Error"
)
VETH_ONLY = pytest.mark.known_difference(
    "limits veth pairs only (plugins#413, #656)",
    here="limits any interface in the container, where CAP_NET_ADMIN can remove it",
    right="cnihook",
)
LEAVES_QDISC = pytest.mark.known_difference(
    "an ADD that fails leaves qdiscs and the ifb", here="leaves nothing", right="cnihook"
)
