# SPDX-License-Identifier: Apache-2.0
"""cnihook agent: connect this host with the other hosts of its networks."""

import signal
import threading

from cnihook.cli.shared import arguments
from cnihook.cli.shared.arguments import Parser
from cnihook.cluster import kubernetes_api, nodes, state
from cnihook.cluster.agent import Agent
from cnihook.cluster.etcd import EtcdStore
from cnihook.cluster.etcd_http import Access
from cnihook.cluster.model import Member, ModelError
from cnihook.cluster.nodes import NodesStore
from cnihook.cluster.state import Membership, State, StateError
from cnihook.cluster.store import StoreError, StoreUnavailableError
from cnihook.fast import statefile
from cnihook.process.notify import READY, STOPPING, notify
from cnihook.types import names
from cnihook.types.errors import IO_FAILURE, CniError

DESCRIPTION = """\
Claim this host's block of the networks that it has joined, and keep the routes to the blocks of the others.

It runs until a signal ends it; systemd starts it as cnihook-agent.service.  Containers start without it, and
they keep their connections if it ends.  Only changes of other hosts are missed then, until it runs again.

`cnihook cluster status` shows what it does, and `cnihook man many-hosts` what happens if etcd is away.

With --node it runs in a pod of Kubernetes: the Nodes of the cluster have the blocks, and there is no etcd.
"""


def parser() -> Parser:
    parser = Parser("agent", DESCRIPTION)
    parser.add_argument(
        "--network",
        metavar="NAME",
        type=arguments.checked(names.check_network_name),
        help="only this network (default: all that the host has joined)",
    )
    parser.add_argument(
        "--node",
        metavar="NODE",
        help="the Node of Kubernetes that this pod is on; needs --network, --settings",
    )
    parser.add_argument(
        "--settings", metavar="FILE", type=arguments.path, help="the settings of the network, with --node"
    )
    return parser


def main(argv: list[str]) -> int:
    usage = parser()
    options = usage.parse_args(argv)
    if bool(options.node) != bool(options.settings) or (options.node and not options.network):
        usage.error("--node needs --network and --settings, and --settings needs --node")
    stop = threading.Event()
    if options.node:
        return arguments.work(
            "agent", lambda: _run([_agent_of_node(options.network, options.node, options.settings, stop)])
        )
    return arguments.work("agent", lambda: _run(_agents(options.network, stop)))


def _agents(network: "str | None", stop: threading.Event) -> "list[Agent]":
    selected = [network] if network else state.networks()
    if not selected:
        hint = "`cnihook cluster join NAME` joins one"
        raise CniError(IO_FAILURE, "this host has joined no network of several hosts", hint)
    return [_agent(name, stop) for name in selected]


def _run(agents: "list[Agent]") -> None:
    errors: list[BaseException] = []

    def run(agent: Agent) -> None:
        try:
            agent.run()
        except BaseException as error:
            errors.append(error)
            _stop(agents)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: _stop(agents))
    threads = [threading.Thread(target=run, args=(agent,), name=agent.network) for agent in agents]
    for thread in threads:
        thread.start()
    for agent in agents:
        agent.ready.wait()
    notify(READY)
    for thread in threads:
        thread.join()
    notify(STOPPING)
    if errors:
        raise errors[0]


def _agent(network: str, stop: threading.Event) -> Agent:
    try:
        own_state = State(network)
        membership = own_state.membership()
        return Agent(own_state, EtcdStore(membership.access), membership, stop)
    except StateError as error:
        raise CniError(IO_FAILURE, str(error), "`cnihook cluster join` joins a network") from None


def _agent_of_node(network: str, node: str, path: str, stop: threading.Event) -> Agent:
    own_state = State(network)
    try:
        settings = nodes.settings_of(statefile.content(path, follow=True) or b"")
    except (ModelError, ValueError) as error:
        raise CniError(IO_FAILURE, f"{path}: {error}") from None
    try:
        api = kubernetes_api.in_cluster()
        store = NodesStore(api, network, settings, node, state.machine_id())
        me = _member_of_node(store, own_state)
        membership = Membership(Access((api.url,)), me.host, me.claim, me.address)
        return Agent(own_state, store, membership, stop)
    except (StateError, StoreError) as error:
        raise CniError(IO_FAILURE, str(error)) from None


def _member_of_node(store: NodesStore, own_state: State) -> Member:
    """Return this host as its Node has it.  If the API server is away, as it was before."""
    own = own_state.own()
    try:
        member, key = store.own()
    except StoreUnavailableError:
        peers = own_state.peers()
        if not peers or own.key not in peers.blocks:
            raise
        return peers.blocks[own.key].member
    if own.fenced or own.key != key:
        own_state.discard_own()  # the Node was made again: the API server decides which block it has
    return member


def _stop(agents: "list[Agent]") -> None:
    for agent in agents:
        agent.stop()
