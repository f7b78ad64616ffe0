# SPDX-License-Identifier: Apache-2.0
"""The folders of networks and of plugins."""

import os

from cnihook.runtime import networks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping


class Settings:
    """The folders of networks and of plugins, from the environment or from options.

    `waits`: the end of a container returns when all is removed, and leaves nothing to the background.
    """

    __slots__ = ("conf_dir", "plugin_dirs", "waits")

    def __init__(
        self, conf_dir: str = networks.DEFAULT_FOLDER, plugin_dirs: "list[str] | None" = None
    ) -> None:
        self.conf_dir = conf_dir
        self.plugin_dirs = plugin_dirs
        self.waits = False

    @classmethod
    def from_environment(cls, environment: "Mapping[str, str]") -> "Settings":
        """Read NETCONFPATH and CNI_PATH, as every CNI tool does; empty counts as unset."""
        path = [os.path.abspath(folder) for folder in environment.get("CNI_PATH", "").split(":") if folder]
        return cls(os.path.abspath(environment.get("NETCONFPATH") or networks.DEFAULT_FOLDER), path or None)
