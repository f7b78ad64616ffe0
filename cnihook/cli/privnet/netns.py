# SPDX-License-Identifier: Apache-2.0
"""Namespaces of `priv-net-run --netns`: an existing one is joined, a new one is kept; and names."""

import os

from cnihook.cli.privnet.options import UsageError
from cnihook.container import detach
from cnihook.linux import netns
from cnihook.linux.netns import NetNS
from cnihook.log import Log
from cnihook.names import resolv_conf
from cnihook.runtime import attachment, netns_names, networks, records
from cnihook.runtime.settings import Settings
from cnihook.types.names import check_container_id
from cnihook.types.result import DNS


class Named:
    """The namespace of NAME or PATH.  `joined`: the existing namespace; None if a new one is to be made.

    The name of a new one is also its container ID.  It does not end with a process, so gc leaves it alone,
    and `cnihook detach` detaches it.
    """

    def __init__(self, text: str) -> None:
        self.name = text
        self.joined: NetNS | None = None
        try:
            self.joined = NetNS.open(text if "/" in text else netns.named(text))
        except FileNotFoundError:
            if "/" in text:
                why = "there is no such file; a new namespace needs a name without /"
                raise UsageError(f"--netns {text}: {why}") from None
            check_container_id(text)
            _refuse_if_it_runs(text)
            return
        own = NetNS.current()
        if own.identity == self.joined.identity:
            raise UsageError(f"--netns {text}: the caller is in it already")
        own.close()

    def keep(self, namespace: NetNS) -> None:
        """Give the name to a new namespace, before anything is attached: another process may do the same."""
        try:
            netns_names.bind(namespace, self.name)
        except FileExistsError:
            raise UsageError(f"--netns {self.name}: another process has just made it; try again") from None

    def servers(self) -> "list[DNS]":
        """Return the name servers of the networks that the joined namespace has.

        If its policies list names, these are its gateways.
        """
        assert self.joined
        servers = []
        for record in records.all_records():
            if record.process is not None and record.process.owns(self.joined):
                if by_policy := resolv_conf.requested(record.container_id, DNS(), [record]):
                    return [by_policy]
                result = attachment.result_of(networks.parse(record.config, record.path), record)
                if result and result.dns:
                    servers.append(result.dns)
        return servers


def delete(name: str, settings: Settings) -> None:
    """Detach a kept namespace from its networks, and remove its name."""
    if "/" in name:
        raise UsageError(f"--netns {name}: --delete takes a name, not a path")
    check_container_id(name)
    attachments = records.of_container(name)
    if not attachments:
        if os.path.exists(netns.named(name)):
            why = f"cnihook has no network in it; `ip netns delete {name}` removes it"
        else:
            why = f"there is no such namespace in {netns.NAMES}"
        raise UsageError(f"--netns {name}: {why}")
    _refuse_if_it_runs(name)
    log = Log(name)
    detach.down(name, settings, log)  # removes the name with the last network
    log.close()


def refuse_if_named(name: str) -> None:
    """Raise UsageError if a container or a namespace has the name already, CniError if it is malformed."""
    check_container_id(name)
    attached = records.of_container(name)
    live = [record for record in attached if not attachment.is_gone(record)]
    if live:
        pid = live[0].process.pid if live[0].process else 0
        holder = f"process {pid}" if pid else f"the namespace {live[0].netns}"
        raise UsageError(
            f"--name {name}: {holder} has it, on network {live[0].network}; `cnihook ps` lists all names"
        )
    if os.path.lexists(netns.named(name)) and not netns_names.is_marked(name):
        raise UsageError(f"--name {name}: there is another namespace {netns.named(name)}")


def _refuse_if_it_runs(name: str) -> None:
    if any(record.process and record.process.is_alive() for record in records.of_container(name)):
        raise UsageError(f"--netns {name}: it is a container that runs; use `cnihook detach {name}`")
