# SPDX-License-Identifier: Apache-2.0
"""What `add`, `del`, `check`, `gc`, `status` and `plan` have in common: cnitool's words, and better ones.

A script that was written for cnitool runs with `cnihook` in its place: the same arguments, the same
environment (CNI_PATH, NETCONFPATH, CNI_ARGS, CAP_ARGS, CNI_IFNAME), the same container ID.
"""

import argparse
import hashlib
import json
import os
import sys
from collections.abc import Callable

from cnihook.cli import arguments
from cnihook.cli.arguments import Parser
from cnihook.runtime import networks
from cnihook.runtime.cni import CNI
from cnihook.runtime.networks import Network
from cnihook.settings import Settings
from cnihook.spec.errors import INVALID_ENVIRONMENT, CniError, as_cni_error
from cnihook.spec.names import check_container_id, check_ifname
from cnihook.spec.version import CURRENT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

ENVIRONMENT = """\
NETNS is a path, a name that `ip netns` knows, or the ID of a process.  In the environment: NETCONFPATH,
CNI_PATH, CNI_IFNAME, CNI_ARGS (KEY=VALUE;KEY=VALUE), CAP_ARGS (JSON object); an option goes before its
variable.
"""


def add_arguments(parser: Parser, *, namespace: str) -> None:
    """`namespace` is NETNS, or [NETNS] where it is taken for cnitool's sake and makes no difference."""
    parser.add_argument(
        "network", metavar="NETWORK", nargs="?", default="", help="its name; with --network-config, left out"
    )
    parser.add_argument("netns", metavar=namespace, nargs="?", default="", help="the namespace")
    parser.add_argument(
        "--network-config",
        metavar="FILE",
        help="NETWORK's configuration, - for stdin; not from a folder",
    )
    parser.add_argument("--json", action="store_true", help="print an error as JSON, its code kept")
    parser.add_conf_folder()
    parser.add_plugin_folders()
    parser.add_argument(
        "--timeout", metavar="SECONDS", type=_seconds, default=60.0, help="for each plugin (60)"
    )


def add_attachment(parser: Parser) -> None:
    parser.add_argument(
        "-i",
        "--ifname",
        type=arguments.checked(check_ifname),
        help="the interface's name in the container (default: $CNI_IFNAME, else eth0)",
    )
    parser.add_argument(
        "--container-id",
        metavar="ID",
        type=arguments.checked(check_container_id),
        help="default: cnitool's, made of the namespace's path",
    )
    parser.add_argument("--cni-args", metavar="ARGS", help="CNI_ARGS of the plugins: KEY=VALUE;KEY=VALUE")
    parser.add_argument(
        "--capability-args", metavar="JSON", help="such as '{\"portMappings\": [...]}' (default: $CAP_ARGS)"
    )


def _seconds(text: str) -> float:
    try:
        value = float(text)
        if value > 0:
            return value
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"{text!r} is no time in seconds")


class Target:
    """The words of one command, made sense of.  Raises CniError where they make none."""

    def __init__(self, found: argparse.Namespace, *, needs_namespace: bool) -> None:
        self._found = found
        settings: Settings = arguments.settings_of(found)
        self.cni = CNI(settings.conf_folder, settings.plugin_path, timeout=found.timeout)
        if found.network_config and not found.netns:
            found.network, found.netns = "", found.network  # the one word there is names the namespace
        if not (found.network or found.network_config):
            raise CniError(INVALID_ENVIRONMENT, "NETWORK is missing", "`cnihook list` shows those there are")
        if needs_namespace and not found.netns:
            raise CniError(INVALID_ENVIRONMENT, "NETNS is missing", "a path, a name or the ID of a process")
        self.pid = int(found.netns) if found.netns.isdecimal() else 0
        self.netns = namespace_path(found.netns) if found.netns else ""

    def network(self) -> Network:
        path = self._found.network_config
        if not path:
            return self.cni.network(self._found.network)
        if path == "-":
            return networks.parse(sys.stdin.buffer.read(), "stdin")
        return networks.load_file(path)

    def network_or_name(self) -> "Network | str":
        """For who may do without the configuration: what is on record has its own."""
        try:
            return self.network()
        except CniError:
            if self._found.network_config:
                raise
            return str(self._found.network)

    @property
    def container_id(self) -> str:
        return self._found.container_id or cnitools_id(self.netns)

    @property
    def ifname(self) -> str:
        name = self._found.ifname or os.environ.get("CNI_IFNAME") or "eth0"
        check_ifname(name)
        return name

    @property
    def args(self) -> str:
        text: str = (
            self._found.cni_args if self._found.cni_args is not None else os.environ.get("CNI_ARGS", "")
        )
        for pair in filter(None, text.split(";")):
            key, equals, value = pair.partition("=")
            if not (key and equals and value):
                raise CniError(
                    INVALID_ENVIRONMENT, f"invalid CNI_ARGS pair {pair!r}", "it takes KEY=VALUE;KEY=VALUE"
                )
        return text

    @property
    def capability_args(self) -> "dict[str, Any]":
        option = self._found.capability_args
        text = option if option is not None else os.environ.get("CAP_ARGS", "")
        where = "--capability-args" if option is not None else "CAP_ARGS"
        if not text:
            return {}
        try:
            value = json.loads(text)
        except ValueError as error:
            raise CniError(INVALID_ENVIRONMENT, f"{where} is no JSON: {error}") from None
        if not isinstance(value, dict):
            raise CniError(INVALID_ENVIRONMENT, f"{where} must be a JSON object")
        return value


def namespace_path(text: str) -> str:
    """The path of a namespace that is named in one of three ways; cnitool knows paths alone."""
    if text.isdecimal():
        return f"/proc/{text}/ns/net"
    if "/" not in text and not os.path.exists(text):
        return f"/var/run/netns/{text}"  # as the manuals of cnitool write it, for the sake of its ID
    return os.path.abspath(text)


def cnitools_id(netns: str) -> str:
    """The container ID that cnitool makes of a namespace's absolute path."""
    return f"cnitool-{hashlib.sha512(os.fsencode(netns)).digest()[:10].hex()}"


def run(command: str, found: argparse.Namespace, function: Callable[[], None]) -> int:
    """As arguments.work(); with --json, what went wrong is on stdout as the specification has it."""
    what = f"{command} {found.network}".rstrip()

    def work() -> None:
        try:
            function()
        except Exception as error:
            if not found.json:
                raise
            told = as_cni_error(error)
            told.msg = f"{what}: {told.msg}"
            told.details = "; ".join(filter(None, [told.details, *getattr(error, "__notes__", ())]))
            print(told.to_json(CURRENT))
            raise SystemExit(1) from None

    return arguments.work(what, work)
