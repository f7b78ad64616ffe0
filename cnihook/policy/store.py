# SPDX-License-Identifier: Apache-2.0
"""
The policies of the host: /etc/cnihook/policy.d/NAME.json or NAME.toml, one in each file.

A file is in force for each container that starts after it was written; `cnihook policy apply` also puts it
in force for those that run.  A malformed file selects what its `select` does, or every container if that is
malformed, too: those containers do not start.
"""

import os

from cnihook.fast import fastjson, statefile
from cnihook.fast.errors_text import message
from cnihook.policy import document, toml_file
from cnihook.policy.document import Policy, Selection
from cnihook.types.config import NetConf
from cnihook.types.errors import INVALID_CONFIG, CniError, invalid_config

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cnihook.policy.endpoint import Endpoint

FOLDER = "/etc/cnihook/policy.d"
ENDINGS = (".json", toml_file.ENDING)


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
        broken = [one for one in self.broken if _split(os.path.basename(one.path))[0] not in names]
        return Policies(sorted([*kept, *new], key=lambda one: one.name), broken)


def _split(file: str) -> "tuple[str, str]":
    """Return the name of the policy that a file must have, and its ending; empty for another file."""
    name, ending = os.path.splitext(file)
    return (name, ending) if ending in ENDINGS and not file.startswith(".") else ("", "")


def _paths(name: str) -> "list[str]":
    return [f"{FOLDER}/{name}{ending}" for ending in ENDINGS]


def path_of(name: str) -> str:
    """Return the file of a policy, which may not exist."""
    json, toml = _paths(name)
    return toml if os.path.lexists(toml) and not os.path.lexists(json) else json


def load() -> Policies:
    """Read the folder.  A file that cannot be read counts as malformed."""
    policies: list[Policy] = []
    broken: list[BrokenPolicy] = []
    try:
        files = sorted(os.listdir(FOLDER))
    except FileNotFoundError:
        return Policies([], [])
    for file in files:
        name, ending = _split(file)
        if not name:
            continue
        path = f"{FOLDER}/{file}"
        try:
            policy = read(path)
            if policy.name != name:
                raise invalid_config(
                    f"{path}: has the policy {policy.name!r}", f"its file is {policy.name}{ending}"
                )
            if all(each in files for each in map(os.path.basename, _paths(name))):
                raise invalid_config(
                    f"{path}: policy {name} is in a file of each format", "remove one of them"
                )
            policies.append(policy)
        except CniError as error:
            broken.append(BrokenPolicy(path, error, _selection(path)))
    return Policies(policies, broken)


def read(path: str) -> Policy:
    """Return the policy in a file.  Raises CniError."""
    if not path.endswith(toml_file.ENDING):
        return document.parse(content(path), path)
    try:
        stamp = toml_file.stamp_of(path)
    except OSError as error:
        raise invalid_config(message(error)) from None
    if (raw := toml_file.load(path, stamp)) is not None:
        return Policy(raw, path)
    policy = document.parse(content(path), path)
    toml_file.store(path, stamp, policy.raw)
    return policy


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


def check_json(name: str) -> None:
    """Raise CniError if a policy cannot be replaced, because the user writes it as TOML."""
    if (path := path_of(name)).endswith(toml_file.ENDING):
        raise invalid_config(f"policy {name} is in {path}", "edit that file, then `cnihook policy apply`")


def save(policy: Policy) -> None:
    """Write the file of a policy, whole or not at all."""
    os.makedirs(FOLDER, mode=0o755, exist_ok=True)
    text = f"{fastjson.dumps(policy.raw, indent=2)}\n"
    statefile.replace(path_of(policy.name), text.encode(), mode=0o644, durable=True)


def delete(name: str) -> None:
    for path in _paths(name):
        _unlink(path)
    toml_file.forget(name)


def keep(name: str) -> None:
    """Keep the file of a policy, malformed or not, until restore() or discard()."""
    discard(name)
    for path in _paths(name):
        try:
            os.link(path, _kept(path), follow_symlinks=False)
        except FileNotFoundError:
            pass


def restore(name: str) -> None:
    """Make the file what it was at keep(), or remove it if there was none."""
    for path in _paths(name):
        try:
            os.rename(_kept(path), path)
        except FileNotFoundError:
            _unlink(path)


def discard(name: str) -> None:
    for path in _paths(name):
        _unlink(_kept(path))


def _kept(path: str) -> str:
    return f"{FOLDER}/.{os.path.basename(path)}.old"


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
