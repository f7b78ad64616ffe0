# SPDX-License-Identifier: Apache-2.0
"""The parts of a container's config.json that concern its network (runtime-spec, "Configuration")."""

import errno
import os

from cnihook.fast import fastjson, statefile
from cnihook.oci.state import State
from cnihook.types.errors import IO_FAILURE, CniError, invalid_config
from cnihook.types.names import is_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeGuard

# Errors of a file that does not exist, or that this user may not see.
_ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENAMETOOLONG)

OWN, HOST, JOINED, UNKNOWN = "own", "host", "joined", "unknown"


class Bundle:
    """A container's config.json.  All values are empty if the file was not found or is not JSON."""

    def __init__(self, raw: "dict[str, Any]", path: str) -> None:
        self._raw = raw
        self.path = path  # empty if none was found

    @property
    def network_namespace(self) -> str:
        """The container's network namespace: its OWN, the HOST's, one JOINED by path, or UNKNOWN."""
        return self._namespace("network")

    @property
    def uts_namespace(self) -> str:
        """The UTS namespace, which holds the host name: OWN, HOST, JOINED or UNKNOWN."""
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
        """The host name that the runtime sets; empty for none."""
        name = self._raw.get("hostname")
        return name if isinstance(name, str) else ""

    @property
    def domainname(self) -> str:
        """The container's domain; empty for none.  Engines before runtime-spec 1.1 set it as a sysctl."""
        name = self._raw.get("domainname")
        linux = self._raw.get("linux")
        sysctls = linux.get("sysctl") if isinstance(linux, dict) else None
        if not name and isinstance(sysctls, dict):
            name = sysctls.get("kernel.domainname")
        return name if isinstance(name, str) else ""

    @property
    def mounts(self) -> "list[tuple[str, str, bool]]":
        """Each mount as (path in the container, source, is read-only), in order.

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
        """The path of the root file system; empty if it is not known."""
        root = self._raw.get("root")
        path = root.get("path") if isinstance(root, dict) else None
        if not (self.path and _is_path(path)):
            return ""
        return os.path.normpath(os.path.join(os.path.dirname(self.path), path))

    def grants(self, capability: str) -> "bool | None":
        """Return True if the container's process gets a capability, or can get it; None if not known."""
        if not self.path:
            return None
        process = self._raw.get("process")
        sets = process.get("capabilities") if isinstance(process, dict) else None
        lists = sets.values() if isinstance(sets, dict) else ()
        return any(capability in each for each in lists if isinstance(each, list))

    @property
    def root_is_readonly(self) -> bool:
        root = self._raw.get("root")
        return isinstance(root, dict) and root.get("readonly") is True

    def hook_timeout(self, event: str) -> int:
        """Return the time limit of cnihook's hook for `event` in seconds.

        0: the runtime sets no limit, or the hook is not in this config.json.
        """
        hooks = self._raw.get("hooks")
        timeouts = []
        for stage in (event, "prestart"):
            entries = hooks.get(stage) if isinstance(hooks, dict) else None
            for entry in entries if isinstance(entries, list) else ():
                arguments = entry.get("args") if isinstance(entry, dict) else None
                if (
                    isinstance(arguments, list)
                    and event in arguments
                    and isinstance(entry.get("timeout"), int)
                ):
                    timeouts.append(entry["timeout"])
        return min(timeouts, default=0)


def _is_path(value: "Any") -> "TypeGuard[str]":
    return isinstance(value, str) and value != "" and is_text(value)


def load(state: State) -> Bundle:
    """Read the container's config.json from its bundle, or from the copy that crun keeps.

    The copy is needed because crun may report a wrong bundle.  Raises CniError if the file exists but cannot
    be read.  In a user namespace the permission may be missing; the file then counts as not found.
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
        except statefile.UnusableFileError as problem:
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
