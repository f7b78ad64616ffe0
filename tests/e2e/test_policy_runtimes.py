# SPDX-License-Identifier: Apache-2.0
"""Policies of containers that runc and crun start."""

import pytest

from tests.support.host.host import Host, Outside
from tests.support.host.namespace import Failed
from tests.support.policies import NO_BR_NETFILTER, network, tcp
from tests.support.runtimes.oci import Running, Runtime, configure


def test_sandbox_reaches_only_what_it_lists(host: Host, runtime: Runtime) -> None:
    """Try the rest by IPv4, by IPv6, by raw sockets, through its neighbour and through the host."""
    host.run("sh", "-c", NO_BR_NETFILTER)
    outside = host.outside()
    configure(host, network())
    proxy = runtime.run("proxy", annotations={"cnihook.label": "role=proxy"})
    other = runtime.run("other", annotations={"cnihook.networks": "front"})
    box = runtime.run("box", annotations={"cnihook.egress": "label:role=proxy:80/tcp"})

    def address(container: Running, version: int) -> str:
        addresses = [each.partition("/")[0] for each in container.addresses("eth0")]
        return next(each for each in addresses if (":" in each) == (version == 6))

    for version, there, gateway in ((4, Outside.ADDRESS, "10.7.0.1"), (6, Outside.ADDRESS6, "fd07::1")):
        assert tcp(box, proxy, address(proxy, version), 80, expected=True)
        assert not tcp(box, proxy, address(proxy, version), 81, expected=False)
        assert not tcp(box, other, address(other, version), 80, expected=False)
        assert not tcp(box, outside, there, 80, expected=False)
        assert not tcp(box, host, gateway, 80, expected=False)
        # ping has a raw socket.
        for target in (address(other, version), gateway, there):
            with pytest.raises(Failed):
                box.exec("ping", "-c", "1", "-W", "1", target)
    other.exec("ping", "-c", "1", "-W", "5", address(proxy, 4))
    assert "policy-out" in host.nft()
