# SPDX-License-Identifier: Apache-2.0
"""cnihook agent: connect this host with the other hosts of its networks."""

import signal
import threading

from cnihook.cli.shared import arguments
from cnihook.cli.shared.arguments import Parser
from cnihook.cluster import state
from cnihook.cluster.agent import Agent
from cnihook.cluster.etcd import EtcdStore
from cnihook.cluster.state import State, StateError
from cnihook.process.notify import READY, STOPPING, notify
from cnihook.types import names
from cnihook.types.errors import IO_FAILURE, CniError

DESCRIPTION = """\
Claim this host's block of the networks that it has joined, and keep the routes to the blocks of the others.

It runs until a signal ends it; systemd starts it as cnihook-agent.service.  Containers start without it, and
they keep their connections if it ends.  Only changes of other hosts are missed then, until it runs again.

`cnihook cluster status` shows what it does, and `cnihook man many-hosts` what happens if etcd is away.
"""


def parser() -> Parser:
    parser = Parser("agent", DESCRIPTION)
    parser.add_argument(
        "--network",
        metavar="NAME",
        type=arguments.checked(names.check_network_name),
        help="only this network (default: all that the host has joined)",
    )
    return parser


def main(argv: list[str]) -> int:
    options = parser().parse_args(argv)
    return arguments.work("agent", lambda: _run(options.network))


def _run(network: "str | None") -> None:
    selected = [network] if network else state.networks()
    if not selected:
        hint = "`cnihook cluster join NAME` joins one"
        raise CniError(IO_FAILURE, "this host has joined no network of several hosts", hint)
    stop = threading.Event()
    agents = [_agent(name, stop) for name in selected]
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


def _stop(agents: "list[Agent]") -> None:
    for agent in agents:
        agent.stop()
