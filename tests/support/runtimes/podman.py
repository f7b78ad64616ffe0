# SPDX-License-Identifier: Apache-2.0
"""Podman inside a throw-away host.  Versions before 5 contain libcni."""

import json
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.support.host.host import Host
from tests.support.host.namespace import base_environment
from tests.support.plugins.cni import CHECKOUT
from tests.support.skip import need

FOLDER = "/run/.host/podman"  # the leak check does not see it; podman needs a short path
IMAGE = "busybox"
FOR_EVER = ("sleep", "2147483647")
# Without these podman sets limits that a test machine may not allow.
LIMITS = ("--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024")


class Podman:
    """`plugins`: the folders of plugins for its CNI backend; without them the backend is its own default."""

    def __init__(self, host: Host, rootfs: Path, plugins: list[str] | None = None) -> None:
        need("podman", "conmon", "runc", "tar")
        if plugins and version() >= (5,):
            pytest.skip("podman 5 has no CNI backend")
        self.host = host
        backend = f'network_backend="cni"\ncni_plugin_dirs={json.dumps(plugins)}\n' if plugins else ""
        conf = f"{FOLDER}/containers.conf"
        host.write(
            conf,
            f'[network]\n{backend}network_config_dir="/etc/cni/net.d"\n'
            '[engine]\ncgroup_manager="cgroupfs"\nevents_logger="none"\n',
        )
        # A test machine may have cgroups v1, of which podman 5 warns on stderr.
        self.env = base_environment() | {"CONTAINERS_CONF": conf, "PODMAN_IGNORE_CGROUPSV1_WARNING": "1"}
        host.leaves("dir /run/lock", "file /run/lock/netavark.lock")
        self._argv = [
            *(
                "podman",
                "--root",
                f"{FOLDER}/root",
                "--runroot",
                f"{FOLDER}/run",
                "--tmpdir",
                f"{FOLDER}/tmp",
            ),
            *("--storage-driver", "vfs", "--runtime", "runc"),
        ]
        host.run(
            *("sh", "-c", f'tar -C {rootfs} -c . | "$@" import - {IMAGE}', "sh", *self._argv), env=self.env
        )

    def __call__(
        self, *words: str, check: bool = True, timeout: float = 60
    ) -> subprocess.CompletedProcess[str]:
        return self.host.run(*self._argv, *words, env=self.env, check=check, timeout=timeout)

    def run(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self("run", *LIMITS, *words, check=check)

    def inspect(self, name: str) -> Any:
        (details,) = json.loads(self("inspect", name).stdout)
        return details

    def address(self, name: str, network: str, family: str = "IPAddress") -> str:
        return str(self.inspect(name)["NetworkSettings"]["Networks"][network][family])

    def close(self) -> None:
        self("rm", "--all", "--force", "--time", "0", check=False)


@cache
def version() -> tuple[int, ...]:
    process = subprocess.run(["podman", "--version"], capture_output=True, text=True, timeout=60, check=True)
    return tuple(map(int, process.stdout.split()[-1].partition("-")[0].split(".")))


def install_plugins(host: Host) -> str:
    """Install all built-in plugins by `cnihook install-plugins`.  Returns their folder."""
    folder = f"{FOLDER}/plugins"
    host.run(str(CHECKOUT / "scripts" / "cnihook"), "install-plugins", folder)
    return folder
