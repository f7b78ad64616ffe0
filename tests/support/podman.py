# SPDX-License-Identifier: Apache-2.0
"""Podman with its CNI backend inside a throw-away host: a libcni client as it comes."""

import json
import subprocess
from pathlib import Path
from typing import Any

from tests.support.cni import CHECKOUT
from tests.support.host import Host
from tests.support.namespace import base_environment
from tests.support.skip import need

FOLDER = "/run/.host/podman"  # out of the leak check's sight; podman wants a short path
IMAGE = "busybox"
FOR_EVER = ("sleep", "2147483647")
# Without these it asks for limits that a test machine may not grant.
LIMITS = ("--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024")


class Podman:
    """`plugins` are the folders of its CNI plugins."""

    def __init__(self, host: Host, rootfs: Path, plugins: list[str]) -> None:
        need("podman", "conmon", "runc", "tar")
        self.host = host
        conf = f"{FOLDER}/containers.conf"
        host.write(
            conf,
            '[network]\nnetwork_backend="cni"\nnetwork_config_dir="/etc/cni/net.d"\n'
            f"cni_plugin_dirs={json.dumps(plugins)}\n"
            '[engine]\ncgroup_manager="cgroupfs"\nevents_logger="none"\n',
        )
        self.env = base_environment() | {"CONTAINERS_CONF": conf}
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
        (found,) = json.loads(self("inspect", name).stdout)
        return found

    def address(self, name: str, network: str, family: str = "IPAddress") -> str:
        return str(self.inspect(name)["NetworkSettings"]["Networks"][network][family])

    def close(self) -> None:
        self("rm", "--all", "--force", "--time", "0", check=False)


def install_plugins(host: Host) -> str:
    """All that are built in, as `cnihook install-plugins` installs them.  Returns their folder."""
    folder = f"{FOLDER}/plugins"
    host.run(str(CHECKOUT / "scripts" / "cnihook"), "install-plugins", folder)
    return folder
