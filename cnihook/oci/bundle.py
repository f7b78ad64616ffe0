# SPDX-License-Identifier: Apache-2.0
"""config.json of a container, for what it says of its network (runtime-spec, "Configuration")."""

import errno
import os

from cnihook.lean import fastjson, statefile
from cnihook.oci.state import State
from cnihook.spec.errors import IO_FAILURE, CniError, invalid_config
from cnihook.spec.names import is_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeGuard

# Errors of a file that is not there, or is hidden from this user.
_ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENAMETOOLONG)

OWN, HOST, JOINED, UNKNOWN = "own", "host", "joined", "unknown"


class Bundle:
    """A container's config.json.  One that cannot be found, or is not JSON, says nothing."""

    def __init__(self, raw: "dict[str, Any]", path: str) -> None:
        self._raw = raw
        self.path = path  # empty if none was found

    @property
    def network_namespace(self) -> str:
        """Whose network namespace the container is to have: its OWN, the HOST's, one JOINED by path; or
        UNKNOWN.
        """
        return self._namespace("network")

    @property
    def uts_namespace(self) -> str:
        """The same of the namespace that holds the host name."""
        return self._namespace("uts")

    def _namespace(self, kind: str) -> str:
        if not self.path:
            return UNKNOWN
        linux = self._raw.get("linux")
        namespaces = linux.get("namespaces") if isinstance(linux, dict) else None
        for namespace in namespaces if isinstance(namespaces, list) else ():
            if isinstance(namespace, dict) and namespace.get("type") == kind:
                return JOINED if namespace.get("path") else OWN
        return HOST

    @property
    def hostname(self) -> str:
        """The host name that the runtime gives it; empty for none."""
        name = self._raw.get("hostname")
        return name if isinstance(name, str) else ""

    @property
    def domainname(self) -> str:
        """Its domain; empty for none.  Engines of before runtime-spec 1.1 say it as a sysctl."""
        name = self._raw.get("domainname")
        linux = self._raw.get("linux")
        sysctls = linux.get("sysctl") if isinstance(linux, dict) else None
        if not name and isinstance(sysctls, dict):
            name = sysctls.get("kernel.domainname")
        return name if isinstance(name, str) else ""

    @property
    def mounts(self) -> "list[tuple[str, str, bool]]":
        """(path in the container, source, is read-only), in their order.

        A source that is not a path, such as `tmpfs`, leads to a place that does not exist.
        """
        mounts = self._raw.get("mounts")
        paths = []
        for mount in mounts if isinstance(mounts, list) else ():
            destination, source = (
                (mount.get("destination"), mount.get("source")) if isinstance(mount, dict) else (None, None)
            )
            if _is_path(destination) and _is_path(source):
                path = os.path.normpath(os.path.join(os.path.dirname(self.path), source))
                options = mount.get("options")
                modes = [o for o in options if o in ("ro", "rro", "rw")] if isinstance(options, list) else []
                paths.append((os.path.normpath(destination), path, modes[-1:] not in ([], ["rw"])))
        return paths

    @property
    def root(self) -> str:
        """Path of the root file system; empty if it is not known."""
        root = self._raw.get("root")
        path = root.get("path") if isinstance(root, dict) else None
        if not (self.path and _is_path(path)):
            return ""
        return os.path.normpath(os.path.join(os.path.dirname(self.path), path))

    @property
    def root_is_readonly(self) -> bool:
        root = self._raw.get("root")
        return isinstance(root, dict) and root.get("readonly") is True

    def hook_timeout(self, event: str) -> int:
        """Seconds that the runtime gives this hook for `event`; 0 if it sets no limit, or ours is not to be
        found.
        """
        hooks = self._raw.get("hooks")
        found = []
        for stage in (event, "prestart"):
            entries = hooks.get(stage) if isinstance(hooks, dict) else None
            for entry in entries if isinstance(entries, list) else ():
                arguments = entry.get("args") if isinstance(entry, dict) else None
                if (
                    isinstance(arguments, list)
                    and event in arguments
                    and isinstance(entry.get("timeout"), int)
                ):
                    found.append(entry["timeout"])
        return min(found, default=0)


def _is_path(value: "Any") -> "TypeGuard[str]":
    return isinstance(value, str) and value != "" and is_text(value)


def load(state: State) -> Bundle:
    """The container's config.json: in its bundle, or in the copy that crun keeps (crun may give a wrong
    bundle).

    Raises CniError if it is there and cannot be read; a user namespace may lack the permission.
    """
    folders = [state.bundle] if os.path.isabs(state.bundle) else []
    for run in ("/run", os.environ.get("XDG_RUNTIME_DIR", "")):
        if os.path.isabs(run):
            folders.append(f"{run}/crun/{state.id}")
    for folder in folders:
        path = os.path.join(folder, "config.json")
        try:
            content = statefile.content(path, follow=True)
            raw = fastjson.loads(content.decode()) if content else None
        except statefile.Unusable as problem:
            raise invalid_config(f"{path}: {problem}") from None
        except ValueError:
            continue
        except OSError as error:
            if error.errno in _ABSENT:
                continue
            raise CniError(IO_FAILURE, f"{path}: {error.strerror}") from None
        if isinstance(raw, dict):
            return Bundle(raw, path)
    return Bundle({}, "")
