# SPDX-License-Identifier: Apache-2.0
"""
Begin and end to resolve the names that a container may look up.

Code of policies calls serve() before the container can send, when its sets exist, and forget() when the
policy ends.  A policy that lists names must also

    allow UDP and TCP to each gateway at listing.PORT: there the questions arrive after translation
    name the gateways in the container's resolv.conf
"""

import os

from cnihook.keeper.client import DaemonError, Keeper
from cnihook.linux.flock import LockBusyError
from cnihook.protocol import locks
from cnihook.resolver import denials, listing, redirect
from cnihook.resolver.listing import Listing
from cnihook.runtime import records

SOCKET = "/run/cnihook/resolver/socket"
KEEPER = Keeper("resolver of names in policies", "dns-keeper", 10.0)


def serve(wanted: Listing) -> None:
    """Resolve names for a container from now on, or change its listing.

    The first call on a host starts the process, which takes 0.2 s.  Raises OSError, or DaemonError if the
    process does not start or cannot listen at a gateway; then nothing is left of it.
    """
    wanted.write()
    try:
        redirect.add(wanted)
        _load(wanted.container_id, start=True)
    except BaseException:
        forget(wanted.container_id)
        raise


def forget(container_id: str) -> None:
    """End it for a container.  Nothing happens if it has no listing."""
    if not os.path.isdir(listing.FOLDER):
        return
    if listing.forget(container_id):
        try:
            _load(container_id, start=False)
        except DaemonError:
            pass  # it does not run, or not well; the next one does not find the file
    denials.forget(container_id)
    redirect.remove()


def restore(container_id: str) -> "list[str]":
    """Restore what a container needs to look up names, and return what was missing, as text."""
    one = Listing.read(container_id)
    if not one:
        return []
    missing = []
    if redirect.add(one):
        missing.append("its questions did not reach the resolver of names")
    if not is_running():
        missing.append("the resolver of names did not run")
    _load(container_id, start=True)
    return missing


def prune() -> None:
    """End it for containers that are not on record and that no other process works on."""
    on_record = {container_id for _network, container_id, _ifname in records.identities_on_file()}
    for container_id in listing.containers():
        if container_id in on_record:
            continue
        try:
            with locks.container(container_id, "gc", timeout=0):
                if not records.of_container(container_id):
                    forget(container_id)
        except LockBusyError:
            pass


def is_running() -> bool:
    try:
        KEEPER.call(SOCKET, {"do": "status"}, start=False)
    except DaemonError:
        return False
    return True


def places() -> "list[str]":
    """Return the addresses at which the process listens; none if it does not run."""
    try:
        return list(map(str, KEEPER.call(SOCKET, {"do": "status"}, start=False).get("places") or ()))
    except DaemonError:
        return []


def _load(container_id: str, *, start: bool) -> None:
    """Have the process read the listing of a container again, or notice that there is none."""
    KEEPER.call(SOCKET, {"do": "load", "container": container_id}, start=start)
