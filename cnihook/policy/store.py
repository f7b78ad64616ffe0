# SPDX-License-Identifier: Apache-2.0
"""
The policies of the host: /etc/cnihook/policy.d/NAME.json, one in each file.

A file is in force for each container that starts after it was written; `cnihook policy apply` also puts it
in force for those that run.  A malformed file selects what its `select` does, or every container if that is
malformed, too: those containers do not start.
"""

import os

from cnihook.fast import fastjson, statefile
from cnihook.fast.errors_text import message
from cnihook.policy import document
from cnihook.policy.document import Policy, Selection
from cnihook.types.config import NetConf
from cnihook.types.errors import INVALID_CONFIG, CniError, invalid_config

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cnihook.policy.endpoint import Endpoint

FOLDER = "/etc/cnihook/policy.d"
_ENDING = ".json"


class BrokenPolicy:
    """A file that is not a policy.  `selection`: the containers that it may select; None: all."""

    __slots__ = ("error", "path", "selection")

    def __init__(self, path: str, error: CniError, selection: "Selection | None") -> None:
        self.path = path
        self.error = error
        self.selection = selection

    def refuse_for(self, endpoint: "Endpoint") -> None:
        if self.selection is None or endpoint.is_selected(self.selection):
            raise CniError(
                INVALID_CONFIG,
                f"container {endpoint.container_id}: a policy that may select it cannot be used: "
                f"{self.error.msg}",
                self.error.details or "correct or remove the file",
            )


class Policies:
    """The policies of the host, by name, and the files that are not policies."""

    def __init__(self, policies: "list[Policy]", broken: "list[BrokenPolicy]") -> None:
        self.all = policies
        self.broken = broken

    def check(self, endpoint: "Endpoint") -> None:
        """Raise CniError if a malformed file may select the container."""
        for one in self.broken:
            one.refuse_for(endpoint)

    def by_name(self) -> "dict[str, Policy]":
        return {one.name: one for one in self.all}

    def replaced(self, new: "list[Policy]", removed: "set[str]") -> "Policies":
        """Return the policies as they are when `new` is applied and `removed` are gone."""
        names = {one.name for one in new} | removed
        kept = [one for one in self.all if one.name not in names]
        broken = [one for one in self.broken if os.path.basename(one.path) not in map(_file_name, names)]
        return Policies(sorted([*kept, *new], key=lambda one: one.name), broken)


def _file_name(name: str) -> str:
    return f"{name}{_ENDING}"


def path_of(name: str) -> str:
    return f"{FOLDER}/{_file_name(name)}"


def load() -> Policies:
    """Read the folder.  A file that cannot be read counts as malformed."""
    policies: list[Policy] = []
    broken: list[BrokenPolicy] = []
    try:
        names = sorted(os.listdir(FOLDER))
    except FileNotFoundError:
        return Policies([], [])
    for name in names:
        if not name.endswith(_ENDING) or name.startswith("."):
            continue
        path = f"{FOLDER}/{name}"
        try:
            policy = read(path)
            if _file_name(policy.name) != name:
                raise invalid_config(
                    f"{path}: has the policy {policy.name!r}", f"its file is {path_of(policy.name)}"
                )
            policies.append(policy)
        except CniError as error:
            broken.append(BrokenPolicy(path, error, _selection(path)))
    return Policies(policies, broken)


def read(path: str) -> Policy:
    """Return the policy in a file.  Raises CniError."""
    return document.parse(content(path), path)


def content(path: str) -> bytes:
    """Return the content of a file.  Raises CniError."""
    try:
        text = statefile.content(path, longest=document.LONGEST, follow=True)
    except statefile.UnusableFileError as error:
        raise invalid_config(f"{path}: {error}") from None
    except OSError as error:
        raise invalid_config(message(error)) from None
    if text is None:
        raise invalid_config(f"{path}: No such file or directory")
    return text


def _selection(path: str) -> "Selection | None":
    """Return the selection of a file with another error; None if it has none that can be read."""
    try:
        raw = document.decode(content(path), path)
        return document.selection_of(NetConf(raw, path)) if isinstance(raw, dict) else None
    except CniError:
        return None


def save(policy: Policy) -> None:
    """Write the file of a policy, whole or not at all."""
    os.makedirs(FOLDER, mode=0o755, exist_ok=True)
    text = f"{fastjson.dumps(policy.raw, indent=2)}\n"
    statefile.replace(path_of(policy.name), text.encode(), mode=0o644, durable=True)


def delete(name: str) -> None:
    _unlink(path_of(name))


def keep(name: str) -> None:
    """Keep the file of a policy, malformed or not, until restore() or discard()."""
    discard(name)
    try:
        os.link(path_of(name), _kept(name), follow_symlinks=False)
    except FileNotFoundError:
        pass


def restore(name: str) -> None:
    """Make the file what it was at keep(), or remove it if there was none."""
    try:
        os.rename(_kept(name), path_of(name))
    except FileNotFoundError:
        delete(name)


def discard(name: str) -> None:
    _unlink(_kept(name))


def _kept(name: str) -> str:
    return f"{FOLDER}/.{name}.old"


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
