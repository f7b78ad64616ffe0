# SPDX-License-Identifier: Apache-2.0
"""Marks for differences from the reference in more than one test; pages/differences.md has all of them."""

import pytest

SPEC_1_1 = pytest.mark.known_difference(
    "supports the specification up to 1.0.0",
    here="up to 1.1.0",
    right="SPEC.md, 2 VERSION",
    fixed_in="1.9.1",
)
OLD_KEYS = pytest.mark.known_difference(
    "does not know keys of newer versions", here="supports them", right="cnihook", fixed_in="1.9.1"
)
NO_GC = pytest.mark.known_difference(
    "GC removes nothing", here="removes attachments that are not on the list", right="SPEC.md, 2 GC"
)
NO_STATUS = pytest.mark.known_difference(
    "STATUS succeeds even if ADD would fail", here="reports why ADD would fail", right="SPEC.md, 2 STATUS"
)
BACKEND = pytest.mark.known_difference(
    "the error of an unknown ipMasqBackend does not name it, or the link is left",
    here="the error names the key, and nothing is left",
    right="either",
)
LEAKS_LINK = pytest.mark.known_difference(
    "an ADD that fails leaves links, in some cases also the lease",
    here="leaves nothing, whichever step fails",
    right="cnihook",
)
LEAVES_RULES = pytest.mark.known_difference(
    "DEL leaves the chains, and without prevResult also the rules",
    here="leaves nothing",
    right="SPEC.md, 2 DEL",
)
NO_LEGACY = pytest.mark.known_difference(
    "uses one kind of iptables; a host may have two", here="uses both", right="cnihook"
)
LEAKS_INVALID = pytest.mark.known_difference(
    "packets that conntrack calls invalid leave with the container's address",
    here="drops them",
    right="cnihook",
)
HOST_NETNS = pytest.mark.known_difference(
    "makes the interface on the host if CNI_NETNS is the host's own namespace",
    here="refused",
    right="cnihook",
)
RELEASES_EARLY = pytest.mark.known_difference(
    "DEL releases the address before the link is gone", here="deletes the link first", right="cnihook"
)
LEAVES_HOST_END = pytest.mark.known_difference(
    "DEL without CNI_NETNS leaves the host's end of the link", here="removes it", right="SPEC.md, 2 DEL"
)
LINK_RULES = pytest.mark.known_difference(
    "DEL without the link leaves the masquerading rules", here="leaves nothing", right="SPEC.md, 2 DEL"
)
WAITS_FOR_DAD = pytest.mark.known_difference(
    "IPv6 addresses wait for duplicate address detection, although the link has no neighbours",
    here="they can be used at once",
    right="cnihook",
)
TAKES_ADDRESS = pytest.mark.known_difference(
    "accepts an address of another container, and then the host reaches only the last one",
    here="refused",
    right="cnihook",
)
KEEPS_LEASE = pytest.mark.known_difference(
    "if the IPAM plugin fails, ADD does not release the address",
    here="the IPAM plugin gets DEL",
    right="SPEC.md, 4 Delegation",
)
ONE_CODE = pytest.mark.known_difference(
    "the error of a wrong configuration has code 999", here="it has code 7", right="SPEC.md, 5 Error"
)
VETH_ONLY = pytest.mark.known_difference(
    "limits veth pairs only (plugins#413, #656)",
    here="limits any interface inside the container, where CAP_NET_ADMIN can remove the limit",
    right="cnihook",
)
LEAVES_QDISC = pytest.mark.known_difference(
    "an ADD that fails leaves qdiscs and the ifb", here="leaves nothing", right="cnihook"
)
