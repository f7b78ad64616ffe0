# SPDX-License-Identifier: Apache-2.0
"""
Names in the egress policies of a container, and what the resolver may answer it.

A container has one listing, for all of its attachments.  Every list that limits it must have a name, as
every list must allow a connection: a container cannot look up more than the policies of the host allow,
because a lookup carries data, too.  A list with `all`, `outside` or `dns` does not limit names.
"""

from cnihook.keeper.client import DaemonError
from cnihook.policy import endpoint, rules, store
from cnihook.policy.desired import sides_of
from cnihook.policy.endpoint import Endpoint
from cnihook.protocol import locks
from cnihook.resolver import listing, service
from cnihook.resolver.listing import Listing, Names
from cnihook.runtime import records
from cnihook.types.errors import INTERNAL, CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

    from cnihook.policy.effective import Layer, Side

    Sides = list[tuple[Endpoint, list[Side]]]

_UNLIMITED = {"all", "dns", "outside"}  # peers that may be servers of any name


def sync_container(container_id: str, *, without: str = "") -> None:
    """Resolve names for a container as its policies list them now.  `without`: an owner that ends.

    Raises CniError for a policy that cannot be used, or if the resolver does not start; or OSError.
    """
    policies = store.load()
    is_named = any(one.selection.containers for one in policies.all)
    endpoints = endpoint.of_records(records.of_container(container_id), named=is_named)
    sides = [(one, sides_of(one, policies)) for one in endpoints if one.owner != without]
    _serve(container_id, listing_of(container_id, sides))


def end(container_id: str, owner: str) -> None:
    """Resolve names no longer for an attachment that ends; others of the container stay."""
    try:
        sync_container(container_id, without=owner)
    except (CniError, OSError):
        service.forget(container_id)


def sync(sides: "Sides", kept: "Collection[str] | None") -> None:
    """Resolve names for all containers.  `kept`: IDs of others that stay as they are; None: all others."""
    by_container: dict[str, Sides] = {}
    for one, own in sides:
        by_container.setdefault(one.container_id, []).append((one, own))
    others = [] if kept is None else [one for one in listing.containers() if one not in kept]
    for container_id in dict.fromkeys([*by_container, *others]):
        _serve(container_id, listing_of(container_id, by_container.get(container_id, [])))


def restore(container_id: str) -> "list[str]":
    """Restore what a container needs to look up names, and return what was missing, as text.

    Raises CniError or OSError, like sync_container().
    """
    try:
        return service.restore(container_id)
    except DaemonError as error:
        raise CniError(INTERNAL, str(error)) from None
    except ValueError:
        with locks.policy(f"names for container {container_id}"):
            sync_container(container_id)
        return ["the list of names in its policy was damaged"]


def _serve(container_id: str, wanted: "Listing | None") -> None:
    if wanted is None:
        service.forget(container_id)
        return
    try:
        present = Listing.read(container_id)
    except ValueError:
        present = None
    try:
        if present and present.to_json() == wanted.to_json():
            service.restore(container_id)
        else:
            service.serve(wanted)
    except DaemonError as error:
        raise CniError(INTERNAL, f"names in the policy of container {container_id}: {error}") from None


def listing_of(container_id: str, sides: "Sides") -> "Listing | None":
    """Return what a container may look up; None if no policy of it lists names."""
    names: list[Names] = []
    limits: list[list[str]] = []
    is_enforced = False
    servers: list[str] = []
    endpoints = [one for one, _sides in sides]
    for one, own in sides:
        for side in own:
            if side.direction != "egress" or not side.names():
                continue
            names += [Names(list(patterns), rules.name_base(side, patterns)) for patterns in side.names()]
            limiting = [layer for layer in side.layers if _limits(layer) and layer.mode == "enforce"]
            limits += [_patterns(layer) for layer in limiting]
            is_enforced = is_enforced or bool(limiting)
            servers = servers or one.servers
    if not names:
        return None
    return Listing(
        container_id,
        [address for one in endpoints for address in one.addresses],
        list(dict.fromkeys(gateway for one in endpoints for gateway in one.gateways)),
        names,
        servers,
        limits=limits,
        audit=not is_enforced,
    )


def _limits(layer: "Layer") -> bool:
    return not any(_UNLIMITED.intersection(rule.peers) for rule in layer.rules)


def _patterns(layer: "Layer") -> "list[str]":
    return [pattern for rule in layer.rules for pattern in rule.names()]
