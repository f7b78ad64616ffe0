# SPDX-License-Identifier: Apache-2.0
"""
Attachments of another runtime, such as CRI-O or podman.  Their records are libcni's and name no process.

They can be checked and repaired in place if the plugins of cnihook made them.  The record does not show
which plugins did, but the kernel does: the alias of a link that cnihook made is its owner.
"""

from cnihook.linux.netns import NetNS
from cnihook.protocol.call import Call, Invocation
from cnihook.runtime.networks import Network
from cnihook.runtime.records import Record
from cnihook.types.config import NetConf
from cnihook.types.errors import INTERNAL, CniError
from cnihook.types.result import Result


class CannotCheckError(CniError):
    """An error for an attachment that cannot be checked from here, so its state is unknown.

    `needs_plugins`: the executables that made it can check it, if CNI_PATH names their folder.
    """

    def __init__(self, msg: str, details: str, *, needs_plugins: bool = False) -> None:
        super().__init__(INTERNAL, msg, details)
        self.needs_plugins = needs_plugins


def is_foreign(record: Record) -> bool:
    return record.process is None


def check_plugins(
    record: Record,
    network: Network,
    request: Invocation,
    result: "Result | None",
    plugin_dirs: "list[str] | None",
) -> None:
    """Raise CannotCheckError for an attachment of another runtime that cannot be checked from here."""
    if is_foreign(record) and not request.netns:
        raise CannotCheckError(
            "not checked: another runtime attached it, and its record does not name its namespace",
            'records of libcni before 1.2 do if the network has "cniVersion": "0.3.0" or newer',
        )
    if not is_foreign(record) or plugin_dirs or network.is_loopback:
        return
    owner = Call("CHECK", NetConf(network.plugins[0] | {"name": network.name}), request).owner
    aliases = _aliases(request, result)
    if owner in aliases or not aliases:  # without any link it is broken, whichever plugins made it
        return
    raise CannotCheckError(
        "not checked: another runtime attached it, with plugins that are not cnihook's",
        "set CNI_PATH to the folder of those plugins",
        needs_plugins=True,
    )


def needs_its_runtime(differences: "list[tuple[int, CniError]]") -> CniError:
    """Return the error for a difference that only a new link corrects."""
    return CniError(
        INTERNAL,
        f"{differences[0][1].msg}: this needs a new link, which only the runtime that attached it can make",
        "start the container or pod again",
    )


def _aliases(request: Invocation, result: "Result | None") -> "list[str]":
    """Return the alias of each link of an attachment; an empty text for a link without one."""
    host = NetNS.current()
    try:
        names = [one.name for one in result.interfaces if not one.sandbox] if result else []
        links = [host.rtnl.find_link(name) for name in names]
    finally:
        host.close()
    inside = request.sandbox.rtnl.find_link(request.ifname)
    return [link.alias for link in [*links, inside] if link] if inside else []
