# SPDX-License-Identifier: Apache-2.0
"""
The runtime cni-runc, if the docker daemon has it: docker runs the container itself, with cnihook's hook.

Then docker handles -d, --restart, detaching and `docker start` itself, and no process of cnihook stays.
"""

import json
import shutil

from cnihook.cli.cni_runc import SYSCTL
from cnihook.cli.docker.pause import Docker, DockerError
from cnihook.cli.docker.plan import Plan
from cnihook.request import options

_MARK = b"cnihook.cli.cni_runc"  # in every launcher of cni-runc: that of a checkout, or one made by pip


def find(docker: Docker, wanted: str) -> str:
    """Return the daemon's name of cni-runc; empty if it has none, or another than `wanted`, if given.

    Raises DockerError.
    """
    try:
        runtimes = json.loads(docker("info", "--format", "{{json .Runtimes}}")) or {}
    except DockerError:
        # `docker version` reports why there is no answer; `docker info` of 20.10 only that there is none.
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
    """Return the command `docker run`.  Raises CniError for a value that an annotation cannot hold."""
    # Any annotation requests all networks.  An empty list of ports requests nothing else.
    annotations = options.to_annotations(plan.options) or {f"{options.PREFIX}publish": ""}
    # A sysctl, not --annotation, which docker lacks before 24.  Both mean the same to cni-runc.
    sysctls = [
        word
        for key, text in annotations.items()
        for word in ("--sysctl", f"{SYSCTL}{key.removeprefix(options.PREFIX)}={text}")
    ]
    # Before the other options, so that none of them can take one of these as its value.
    own = ["--network=none", *([] if plan.runtime else [f"--runtime={name}"]), *sysctls]
    return ["docker", "run", *own, *plan.naming, *plan.run, *plan.rest]
