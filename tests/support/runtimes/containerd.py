# SPDX-License-Identifier: Apache-2.0
"""containerd with its CRI plugin inside a throw-away host, and pod sandboxes, as a kubelet requests them."""

import hashlib
import io
import json
import platform
import shutil
import subprocess
import tarfile
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.support.host.host import Host
from tests.support.host.namespace import Namespace, Process, end
from tests.support.runtimes import cri
from tests.support.runtimes.oci import CNIHOOK, NET_D, need_cgroups, wait_for
from tests.support.skip import SEARCH, need

PAUSE = "localhost/pause:1"
TCP, UDP = 0, 1  # CRI's numbers

# The plugins that need a kernel module, a daemon or a folder of the machine, and are not used.
_DISABLED = ["io.containerd.internal.v1.opt", "io.containerd.snapshotter.v1.devmapper"]


class Containerd:
    """The daemon.  `folder` has its files; the leak check does not see it.

    `template`: a text for conf_template, from which containerd writes the network's file by itself.
    """

    def __init__(self, host: Host, folder: Path, template: str = "") -> None:
        need("containerd", "ctr", "runc", "busybox")
        need_cgroups()
        self.host = host
        self.folder = folder
        self.plugins = f"{folder}/plugins"
        # All running tests share the machine's cgroups.
        self._cgroup = f"cnihook-{uuid.uuid4().hex[:12]}"
        host.run(CNIHOOK, "install-plugins", self.plugins)
        (folder / "template").write_text(template)
        (folder / "config.toml").write_text(self._config(f"{folder}/template" if template else ""))
        self._daemon: Process
        self.start()
        _write_image(folder / "pause.tar")
        self.ctr("images", "import", f"{folder}/pause.tar")

    def _config(self, template: str) -> str:
        return f"""\
version = 2
root = "{self.folder}/root"
state = "{self.folder}/state"
disabled_plugins = {json.dumps(_DISABLED)}
[grpc]
  address = "{self.folder}/socket"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE}"
  disable_apparmor = true
  restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".containerd]
  snapshotter = "native"
[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "{self.plugins}"
  conf_dir = "{NET_D}"
  conf_template = "{template}"
"""

    def start(self) -> None:
        with open(self.folder / "log", "ab") as log:
            self._daemon = self.host.popen(
                "containerd", "--config", f"{self.folder}/config.toml", stdout=log, stderr=subprocess.STDOUT
            )
        wait_for(self._answers, "containerd")

    def _answers(self) -> bool:
        try:
            self.call("Version", {})
        except (ConnectionError, cri.CallError):
            return False
        return True

    def stop(self, signal: str = "-TERM") -> None:
        """End the daemon.  The pods go on."""
        self.host.run("kill", signal, str(self._daemon.inside_pid))
        self._daemon.wait(30)
        end(self._daemon)

    def close(self) -> None:
        self.stop()
        for path in Path("/sys/fs/cgroup").glob(f"*/{self._cgroup}"):
            path.rmdir()

    def call(self, method: str, request: Mapping[int, object]) -> cri.Message:
        return cri.call(self.folder / "socket", method, request)

    def ctr(self, *words: str) -> str:
        return self.host.run("ctr", "-a", f"{self.folder}/socket", "-n", "k8s.io", *words).stdout

    def network_problem(self) -> str:
        """Return the reason why no pod can be started, as a kubelet reads it; empty if one can."""
        status = cri.inner(self.call("Status", {})[1][0])
        for each in status[1]:
            condition = cri.inner(each)
            if cri.text(condition[1][0]) == "NetworkReady":
                return "" if condition.get(2) else cri.text(condition[4][0])
        raise AssertionError("there is no condition NetworkReady")

    def set_pod_range(self, *subnets: str) -> None:
        """Pass the pod CIDRs of the node, as a kubelet does with those of its Node object."""
        self.call("UpdateRuntimeConfig", {1: {1: {1: ",".join(subnets)}}})

    def run(
        self, name: str, ports: Sequence[Any] = (), annotations: Mapping[str, str] | None = None
    ) -> "Pod":
        """Start a pod sandbox.  `ports`: (protocol, port of the pod, port of the host, address)."""
        return Pod(self, name, ports, annotations or {})

    def pods(self) -> list[str]:
        """Return the IDs of all sandboxes, including those that are stopped."""
        return [cri.text(cri.inner(each)[1][0]) for each in self.call("ListPodSandbox", {}).get(1, ())]

    def config_of(
        self, name: str, ports: Sequence[Any], annotations: Mapping[str, str]
    ) -> dict[int, object]:
        """Return a PodSandboxConfig."""
        return {
            1: {1: name, 2: f"uid-{name}", 3: "shop", 4: 1},
            2: name,
            3: f"{self.folder}/logs",
            5: [dict(enumerate(port, 1)) for port in ports],
            7: [{1: name, 2: text} for name, text in annotations.items()],
            8: {1: f"/{self._cgroup}"},
        }


class Pod(Namespace):
    """A pod sandbox that runs."""

    def __init__(
        self, daemon: Containerd, name: str, ports: Sequence[Any], annotations: Mapping[str, str]
    ) -> None:
        self.daemon = daemon
        answer = daemon.call("RunPodSandbox", {1: daemon.config_of(name, ports, annotations)})
        self.id = cri.text(answer[1][0])
        self.info = json.loads(cri.text(cri.inner(self.status(verbose=True)[2][0])[2][0]))
        host = daemon.host
        # /var/run is an absolute link, which would lead out of the host's files.
        self.path = next(
            space["path"].removeprefix("/var")
            for space in self.info["runtimeSpec"]["linux"]["namespaces"]
            if space["type"] == "network"
        )
        super().__init__(host.holder, f"{host.root}{self.path}", name, host.starter)

    def status(self, verbose: bool = False) -> cri.Message:
        return self.daemon.call("PodSandboxStatus", {1: self.id, 2: int(verbose)})

    @property
    def ips(self) -> list[str]:
        """Return its addresses, as a kubelet reads them."""
        network = cri.inner(cri.inner(self.status()[1][0])[5][0])
        others = [cri.text(cri.inner(each)[1][0]) for each in network.get(2, ())]
        return [cri.text(network[1][0]), *others]

    def stop(self) -> None:
        self.daemon.call("StopPodSandbox", {1: self.id})

    def remove(self) -> None:
        self.daemon.call("RemovePodSandbox", {1: self.id})


def _write_image(path: Path) -> None:
    """Write an image with one program, in the layout of OCI: no registry is needed."""
    busybox = shutil.which("busybox", path=SEARCH)
    assert busybox
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as archive:
        archive.add(busybox, "bin/busybox")
    blobs: dict[str, bytes] = {}

    def blob(kind: str, content: bytes) -> dict[str, Any]:
        digest = hashlib.sha256(content).hexdigest()
        blobs[f"blobs/sha256/{digest}"] = content
        media = f"application/vnd.oci.image.{kind}"
        return {"mediaType": media, "digest": f"sha256:{digest}", "size": len(content)}

    tar = blob("layer.v1.tar", layer.getvalue())
    config = {
        "architecture": _architecture(),
        "os": "linux",
        "config": {"Entrypoint": ["/bin/busybox", "sleep", "2147483647"]},
        "rootfs": {"type": "layers", "diff_ids": [tar["digest"]]},
    }
    described = blob("config.v1+json", json.dumps(config).encode())
    manifest = blob(
        "manifest.v1+json", json.dumps({"schemaVersion": 2, "config": described, "layers": [tar]}).encode()
    )
    manifest["annotations"] = {"io.containerd.image.name": PAUSE}
    blobs["index.json"] = json.dumps({"schemaVersion": 2, "manifests": [manifest]}).encode()
    blobs["oci-layout"] = b'{"imageLayoutVersion": "1.0.0"}'
    with tarfile.open(path, "w") as archive:
        for name, content in blobs.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))


def _architecture() -> str:
    """Return the name that Go has for this machine's."""
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
