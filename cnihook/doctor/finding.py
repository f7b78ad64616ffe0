# SPDX-License-Identifier: Apache-2.0
"""A finding, and the state of the host that the checks examine."""

import contextlib
import os
import re
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property

from cnihook.fast.errors_text import listed
from cnihook.fast.natural import natural
from cnihook.linux.netns import NetNS
from cnihook.linux.rtnl import Rtnl
from cnihook.process import child, command
from cnihook.protocol import invoke
from cnihook.protocol.call import Call, Invocation
from cnihook.runtime import attachment, chain, networks, records
from cnihook.runtime.networks import Network
from cnihook.runtime.records import Record
from cnihook.runtime.settings import Settings
from cnihook.types.config import NetConf
from cnihook.types.errors import CniError
from cnihook.types.result import Result

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


_VALUE = re.compile(r"\S*\d\S*")  # an address, a port, the name of an interface
_SHOWN = 10  # subjects of a finding, as text


class Finding:
    """A fault: what is wrong, why it matters, and the command that corrects it.

    `fix` has the effect of that command; None if the effect could do harm.  A `note` is not a fault, but
    useful to know.  One cause may affect several attachments: each finding then has its own as `subject`,
    and the command for all of them in `for_all`; see merged().
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
        subject: str = "",
        for_all: str = "",
    ) -> None:
        self.kind = kind
        self.what = what
        self.why = why
        self.suggestion = remedy
        self.fix = fix
        self.note = note
        self.subjects = [subject] if subject else []
        self.for_all = for_all

    def to_json(self) -> "dict[str, Any]":
        fields = {"kind": self.kind, "what": self.what, "why": self.why, "remedy": self.suggestion}
        return {**fields, "fixable": self.fix is not None, "note": self.note, "subjects": self.subjects}

    @property
    def cause(self) -> str:
        """`what` without the subject and without numbers and addresses, which differ by subject."""
        text = self.what
        for subject in self.subjects:
            text = text.replace(subject, "").replace(subject.partition(",")[0], "")
        return _VALUE.sub("", text)


def merged(findings: "Iterable[Finding]") -> "list[Finding]":
    """Return the findings with those of one cause as one, which names all that it affects."""
    groups: dict[object, list[Finding]] = {}
    for finding in findings:
        key = (finding.kind, finding.for_all, finding.cause) if finding.for_all else finding
        groups.setdefault(key, []).append(finding)
    return [group[0] if len(group) == 1 else _merge(group) for group in groups.values()]


def _merge(group: list[Finding]) -> Finding:
    group = sorted(group, key=lambda one: natural("".join(one.subjects)))
    first = group[0]
    subjects = list(dict.fromkeys(subject for one in group for subject in one.subjects))
    others = subjects[1:]
    fixes = {one.suggestion: one.fix for one in group if one.fix}

    def fix() -> None:
        errors = []
        for apply in fixes.values():
            try:
                apply()
            except (OSError, CniError) as error:
                errors.append(error)
        if errors:
            raise errors[0]

    same = f"; the same: {listed(others, _SHOWN, '; ')}" if others else ""
    one = Finding(
        first.kind,
        f"{first.what}{same}",
        first.why,
        first.for_all if others else first.suggestion,
        fix=fix if all(one.fix for one in group) else None,
        note=first.note,
    )
    one.subjects = subjects
    return one


class Plugin:
    """One plugin of a network.  Malformed parts of its configuration count as absent."""

    def __init__(self, network: Network, index: int) -> None:
        self.conf = NetConf(chain.derive(network, index, {}, None), network.where(index))
        self.type = self.conf.string("type")
        self.traits = invoke.traits(self.type)
        self.ipam = self.conf.object("ipam").string("type")

    def is_set(self, *keys: str) -> bool:
        """Return True if one of these keys is true; `cnihook validate` reports malformed ones."""
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
        """The host's bridge to which the plugin attaches containers; empty if it uses none."""
        return self.traits.host_link(self.conf.raw) if "bridge" in self.traits.makes else ""

    @property
    def routes(self) -> bool:
        """True if the host is the gateway of the plugin's containers."""
        return self.traits.is_gateway(self.conf.raw)

    def is_own(self, link: str, kind: str, alias: str = "") -> bool:
        """Return True if a link of the host leads to the containers of this plugin."""
        if self.bridge:
            return link == self.bridge or link.startswith(f"{self.bridge}.")
        return kind == "veth" and (not alias or alias.startswith(f"{self.conf.string('name')} "))

    def with_leases(self) -> "Any":
        """Return the Conf of its IPAM plugin, if that has leases; None for another, or a malformed one."""
        if not invoke.traits(self.ipam).has_leases:
            return None
        try:
            return invoke.load(self.ipam).Conf(self.call())
        except CniError:
            return None

    def call(self, command: str = "STATUS") -> Call:
        return Call(command, self.conf, Invocation("", "", "eth0"))


def plugins_of(network: Network) -> list[Plugin]:
    return [Plugin(network, index) for index in range(len(network.plugins))]


def has_version(network: Network, version: int) -> bool:
    """Return True if a network has addresses of an IP version.

    The text of its configuration is searched: only IPv6 addresses have "::" in them.
    """
    text = network.text.decode(errors="replace")
    return version == 4 or "::" in text


class LiveAttachment:
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
    except command.NotExecutableError:
        return None


def printed(name: str, *words: str, timeout: float = 30.0) -> str:
    """Return what a program of the host prints; empty if it is not installed.

    Raises OSError if it cannot be started.
    """
    program = find_program(name)
    if program is None:
        return ""
    outcome = child.run(program, [name, *words], dict(os.environ), b"", timeout)
    return outcome.stdout.decode(errors="replace")


class Host:
    """The state of the host that several checks need; each value is read once."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    @cached_property
    def configured(self) -> list[Network]:
        """The networks of the folder; the built-in one if there is none."""
        configured, problems = networks.load_folder(self.settings.conf_dir)
        return configured if configured or problems else [networks.built_in()]

    @cached_property
    def records(self) -> list[Record]:
        return records.all_records()

    @cached_property
    def attached(self) -> list[LiveAttachment]:
        return list(self._attached())

    @cached_property
    def attached_by_others(self) -> list[LiveAttachment]:
        """Attachments of other runtimes."""
        return list(self._attached(foreign=True))

    def _attached(self, *, foreign: bool = False) -> Iterator[LiveAttachment]:
        for record in self.records:
            if (record.process is None) is not foreign or attachment.is_gone(record):
                continue
            with contextlib.suppress(CniError):
                network = networks.parse(record.config, record.path)
                result = attachment.result_of(network, record)
                if result:
                    yield LiveAttachment(record, network, result)

    @cached_property
    def rtnl(self) -> Rtnl:
        return NetNS.current().rtnl

    @property
    def networks(self) -> list[Network]:
        """The configured networks, and others that live containers are attached to; each name once."""
        by_name = {network.name: network for network in self.configured}
        for one in self.attached:
            by_name.setdefault(one.network.name, one.network)
        return list(by_name.values())
