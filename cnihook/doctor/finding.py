# SPDX-License-Identifier: Apache-2.0
"""A fault that was found, and the host that is looked at."""

import contextlib
import os
from collections.abc import Callable, Iterator
from functools import cached_property

from cnihook.lean import command, process
from cnihook.linux.netns import NetNS
from cnihook.linux.rtnl import Rtnl
from cnihook.runtime import attachment, cache, chain, networks
from cnihook.runtime.cache import Record
from cnihook.runtime.networks import Network
from cnihook.sdk.call import Call, Request
from cnihook.settings import Settings
from cnihook.spec.config import NetConf
from cnihook.spec.errors import CniError
from cnihook.spec.result import Result

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Finding:
    """What is wrong, why that matters, and the command that mends it.

    `fix` does the same where it cannot hurt.  A `note` is no fault, but good to know.
    """

    def __init__(
        self,
        kind: str,
        what: str,
        why: str,
        remedy: str,
        *,
        fix: Callable[[], object] | None = None,
        note: bool = False,
    ) -> None:
        self.kind = kind
        self.what = what
        self.why = why
        self.remedy = remedy
        self.fix = fix
        self.note = note

    def to_json(self) -> "dict[str, Any]":
        fields = {"kind": self.kind, "what": self.what, "why": self.why, "remedy": self.remedy}
        return {**fields, "fixable": self.fix is not None, "note": self.note}


class Plugin:
    """One plugin of a network, as far as its configuration can be read."""

    def __init__(self, network: Network, index: int) -> None:
        self.conf = NetConf(chain.derive(network, index, {}, None), network.where(index))
        self.type = self.conf.string("type")
        self.ipam = self.conf.object("ipam").string("type")

    def is_set(self, *keys: str) -> bool:
        """Whether one of these is true.  What is malformed is told by `cnihook validate`."""
        for key in keys:
            with contextlib.suppress(CniError):
                if self.conf.boolean(key):
                    return True
        return False

    def string(self, key: str) -> str:
        try:
            return self.conf.string(key)
        except CniError:
            return ""

    @property
    def bridge(self) -> str:
        return (self.string("bridge") or "cni0") if self.type == "bridge" else ""

    @property
    def routes(self) -> bool:
        """Whether the host is the gateway of its containers."""
        return self.type == "ptp" or (self.type == "bridge" and self.is_set("isGateway", "isDefaultGateway"))

    def is_own(self, link: str, kind: str, alias: str = "") -> bool:
        """Whether a link of the host is what leads to this plugin's containers."""
        if self.type == "bridge":
            return link == self.bridge or link.startswith(f"{self.bridge}.")
        return kind == "veth" and (not alias or alias.startswith(f"{self.conf.string('name')} "))

    def call(self, command: str = "STATUS") -> Call:
        return Call(command, self.conf, Request("", "", "eth0"))


def plugins_of(network: Network) -> list[Plugin]:
    return [Plugin(network, index) for index in range(len(network.plugins))]


def has_version(network: Network, version: int) -> bool:
    """By the look of its configuration: addresses of version 6 have a colon in them."""
    text = network.text.decode(errors="replace")
    return version == 4 or "::" in text


class Attached:
    """An attachment whose container runs."""

    def __init__(self, record: Record, network: Network, result: Result) -> None:
        self.record = record
        self.network = network
        self.result = result


def find_program(name: str) -> str | None:
    """Return the path of a program of the host; None if it is not installed."""
    path = f"{os.environ.get('PATH', os.defpath)}:/usr/local/sbin:/usr/sbin:/sbin"
    try:
        return command.find(name, path)
    except command.NotExecutable:
        return None


def printed(name: str, *words: str, timeout: float = 30.0) -> str:
    """What a program of the host prints; empty where there is none.  Raises OSError if it cannot start."""
    program = find_program(name)
    if program is None:
        return ""
    done = process.run(program, [name, *words], dict(os.environ), b"", timeout)
    return done.stdout.decode(errors="replace")


class Host:
    """What several checks want to know; each thing is looked up once."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    @cached_property
    def configured(self) -> list[Network]:
        """The networks of the folder; the built-in one where there are none."""
        found, problems = networks.load_folder(self.settings.conf_folder)
        return found if found or problems else [networks.built_in()]

    @cached_property
    def records(self) -> list[Record]:
        return cache.all_records()

    @cached_property
    def attached(self) -> list[Attached]:
        return list(self._attached())

    @cached_property
    def attached_by_others(self) -> list[Attached]:
        """Attachments of other runtimes."""
        return list(self._attached(foreign=True))

    def _attached(self, *, foreign: bool = False) -> Iterator[Attached]:
        for record in self.records:
            if (record.process is None) is not foreign or attachment.is_gone(record):
                continue
            with contextlib.suppress(CniError):
                network = networks.parse(record.config, record.path)
                result = attachment.result_of(network, record)
                if result:
                    yield Attached(record, network, result)

    @cached_property
    def rtnl(self) -> Rtnl:
        return NetNS.current().rtnl

    @property
    def networks(self) -> list[Network]:
        """Those that are configured, and others that containers are on; each name once."""
        found = {network.name: network for network in self.configured}
        for one in self.attached:
            found.setdefault(one.network.name, one.network)
        return list(found.values())
