# SPDX-License-Identifier: Apache-2.0
"""Checks of bounds on annotations: a file that other users can change, and images that can make requests."""

import os
import shutil
from collections.abc import Iterator

from cnihook.doctor.finding import Finding, Host
from cnihook.doctor.leftovers import HOOK_FOLDERS, our_hooks
from cnihook.oci import podman
from cnihook.request import bounds, bounds_file


def check_owner(_host: Host) -> Iterator[Finding]:
    """Find bounds that another user can change or remove."""
    folder = os.path.dirname(bounds.FILE)
    for path, mode in ((folder, "755"), (bounds.FILE, "644")):
        try:
            problem = bounds_file.unsafe(os.stat(path))
        except OSError:
            continue
        if problem:
            yield Finding(
                "bounds",
                f"{path}: {problem}",
                "another user can remove the bounds on annotations, so the hook rejects the file",
                f"chown root:root {path}; chmod {mode} {path}",
            )


def check_images(_host: Host) -> Iterator[Finding]:
    """Find a hook for podman's containers if podman copies annotations of images into them."""
    hooks = [(path, hook) for folder in HOOK_FOLDERS for path, hook in our_hooks(folder)]
    path = next((path for path, hook in hooks if "--trust-images" not in hook["args"]), "")
    program = shutil.which("podman", path=f"{os.environ.get('PATH', os.defpath)}:/usr/bin:/bin")
    if not path or not program:
        return
    version = podman.version(os.path.realpath(program))
    if version and version >= podman.FIRST_WITHOUT:
        return
    yield Finding(
        "image-annotations",
        f"{path}: {podman.reason(version) if version else f'the version of {program} is not known'}",
        "the hook rejects each container of podman with annotations of cnihook",
        "use podman 4.6 or newer, or: cnihook hooks.d install --trust-images",
    )
