# SPDX-License-Identifier: Apache-2.0
"""Namespaces of `priv-net-run --netns`: one that exists and is joined, or one that stays under its name."""

import os

from cnihook import detach
from cnihook.cli.priv_options import Refused
from cnihook.linux import netns
from cnihook.linux.netns import NetNS
from cnihook.log import Log
from cnihook.runtime import attachment, cache, netns_names, networks
from cnihook.settings import Settings
from cnihook.spec.names import check_container_id
from cnihook.spec.result import DNS


class Named:
    """What NAME or PATH stands for.  `joined` is the namespace that exists; None if it is to be made.

    One that is made has its name for a container ID, and no process whose end would be its own: so gc
    lets it be, and `cnihook detach` takes it off.
    """

    def __init__(self, text: str) -> None:
        self.name = text
        self.joined: NetNS | None = None
        try:
            self.joined = NetNS.open(text if "/" in text else netns.named(text))
        except FileNotFoundError:
            if "/" in text:
                raise
            check_container_id(text)
            _refuse_if_it_runs(text)
            return
        own = NetNS.current()
        if own.identity == self.joined.identity:
            raise Refused(f"--netns {text}: the command would be in it without")
        own.close()

    def keep(self, namespace: NetNS) -> None:
        """Give the name to a new namespace, before anything is attached: another may be at that, too."""
        try:
            netns_names.bind(namespace, self.name)
        except FileExistsError:
            raise Refused(f"--netns {self.name}: somebody else has made it just now; try again") from None

    def servers(self) -> "list[DNS]":
        """The name servers of the networks that the joined namespace is on."""
        assert self.joined
        found = []
        for record in cache.all_records():
            if record.process is not None and record.process.owns(self.joined):
                result = attachment.result_of(networks.parse(record.config, record.path), record)
                if result and result.dns:
                    found.append(result.dns)
        return found


def delete(name: str, settings: Settings) -> None:
    """Take a namespace that was kept off its networks, and its name away."""
    if "/" in name:
        raise Refused(f"--netns {name}: a path is somebody else's namespace")
    check_container_id(name)
    records = cache.of_container(name)
    if not records:
        if os.path.exists(netns.named(name)):
            why = f"on no network of ours; `ip netns delete {name}` removes it"
        else:
            why = f"there is no such namespace in {netns.NAMES}"
        raise Refused(f"--netns {name}: {why}")
    _refuse_if_it_runs(name)
    log = Log(name)
    detach.down(name, settings, log)  # its name goes with the last network
    log.close()


def _refuse_if_it_runs(name: str) -> None:
    if any(record.process and record.process.is_alive() for record in cache.of_container(name)):
        raise Refused(
            f"--netns {name}: that is a container, and it runs; `cnihook detach {name}` is for those"
        )
