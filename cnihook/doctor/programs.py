# SPDX-License-Identifier: Apache-2.0
"""Checks of the folders of plugins, of programs that plugins need, and of versions with known problems."""

import os
import re
from collections.abc import Iterator

from cnihook.doctor.finding import Finding, Host, find_program, plugins_of, printed

_FIRST = (0, 0, 0)
_NEVER = (1 << 30, 0, 0)
_GC = "systemctl enable --now cnihook-gc.timer"

# A program, the first version with the problem and the first without it, the problem, what helps.
_TRAPS = [
    (
        "runc",
        _FIRST,
        (1, 2, 0),
        "`runc delete` succeeds even if the poststop hook failed (runc issue 2905)",
        _GC,
    ),
    ("crun", _FIRST, _NEVER, "poststop is not run if a createRuntime hook after cnihook's fails", _GC),
    (
        "crun",
        _FIRST,
        _NEVER,
        "a hook's stderr is discarded unless an annotation names a file for it (crun issue 353)",
        "cnihook logs ID",
    ),
    (
        "podman",
        (5, 0, 0),
        _NEVER,
        "it no longer supports CNI: netavark makes its own networks, and only the hook uses /etc/cni/net.d",
        "podman run --network none, with the hook in hooks.d",
    ),
    (
        "docker",
        _FIRST,
        (24, 0, 0),
        "`docker run` has no --annotation, so a hook cannot know the networks of a container",
        "docker-run --network NETWORK IMAGE",
    ),
]


def check_folders(host: Host) -> Iterator[Finding]:
    for folder in host.settings.plugin_dirs or ():
        if not os.path.isdir(folder):
            yield Finding(
                "plugin-folder",
                f"{folder} of CNI_PATH is not a folder",
                "plugins that should be in it are searched for elsewhere",
                f"mkdir -p {folder}, or remove it from CNI_PATH",
            )


def check_nft(host: Host) -> Iterator[Finding]:
    for network in host.networks:
        for plugin in plugins_of(network):
            conditions = [key for key in ("conditionsV4", "conditionsV6") if plugin.conf.has(key)]
            if plugin.type == "portmap" and conditions and find_program("nft") is None:
                yield Finding(
                    "program",
                    "the program nft is not installed",
                    f"it reads {conditions[0]} of network {network.name}, whose ports cannot be published",
                    "apt-get install nftables",
                )


def check_versions(_host: Host) -> Iterator[Finding]:
    versions: dict[str, tuple[int, ...] | None] = {}
    for program, first, fixed, trap, remedy in _TRAPS:
        if program not in versions:
            versions[program] = _version(program)
        version = versions[program]
        if version and first <= version < fixed:
            shown = ".".join(map(str, version))
            yield Finding("runtime-trap", f"{program} {shown}", trap, remedy, note=True)


def _version(program: str) -> tuple[int, ...] | None:
    try:
        text = printed(program, "--version", timeout=10.0)
    except OSError:
        return None
    numbers = re.search(r"(\d+)\.(\d+)\.(\d+)", text)
    return tuple(int(number) for number in numbers.groups()) if numbers else None
