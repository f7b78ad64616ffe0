# SPDX-License-Identifier: Apache-2.0
"""
The blocks that this host needs routes to: those in the store, and for some time those that it has lost.

A store that lost its data is not a reason to remove routes: the containers of the other hosts still run.  So
a block that is missing in another life of the store keeps its route until another host claims it.  After
`cnihook cluster init --recover`, it keeps the route as long as the block is in quarantine for its host.
"""

from dataclasses import dataclass, field

from cnihook.cluster.claims import quarantined
from cnihook.cluster.model import Block, Settings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from cnihook.cluster.view import View


@dataclass(frozen=True)
class Peers:
    """The blocks of a network as this host knows them.

    settings: the last ones that could be used
    blocks: all blocks, this host's own also, by the last part of their keys
    unconfirmed: the blocks that are not in the store
    """

    settings: Settings
    blocks: "dict[str, Block]"
    revision: int = 0
    unconfirmed: "frozenset[str]" = field(default=frozenset())


def follow(before: "Peers | None", view: "View", quarantine: "Mapping[str, bytes] | None") -> "Peers | None":
    """Return the blocks after a change of the view; None: the network has no settings yet.

    quarantine: the values of the blocks in quarantine, if the store was listed just now
    """
    settings = view.settings or (before.settings if before else None)
    if not settings:
        return None
    blocks = view.blocks(settings)
    missing: set[str] = set()
    if before and before.settings.subnets == settings.subnets:
        is_same_life = bool(view.settings) and before.settings.epoch == settings.epoch
        if before.revision > view.revision:
            is_same_life = False  # a backup, which is older than what this host has seen
        absent = before.blocks.keys() - blocks.keys()
        missing = set(before.unconfirmed & absent if is_same_life else absent)
        if view.settings and quarantine is not None:
            missing = {
                part
                for part in missing
                if quarantine.get(part) == quarantined(before.blocks[part].member.host)
            }
        blocks |= {part: before.blocks[part] for part in missing if view.is_free(part)}
    return Peers(settings, blocks, view.revision, frozenset(missing & blocks.keys()))
