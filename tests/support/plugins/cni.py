# SPDX-License-Identifier: Apache-2.0
"""Calls of plugin executables as a runtime makes them, and the plugins under test."""

import json
import os
import subprocess
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.support.host.namespace import base_environment
from tests.support.skip import skip_or_fail

if TYPE_CHECKING:
    from tests.support.host.host import Container, Host

CHECKOUT = Path(__file__).resolve().parents[3]
DEBIAN = Path("/usr/lib/cni")
REFERENCE = Path(os.environ.get("REFERENCE_PLUGINS", DEBIAN))
VERSIONS = ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]

LAUNCHER = """\
#!/usr/bin/python3 -IS
import sys
sys.path.insert(0, {checkout!r})
from cnihook import codecache
codecache.install_finder()
from cnihook.protocol.executable import main
main({plugin!r})
"""


class CniFailure(Exception):
    """The error that a plugin printed; `raw` is its whole output."""

    def __init__(self, raw: dict[str, Any]) -> None:
        self.code: int = raw["code"]
        self.msg: str = raw["msg"]
        self.details: str = raw.get("details", "")
        self.raw = raw
        super().__init__(f"code {self.code}: {self.msg}; {self.details}")


class Attachment:
    """One interface of one container, as a runtime records it."""

    def __init__(
        self, conf: Any, container: "Container | None", ifname: str, plugin: str, env: dict[str, str]
    ) -> None:
        self.conf = conf
        self.container = container
        self.ifname = ifname
        self.plugin = plugin
        self.env = env
        self.result: Any = None

    def environment(self, command: str, plugins: Path) -> dict[str, str]:
        environment = {
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": self.container.name if self.container else "",
            "CNI_NETNS": self.container.path if self.container else "",
            "CNI_IFNAME": self.ifname,
            "CNI_ARGS": "",
            "CNI_PATH": str(plugins),
        }
        return base_environment() | environment | self.env

    @property
    def key(self) -> tuple[str, str, str, Any]:
        """The values by which a DEL matches its ADD."""
        variables = self.environment("DEL", REFERENCE)
        return variables["CNI_CONTAINERID"], variables["CNI_IFNAME"], self.plugin, self.conf.get("name")


class Implementation:
    """A folder of plugin executables.  `leaves`: what they may leave on a host when nothing is attached."""

    def __init__(self, name: str, folder: Path, leaves: list[str]) -> None:
        self.name = name
        self.folder = folder
        self.path = folder  # CNI_PATH
        self.leaves = leaves

    def program(self, plugin: str) -> str:
        program = self.folder / plugin
        if not program.exists():
            skip_or_fail(f"there is no {self.name} plugin {plugin}: no {program}")
        return str(program)

    def run(
        self, host: "Host", plugin: str, conf: str, environment: dict[str, str]
    ) -> subprocess.CompletedProcess[str]:
        """Call a plugin once; it must answer within 60 seconds."""
        return host.run(self.program(plugin), input=conf, env=environment, check=False, timeout=60)


def write_launchers(folder: Path) -> None:
    """Write an executable into `folder` for each plugin of this checkout."""
    for module in sorted((CHECKOUT / "cnihook" / "plugins").glob("[a-z]*.py")):
        plugin = module.stem.replace("_", "-")
        launcher = folder / plugin
        launcher.write_text(LAUNCHER.format(checkout=str(CHECKOUT), plugin=plugin))
        launcher.chmod(0o755)


@cache
def reference_version() -> str:
    """Return the version of the reference, by its package, because Debian's plugins print "unknown".

    For plugins in another folder, REFERENCE_PLUGINS, the variable REFERENCE_VERSION must be set too.
    """
    if version := os.environ.get("REFERENCE_VERSION"):
        return version
    query = ["dpkg-query", "-W", "-f", "${Version}", "containernetworking-plugins"]
    try:
        return subprocess.run(query, capture_output=True, text=True).stdout or "1.1.1"
    except FileNotFoundError:  # not a Debian
        return "1.1.1"


def reference() -> Implementation:
    """Return upstream's plugins, in Debian's folder.

    They never remove a bridge, nor the iptables tables that they caused.  Whatever else they leave is a
    known difference, with a mark on the test that finds it.
    """
    leaves = [
        "empty bridges",
        "file /run/xtables.lock",
        "nft: table ip nat",
        "nft: table ip nat / chain POSTROUTING",
        "nft: table ip nat / chain POSTROUTING / type nat hook postrouting priority srcnat; policy accept;",
        "nft: table ip6 nat",
        "nft: table ip6 nat / chain POSTROUTING",
        "nft: table ip6 nat / chain POSTROUTING / type nat hook postrouting priority srcnat; policy accept;",
        "nft: table bridge nat",
        "nft: table bridge nat / chain PREROUTING",
        "nft: table bridge nat / chain PREROUTING / type filter hook prerouting priority *; policy accept;",
    ]
    return Implementation("reference", REFERENCE, leaves)


def call(host: "Host", plugins: Implementation, command: str, attachment: Attachment) -> Any:
    """Call a plugin and check its answer by the protocol: only JSON on stdout, exit 0 or 1."""
    conf = attachment.conf if isinstance(attachment.conf, str) else json.dumps(attachment.conf)
    answer = plugins.run(host, attachment.plugin, conf, attachment.environment(command, plugins.path))
    assert "Traceback" not in answer.stderr, answer.stderr
    if answer.returncode == 0:
        result = json.loads(answer.stdout) if answer.stdout else None
        if result and result["cniVersion"] >= "1.0.0" and result.get("dns") == {}:
            del result["dns"]  # from 1.0.0 on, empty and absent are the same
        return result
    assert answer.returncode == 1, (answer.returncode, answer.stdout, answer.stderr)
    raise CniFailure(json.loads(answer.stdout))


def with_previous_result(conf: Any, result: Any) -> Any:
    """Return the configuration for DEL and CHECK.  From 0.4.0 on it holds the result of ADD."""
    if result is None or not isinstance(conf, dict) or conf.get("cniVersion", "0.1.0") < "0.4.0":
        return conf
    return conf | {"prevResult": result}
