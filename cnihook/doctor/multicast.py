# SPDX-License-Identifier: Apache-2.0
"""Checks of multicast DNS: its keeper runs, has the requests of all containers, and has a LAN to send to."""

from collections.abc import Iterator
from functools import partial

from cnihook.doctor.finding import Finding, Host
from cnihook.mdns import service
from cnihook.mdns.listing import Listing
from cnihook.mdns.membership import PORT
from cnihook.runtime.records import Record

_WHY = "it finds nothing on the LAN, and the LAN does not find it"


def check(host: Host) -> Iterator[Finding]:
    requesting = [one.record for one in host.attached if "mdns" in one.record.extra]
    if not requesting:
        return
    state = service.status()
    for record in requesting:
        subject = f"{record.container_id}, {record.network} {record.ifname}"
        if state is None:
            yield _fixable("mdns-down", record, subject, "the keeper of multicast DNS does not run")
        elif problem := _problem_of(record):
            yield _fixable("mdns-request", record, subject, problem)
        elif not state["uplinks"]:
            yield Finding(
                "mdns-uplink",
                f"container {subject}: no interface of a LAN is there for multicast DNS",
                _WHY,
                "ip route; start the container with --mdns=INTERFACE if none has a default route",
                subject=subject,
                for_all="ip route",
            )
    for interface, problem in sorted((state or {}).get("problems", {}).items()):
        yield Finding(
            "mdns-interface",
            f"multicast DNS on {interface}: listen on port {PORT}: {problem}",
            "nothing is found by this interface",
            f"ss -lunp 'sport = :{PORT}'",
        )


def _problem_of(record: Record) -> str:
    """Return what is wrong with the file of a request; empty if nothing is."""
    try:
        is_there = Listing.read(service.name_of(record)) is not None
    except (OSError, ValueError) as error:
        return f"its request for multicast DNS cannot be read: {error}"
    return "" if is_there else "its request for multicast DNS is not on file"


def _fixable(kind: str, record: Record, subject: str, what: str) -> Finding:
    return Finding(
        kind,
        f"container {subject}: {what}",
        _WHY,
        f"cnihook repair {record.container_id}",
        fix=partial(service.restore, record),
        subject=subject,
        for_all="cnihook repair --all",
    )
