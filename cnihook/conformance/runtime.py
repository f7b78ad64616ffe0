# SPDX-License-Identifier: Apache-2.0
"""The argument of each check of a runtime: the runtime as a command, and plugins that record their calls."""

import json
import os
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cnihook.conformance.case import FOLDER
from cnihook.conformance.check import Check, CheckFailed, Deviation, Outcome
from cnihook.conformance.fake_plugin import Call, FakePlugins
from cnihook.conformance.host import Container
from cnihook.conformance.plugin import TIMEOUT, cut, environment
from cnihook.conformance.run import NotRun, Progress, Work, run_checks

NETWORK = "net"
PLUGINS = ("first", "second", "third")
_NET_D = FOLDER / "net.d"


@dataclass
class Ran:
    """One call of the runtime, and the calls that its plugins received."""

    argv: Sequence[str]
    variables: Mapping[str, str]
    status: int
    stdout: str
    stderr: str
    conf: str
    calls: "list[Call]"

    @property
    def sent(self) -> str:
        variables = " ".join(f"{key}={value}" for key, value in self.variables.items())
        return f"{variables} {shlex.join(self.argv)}\nwith {cut(self.conf)}"

    @property
    def came(self) -> str:
        summary = f"exit {self.status}\nstdout: {cut(self.stdout)}\nstderr: {cut(self.stderr)}\n"
        return summary + "\n".join(f"{one.type} got {one.command}: {cut(one.stdin)}" for one in self.calls)

    def expect_success(self, what: str) -> None:
        if self.status != 0:
            raise CheckFailed(f"{what}: exit {self.status}: {cut(self.stderr or self.stdout, 200)}")

    def expect_error(self, what: str, *words: str) -> None:
        """Raise CheckFailed if it exits with 0, Deviation if a string of `words` is on neither stream."""
        if self.status == 0:
            raise CheckFailed(f"{what}: exit 0")
        for word in words:
            if word not in self.stdout + self.stderr:
                output = cut(self.stderr or self.stdout, 200)
                raise Deviation(f"{what}: {word!r} is not in its output: {output}")

    def of(self, command: str) -> "list[Call]":
        return [one for one in self.calls if one.command == command]

    def expect_order(self, command: str, *types: str) -> "list[Call]":
        calls = self.of(command)
        if [one.type for one in calls] != list(types):
            got = ", ".join(one.type for one in calls) or "no plugin"
            raise CheckFailed(f"{command} went to {got}, not to {', '.join(types) or 'no plugin'}")
        return calls


class RuntimeCase:
    def __init__(self, command: Sequence[str]) -> None:
        self._command = command
        self.answers: list[Ran] = []
        self.plugins = FakePlugins(FOLDER, *PLUGINS)
        _NET_D.mkdir()
        self.container = Container(1, "unused", "eth0")
        for index, name in enumerate(PLUGINS):
            self.plugins.answer(name, "ADD", self.result(index))
        self.conf: dict[str, Any] = {}
        self.configure()

    def result(self, index: int, version: str = "1.0.0") -> "dict[str, Any]":
        """Return the result of plugin `index`: the previous result with one more nameserver."""
        ip: dict[str, Any] = {"interface": 0, "address": "10.77.0.2/24", "gateway": "10.77.0.1"}
        if version < "1.0.0":
            ip["version"] = "4"
        return {
            "cniVersion": version,
            "interfaces": [{"name": "eth0", "mac": "02:00:00:00:00:02", "sandbox": self.container.path}],
            "ips": [ip],
            "dns": {"nameservers": [f"10.77.0.{53 + number}" for number in range(index + 1)]},
        }

    def configure(self, *, version: str = "1.0.0", plugins: Any = None, **keys: Any) -> None:
        """Write the network's file.  `plugins`: further keys of each plugin."""
        listed = [
            {"type": name, **more} for name, more in zip(PLUGINS, plugins or [{}, {}, {}], strict=False)
        ]
        self.conf = {"cniVersion": version, "name": NETWORK, "plugins": listed, **keys}
        self.conf = {key: value for key, value in self.conf.items() if value is not None}
        (_NET_D / "10-net.conflist").write_text(json.dumps(self.conf))
        for index, name in enumerate(PLUGINS):
            self.plugins.answer(name, "ADD", self.result(index, version))

    def write(self, name: str, text: str) -> None:
        """Write another file in the folder of networks."""
        (_NET_D / name).write_text(text)

    def run(self, verb: str, network: str = NETWORK, **env: str) -> Ran:
        """Run the runtime's command, and record the calls that its plugins receive in it."""
        self.plugins.forget()
        argv = [*self._command, verb, network, self.container.path]
        variables = {"CNI_PATH": str(self.plugins.bin), "NETCONFPATH": str(_NET_D), **env}
        try:
            process = subprocess.run(
                argv,
                env=environment(variables),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=TIMEOUT,
                cwd="/",
            )
        except subprocess.TimeoutExpired:
            raise CheckFailed(f"{verb}: did not end within {TIMEOUT:g} s") from None
        stdout, stderr = process.stdout.decode(errors="replace"), process.stderr.decode(errors="replace")
        conf, calls = json.dumps(self.conf), self.plugins.calls()
        ran = Ran(argv, variables, process.returncode, stdout, stderr, conf, calls)
        self.answers.append(ran)
        return ran

    def works(self, verb: str, **env: str) -> Ran:
        ran = self.run(verb, **env)
        ran.expect_success(verb)
        return ran


def run_runtime(command: str, checks: Sequence[Check], progress: Progress) -> "list[Outcome]":
    argv = shlex.split(command)
    program = shutil.which(argv[0]) if argv else None
    if not program:
        raise NotRun(f"{command!r}: no such program")
    argv[0] = os.path.abspath(program)
    shown = [os.path.dirname(path) for path in argv if path.startswith("/")]
    # The last path is the script if the first is an interpreter such as python3.
    name = os.path.basename([path for path in argv if path.startswith("/")][-1])
    work: list[Work] = [(name, check, "", lambda: RuntimeCase(argv), shown) for check in checks]
    return run_checks(work, progress)


def expect_same(value: Any, expected: Any, what: str) -> None:
    """Raise CheckFailed, with both values, if they differ."""
    if value != expected:
        raise CheckFailed(f"{what} is {json.dumps(value)}, not {json.dumps(expected)}")
