# SPDX-License-Identifier: Apache-2.0
"""Checks of the folders of plugins, of programs that plugins need, and of versions with known problems."""

import os
import re
from collections.abc import Iterator

from cnihook.doctor.finding import Finding, Host, find_program, plugins_of, printed
from cnihook.protocol import invoke

_FIRST = (0, 0, 0)
_NEVER = (1 << 30, 0, 0)
_PACKAGES = {"nft": "nftables"}
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


def check_programs(host: Host) -> Iterator[Finding]:
    """Find programs that a key of a network needs and that are not installed."""
    for network in host.networks:
        for plugin in plugins_of(network):
            fields = invoke.fields(plugin.type) if invoke.is_built_in(plugin.type) else ()
            keys: dict[str, str] = {}
            for field in fields:
                if field.program and plugin.conf.has(field.name):
                    keys.setdefault(field.program, field.name)
            for program, key in keys.items():
                if find_program(program) is None:
                    yield Finding(
                        "program",
                        f"the program {program} is not installed",
                        f"{plugin.type} reads {key} of network {network.name} with it, and fails",
                        f"apt-get install {_PACKAGES[program]}",
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
