# SPDX-License-Identifier: Apache-2.0
"""Checks of names: those that another program has removed from /etc/hosts, and a missing name server."""

from collections.abc import Iterator
from functools import partial

from cnihook.doctor.finding import Finding, Host
from cnihook.linux.netns import NetNS
from cnihook.names import dns_reach, host_servers, hosts, resolv_conf

_WHY = "its programs resolve no names of other machines"


def check(host: Host) -> Iterator[Finding]:
    """Find a container whose hosts file was replaced after its names were written."""
    for container_id in dict.fromkeys(one.record.container_id for one in host.attached):
        try:
            if not hosts.incomplete(container_id):
                continue
        except OSError:
            continue  # the container's log has the reason, and a repair does not help
        yield Finding(
            "container-names",
            f"container {container_id}: /etc/hosts has lost the names that its networks give it",
            "a program wrote the file after the hook, and the container finds no other container by name",
            f"cnihook repair {container_id}",
            fix=partial(hosts.renew, container_id),
            subject=container_id,
            for_all="cnihook repair --all",
        )


def check_servers(host: Host) -> Iterator[Finding]:
    """Find a container whose /etc/resolv.conf is a link to a place where cnihook writes no file."""
    for container_id, pid in _processes(host).items():
        text, is_link = host_servers.read(pid)
        if is_link and not dns_reach.addresses(resolv_conf.servers_of(text or "")):
            yield Finding(
                "container-dns",
                f"container {container_id}: /etc/resolv.conf is a link, and no name server is behind it",
                _WHY,
                "cnihook inject BUNDLE, which mounts a file there, and start the container again",
            )


def check_host_servers(host: Host) -> Iterator[Finding]:
    """Find a container with servers that the host had before it moved to another network."""
    for record in {one.record.container_id: one.record for one in host.attached}.values():
        if not (servers := host_servers.missing(record)):
            continue
        container_id = record.container_id
        yield Finding(
            "container-dns",
            f"container {container_id}: its /etc/resolv.conf has former name servers of the host, which now"
            f" has {', '.join(servers)}",
            _WHY,
            f"cnihook repair {container_id}",
            fix=partial(host_servers.renew, record),
            subject=container_id,
            for_all="cnihook repair --all --name-servers",
        )


def check_ways(host: Host) -> Iterator[Finding]:
    """Find a container without a route to its name servers.  A container may do without names."""
    for container_id, pid in _processes(host).items():
        servers = resolv_conf.servers_of(host_servers.read(pid)[0] or "")
        namespace = NetNS.find(f"/proc/{pid}/ns/net")
        if not (servers and namespace):
            continue
        try:
            is_loopback = any(each.is_loopback for each in dns_reach.addresses(servers))
            if is_loopback or dns_reach.has_route(servers, namespace):
                continue
        finally:
            namespace.close()
        yield Finding(
            "container-dns",
            f"container {container_id} has no route to {', '.join(servers)} of its /etc/resolv.conf",
            _WHY,
            "start it with --dns ADDRESS, or with a default route",
            note=True,
        )


def _processes(host: Host) -> "dict[str, int]":
    """Return the process of each container.  The one of priv-net-run is not in the network namespace."""
    processes = {one.record.container_id: host_servers.process_of(one.record) for one in host.attached}
    return {container_id: pid for container_id, pid in processes.items() if pid}
