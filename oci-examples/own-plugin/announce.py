#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""
announce: a CNI plugin that writes a container's addresses to a file, for other programs.

It follows another plugin in a chain.  For each attachment it writes a file:

    FOLDER/NETWORK/CONTAINERID-IFNAME        an address per line

Replace this with what your plugin is for.  A plugin consists of these five functions.  Each receives a Call.
If it fails, it raises CniError, or lets an OSError pass.
"""

import os

from cnihook.sdk import (
    INTERNAL,
    PLUGIN_NOT_AVAILABLE,
    Call,
    CniError,
    Field,
    Result,
    Traits,
    Undo,
    main,
    read,
)


def _check_folder(path: str) -> None:
    if not os.path.isabs(path):
        raise ValueError(f"{path!r} is not an absolute path")


# The options: name, type, default, what it is.  read() raises for a value of another type.
FIELDS = (Field("folder", str, "/run/announce", check=_check_folder, doc="the folder of the files"),)
TRAITS = Traits("chained")


class Conf:
    """Every key of the configuration, read and checked in one place, before anything is changed."""

    def __init__(self, call: Call) -> None:
        folder: str = read(call.conf, FIELDS)["folder"]
        self.folder = f"{folder}/{call.network}"
        self.path = f"{self.folder}/{_file_name(call.container_id, call.ifname)}"


def _file_name(container_id: str, ifname: str) -> str:
    return f"{container_id}-{ifname}"


def add(call: Call) -> Result:
    """Serve ADD: return the result of the plugins before, changed or not."""
    conf = Conf(call)
    result = call.required_prev_result()
    with Undo() as undo:  # if anything fails in this block, nothing of it stays
        os.makedirs(conf.folder, exist_ok=True)
        undo.push(_remove, conf.path)
        with open(conf.path, "w") as file:
            file.writelines(f"{line}\n" for line in _lines(result))
        return result


def _lines(result: Result) -> list[str]:
    return [str(ip.net.address) for ip in result.ips]


def delete(call: Call) -> None:
    """Serve DEL: succeed whatever is missing, and also twice; call.prev_result may be None."""
    _remove(Conf(call).path)


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass


def check(call: Call) -> None:
    """Serve CHECK: raise CniError if anything is not as ADD left it."""
    path = Conf(call).path
    try:
        with open(path) as file:
            written = file.read().splitlines()
    except FileNotFoundError:
        raise CniError(INTERNAL, f"{path} is missing", "DEL and ADD make it again") from None
    if written != _lines(call.required_prev_result()):
        raise CniError(INTERNAL, f"{path} has other addresses than the container")


def gc(call: Call) -> None:
    """Serve GC: release what belongs to no attachment on the list of those that are alive."""
    keep = call.valid_attachments()
    folder = Conf(call).folder
    if keep is None or not os.path.isdir(folder):
        return
    kept = {_file_name(container_id, ifname) for container_id, ifname in keep}
    for name in os.listdir(folder):
        if name not in kept:
            _remove(f"{folder}/{name}")


def status(call: Call) -> None:
    """Serve STATUS: raise CniError, code 50, if an ADD could not be served now."""
    folder = os.path.dirname(Conf(call).folder)
    if os.path.exists(folder) and not os.access(folder, os.W_OK):
        raise CniError(PLUGIN_NOT_AVAILABLE, f"{folder} cannot be written to")


if __name__ == "__main__":
    main()
