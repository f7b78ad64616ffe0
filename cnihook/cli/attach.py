# SPDX-License-Identifier: Apache-2.0
"""cnihook attach: attach a container that runs already to its networks."""

import argparse
import os
from collections.abc import Callable

from cnihook.cli.shared import arguments, containers
from cnihook.cli.shared.arguments import Parser
from cnihook.container import attach
from cnihook.container.attach import Container
from cnihook.linux.netns import NetNS
from cnihook.log import Log, notice
from cnihook.names import container_dns
from cnihook.oci import bundle, podman
from cnihook.oci.bundle import Bundle
from cnihook.oci.state import State
from cnihook.request import trusted_annotations
from cnihook.request.option_table import ATTACH
from cnihook.request.request import ContainerRequest
from cnihook.runtime import attachment, networks, records
from cnihook.runtime.addition import Attachment
from cnihook.types.errors import INVALID_NETNS, CniError

DESCRIPTION = """\
Attach a container that runs under runc or crun to all of its networks or to none, like the hook
createRuntime.  Without --root, it is looked for in these folders:

  /run/runc, /run/crun              of runc, crun, podman, CRI-O
  /run/docker/runtime-*/NAMESPACE   of docker, or below its exec-root
  /run/containerd/runc/NAMESPACE    of containerd, nerdctl, Kubernetes

Folders that other users can write are not among them: name the one of a rootless engine with --root, as in
--root /run/user/1000/crun.

Prints the result as JSON.  For one network, that is its CNI result in the format of the network's version.
For several, it is a list of {"network": NAME, "ifname": IFNAME, "result": RESULT} in the order of
attachment.
"""

EPILOG = """\
`cnihook detach CONTAINER` detaches it.  The hook poststop does so, too, if the container has that hook;
otherwise `cnihook gc` does, once the container is gone.  If containers share a network namespace, attach
only one.
"""


def parser() -> Parser:
    parser = Parser("attach", DESCRIPTION, EPILOG)
    parser.add_container()
    add_runtime(parser)
    parser.add_requests(ATTACH)
    parser.add_verbose()
    parser.add_conf_dir()
    parser.add_plugin_dirs()
    return parser


def add_runtime(parser: Parser) -> None:
    parser.add_argument(
        "--runtime", default="", help="runc, crun or a path (default: the runtime that has it)"
    )
    parser.add_argument(
        "--root", metavar="DIR", default="", help="the runtime's --root, if it is none of these folders"
    )


def main(argv: list[str]) -> int:
    options = parser().parse_args(argv)
    return run("attach", options, options.request, lambda attached: print(_report(attached)))


def run(
    command: str,
    options: argparse.Namespace,
    own_request: ContainerRequest,
    report: Callable[[list[Attachment]], object],
) -> int:
    """Attach the container `options.id`, call `report`, and return the exit code."""

    def work() -> None:
        state = containers.running(options.id, options.runtime, options.root)
        requested = trusted_annotations.of(state.annotations, podman.parent(state.pid))
        request = own_request.merged_with(requested)
        settings = arguments.settings_of(options)
        log = Log(state.id)
        config = bundle.load(state)
        with arguments.failures_in(log, command), log:
            namespace = _namespace(state)
            try:
                chosen = attach.select(request, settings, notice)
                hostname = request.hostname or config.hostname
                container = Container(state.id, namespace, state.pid, hostname)
                attached = attach.up(
                    container,
                    chosen,
                    settings,
                    log,
                    lambda attached: _set_names(state, config, request, attached, log),
                )
            finally:
                namespace.close()
        report(attached)

    return arguments.work(f"{command} {options.id}", work, verbose=options.verbose)


def _namespace(state: State) -> NetNS:
    path = f"/proc/{state.pid}/ns/net"
    try:
        namespace = NetNS.open(path)
    except OSError as error:
        raise CniError(INVALID_NETNS, f"{path}: {error.strerror}") from None
    host = NetNS.current()
    shared = host.identity == namespace.identity
    host.close()
    if shared:
        namespace.close()
        raise CniError(
            INVALID_NETNS,
            "it shares the host's network namespace, which is never configured",
            f'add {{"type": "network"}} to linux.namespaces in {os.path.join(state.bundle, "config.json")}',
        )
    return namespace


def _set_names(
    state: State, config: Bundle, request: ContainerRequest, attached: list[Attachment], log: Log
) -> None:
    new = [one.record.path for one in attached]
    others = [record for record in records.of_container(state.id) if record.path not in new]
    earlier = []
    for record in others:
        try:
            network = networks.parse(record.config, record.path)
        except CniError:
            continue  # the record of another runtime may be damaged
        result = attachment.result_of(network, record)
        earlier += [result.dns] if result else []
    container_dns.configure(
        state.id, state.pid, config, request, attached, log, earlier if others else None, runs=True
    )


def _report(attached: list[Attachment]) -> str:
    results = [
        {
            "network": one.network.name,
            "ifname": one.record.ifname,
            "result": one.result.to_json(one.network.version),
        }
        for one in attached
    ]
    return arguments.as_json(results[0]["result"] if len(results) == 1 else results)
