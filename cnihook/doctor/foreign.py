# SPDX-License-Identifier: Apache-2.0
"""Checks of rules that the reference plugins made for attachments not on record: no DEL will remove them."""

from collections.abc import Callable, Iterator

from cnihook.doctor.finding import Finding, Host
from cnihook.linux import nft, xtables
from cnihook.nftables import reference_rules
from cnihook.runtime import records

_WHY = "they are for the address of a container that is gone, and affect the next one that gets the address"


def check(_host: Host) -> Iterator[Finding]:
    yield from _check_iptables()
    yield from _check_nft()


def _check_iptables() -> Iterator[Finding]:
    chains = [
        (table, chain)
        for version in (4, 6)
        for table in xtables.filters(version, "nat")
        for chain in table.chains()
        if reference_rules.is_chain_of_a_container(chain)
    ]
    # The records are read after the chains: a container gets its chains after its record.
    on_record = {
        reference_rules.chain_name(prefix, network, container_id)
        for network, container_id, _ifname in records.identities_on_file()
        for prefix in reference_rules.PREFIXES
    }
    for table, chain in chains:
        if chain not in on_record:
            kind = "-legacy" if isinstance(table, xtables.LegacyTable) else ""
            program = f"{'iptables' if table.version == 4 else 'ip6tables'}{kind}"
            yield Finding(
                "rules-without-owner",
                f"chain {chain} of {table.name}, table nat, is of a container that is not on record",
                _WHY,
                f"{program}-save -t nat | grep -v {chain} | {program}-restore",
            )


def _check_nft() -> Iterator[Finding]:
    places = [("inet", reference_rules.MASQUERADE, "masq_checks")]
    places += [
        (family, reference_rules.HOSTPORT, chain)
        for family in ("ip", "ip6")
        for chain in reference_rules.HOSTPORT_CHAINS
    ]
    rules = [
        (place, handle, comment)
        for place in places
        for handle, comment in nft.commented_rules(*place)
        if comment
    ]
    if not rules:
        return
    identities = list(records.identities_on_file())
    instances = {reference_rules.instance(*identity) for identity in identities}
    containers = {container_id for _network, container_id, _ifname in identities}
    is_known: dict[str, Callable[[str], bool]] = {
        reference_rules.MASQUERADE: lambda comment: comment.partition(",")[0] in instances,
        reference_rules.HOSTPORT: lambda comment: comment in containers,
    }
    for (family, table, chain), handle, comment in rules:
        if not is_known[table](comment):
            yield Finding(
                "rules-without-owner",
                f"a rule of {family} {table} {chain} is of {comment!r}, which is not on record",
                _WHY,
                f"nft delete rule {family} {table} {chain} handle {handle}",
            )
