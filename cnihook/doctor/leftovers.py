# SPDX-License-Identifier: Apache-2.0
"""Checks of what is left of containers that are gone, or whose record is lost."""

import errno
import json
import os
from collections.abc import Iterator
from functools import partial

from cnihook.container import gc, repair
from cnihook.container.engine import ContainerEngine
from cnihook.doctor.finding import Finding, Host
from cnihook.fast import statefile
from cnihook.fast.address import Address
from cnihook.linux import netns
from cnihook.linux.flock import LockBusyError
from cnihook.nftables import table
from cnihook.nftables.port import PROTOCOLS
from cnihook.oci import inject
from cnihook.protocol import locks
from cnihook.runtime import gc as runtime_gc
from cnihook.runtime import records, remains
from cnihook.runtime.foreign import CannotCheckError
from cnihook.types.errors import CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_DAMAGED = "/var/lib/cni/damaged"
HOOK_FOLDERS = ("/usr/share/containers/oci/hooks.d", "/etc/containers/oci/hooks.d")
_PROTOCOL_NAMES = {number: name for name, number in PROTOCOLS.items()}


def check_records(host: Host) -> Iterator[Finding]:
    for container_id, gone in runtime_gc.find_gone(ContainerEngine(host.settings), []).items():
        attachments = [f"{record.network} {record.ifname}" for record in gone]
        yield Finding(
            "record-without-container",
            f"container {container_id} is gone, but still on record: {', '.join(attachments)}",
            "its addresses and ports stay taken",
            "cnihook gc",
            fix=partial(gc.collect, ContainerEngine(host.settings)),
            subject=f"{container_id}, {', '.join(attachments)}",
            for_all="cnihook gc",
        )


def check_attachments(host: Host) -> Iterator[Finding]:
    """Find what `cnihook repair` would restore.  There is no `fix`: the repair may need a new link."""
    for one in (*host.attached, *host.attached_by_others):
        record = one.record
        subject = f"{record.container_id}, {record.network} {record.ifname}"
        try:
            with locks.container(record.container_id, "repair", timeout=0):
                missing = repair.find_problems(record, host.settings.plugin_dirs)
        except LockBusyError:
            continue  # another process works on it, so differences are normal
        except CannotCheckError as error:
            check = "CNI_PATH=FOLDER cnihook check" if error.needs_plugins else ""
            yield Finding(
                "attachment-not-checked",
                f"container {subject}: {error.msg}",
                "faults of this attachment are not found",
                f"{check} --container {record.container_id}" if check else error.details,
                note=True,
                subject=subject,
                for_all=check and f"{check} --all",
            )
            continue
        except CniError:
            continue  # its record has no result, which is another finding
        for difference in missing:
            yield Finding(
                "attachment-broken",
                f"container {subject}: {difference}",
                "another program has changed what the container's network needs",
                f"cnihook repair {record.container_id}",
                subject=subject,
                for_all="cnihook repair --all",
            )


def check_damaged(host: Host) -> Iterator[Finding]:
    for one in records.damaged():
        if one.is_foreign:
            yield Finding(
                "record-damaged",
                f"{one}; the rest of its content shows that another runtime wrote it",
                "cnihook does not release what another runtime attached",
                f"mkdir -p {_DAMAGED}; mv {one.path} {_DAMAGED}/",
            )
            continue
        yield Finding(
            "record-damaged",
            str(one),
            "its attachment can only be released by the file name, after all its processes have ended",
            "cnihook gc",
            fix=partial(gc.collect, ContainerEngine(host.settings)),
        )


def check_lost(host: Host) -> Iterator[Finding]:
    """Find what is left of attachments whose record is lost, and the names of their namespaces."""
    fix = partial(gc.collect, ContainerEngine(host.settings))
    for identity in remains.orphans():
        if remains.is_free(identity):
            network, container_id, ifname = identity
            yield Finding(
                "record-lost",
                f"{network} {ifname} of container {container_id} is not on record and not in use",
                "its addresses and ports stay taken",
                "cnihook gc",
                fix=fix,
                subject=f"{container_id}, {network} {ifname}",
                for_all="cnihook gc",
            )
    for container_id in remains.names():
        yield Finding(
            "name-left-over",
            f"{netns.named(container_id)} is the name of a namespace whose container is not on record",
            "the name keeps the namespace and its links",
            "cnihook gc",
            fix=fix,
            subject=netns.named(container_id),
            for_all="cnihook gc",
        )


def check_elements(host: Host) -> Iterator[Finding]:
    """Find elements of nftables whose attachment is not on record."""
    elements = [(name, _key(name, key), owner) for name, key, owner in table.owned()]
    # The records are read after the elements, which are made later.  A record that cannot be read counts.
    owners = set(map(remains.owner_of, records.identities_on_file()))
    for name, key, owner in elements:
        if owner in owners:
            continue
        yield Finding(
            "element-without-owner",
            f"{{ {key} }} in {name} of table {table.TABLE} is of {owner!r}, which is not on record",
            "a port stays taken, or an address is still treated as a container's",
            f"nft delete element {table.TABLE} {name} '{{ {key} }}'",
        )


def _key(container: str, key: bytes) -> str:
    """Return the key of an element as nft writes it."""
    if container.startswith(table.BY_ADDRESS):
        return str(Address(key))
    if container == "forward-members":
        return f'"{key.partition(bytes(1))[0].decode(errors="replace")}"'
    address = f"{Address(key[:-8])} . " if len(key) > 8 else ""
    protocol = _PROTOCOL_NAMES.get(key[-8], str(key[-8]))
    return f"{address}{protocol} . {int.from_bytes(key[-4:-2], 'big')}"


def check_hooks(_host: Host) -> Iterator[Finding]:
    """Find hook files whose program is missing: podman and CRI-O may then start no container at all."""
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
                    "podman and CRI-O reject its containers, or all of them, or start them without the hook",
                    f"rm {folder}/{name}",
                )


def our_hooks(folder: str) -> "Iterator[tuple[str, dict[str, Any]]]":
    """Yield (path, hook) for each readable file of this folder that has cnihook's hook createRuntime."""
    try:
        names = sorted(name for name in os.listdir(folder) if name.endswith(".json"))
    except OSError:
        return
    for name in names:
        try:
            hook = _hook(f"{folder}/{name}")
        except (OSError, ValueError, TypeError, KeyError):
            continue
        if inject.is_ours(hook, "createRuntime"):
            yield f"{folder}/{name}", hook


def _hook(path: str) -> "Any":
    """Raise OSError, ValueError, TypeError or KeyError for a file that does not have a hook."""
    content = statefile.content(path, follow=True)
    if content is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
    return json.loads(content)["hook"]


def _hook_problem(path: str) -> str:
    try:
        hook = _hook(path)
        program, arguments = hook["path"], hook.get("args") or []
        if not isinstance(program, str) or not isinstance(arguments, list):
            return "it has no hook.path, or its hook.args is not a list"
    except (OSError, ValueError) as error:
        return f"it cannot be read: {error}"
    except (TypeError, KeyError, AttributeError):
        return "it has no hook.path"
    if not os.access(program, os.X_OK):
        return f"there is no program {program}"
    # The interpreter may exist while its script does not.
    scripts = [
        each for each in map(str, arguments[1:]) if os.path.basename(each) == "cnihook" and each[0] == "/"
    ]
    gone = [each for each in scripts if not os.path.exists(each)]
    return f"there is no {gone[0]}" if gone else ""
