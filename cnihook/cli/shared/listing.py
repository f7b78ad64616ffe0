# SPDX-License-Identifier: Apache-2.0
"""Attachments as the records describe them, for the commands that show them.  No other package is needed."""

import os
import time
from functools import cached_property

from cnihook.cli.shared import containers
from cnihook.container.edited import Files
from cnihook.fast.errors_text import message_with_notes
from cnihook.fast.natural import natural
from cnihook.linux import flock
from cnihook.log import warn
from cnihook.protocol import locks
from cnihook.request import published
from cnihook.runtime import attachment, ending, networks, records
from cnihook.runtime.networks import Network
from cnihook.runtime.records import DamagedRecordError, Record
from cnihook.runtime.settings import Settings
from cnihook.types.errors import UNKNOWN_CONTAINER, CniError
from cnihook.types.result import Result

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

ATTACHED, ATTACHING, DEAD, RETRY = "attached", "attaching", "dead", "retry"
COLOURS = {ATTACHED: "green", ATTACHING: "cyan", DEAD: "red", RETRY: "yellow"}

STATES = """\
states:
  attached   the attachment is complete
  attaching  it is being set up at this moment
  dead       the container has ended without a detach; `cnihook gc` releases it
  retry      it was interrupted; `cnihook detach ID` or the next start undoes it
"""


class Row:
    """One attachment.

    `name`: its container's, of the engine, the pod or the user; empty for none.  `shown`: the name or the ID
    by which every command finds the container.
    """

    def __init__(self, record: Record, name: str, shown: str, files: Files) -> None:
        self.record = record
        self._files = files
        self.container = record.container_id
        self.network = record.network
        self.ifname = record.ifname
        self.pid = record.process.pid if record.process else 0  # 0: the record names no process
        self.alive = _is_alive(record)
        self.state = _state(record, self.alive)
        self.since = _written(record)
        self.conf = _network(record)  # None if the record's configuration cannot be read
        self.result = _result(record, self.conf)
        self.addresses = [str(ip.net) for ip in self.result.ips]
        # containerd gives the arguments of a pod to its loopback, too, where no plugin takes them.
        takes_ports = self.conf is None or "portMappings" in self.conf.capabilities
        self.mappings = published.mappings(record.capability_args) if takes_ports else []
        self.ports = [_port(one) for one in self.mappings]
        self.pod = containers.pod_of(record)  # namespace/name of the Kubernetes pod; empty for none
        self.name = name
        self.shown = shown

    @property
    def is_loopback(self) -> bool:
        return self.conf is not None and self.conf.is_loopback

    @property
    def age(self) -> float:
        return max(time.time() - self.since, 0)

    @cached_property
    def is_behind(self) -> "bool | None":
        """True if the network's file has changed since; None if that cannot be determined."""
        return self._files.is_behind(self.record) if self.state == ATTACHED else None

    def to_json(self) -> "dict[str, Any]":
        return {
            "container": self.container,
            "name": self.name or None,
            "pod": self.pod or None,
            "pid": self.pid or None,
            "alive": self.alive,
            "network": self.network,
            "ifname": self.ifname,
            "addresses": self.addresses,
            "ports": self.ports,
            "since": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.since)),
            "age": round(self.age),
            "state": self.state,
            "behind": self.is_behind,
            "netns": self.record.netns or None,
        }


def load(*, complete: bool = False) -> "list[Row]":
    """Return all attachments, by container and in order of attachment.  Raises OSError without privilege.

    With `complete`, raises OSError if a record cannot be read; without, it is left out.  A container whose
    end is being finished has left the list.
    """
    present = ending.without(records.all_records(unreadable=None if complete else []))
    attachments = _rows(present, present)
    return sorted(attachments, key=lambda one: (natural(one.shown), one.container, one.record.sequence))


def of_container(text: str) -> "list[Row]":
    """Return the attachments of the container that a text names.  Raises CniError if none is on record."""
    attachments = records.of_container(containers.on_record(text))
    if not attachments:
        raise CniError(
            UNKNOWN_CONTAINER,
            f"no network of container {text} is on record",
            containers.all_on_record(),
        )
    return _rows(attachments, records.all_records(unreadable=[]))


def _rows(attachments: "list[Record]", present: "list[Record]") -> "list[Row]":
    """Return the rows of `attachments`, which are some of those that are `present`."""
    names = containers.names_of(present)
    shown = containers.shown([*present, *attachments], names)
    files = Files(Settings.from_environment(os.environ).conf_dir)
    return [
        Row(record, names.get(record.container_id, ""), shown[record.container_id], files)
        for record in attachments
    ]


def without_loopback(listed: "list[Row]") -> "list[Row]":
    """Leave out the loopback link, which every container has, unless no other interface is listed of it."""
    on_networks = {one.container for one in listed if not one.is_loopback}
    return [one for one in listed if not one.is_loopback or one.container not in on_networks]


def complain_of_damaged() -> bool:
    """Print a line on stderr for each file that is not a record.  Return True if there is any."""
    damaged: list[DamagedRecordError] = []
    unreadable: list[OSError] = []
    records.all_records(damaged=damaged, unreadable=unreadable)
    for error in (*damaged, *unreadable):
        warn(message_with_notes(error))
    return bool(damaged or unreadable)


def span(seconds: float) -> str:
    """Return a duration in its largest unit: 12s, 5m, 3h, 2d."""
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= length:
            return f"{int(seconds // length)}{unit}"
    return f"{int(seconds)}s"


def _is_alive(record: Record) -> bool:
    try:
        return not attachment.is_gone(record)
    except (CniError, OSError) as error:
        warn(f"container {record.container_id}: {message_with_notes(error)}")
        return True  # gc keeps it, too


def _state(record: Record, alive: bool) -> str:
    if record.result is None:
        return ATTACHING if alive and flock.is_held(locks.container_name(record.container_id)) else RETRY
    return ATTACHED if alive else DEAD


def _written(record: Record) -> float:
    try:
        return os.stat(record.path).st_mtime
    except OSError:
        return time.time()  # it was detached just now


def _network(record: Record) -> "Network | None":
    try:
        return networks.parse(record.config, record.path)
    except CniError:
        return None


def _result(record: Record, network: "Network | None") -> Result:
    try:
        return Result.from_json(record.result, network.version if network else "")
    except CniError:
        return Result()


def _port(mapping: "dict[str, Any]") -> str:
    """Return a published port as `docker ps` prints it: 8080->80/tcp, 127.0.0.1:8080->80/tcp."""
    container = f"{mapping.get('containerPort')}/{published.protocol_of(mapping)}"
    return f"{published.host_end(mapping)}->{container}"
