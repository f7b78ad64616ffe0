# SPDX-License-Identifier: Apache-2.0
"""The argument of each check of a plugin: the plugin, an empty host, and functions that call the plugin."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cnihook.conformance import host, plugin
from cnihook.conformance.check import CheckFailed, CheckSkipped
from cnihook.conformance.fake_plugin import FakePlugins
from cnihook.conformance.host import Container
from cnihook.conformance.plugin import Answer
from cnihook.conformance.profiles import CHAINED, INTERFACE, IPAM, LOOPBACK, STAND_IN, Profile
from cnihook.fast.address import Address, IPNet
from cnihook.linux.netns import NetNS
from cnihook.types import versions
from cnihook.types.result import DNS, IP, Interface, Result, Route

NETWORK = "conformance"
FOLDER = Path("/run/conformance")

_GATEWAY, _GATEWAY6 = "10.77.0.1", "fd77::1"
_NO_CONF = "no configuration is known for it: give one with --config"


@dataclass
class Subject:
    """A plugin under test.  probe() finds `versions`, `problem` and `unable` before the checks run."""

    name: str
    executable: str
    profile: Profile | None
    path: str  # CNI_PATH, without the suite's own folder
    versions: Sequence[str] = versions.ALL
    problem: str = ""  # why ADD does not work with it
    unable: str = ""  # why ADD cannot work here
    label: str = ""  # its name in reports; its path if another plugin has the same name

    @property
    def latest(self) -> str:
        supported = [one for one in versions.ALL if one in self.versions]
        return supported[-1] if supported else "1.0.0"


class Case:
    """The plugin and the host of one check.  Each call is kept, because the report of a failure shows it."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.version = subject.latest
        self.answers: list[Answer] = []
        self.containers: list[Container] = []
        self.results: dict[str, Any] = {}  # of ADD, by container ID
        self._wires: dict[int, Result] = {}
        self._stand_ins: FakePlugins | None = None
        self._prepared = False

    @property
    def kind(self) -> str:
        return self.subject.profile.kind if self.subject.profile else ""

    @property
    def profile(self) -> Profile:
        if not self.subject.profile:
            raise CheckSkipped(_NO_CONF)
        return self.subject.profile

    # The host

    @property
    def ipam(self) -> FakePlugins:
        """The suite's own IPAM plugin, which interface plugins call."""
        if not self._stand_ins:
            self._stand_ins = FakePlugins(FOLDER, STAND_IN)
        return self._stand_ins

    def require(self) -> None:
        """Skip the check if an ADD cannot work."""
        if self.subject.unable:
            raise CheckSkipped(self.subject.unable)
        if self.subject.problem:
            raise CheckSkipped(f"ADD does not work with this configuration: {self.subject.problem}")

    def container(self, container_id: str = "", ifname: str = "eth0") -> Container:
        """Create a container, and everything that an ADD of the plugin needs."""
        number = len(self.containers) + 1
        container = Container(number, container_id or f"container-{number}", ifname)
        self.containers.append(container)
        if self.subject.profile:
            with host.host() as rtnl:
                if not self._prepared:
                    self.profile.prepare(rtnl)
                    self._prepared = True
                self.profile.prepare_for(rtnl, number)
            if self.kind == CHAINED:
                self._wires[number] = self._wire(container)
            self._tell_ipam(container)
        return container

    def _wire(self, container: Container) -> Result:
        """Do what a plugin before a chained plugin does: create an interface with addresses, as ptp does."""
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
        """Return the container's addresses, with their host bits, which the plugin must keep."""
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
        """Return the plugin's configuration for a container, with prevResult if a plugin comes before it."""
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
        """Return the configuration of DEL and CHECK.  From 0.4.0 on it holds the result of ADD."""
        conf = self.conf(container, chained=False)
        if self.version >= "0.4.0" and container.id in self.results:
            conf["prevResult"] = self.results[container.id]
        conf.update(more)
        return {key: value for key, value in conf.items() if value is not None}

    def variables(self, command: str, container: Container | None, **env: str | None) -> "dict[str, str]":
        """Return all variables of the protocol.  `env` replaces some; None removes a variable."""
        values: dict[str, str | None] = {
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": container.id if container else "",
            "CNI_NETNS": container.path if container else "",
            "CNI_IFNAME": self.ifname(container) if container else "",
            "CNI_ARGS": "",
            "CNI_PATH": f"{FOLDER}/bin:{self.subject.path}",
            **env,
        }
        return {key: value for key, value in values.items() if value is not None}

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
        """Call the plugin once for each container, all at the same time."""
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
        """Return the result of an ADD, and store it for DEL and CHECK.  Raises CheckFailed if ADD fails."""
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
        """Call DEL.  Raises CheckFailed if it fails."""
        conf = self.later(container) if conf is None else conf
        self.call("DEL", conf, container, **env).expect_success(what)

    def gc(self, *kept: Container, conf: "Mapping[str, Any] | None" = None, **more: Any) -> Answer:
        """Call GC with a list of these containers; `more` replaces it.  Raises CheckFailed if GC fails."""
        listed = [{"containerID": one.id, "ifname": self.ifname(one)} for one in kept]
        keys = {"cni.dev/valid-attachments": listed, "cni.dev/attachments": listed}
        conf = self.conf(self.containers[0], chained=False) if conf is None else conf
        request = {**conf, **more.get("keys", keys)}
        answer = self.call("GC", request)
        answer.expect_success("GC")
        return answer

    # What checks look at

    def created(self, container: Container) -> bool:
        """Return True if the requested interface is in the container."""
        return container.ifname in container.links()

    def need_operation(self, command: str) -> None:
        since = versions.SINCE.get(command, "")
        if since and not versions.at_least(self.version, since):
            raise CheckSkipped(
                f"{command} came with {since}, and the plugin's latest version is {self.version}"
            )


def probe(subject: Subject) -> "dict[str, Any]":
    """Find the plugin's versions, its kind, and whether ADD works.  Runs in a host of its own."""
    answer = plugin.call(subject.executable, {"CNI_COMMAND": "VERSION"}, b'{"cniVersion": "1.1.0"}')
    try:
        listed = json.loads(answer.stdout)["supportedVersions"]
        subject.versions = [one for one in listed if isinstance(one, str)]
    except (ValueError, KeyError, TypeError):
        subject.versions = versions.ALL[:-1]  # the check `version-lists` reports what is wrong
    facts: dict[str, Any] = {"versions": list(subject.versions), "kind": "", "problem": "", "unable": ""}
    if subject.profile:
        try:
            with host.host() as rtnl:
                subject.profile.require(rtnl)
            facts["kind"], facts["problem"] = _try(subject, subject.profile)
        except CheckSkipped as reason:
            facts["unable"] = str(reason)
    else:
        facts["unable"] = _NO_CONF
    return facts


def _try(subject: Subject, profile: Profile) -> "tuple[str, str]":
    """Return the kind with which an ADD works, and the problems if it works with no kind."""
    kinds = [profile.kind] if profile.kind else [INTERFACE, CHAINED]
    problems = []
    case = Case(subject)
    for kind in kinds:
        profile.kind = kind
        container = case.container()
        try:
            result = case.add(container)
        except CheckFailed as error:
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
