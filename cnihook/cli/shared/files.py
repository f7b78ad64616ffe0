# SPDX-License-Identifier: Apache-2.0
"""Files that other programs read: each is written whole or not at all."""

import os


def write(path: str, text: str, mode: int = 0o644, *, durable: bool = False) -> None:
    """Replace a file atomically, because another program may be about to read or start it.

    `durable`: whole also if the power fails.  The temporary name ends in .new: CRI-O and Prometheus read any
    name with their ending as soon as it exists.  Raises OSError.
    """
    temporary = f"{path}.{os.getpid()}.new"
    try:
        with open(temporary, "w", encoding="utf-8") as file:
            file.write(text)
            os.fchmod(file.fileno(), mode)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        if os.path.lexists(temporary):
            os.unlink(temporary)
        raise


def make_folder(path: str) -> list[str]:
    """Make a folder and those above it.  Returns the ones that were missing, the uppermost first."""
    missing: list[str] = []
    while not os.path.isdir(path):
        missing.insert(0, path)
        path = os.path.dirname(path)
    for folder in missing:
        os.mkdir(folder, 0o755)
    return missing
