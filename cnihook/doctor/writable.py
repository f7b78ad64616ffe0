# SPDX-License-Identifier: Apache-2.0
"""Check for code and configuration that root uses, in files and folders that other users can write."""

import os
import pwd
import stat
from collections.abc import Iterator

import cnihook
from cnihook.doctor.finding import Finding, Host
from cnihook.fast import bytecode
from cnihook.fast.errors_text import listed
from cnihook.protocol.call import DEFAULT_PATH

_PACKAGE = os.path.dirname(os.path.abspath(cnihook.__file__))
_CONFIGURATION = ("/etc/cnihook", "/usr/share/containers/oci/hooks.d", "/etc/containers/oci/hooks.d")
_STATE = ("/run/cnihook", "/var/lib/cni", "/run/cni")
_SHOWN = 3  # files of one tree that are named


def check(host: Host) -> Iterator[Finding]:
    for folder in cnihook.unsafe_caches():
        yield Finding(
            "writable",
            f"{folder}: other users can write it",
            "Python would run their code as root; cnihook does not use the folder, and starts slower",
            f"rm -r {folder}",
            fix=lambda folder=folder: bytecode.discard(folder),  # type: ignore[misc]
        )
    owner = os.stat(_PACKAGE).st_uid
    scripts = os.path.join(os.path.dirname(_PACKAGE), "scripts")
    trees = {_PACKAGE: "root runs it", scripts if _is_checkout() else "": "root runs it"}
    trees |= dict.fromkeys(
        [*(host.settings.plugin_dirs or ()), *DEFAULT_PATH], "root runs the plugins in it"
    )
    trees |= dict.fromkeys([host.settings.conf_dir, *_CONFIGURATION], "root obeys it")
    trees |= dict.fromkeys(_STATE, "root obeys what is on record there")
    for tree, why in trees.items():
        if tree and os.path.isdir(tree):
            yield from _check_tree(tree, why, owner if tree in (_PACKAGE, scripts) else 0)


def _is_checkout() -> bool:
    return os.path.isfile(os.path.join(os.path.dirname(_PACKAGE), "scripts", "cnihook"))


def _check_tree(tree: str, why: str, owner: int) -> Iterator[Finding]:
    tree = os.path.realpath(tree)
    paths = [path for path in _ancestors(tree) if _others_can_write(path, owner, sticky=True)]
    paths += [path for path in _below(tree) if _others_can_write(path, owner, sticky=tree in _STATE)]
    if not paths:
        return
    recursive = "-R " if len(paths) > 1 else ""
    target = tree if len(paths) > 1 else paths[0]
    own = any(os.lstat(path).st_uid not in (0, owner) for path in paths)
    yield Finding(
        "writable",
        f"{listed(paths, _SHOWN)}: other users can write it",
        why,
        f"chown {recursive}{owner} {target}; " * own
        + f"chmod {recursive}go-w {target}; then look at its content",
        fix=None if own else lambda: _take_away(paths),
    )


def _ancestors(path: str) -> Iterator[str]:
    while path != "/":
        path = os.path.dirname(path)
        yield path


def _below(tree: str) -> Iterator[str]:
    """Yield the paths of a tree, except compiled code.  Links are not followed."""
    yield tree
    for folder, folders, files in os.walk(tree):
        folders[:] = [name for name in folders if name != "__pycache__"]
        yield from (f"{folder}/{name}" for name in (*folders, *files))


def _others_can_write(path: str, owner: int, *, sticky: bool = False) -> bool:
    """Return True if users other than root and `owner` can write to a path.

    `sticky`: a folder such as /tmp, in which users can only add files, counts as safe.
    """
    try:
        status = os.lstat(path)
    except OSError:
        return False
    if stat.S_ISLNK(status.st_mode) or stat.S_ISSOCK(status.st_mode):
        return False
    if status.st_uid not in (0, owner):
        return True
    if sticky and status.st_mode & stat.S_ISVTX:
        return False
    if status.st_mode & stat.S_IWOTH:
        return True
    return bool(status.st_mode & stat.S_IWGRP) and status.st_gid not in (0, _own_group(status.st_uid))


def _own_group(uid: int) -> int:
    """Return the group of this user alone, which Debian and other distributions create."""
    try:
        return pwd.getpwuid(uid).pw_gid
    except KeyError:
        return uid


def _take_away(paths: list[str]) -> None:
    for path in paths:
        os.chmod(path, stat.S_IMODE(os.lstat(path).st_mode) & ~0o022)
