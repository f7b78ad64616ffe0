# SPDX-License-Identifier: Apache-2.0
"""Checks of names: those that another program has removed from /etc/hosts, and a missing name server."""

import errno
from collections.abc import Iterator
from functools import partial

from cnihook.doctor.finding import Finding, Host
from cnihook.fast.address import Address
from cnihook.linux.netns import NetNS
from cnihook.linux.route_lookup import link_towards
from cnihook.names import hosts, resolv_conf
from cnihook.names.inside import ContainerFile

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
        text, is_link = _resolv_conf(pid)
        if is_link and not _servers(text):
            yield Finding(
                "container-dns",
                f"container {container_id}: /etc/resolv.conf is a link, and no name server is behind it",
                _WHY,
                "cnihook inject BUNDLE, which mounts a file there, and start the container again",
            )


def check_ways(host: Host) -> Iterator[Finding]:
    """Find a container without a route to its name servers.  A container may do without names."""
    for container_id, pid in _processes(host).items():
        servers = _servers(_resolv_conf(pid)[0])
        namespace = NetNS.find(f"/proc/{pid}/ns/net")
        if not (servers and namespace):
            continue
        try:
            if any(each.is_loopback or link_towards(namespace.rtnl, each) for each in servers):
                continue
        finally:
            namespace.close()
        shown = ", ".join(map(str, servers))
        yield Finding(
            "container-dns",
            f"container {container_id} has no route to {shown} of its /etc/resolv.conf",
            _WHY,
            "start it with --dns ADDRESS, or with a default route",
            note=True,
        )


def _processes(host: Host) -> "dict[str, int]":
    """Return the process of each container.  The one of priv-net-run is not in the network namespace."""
    processes = {}
    for process, container_id in ((one.record.process, one.record.container_id) for one in host.attached):
        namespace = NetNS.find(f"/proc/{process.pid}/ns/net") if process and process.pid else None
        if process and namespace:
            if process.netns_id == namespace.identity:
                processes[container_id] = process.pid
            namespace.close()
    return processes


def _resolv_conf(pid: int) -> "tuple[str, bool]":
    """Return the text of a container's file, empty if it cannot be read, and True if a link leads to it."""
    file = ContainerFile(pid, "etc/resolv.conf")
    try:
        return file.read() or "", False
    except OSError:
        pass  # it may be a link
    try:
        target = file.without_links()
    except OSError as error:  # a circle of links, or a link into a file system of the kernel
        return "", error.errno in (errno.ELOOP, errno.EINVAL)
    if target == file.name:
        return "", False
    try:
        return ContainerFile(pid, target).read() or "", True
    except OSError:
        return "", True


def _servers(text: str) -> "list[Address]":
    servers = []
    for server in resolv_conf.servers_of(text):
        try:
            servers.append(Address.parse(server))
        except ValueError:
            continue
    return servers
