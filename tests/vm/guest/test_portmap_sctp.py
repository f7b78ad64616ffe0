# SPDX-License-Identifier: Apache-2.0
"""portmap: SCTP, for which most small kernels have no sockets."""

from tests.support.host.host import Host, Outside
from tests.support.plugins.ports import GATEWAY, SUBNET, SUBNET6, mapping, published, seen


def test_port_of_sctp_is_reached_from_outside_and_from_the_host(host: Host) -> None:
    outside = host.outside()
    container = published(host, mapping(9000, 9, "sctp"), mapping(9000, 80), subnets=(SUBNET, SUBNET6))

    for there, source in ((Outside.HOST, Outside.ADDRESS), (Outside.HOST6, Outside.ADDRESS6)):
        assert seen(outside, container, there, 9000, 9, protocol="sctp") == source
    assert seen(host, container, GATEWAY, 9000, 9, protocol="sctp") == GATEWAY
    assert seen(outside, container, Outside.HOST, 9000) == Outside.ADDRESS
