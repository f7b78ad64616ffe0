# SPDX-License-Identifier: Apache-2.0
"""The files of networks: found by name, written whole or not at all."""

import hashlib
import os

from cnihook.cli import validate
from cnihook.fast import statefile
from cnihook.fast.errors_text import message
from cnihook.runtime import networks
from cnihook.runtime.networks import Network
from cnihook.runtime.settings import Settings
from cnihook.types.config import lookup
from cnihook.types.errors import INVALID_CONFIG, IO_FAILURE, CniError

# Kubelet, containerd and CRI-O use the first file of the folder, so that of a cluster must come first.
_PLACE = "90-"
_LABELS = "nerdctlLabels"  # the key of nerdctl; podman has args.podman_labels, which is only read
LEAST_ID = 12  # digits that are shown


def path_of(name: str, folder: str) -> str:
    return f"{folder}/{_PLACE}{name}.conflist"


def id_of(name: str) -> str:
    """Return the ID that podman and nerdctl derive from a name."""
    return hashlib.sha256(name.encode()).hexdigest()


def find(text: str, present: "list[Network]", problems: "list[CniError]", folder: str) -> Network:
    """Return the network with this name, this ID, or an ID that begins so.  Raises CniError without one."""
    for network in present:
        if network.name == text:
            return network
    matches = [network for network in present if text and id_of(network.name).startswith(text)]
    if len(matches) == 1:
        return matches[0]
    if matches:
        names = ", ".join(network.name for network in matches)
        raise CniError(INVALID_CONFIG, f"{text} is the beginning of the IDs of {names}", "write more digits")
    raise networks.NetworkNotFoundError(text, folder, [network.name for network in present], problems)


def select(
    texts: "list[str]", present: "list[Network]", problems: "list[CniError]", folder: str
) -> "tuple[list[Network], list[CniError]]":
    """Return the networks that texts name, as find() does, and the errors of the others."""
    selected, errors = [], []
    for text in texts:
        try:
            selected.append(find(text, present, problems, folder))
        except CniError as error:
            errors.append(error)
    return selected, errors


def labelled(labels: "dict[str, str]") -> "dict[str, dict[str, str]]":
    """Return the key of a list that holds labels; none without labels."""
    return {_LABELS: labels} if labels else {}


def labels_of(network: Network) -> "dict[str, str]":
    args = lookup(network.raw, "args")
    podman = args.get("podman_labels") if isinstance(args, dict) else None
    for labels in (network.raw.get(_LABELS), podman):
        if isinstance(labels, dict):
            return {str(key): str(value) for key, value in labels.items()}
    return {}


def write(path: str, text: bytes, settings: Settings, *, instead_of: "bytes | None" = None) -> None:
    """Write a network's file whole, or not at all.  The caller holds locks.networks().

    `instead_of`: the present content, which is replaced; None: the file must not exist.  Raises CniError if
    `cnihook validate` finds a problem in it.
    """
    folder, name = os.path.split(path)
    temporary = f"{folder}/.{name}.new"  # a name that no runtime reads
    try:
        os.makedirs(folder, exist_ok=True)
        mode = 0o644 if instead_of is None else os.stat(path).st_mode & 0o777
        fd = statefile.create(temporary, os.O_TRUNC, mode)
        try:
            with open(fd, "wb") as file:
                os.fchmod(fd, mode)
                file.write(text)
                file.flush()
                os.fsync(fd)
            refuse_problems(temporary, path, settings)
            if instead_of is None:
                os.link(temporary, path)  # unlike rename(2), it does not replace a file
            elif networks.read_file(path) != instead_of:
                raise CniError(IO_FAILURE, f"{path} has changed since it was read", "try again")
            else:
                os.replace(temporary, path)
            _sync(folder)
        finally:
            if os.path.lexists(temporary):
                os.unlink(temporary)
    except FileExistsError:
        raise CniError(IO_FAILURE, f"{path} exists already", "choose another name") from None
    except OSError as error:
        raise CniError(IO_FAILURE, message(error)) from error


def refuse_problems(file: str, path: str, settings: Settings) -> None:
    """Raise CniError with all that `cnihook validate` finds in a file that is to be written to `path`."""
    problems = validate.problems_of(file, settings.plugin_dirs)
    if problems:
        lines = ["; ".join(filter(None, [one["problem"], one["hint"]])) for one in problems]
        raise CniError(INVALID_CONFIG, "; ".join(lines).replace(file, path))


def _sync(folder: str) -> None:
    """Make the new name survive a crash of the machine."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
