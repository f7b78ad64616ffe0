# SPDX-License-Identifier: Apache-2.0
"""The quotas of attachments, as the commands show them.  nftables is read only if a container has one."""

from cnihook.cli.shared.listing import Row
from cnihook.nftables import quota
from cnihook.runtime.records import Record
from cnihook.runtime.remains import owner_of
from cnihook.types.fields import MOST

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from cnihook.linux.nft_quota import Quota

_OPTION = {"egress": "out", "ingress": "in", "total": "total"}


def by_attachment(rows: "Iterable[Row]") -> "dict[tuple[str, str, str], dict[str, Quota]]":
    """Return the quotas of each attachment that has any, by the keys of --quota."""
    limited = [one.record for one in rows if has_quota(one.record)]
    if not limited:
        return {}
    present = quota.usage()
    return {
        record.identity: {_OPTION[kind]: each for kind, each in sorted(quotas.items())}
        for record in limited
        if (quotas := present.get(owner_of(record.identity)))
    }


def has_quota(record: Record) -> bool:
    return bool(record.capability_args.get("quota"))


def limit(one: "Quota") -> "int | None":
    """Return the limit in bytes; None if the bytes are counted only."""
    return None if one.limit == MOST else one.limit


def used(one: "Quota") -> int:
    """Return the bytes that have passed: what a used up quota drops is counted, too."""
    return min(one.used, one.limit)
