# SPDX-License-Identifier: Apache-2.0
"""What a check of a plugin is given: the plugin, an empty host, and the words to speak to it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cnihook.conformance import host, plugin
from cnihook.conformance.check import Broken, Skipped
from cnihook.conformance.host import Container
from cnihook.conformance.plugin import Answer
from cnihook.conformance.profiles import CHAINED, INTERFACE, IPAM, LOOPBACK, STAND_IN, Profile
from cnihook.conformance.standin import StandIns
from cnihook.lean.address import Address, IPNet
from cnihook.linux.netns import NetNS
from cnihook.spec import version as versions
from cnihook.spec.result import DNS, IP, Interface, Result, Route

NETWORK = "conformance"
FOLDER = Path("/run/conformance")

_GATEWAY, _GATEWAY6 = "10.77.0.1", "fd77::1"
_NO_CONF = "no configuration is known for it: give one with --config"


@dataclass
class Subject:
    """A plugin under test.  `versions` and `problem` are what a first look at it showed (see probe())."""

    name: str
    executable: str
    profile: Profile | None
    path: str  # CNI_PATH, less the suite's own folder
    versions: Sequence[str] = versions.ALL
    problem: str = ""  # why ADD does not work with it
    unable: str = ""  # why ADD cannot work here
    label: str = ""  # in reports, where its name alone is another's too

    @property
    def latest(self) -> str:
        known = [one for one in versions.ALL if one in self.versions]
        return known[-1] if known else "1.0.0"


class Case:
    """One check's plugin and host.  What happens between them is kept, for the report of a failure."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.version = subject.latest
        self.answers: list[Answer] = []
        self.containers: list[Container] = []
        self.results: dict[str, Any] = {}  # of ADD, by container ID
        self._wires: dict[int, Result] = {}
        self._stand_ins: StandIns | None = None
        self._prepared = False

    @property
    def kind(self) -> str:
        return self.subject.profile.kind if self.subject.profile else ""

    @property
    def profile(self) -> Profile:
        if not self.subject.profile:
            raise Skipped(_NO_CONF)
        return self.subject.profile

    # The host

    @property
    def ipam(self) -> StandIns:
        """The IPAM plugin that interface plugins are given."""
        if not self._stand_ins:
            self._stand_ins = StandIns(FOLDER, STAND_IN)
        return self._stand_ins

    def require(self) -> None:
        """Skip the check where an ADD cannot work."""
        if self.subject.unable:
            raise Skipped(self.subject.unable)
        if self.subject.problem:
            raise Skipped(f"ADD does not work with this configuration: {self.subject.problem}")

    def container(self, container_id: str = "", ifname: str = "eth0") -> Container:
        """A new container, with all that an ADD of the plugin needs."""
        number = len(self.containers) + 1
        made = Container(number, container_id or f"container-{number}", ifname)
        self.containers.append(made)
        if self.subject.profile:
            with host.host() as rtnl:
                if not self._prepared:
                    self.profile.prepare(rtnl)
                    self._prepared = True
                self.profile.prepare_for(rtnl, number)
            if self.kind == CHAINED:
                self._wires[number] = self._wire(made)
            self._tell_ipam(made)
        return made

    def _wire(self, container: Container) -> Result:
        """What stands before a chained plugin: an interface with addresses, as ptp or bridge make one."""
        outside = f"host{container.number}"
        addresses = [ip.net for ip in self.addresses(container)]
        namespace = NetNS.open(container.path)
        try:
            inside = namespace.rtnl
            with host.host() as rtnl:
                rtnl.add_veth(outside, container.ifname, namespace.fd, up=True)
                outer, inner = rtnl.link(outside), inside.link(container.ifname)
            inside.set_link(inner, up=True)
            for net in addresses:
                inside.add_address(inner, net)
            inside.add_route(inner, IPNet.parse("0.0.0.0/0"), via=Address.parse(_GATEWAY))
        finally:
            namespace.close()
        interfaces = [
            Interface(outer.name, outer.mac),
            Interface(inner.name, inner.mac, sandbox=container.path),
        ]
        ips = self.addresses(container)
        for ip in ips:
            ip.interface = 1
        dns = DNS(["10.77.0.53"], search=["example.org"])
        return Result(interfaces, ips, [Route(IPNet.parse("0.0.0.0/0"))], dns)

    def addresses(self, container: Container) -> "list[IP]":
        """With host bits, which a prefix does not take away."""
        last = container.number + 1
        return [
            IP(IPNet.parse(f"10.77.0.{last}/24"), Address.parse(_GATEWAY)),
            IP(IPNet.parse(f"fd77::{last}/64"), Address.parse(_GATEWAY6)),
        ]

    def _tell_ipam(self, container: Container) -> None:
        route = Route(IPNet.parse("198.51.100.0/24"), Address.parse(_GATEWAY))
        result = Result(None, self.addresses(container), [route], DNS(["10.77.0.53"]))
        self.ipam.answer(STAND_IN, "ADD", result.to_json(self.version), container_id=container.id)

    # Requests

    def conf(
        self, container: Container | None = None, *, chained: bool = True, **more: Any
    ) -> "dict[str, Any]":
        """The plugin's configuration, for a container: with its prevResult where one comes before."""
        conf: dict[str, Any] = {"cniVersion": self.version, "name": NETWORK, "type": self.subject.name}
        if self.subject.profile:
            conf.update(self.profile.conf)
            if container:
                conf.update(self.profile.own(container.number))
        if chained and container and container.number in self._wires and self.version >= "0.3.0":
            conf["prevResult"] = self._wires[container.number].to_json(self.version)
        conf.update(more)
        return {key: value for key, value in conf.items() if value is not None}

    def later(self, container: Container, **more: Any) -> "dict[str, Any]":
        """The configuration of DEL and CHECK: with the result of ADD, from the version on that has it."""
        conf = self.conf(container, chained=False)
        if self.version >= "0.4.0" and container.id in self.results:
            conf["prevResult"] = self.results[container.id]
        conf.update(more)
        return {key: value for key, value in conf.items() if value is not None}

    def variables(self, command: str, container: Container | None, **env: str | None) -> "dict[str, str]":
        """Those of the protocol, all of them; `env` replaces some, or takes them away with None."""
        found: dict[str, str | None] = {
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": container.id if container else "",
            "CNI_NETNS": container.path if container else "",
            "CNI_IFNAME": self.ifname(container) if container else "",
            "CNI_ARGS": "",
            "CNI_PATH": f"{FOLDER}/bin:{self.subject.path}",
            **env,
        }
        return {key: value for key, value in found.items() if value is not None}

    def ifname(self, container: Container) -> str:
        return "lo" if self.kind == LOOPBACK else container.ifname

    def call(
        self,
        command: str,
        conf: "Mapping[str, Any] | bytes",
        container: Container | None = None,
        *,
        in_parts: bool = False,
        **env: Any,
    ) -> Answer:
        stdin = conf if isinstance(conf, bytes) else json.dumps(conf).encode()
        answer = plugin.call(
            self.subject.executable, self.variables(command, container, **env), stdin, in_parts=in_parts
        )
        self.answers.append(answer)
        return answer

    def call_all(
        self, command: str, requests: "Sequence[tuple[Container, Mapping[str, Any]]]"
    ) -> "list[Answer]":
        """One request for each container, all at once."""
        started = []
        for container, conf in requests:
            variables = self.variables(command, container)
            started.append((plugin.start(self.subject.executable, variables), variables, conf))
        answers = []
        for process, variables, conf in started:
            answers.append(plugin.finish(process, variables, json.dumps(conf).encode()))
        self.answers += answers
        return answers

    def add(self, container: Container, **more: Any) -> "dict[str, Any]":
        self.require()
        return self.keep(container, self.call("ADD", self.conf(container, **more), container))

    def keep(self, container: Container, answer: Answer, what: str = "ADD") -> "dict[str, Any]":
        """The result of an ADD that must have worked."""
        result = answer.result(what)
        self.results[container.id] = result
        return result

    def added(self, **names: str) -> Container:
        container = self.container(**names)
        self.add(container)
        return container

    def added_result(self) -> "dict[str, Any]":
        return self.add(self.container())

    def delete(self, container: Container, what: str = "DEL", *, conf: Any = None, **env: Any) -> None:
        """A DEL, which must succeed."""
        conf = self.later(container) if conf is None else conf
        self.call("DEL", conf, container, **env).expect_success(what)

    def gc(self, *kept: Container, conf: "Mapping[str, Any] | None" = None, **more: Any) -> Answer:
        """A GC that must succeed, with a list of these; `more` replaces the list."""
        listed = [{"containerID": one.id, "ifname": self.ifname(one)} for one in kept]
        keys = {"cni.dev/valid-attachments": listed, "cni.dev/attachments": listed}
        conf = self.conf(self.containers[0], chained=False) if conf is None else conf
        request = {**conf, **more.get("keys", keys)}
        answer = self.call("GC", request)
        answer.expect_success("GC")
        return answer

    # What checks look at

    def created(self, container: Container) -> bool:
        """Whether the interface that was asked for is in the container."""
        return container.ifname in container.links()

    def need_operation(self, command: str) -> None:
        since = versions.SINCE.get(command, "")
        if since and not versions.at_least(self.version, since):
            raise Skipped(f"{command} came with {since}, and it speaks no later version than {self.version}")


def probe(subject: Subject) -> "dict[str, Any]":
    """A first look, in a host of its own: the versions that it speaks, its kind, whether ADD works."""
    answer = plugin.call(subject.executable, {"CNI_COMMAND": "VERSION"}, b'{"cniVersion": "1.1.0"}')
    try:
        listed = json.loads(answer.stdout)["supportedVersions"]
        subject.versions = [one for one in listed if isinstance(one, str)]
    except (ValueError, KeyError, TypeError):
        subject.versions = versions.ALL[:-1]  # `version-lists` says what is wrong with it
    found: dict[str, Any] = {"versions": list(subject.versions), "kind": "", "problem": "", "unable": ""}
    if subject.profile:
        try:
            with host.host() as rtnl:
                subject.profile.require(rtnl)
            found["kind"], found["problem"] = _try(subject, subject.profile)
        except Skipped as reason:
            found["unable"] = str(reason)
    else:
        found["unable"] = _NO_CONF
    return found


def _try(subject: Subject, profile: Profile) -> "tuple[str, str]":
    """The kind with which an ADD works, and what is wrong if it does with none."""
    kinds = [profile.kind] if profile.kind else [INTERFACE, CHAINED]
    problems = []
    case = Case(subject)
    for kind in kinds:
        profile.kind = kind
        container = case.container()
        try:
            result = case.add(container)
        except Broken as error:
            problems.append(str(error))
            continue
        if (
            len(kinds) > 1
            and kind == INTERFACE
            and not (result.get("interfaces") or case.created(container))
        ):
            return IPAM, ""
        return kind, ""
    return kinds[0], "; with a prevResult: ".join(problems)
