# SPDX-License-Identifier: Apache-2.0
"""Checks of the resolver of names in policies: it runs and listens, reads its lists, has a server to ask."""

from collections.abc import Iterator
from functools import partial

from cnihook.doctor.finding import Finding, Host
from cnihook.policy import resolving
from cnihook.resolver import listing, service, upstream
from cnihook.resolver.listing import Listing

_WHY = "it can look up no name"
_REMEDY = "write a nameserver to /etc/resolv.conf of the host, or give the container one with --dns"


def check(_host: Host) -> Iterator[Finding]:
    container_ids = listing.containers()
    is_down = bool(container_ids) and not service.is_running()
    places = service.places() if container_ids else []
    has_servers = bool(upstream.servers_of_host())
    for container_id in container_ids:
        try:
            own = Listing.read(container_id)
        except (OSError, ValueError) as error:
            yield Finding(
                "resolver-listing",
                f"container {container_id}: the list of names in its policy cannot be read: {error}",
                _WHY,
                f"cnihook repair {container_id}",
                fix=partial(resolving.restore, container_id),
                subject=container_id,
                for_all="cnihook repair --all",
            )
            continue
        if own is None:
            continue  # it has ended just now
        if is_down:
            yield Finding(
                "resolver-down",
                f"container {container_id}: the resolver of the names in its policy does not run",
                _WHY,
                f"cnihook repair {container_id}",
                fix=partial(resolving.restore, container_id),
                subject=container_id,
                for_all="cnihook repair --all",
            )
        elif left := [str(one) for one in own.gateways if str(one) not in places]:
            yield Finding(
                "resolver-gateway",
                f"container {container_id}: the resolver of the names in its policy does not listen at "
                f"{left[0]} port {listing.PORT}; another program may",
                _WHY,
                f"cnihook repair {container_id}",
                fix=partial(resolving.restore, container_id),
                subject=container_id,
                for_all="cnihook repair --all",
            )
        elif not has_servers and not own.servers:
            yield Finding(
                "resolver-servers",
                f"container {container_id}: its policy lists names, and /etc/resolv.conf has no server",
                _WHY,
                _REMEDY,
                subject=container_id,
                for_all=_REMEDY,
            )
