# SPDX-License-Identifier: Apache-2.0
"""The CNI protocol as a runtime speaks it to a plugin executable, and the plugins that tests speak to."""

import json
import os
import subprocess
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.support.namespace import base_environment
from tests.support.skip import skip_or_fail

if TYPE_CHECKING:
    from tests.support.host import Container, Host

CHECKOUT = Path(__file__).resolve().parents[2]
DEBIAN = Path("/usr/lib/cni")
REFERENCE = Path(os.environ.get("REFERENCE_PLUGINS", DEBIAN))
VERSIONS = ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]

LAUNCHER = """\
#!/usr/bin/python3 -IS
import sys
sys.path.insert(0, {checkout!r})
from cnihook.lean import onefile
onefile.use({plugin!r})
from cnihook.sdk.executable import main
main({plugin!r})
"""


class CniFailure(Exception):
    """A plugin refused: the error that it printed, and `raw`, all of what it printed."""

    def __init__(self, raw: dict[str, Any]) -> None:
        self.code: int = raw["code"]
        self.msg: str = raw["msg"]
        self.details: str = raw.get("details", "")
        self.raw = raw
        super().__init__(f"code {self.code}: {self.msg}; {self.details}")


class Attachment:
    """One interface of one container, as a runtime remembers it."""

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
        """What a DEL must have in common with an ADD to be its end."""
        variables = self.environment("DEL", REFERENCE)
        return variables["CNI_CONTAINERID"], variables["CNI_IFNAME"], self.plugin, self.conf.get("name")


class Implementation:
    """A folder of plugin executables.  `leaves`: what of it may stay on a host when nothing is attached."""

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
        """Send one request; within 20 seconds there is an answer."""
        return host.run(self.program(plugin), input=conf, env=environment, check=False, timeout=60)


def write_launchers(folder: Path) -> None:
    """The plugins of this checkout, each as an executable of its own in `folder`."""
    for module in sorted((CHECKOUT / "cnihook" / "plugins").glob("[a-z]*.py")):
        plugin = module.stem.replace("_", "-")
        launcher = folder / plugin
        launcher.write_text(LAUNCHER.format(checkout=str(CHECKOUT), plugin=plugin))
        launcher.chmod(0o755)


@cache
def reference_version() -> str:
    """Return the version of the reference: Debian's plugins print "unknown", so its package is asked.

    For plugins in another folder, REFERENCE_PLUGINS, the environment has REFERENCE_VERSION too.
    """
    if version := os.environ.get("REFERENCE_VERSION"):
        return version
    query = ["dpkg-query", "-W", "-f", "${Version}", "containernetworking-plugins"]
    try:
        return subprocess.run(query, capture_output=True, text=True).stdout or "1.1.1"
    except FileNotFoundError:  # not a Debian
        return "1.1.1"


def reference() -> Implementation:
    """Upstream's plugins, where Debian puts them.

    They never take away a bridge, nor the tables of iptables that they caused.  What they leave beyond that
    is a known difference, and the test that sees it says so.
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
    """Send one request and hold the answer to the protocol: JSON and nothing else on stdout, exit 0 or 1."""
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
    """What a runtime sends with DEL and CHECK: from 0.4.0 on the configuration holds the result of ADD."""
    if result is None or not isinstance(conf, dict) or conf.get("cniVersion", "0.1.0") < "0.4.0":
        return conf
    return conf | {"prevResult": result}
