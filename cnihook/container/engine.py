# SPDX-License-Identifier: Apache-2.0
"""The life of a record, and what a container has in addition: a log, and names in the files /etc/hosts."""

import os

from cnihook.fast.errors_text import message
from cnihook.log import Log, step
from cnihook.runtime import netns_names, records
from cnihook.runtime.engine import Engine
from cnihook.runtime.records import DamagedRecordError, Record
from cnihook.runtime.settings import Settings
from cnihook.types.errors import CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from cnihook.linux.link_stats import LinkStats
    from cnihook.policy.enforcement import Enforcement
    from cnihook.protocol.call import Policy
    from cnihook.protocol.ending import Ending
    from cnihook.runtime.networks import Network

STATE = "/run/cnihook"  # gone with a reboot
POLICIES = "/etc/cnihook/policy.d"


class ContainerEngine(Engine):
    """The engine of the hook, the wrappers and the commands."""

    names_namespaces = True
    judges_foreign = False  # only the user of libcni can judge a record of libcni

    def __init__(self, settings: Settings, log: "Log | None" = None) -> None:
        super().__init__(settings.conf_dir, settings.plugin_dirs, log=log)
        self._enforcements: list[Enforcement] = []

    def policy_of(self, record: Record, network: "Network") -> "Policy | None":
        if not ("policy" in record.extra or os.path.exists(f"{STATE}/policy") or os.path.exists(POLICIES)):
            return None
        from cnihook.policy.enforcement import Enforcement  # few hosts have policies

        self._enforcements.append(Enforcement(record, network))
        return self._enforcements[-1]

    def resolve_names(self, container_id: str) -> None:
        """Let a container that was attached look up the names that its policies list, if they do.

        Containers that were attached at the same time become known to its policies.
        """
        if any(one.selects_others for one in self._enforcements):
            from cnihook.policy import enforcement
            from cnihook.protocol import locks

            with locks.policy(f"policies of container {container_id}"):
                enforcement.sync_all()
        if any(one.has_names for one in self._enforcements):
            from cnihook.policy import resolving  # few policies have names
            from cnihook.protocol import locks

            with locks.policy(f"names for container {container_id}"):
                resolving.sync_container(container_id)

    def change_own(self, record: Record, before: "dict[str, Any]", after: "dict[str, Any]") -> None:
        if before.get("policy") != after.get("policy"):
            from cnihook.container import own_lists  # few containers are changed while they run

            own_lists.put_in_force()
        if any(before.get(key) != after.get(key) for key in ("names", "policy")):
            from cnihook.container import own_names

            log = self.log or Log(record.container_id)
            own_names.put_in_force(record, before.get("names") or {}, after.get("names") or {}, log)

    def take_down(self, record: Record, ending: "Ending | None" = None) -> "LinkStats | None":
        forget_names(record.network, record.container_id)
        if "mdns" in record.extra:
            from cnihook.mdns import service  # not at the top: few containers request it

            service.forget(record)
        return super().take_down(record, ending)

    def release_all(
        self,
        container_id: str,
        attachments: "list[Record]",
        log: "Log | None" = None,
        *,
        has_ended: bool = False,
    ) -> None:
        try:
            super().release_all(container_id, attachments, log, has_ended=has_ended)
        except CniError as error:
            error.add_note(f"it stays on record; `cnihook detach {container_id}` and `cnihook gc` try again")
            raise

    def release_remains(
        self, container_id: str, damaged: "list[DamagedRecordError]", *, sandbox: "str | None" = None
    ) -> int:
        """Release what a container left without a sound record.  Returns the number of attachments.

        `sandbox`: the path to its namespace, to detach what is on file although the container may be alive.
        Raises AttachmentInUseError if it may be in use, or the first error; then the file or the name stays.
        """
        from cnihook.runtime import salvage  # not at the top: it is rarely needed

        released = []
        for one in filter(is_own, damaged):
            self.tell(f"releasing what is left by its file name: {one.msg}")
            released += self.release_damaged(one, sandbox=sandbox)
        if not records.names_of(container_id):
            released += salvage.release_container(container_id, self.conf_dir, self.plugin_dirs)
            # A GC of another runtime detaches networks, but does not know of names.
            forget_all_names(container_id)
        for network, _id, ifname in released:
            forget_names(network, container_id)
            self.tell(f"released what was left on {network}, {ifname}")
        return len(released)


def forget_all_names(container_id: str) -> None:
    """Delete a container's names from all networks."""
    for network in os.listdir(f"{STATE}/names") if os.path.isdir(f"{STATE}/names") else ():
        forget_names(network, container_id)


def forget_names(network: str, container_id: str) -> None:
    """Delete a container's names from a network.

    A failure is logged.  Then the next process that changes the names there deletes them.
    """
    if os.path.exists(f"{STATE}/names/{network}/{container_id}"):
        from cnihook.names import hosts  # not at the top: it is rarely needed

        try:
            hosts.remove(network, container_id)
        except OSError as error:
            Log(container_id).event(f"its names stay on {network}: {message(error)}")
        step("names")


def is_own(damaged: DamagedRecordError) -> bool:
    """Return True unless another runtime wrote the file.

    It did not if cnihook gave the container's namespace a name.
    """
    return not damaged.is_foreign or any(map(netns_names.is_marked, damaged.container_ids()))
