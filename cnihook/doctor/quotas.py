# SPDX-License-Identifier: Apache-2.0
"""Check for containers that have used up their quota: nothing passes, which looks like a broken network."""

from collections.abc import Iterator

from cnihook.doctor.finding import Finding, Host
from cnihook.nftables import quota
from cnihook.runtime import attachment
from cnihook.runtime.remains import owner_of

_WORDS = {"egress": "it may send", "ingress": "it may receive", "total": "it may send and receive"}


def check(host: Host) -> Iterator[Finding]:
    limited = [record for record in host.records if record.capability_args.get("quota")]
    present = quota.usage() if limited else {}
    for record in limited:
        for kind, one in sorted(present.get(owner_of(record.identity), {}).items()):
            if one.used < one.limit or attachment.is_gone(record):
                continue
            subject = f"{record.container_id}, {record.network} {record.ifname}"
            yield Finding(
                "quota-used-up",
                f"container {subject}: the {one.limit} bytes that {_WORDS[kind]} are used up",
                "its packets are dropped, without an error for its programs",
                f"cnihook update {record.container_id} --quota reset",
                subject=subject,
            )
