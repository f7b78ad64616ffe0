# SPDX-License-Identifier: Apache-2.0
"""Shared arguments of `add`, `del`, `check`, `gc`, `status` and `plan`: those of cnitool, and further ones.

A script that was written for cnitool runs with `cnihook` in its place: the same arguments, the same
environment (CNI_PATH, NETCONFPATH, CNI_ARGS, CAP_ARGS, CNI_IFNAME), the same container ID.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable

from cnihook.cli.shared import arguments
from cnihook.cli.shared.arguments import Parser
from cnihook.cli.shared.containers import cnitools_id
from cnihook.log import warn
from cnihook.protocol.call import PLUGIN_TIMEOUT
from cnihook.runtime import networks
from cnihook.runtime.cni import CNI
from cnihook.runtime.networks import Network
from cnihook.runtime.settings import Settings
from cnihook.types.errors import INVALID_ENVIRONMENT, CniError, as_cni_error
from cnihook.types.names import check_container_id, check_ifname
from cnihook.types.versions import CURRENT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

ENVIRONMENT = """\
NETNS is a path, a name of `ip netns`, or the ID of a process.

environment (an option overrides its variable):
  NETCONFPATH  folder of network configurations
  CNI_PATH     folders of plugins
  CNI_IFNAME   the interface's name in the container
  CNI_ARGS     KEY=VALUE;KEY=VALUE
  CAP_ARGS     capability arguments, a JSON object
"""


NO_EFFECT = "no effect; for scripts that call cnitool"


def usage(command: str, *, namespace: str = "NETNS", more: str = "") -> str:
    """Return the usage of a command; argparse would show operands as optional that one may replace."""
    lines = [f"NETWORK {namespace}", f"--network-config FILE {namespace}", *filter(None, [more])]
    return "\n       ".join(f"cnihook {command} [OPTION]... {line}" for line in lines)


def add_arguments(parser: Parser, *, namespace: str = "the namespace", or_container: bool = False) -> None:
    """Add the shared arguments.

    `namespace`: the help of NETNS.  `or_container`: instead of both, the only operand may be a container.
    """
    parser.add_argument(
        "network",
        metavar="NETWORK|CONTAINER" if or_container else "NETWORK",
        nargs="?",
        default="",
        help="the network's name; omitted with --network-config"
        + (
            "; without NETNS, a container: its name, its ID or the beginning of that" if or_container else ""
        ),
    )
    parser.add_argument("netns", metavar="NETNS", nargs="?", default="", help=namespace)
    parser.add_argument(
        "--network-config",
        metavar="FILE",
        help="the file of NETWORK's configuration; - is stdin",
    )
    parser.add_argument("--json", action="store_true", help="print an error as JSON, with its code")
    parser.add_conf_dir()
    parser.add_plugin_dirs()
    parser.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=_seconds,
        default=PLUGIN_TIMEOUT,
        help=f"time limit of each plugin (default: {PLUGIN_TIMEOUT:g})",
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
        help="the container ID (default: cnitool's, made of the namespace's path)",
    )
    parser.add_argument(
        "--cni-args", metavar="ARGS", help="KEY=VALUE;KEY=VALUE for the plugins (default: $CNI_ARGS)"
    )
    parser.add_argument(
        "--capability-args",
        metavar="JSON",
        help="arguments such as '{\"portMappings\": [...]}' (default: $CAP_ARGS)",
    )


def check_operands(parser: Parser, options: argparse.Namespace, *, needs_namespace: bool) -> None:
    """Report a missing operand, and assign the only one to NETNS if a file has the network."""
    if options.network_config and not options.netns:
        options.network, options.netns = "", options.network
    if not (options.network or options.network_config):
        parser.error("NETWORK is missing; `cnihook list` shows the networks")
    if needs_namespace and not options.netns:
        parser.error("NETNS is missing: a path, a name of `ip netns`, or the ID of a process")


def _seconds(text: str) -> float:
    try:
        value = float(text)
        if value > 0:
            return value
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"{text!r} is not a time in seconds")


class CnitoolArgs:
    """The arguments of one command, after check_operands().  Raises CniError if they make no sense."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        settings: Settings = arguments.settings_of(options)
        self.cni = CNI(settings.conf_dir, settings.plugin_dirs, timeout=options.timeout)
        self.pid = int(options.netns) if options.netns.isdecimal() else 0
        self.netns = namespace_path(options.netns) if options.netns else ""

    def network(self) -> Network:
        path = self._options.network_config
        if not path:
            return self.cni.networks[self._options.network]
        if path == "-":
            return networks.parse(sys.stdin.buffer.read(), "stdin")
        return networks.load_file(path)

    def network_of_record(self) -> "Network | str":
        """Return the network of a file, or the name: a record has its own configuration."""
        return self.network() if self._options.network_config else str(self._options.network)

    @property
    def container_id(self) -> str:
        return self._options.container_id or cnitools_id(self.netns)

    @property
    def ifname(self) -> str:
        name = self._options.ifname or os.environ.get("CNI_IFNAME") or "eth0"
        check_ifname(name)
        return name

    @property
    def cni_args(self) -> "dict[str, str]":
        text: str = (
            self._options.cni_args if self._options.cni_args is not None else os.environ.get("CNI_ARGS", "")
        )
        cni_args = {}
        for pair in filter(None, text.split(";")):
            key, _, value = pair.partition("=")
            if not (key and value):
                raise CniError(
                    INVALID_ENVIRONMENT, f"invalid CNI_ARGS pair {pair!r}", "it takes KEY=VALUE;KEY=VALUE"
                )
            cni_args[key] = value
        return cni_args

    @property
    def capability_args(self) -> "dict[str, Any]":
        option = self._options.capability_args
        text = option if option is not None else os.environ.get("CAP_ARGS", "")
        where = "--capability-args" if option is not None else "CAP_ARGS"
        if not text:
            return {}
        try:
            value = json.loads(text)
        except ValueError as error:
            raise CniError(INVALID_ENVIRONMENT, f"{where} is not JSON: {error}") from None
        if not isinstance(value, dict):
            raise CniError(INVALID_ENVIRONMENT, f"{where} must be a JSON object")
        return value

    def capability_args_for(self, network: Network) -> "dict[str, Any]":
        """Return the capability arguments for an ADD.

        CAP_ARGS may be for several networks, and cnitool ignores what no plugin takes.  Here a line on
        stderr reports that.  CNI.add() rejects it in an option.
        """
        values = self.capability_args
        if self._options.capability_args is None:
            for name in values.keys() - set(network.capabilities):
                warn(
                    f"add: CAP_ARGS: none of the plugins of network {network.name} has the capability {name}"
                )
                del values[name]
        return values


def namespace_path(text: str) -> str:
    """Return the path of a namespace, given by path, name or PID; cnitool takes only paths."""
    if text.isdecimal():
        return f"/proc/{text}/ns/net"
    if "/" not in text and not os.path.exists(text):
        return f"/var/run/netns/{text}"  # as in cnitool's manuals: the container ID is made of this text
    return os.path.abspath(text)


def run(command: str, options: argparse.Namespace, function: Callable[[], None]) -> int:
    """Run like arguments.work().  With --json, an error is on stdout in the format of the specification."""
    what = f"{command} {options.network}".rstrip()

    def work() -> None:
        try:
            function()
        except Exception as error:
            if not options.json:
                raise
            failure = as_cni_error(error)
            failure.msg = f"{what}: {failure.msg}"
            failure.details = "; ".join(filter(None, [failure.details, *getattr(error, "__notes__", ())]))
            print(failure.to_json(CURRENT))
            raise SystemExit(1) from None

    return arguments.work(what, work, verbose=getattr(options, "verbose", False))
