# SPDX-License-Identifier: Apache-2.0
"""A machine that announces itself as an IPv6 router on a link of a throw-away host."""

import socket
import struct

from tests.support.host.host import ACCEPT_DAD, Container, Host
from tests.support.host.namespace import Namespace
from tests.support.runtimes.oci import wait_for

PREFIX = "2001:db8:1::"


class Router:
    """A router at the other end of `name`, a link on which the host obeys advertisements."""

    def __init__(self, host: Host, name: str = "ra0", *, up: bool = True) -> None:
        self.host = host
        self.name = name
        self.space: Container = host.container(f"at-{name}")
        self.space.set_sysctl(ACCEPT_DAD, "0")
        host.run("ip", "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", self.space.name)
        host.leaves(f"link {name} *", f"address {name} *", f"route {name} *", f"route * {name} *", "in at-*")
        self.space.run("ip", "link", "set", "eth0", "up")
        if up:
            host.run("ip", "link", "set", name, "up")

    def teach(self, at: str = "") -> None:
        """Advertise until the host has a default route from it on the link `at`, which may be its bridge."""
        teach(self.host, self.space, at or self.name)


def teach(host: Host, space: Namespace, link: str) -> None:
    def learned() -> bool:
        advertise(space)
        return has_default_route(host, link)

    wait_for(learned, "a default route from a router advertisement")


def advertise(space: Namespace, ifname: str = "eth0") -> None:
    """Send one advertisement: a default route, and an on-link prefix for addresses."""
    message = struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, 1800, 0, 0)
    message += struct.pack("!BBBBIII", 3, 4, 64, 0xC0, 7200, 7200, 0) + socket.inet_pton(
        socket.AF_INET6, PREFIX
    )
    with space.socket(socket.SOCK_RAW, socket.AF_INET6, socket.IPPROTO_ICMPV6) as sender:
        sender.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
        index = space.ip("link", "show", "dev", ifname)[0]["ifindex"]

        def send() -> bool:
            try:
                sender.sendto(message, ("ff02::1", 0, 0, index))
            except OSError:  # it has no link-local address yet
                return False
            return True

        wait_for(send, "an advertisement that is sent")


def has_default_route(host: Host, name: str) -> bool:
    return f"dev {name} " in host.run("ip", "-6", "route", "show", "default").stdout
