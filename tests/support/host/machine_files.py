# SPDX-License-Identifier: Apache-2.0
"""Folders of the machine to which a throw-away host can write; the machine's files stay as they are."""

import hashlib
import os
from pathlib import Path

from tests.support.host.host import Host

_PLACE = "/run/.host"  # of the host's /etc, too


def overlay(host: Host, *folders: str) -> None:
    """Mount an overlay on folders; what is written to them ends with the host."""
    for folder in folders:
        place = f"{_PLACE}{folder}"
        options = f"lowerdir={folder},upperdir={place}/upper,workdir={place}/work"
        host.run("mkdir", "-p", f"{place}/upper", f"{place}/work")
        host.run("mount", "-t", "overlay", "overlay", "-o", options, folder)
        host.leaves(f"mount {folder}")


def changes(host: Host, *folders: str) -> dict[str, str]:
    """Return what differs from the machine's files below overlays: path, and a hash of type and content.

    A folder that the machine has, too, is not a difference.
    """
    differences: dict[str, str] = {}
    for folder in folders:
        upper = Path(f"{host.root}{_PLACE}{folder}")
        upper = upper if folder == "/etc" else upper / "upper"
        for path in upper.rglob("*"):
            shown = f"{folder}/{path.relative_to(upper)}"
            if not (path.is_dir() and not path.is_symlink() and os.path.isdir(shown)):
                differences[shown] = _digest(path)
    return differences


def _digest(path: Path) -> str:
    if path.is_symlink():
        return f"link {os.readlink(path)}"
    mode = f"{path.lstat().st_mode:o}"
    return f"{mode} {hashlib.sha256(path.read_bytes()).hexdigest()}" if path.is_file() else mode
