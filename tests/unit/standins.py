# SPDX-License-Identifier: Apache-2.0
"""Plugins of a few lines of shell that record how they are called."""

import json
import os
from pathlib import Path
from typing import Any

from cnihook.protocol.call import Invocation
from cnihook.runtime import networks

RESULT = {"cniVersion": "1.1.0", "ips": [{"address": "10.1.2.3/24"}]}
SCRIPT = """\
#!/bin/sh
set -- {calls}/*
n=$(printf %03d $#)
echo "${{0##*/}} $CNI_COMMAND" > {calls}/$n
env | grep ^CNI_ | sort > {calls}.env.$n
cat > {calls}.stdin.$n
case $CNI_COMMAND in
{cases}
esac
"""


class Plugins:
    """A folder of fake plugins, and their calls in order."""

    def __init__(self, state: Path) -> None:
        self.folder = state / "plugins"
        self._calls = state / "calls"
        for path in (self.folder, self._calls):
            path.mkdir()
        (self._calls / "000").touch()  # so that there is always something for the shell's * to find

    def make(self, name: str, **on: str) -> Path:
        """Write a plugin; `on` maps a command to its shell code.

        By default, ADD prints a result with the plugin's name as DNS domain.
        """
        on.setdefault("ADD", answer({"cniVersion": "1.0.0", "dns": {"domain": name}}))
        cases = "\n".join(f"{command}) {shell};;" for command, shell in on.items())
        return self.write(name, SCRIPT.format(calls=self._calls, cases=cases))

    def write(self, name: str, script: str) -> Path:
        path = self.folder / name
        path.write_text(script)
        path.chmod(0o755)
        return path

    @property
    def calls(self) -> list[str]:
        """The calls as `bridge ADD`, `portmap ADD`, ..."""
        return [(self._calls / name).read_text().strip() for name in sorted(os.listdir(self._calls))[1:]]

    def stdin(self, index: int) -> Any:
        """Return the configuration that the call received."""
        return json.loads(self._of(index, "stdin"))

    def environment(self, index: int) -> dict[str, str]:
        """Return the environment variables that the call received."""
        return dict(line.split("=", 1) for line in self._of(index, "env").splitlines())

    def _of(self, index: int, what: str) -> str:
        numbers = sorted(os.listdir(self._calls))[1:]
        return self._calls.with_name(f"calls.{what}.{numbers[index]}").read_text()

    def request(self, timeout: float = 20, args: str = "") -> Invocation:
        return Invocation(
            "c1", "/run/netns/c1", "eth0", args=args, plugin_dirs=[str(self.folder)], timeout=timeout
        )


def answer(value: Any) -> str:
    """Return shell code that prints a value; no value of these tests contains a single quote."""
    return f"printf %s '{json.dumps(value)}'"


def refuse(code: int, msg: str, **more: Any) -> str:
    return answer({"cniVersion": "1.0.0", "code": code, "msg": msg, **more}) + "; exit 1"


def network(*plugins: Any, version: str = "1.0.0", **keys: Any) -> networks.Network:
    """Return a network of these plugins; a plugin may be given as its type only."""
    raw = {
        "cniVersion": version,
        "name": "mynet",
        "plugins": [{"type": plugin} if isinstance(plugin, str) else plugin for plugin in plugins],
        **keys,
    }
    return networks.parse(json.dumps(raw).encode(), "10-mynet.conflist")
