# SPDX-License-Identifier: Apache-2.0
"""Plugins' folders, and runtimes whose versions have traps."""

import os
import re
from collections.abc import Iterator

from cnihook.doctor.finding import Finding, Host, printed
from cnihook.lean import ffi

_FIRST = (0, 0, 0)
_NEVER = (1 << 30, 0, 0)
_GC = "systemctl enable --now cnihook-gc.timer"

# A program, the first version with the trap and the first without it, what happens, what helps.
_TRAPS = [
    (
        "runc",
        _FIRST,
        (1, 2, 0),
        "`runc delete` succeeds even if the poststop hook failed (runc issue 2905)",
        _GC,
    ),
    ("crun", _FIRST, _NEVER, "poststop is not run if a createRuntime hook after ours fails", _GC),
    (
        "crun",
        _FIRST,
        _NEVER,
        "a hook's stderr is thrown away unless an annotation names a file for it (crun issue 353)",
        "cnihook logs ID",
    ),
    (
        "podman",
        (5, 0, 0),
        _NEVER,
        "it has no CNI any more: its own networks are netavark's, and /etc/cni/net.d is of the hook alone",
        "podman run --network none, with the hook in hooks.d",
    ),
    (
        "docker",
        _FIRST,
        (24, 0, 0),
        "`docker run` has no --annotation, so nothing tells a hook which networks a container is to be on",
        "docker-run --network NETWORK IMAGE",
    ),
]


def check_folders(host: Host) -> Iterator[Finding]:
    for folder in host.settings.plugin_path or ():
        if not os.path.isdir(folder):
            yield Finding(
                "plugin-folder",
                f"{folder} of CNI_PATH is no folder",
                "plugins that are meant to be there are looked for elsewhere",
                f"mkdir -p {folder}, or take it out of CNI_PATH",
            )


def check_library(_host: Host) -> Iterator[Finding]:
    """Where the program is missing, too, the plugins that need nftables are told of."""
    try:
        ffi.Library("libnftables.so.1")
    except OSError:
        yield Finding(
            "library",
            "libnftables.so.1 is not installed",
            "the program nft is started in its place, which takes 2 ms for each change",
            "apt-get install libnftables1",
            note=True,
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
