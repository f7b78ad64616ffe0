# SPDX-License-Identifier: Apache-2.0
"""The index of the leases, made again from them after a crash, or after another program used the folder."""

import errno
import os
import stat

from cnihook.fast.address import is_address
from cnihook.ipam.leases import OWNERS, digest, is_owner, read, remove_if_empty, unlink


def rebuild(folder: str, owner: bytes, old_owner: bytes) -> "tuple[dict[str, bytes], dict[str, OSError]]":
    """Read all leases and correct the links.  Call it under the folder's lock.

    Returns the content of each lease, and the error for each that cannot be read and has no link.  A lease
    that has only the beginning of `owner` is the owner's if a link shows that.
    """
    leases: dict[str, bytes] = {}
    unreadable: dict[str, OSError] = {}
    complete: dict[str, str] = {}
    present = links(folder)
    for name in sorted(os.listdir(folder)):
        if not is_address(name):
            continue
        try:
            content = read(f"{folder}/{name}")
        except OSError as error:
            content = None
            if name not in present.values():
                unreadable[name] = error
        else:
            if content is None:
                continue
            if not content:
                unlink(f"{folder}/{name}")  # it remains from a lease after a crash
                continue
            leases[name] = content
        digests = [digest_of(entry) for entry, target in present.items() if target == name]
        if content is not None and is_owner(content):
            is_cut = owner.startswith(content) and content not in (owner, old_owner)
            if not (is_cut and digest(owner) in digests):
                digests = [digest(content)]
        # Otherwise only the links to it show its owner.
        for each in digests:
            number = 0
            while f"{each}.{number}" in complete:
                number += 1
            complete[f"{each}.{number}"] = name
    _make_links(folder, present, complete)
    return leases, unreadable


def links(folder: str) -> "dict[str, str]":
    """Return the target of each link; empty for an entry that is not a link."""
    owners = f"{folder}/{OWNERS}"
    targets: dict[str, str] = {}
    try:
        names = os.listdir(owners)
    except FileNotFoundError:
        return targets
    except NotADirectoryError:
        os.unlink(owners)
        return targets
    for name in names:
        try:
            targets[name] = os.path.basename(os.readlink(f"{owners}/{name}"))
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            targets[name] = ""
    return targets


def digest_of(link: str) -> str:
    """Return the digest of the owner, as the link's name begins with it."""
    return link.partition(".")[0]


def _make_links(folder: str, present: "dict[str, str]", wanted: "dict[str, str]") -> None:
    owners = f"{folder}/{OWNERS}"
    for name, target in present.items():
        if wanted.get(name) != target:
            path = f"{owners}/{name}"
            if stat.S_ISDIR(os.lstat(path).st_mode):
                os.rmdir(path)
            else:
                os.unlink(path)
    if wanted:
        os.makedirs(owners, mode=0o755, exist_ok=True)
    else:
        remove_if_empty(owners)
    for name, target in wanted.items():
        if present.get(name) != target:
            os.symlink(f"../{target}", f"{owners}/{name}")
