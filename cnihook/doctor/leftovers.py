# SPDX-License-Identifier: Apache-2.0
"""What containers that are gone, or whose record is, left behind."""

import json
import os
from collections.abc import Iterator
from functools import partial

from cnihook import attach, log
from cnihook.doctor.finding import Finding, Host
from cnihook.lean.address import Address
from cnihook.linux import netns, nft
from cnihook.linux.flock import Busy, Lock
from cnihook.linux.netns import NetNS
from cnihook.oci import inject
from cnihook.runtime import cache, repair
from cnihook.sdk import table
from cnihook.sdk.call import Call, Request
from cnihook.sdk.port import PROTOCOLS
from cnihook.spec.config import NetConf
from cnihook.spec.errors import CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_DAMAGED = "/var/lib/cni/damaged"
HOOK_FOLDERS = ("/usr/share/containers/oci/hooks.d", "/etc/containers/oci/hooks.d")
_PROTOCOL_NAMES = {number: name for name, number in PROTOCOLS.items()}


def check_records(host: Host) -> Iterator[Finding]:
    stale: dict[str, list[str]] = {}
    for record in attach.collect(host.settings, dry_run=True):
        stale.setdefault(record.container_id, []).append(f"{record.network} {record.ifname}")
    for container_id, attachments in stale.items():
        yield Finding(
            "record-without-container",
            f"container {container_id} is gone, and still on record: {', '.join(attachments)}",
            "its addresses and ports stay taken",
            "cnihook gc",
            fix=partial(attach.collect, host.settings),
        )


def check_attachments(host: Host) -> Iterator[Finding]:
    """What `cnihook repair` would put back.  Not a fix: it may take a new link for the container."""
    for one in host.attached:
        record = one.record
        try:
            with repair.container(record.container_id, timeout=0):
                missing = repair.amiss(record, host.settings.plugin_path)
        except Busy:
            continue  # somebody is at work on it, and half-way nothing is as it should be
        except CniError:
            continue  # a network of which nobody can tell
        for words in missing:
            yield Finding(
                "attachment-broken",
                f"container {record.container_id}, {record.network} {record.ifname}: {words}",
                "somebody has changed what the container's network relies on",
                f"cnihook repair {record.container_id}",
            )


def check_damaged(_host: Host) -> Iterator[Finding]:
    for path in cache.damaged():
        yield Finding(
            "record-damaged",
            f"{path} is no record of an attachment",
            "whatever it was of is never detached",
            f"mkdir -p {_DAMAGED}; mv {path} {_DAMAGED}/",
            fix=partial(_move_aside, path),
        )


def _move_aside(path: str) -> None:
    os.makedirs(_DAMAGED, mode=0o700, exist_ok=True)
    number, target = 1, f"{_DAMAGED}/{os.path.basename(path)}"
    while os.path.lexists(target):
        target = f"{_DAMAGED}/{os.path.basename(path)}.{number}"
        number += 1
    os.rename(path, target)


def check_names(host: Host) -> Iterator[Finding]:
    """Names of namespaces that are ours by our log, and that no record, and no process, needs."""
    known = {record.container_id for record in host.records}
    try:
        names = sorted(os.listdir(netns.NAMES))
    except FileNotFoundError:
        return
    for name in names:
        if name in known or name not in log.names() or _is_inhabited(name):
            continue
        yield Finding(
            "name-left-over",
            f"{netns.named(name)} is the name of a namespace of a container that is on no record",
            "the namespace lives on, and with it its links",
            f"ip netns del {name}",
            fix=partial(_remove_name, name),
        )


def _identity(name: str) -> tuple[int, int]:
    try:
        namespace = NetNS.open(netns.named(name))
    except OSError:
        return 0, 0
    try:
        return namespace.identity
    finally:
        namespace.close()


def _is_inhabited(name: str) -> bool:
    _device, inode = _identity(name)
    wanted = f"net:[{inode}]"
    for entry in os.listdir("/proc"):
        if entry.isdecimal():
            try:
                if os.readlink(f"/proc/{entry}/ns/net") == wanted:
                    return True
            except OSError:
                pass  # it has ended
    return False


def _remove_name(name: str) -> None:
    with Lock(f"container-{name}", purpose="doctor"):
        if not cache.of_container(name) and not _is_inhabited(name):
            netns.unbind(name, _identity(name))


def check_elements(host: Host) -> Iterator[Finding]:
    """Elements of nftables that are of attachments which are on no record."""
    present = table.chains()
    conditional = [name.removeprefix("ports-when-") for name in present if name.startswith("ports-when-")]
    maps = ["masq4", "masq6", "ports-to4", "ports-to6", "forward-members"]
    for suffix in ("4", "6", *(each.removeprefix("ipv") for each in conditional)):
        version, dash, digest = suffix.partition("-")
        maps += [f"ports{version}{dash}{digest}", f"ports{version}-at{dash}{digest}"]
    found = [
        (name, _key(name, key), owner)
        for name in maps
        for key, owner in nft.elements(table.FAMILY, table.NAME, name)
    ]
    owners = {_owner(record) for record in cache.all_records()}  # after the elements, which come later
    for name, key, owner in found:
        if owner in owners or not owner:
            continue
        yield Finding(
            "element-without-owner",
            f"{{ {key} }} in {name} of table {table.TABLE} is of {owner!r}, which is on no record",
            "a port stays taken, or an address is treated as if it were a container's",
            f"nft delete element {table.TABLE} {name} '{{ {key} }}'",
        )


def _owner(record: cache.Record) -> str:
    request = Request(record.container_id, "", record.ifname)
    return Call("GC", NetConf({"name": record.network}), request).owner


def _key(container: str, key: bytes) -> str:
    """As nft writes it."""
    if container.startswith(("masq", "ports-to")):
        return str(Address(key))
    if container == "forward-members":
        return f'"{key.partition(bytes(1))[0].decode(errors="replace")}"'
    address = f"{Address(key[:-8])} . " if len(key) > 8 else ""
    protocol = _PROTOCOL_NAMES.get(key[-8], str(key[-8]))
    return f"{address}{protocol} . {int.from_bytes(key[-4:-2], 'big')}"


def check_hooks(_host: Host) -> Iterator[Finding]:
    """Podman and CRI-O start no container at all while one of their hooks cannot be run."""
    for folder in HOOK_FOLDERS:
        try:
            names = sorted(name for name in os.listdir(folder) if name.endswith(".json"))
        except OSError:
            continue
        for name in names:
            if problem := _hook_problem(f"{folder}/{name}"):
                yield Finding(
                    "hook-broken",
                    f"{folder}/{name}: {problem}",
                    "podman and CRI-O refuse its containers, or all, or start them without it",
                    f"rm {folder}/{name}",
                )


def our_hooks(folder: str) -> "Iterator[tuple[str, dict[str, Any]]]":
    """(path, hook) of the hook createRuntime in each file of this folder that is readable."""
    try:
        names = sorted(name for name in os.listdir(folder) if name.endswith(".json"))
    except OSError:
        return
    for name in names:
        try:
            with open(f"{folder}/{name}") as file:
                hook = json.load(file)["hook"]
        except (OSError, ValueError, TypeError, KeyError):
            continue
        if inject.is_ours(hook, "createRuntime"):
            yield f"{folder}/{name}", hook


def _hook_problem(path: str) -> str:
    try:
        with open(path) as file:
            raw = json.load(file)
        hook = raw["hook"]
        program, arguments = hook["path"], hook.get("args") or []
        if not isinstance(program, str) or not isinstance(arguments, list):
            return "it has no hook.path, or its hook.args are no list"
    except (OSError, ValueError) as error:
        return f"it cannot be read: {error}"
    except (TypeError, KeyError, AttributeError):
        return "it has no hook.path"
    if not os.access(program, os.X_OK):
        return f"there is no program {program}"
    # The interpreter is there, and what it is to run may not be.
    ours = [
        each for each in map(str, arguments[1:]) if os.path.basename(each) == "cnihook" and each[0] == "/"
    ]
    gone = [each for each in ours if not os.path.exists(each)]
    return f"there is no {gone[0]}" if gone else ""
