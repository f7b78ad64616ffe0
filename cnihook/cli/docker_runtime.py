# SPDX-License-Identifier: Apache-2.0
"""
The runtime cni-runc, where the docker daemon has it: docker runs the container itself, and our hook with it.

Then -d, --restart, detaching and `docker start` are docker's own affair, and no process of ours stays.
"""

import json
import shutil

from cnihook.cli.cni_runc import SYSCTL
from cnihook.cli.docker_pause import Docker, DockerError
from cnihook.cli.docker_plan import Plan
from cnihook.oci import wants

_MARK = b"cnihook.cli.cni_runc"  # in whatever starts cni-runc: of a checkout, or made by pip


def find(docker: Docker, wanted: str) -> str:
    """The daemon's name for it, which is to be `wanted` if that is given; empty if it has none.

    Raises DockerError.
    """
    try:
        runtimes = json.loads(docker("info", "--format", "{{json .Runtimes}}")) or {}
    except DockerError:
        # It says why there is no answer; of 20.10's `docker info` one only learns that there is none.
        docker("version", "--format", "{{.Server.Version}}")
        raise
    names = [wanted] if wanted else sorted(runtimes)
    return next((name for name in names if _is_ours((runtimes.get(name) or {}).get("path") or "")), "")


def _is_ours(path: str) -> bool:
    try:
        with open(shutil.which(path) or "", "rb") as file:
            return _MARK in file.read(4096)
    except OSError:
        return False


def command(name: str, plan: Plan) -> list[str]:
    """What docker is to do.  Raises CniError for what an annotation cannot hold."""
    # Any annotation asks for all networks that there are; an empty list of ports is the least of them.
    annotations = wants.to_annotations(plan.said) or {f"{wants.PREFIX}publish": ""}
    # A sysctl rather than --annotation, which docker has from 24 on, for both mean the same to cni-runc.
    sysctls = [
        word
        for key, text in annotations.items()
        for word in ("--sysctl", f"{SYSCTL}{key.removeprefix(wants.PREFIX)}={text}")
    ]
    # Before the other options, so that none of them can take a word of these for its value.
    own = ["--network=none", *([] if plan.runtime else [f"--runtime={name}"]), *sysctls]
    return ["docker", "run", *own, *plan.naming, *plan.run, *plan.rest]
