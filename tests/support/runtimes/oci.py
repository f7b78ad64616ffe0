# SPDX-License-Identifier: Apache-2.0
"""Real container runtimes inside a throw-away host, and bundles in which the hook is registered."""

import json
import shutil
import subprocess
import tempfile
import uuid
from pathlib import Path
from typing import Any

from tests.support.host.host import Host
from tests.support.host.namespace import Failed, Namespace, Process, end
from tests.support.plugins.cni import CHECKOUT
from tests.support.plugins.ipam import leased
from tests.support.skip import SEARCH, need, skip_or_fail
from tests.support.wait import wait_for as wait_for

RUNTIMES = ["runc", "crun"]
CNIHOOK = str(CHECKOUT / "scripts" / "cnihook")
FOR_EVER = ("sleep", "2147483647")

# A runtime keeps these when its last container is gone.
LEAVES = ["dir /run/runc", "dir /run/crun", "dir /run/crun/.cache", "file /run/crun/.cache/*"]

CAPABILITIES = ["CAP_NET_RAW", "CAP_NET_BIND_SERVICE", "CAP_KILL"]  # ping needs the first


def make_rootfs(folder: Path) -> Path:
    """Make a root file system for containers: a static busybox with links for its programs."""
    need("busybox")
    busybox = shutil.which("busybox", path=SEARCH)
    assert busybox
    for name in ("bin", "proc", "dev", "sys", "etc", "tmp"):
        (folder / name).mkdir(parents=True)
    shutil.copy(busybox, folder / "bin" / "busybox")
    for name in ("sh", "sleep", "ping", "ip", "nc", "cat", "true", "wget", "httpd"):
        (folder / "bin" / name).symlink_to("busybox")
    return folder


MYNET = """\
{"cniVersion":"0.2.0","name":"mynet","type":"bridge","bridge":"cni0","isGateway":true,"ipMasq":true,
 "ipam":{"type":"host-local","subnet":"10.22.0.0/16","routes":[{"dst":"0.0.0.0/0"}]}}
"""
LOOPBACK = """{"cniVersion":"0.2.0","type":"loopback"}
"""
NET_D = "/etc/cni/net.d"
RESULTS = "/var/lib/cni/results"
NETWORKS = "/var/lib/cni/networks"


def bridge(name: str, subnet: str, **keys: Any) -> dict[str, Any]:
    """Return a network on a bridge of its own."""
    ipam = {"type": "host-local", "ranges": [[{"subnet": subnet}]]}
    plugin = {"type": "bridge", "bridge": f"br-{name}", "isGateway": True, "ipam": ipam}
    return {"cniVersion": "1.0.0", "name": name, "plugins": [plugin | keys]}


def configure(host: Host, *networks: str | dict[str, Any], **files: str) -> None:
    """Write networks into net.d, as 10-, 11-, … in their order, and other files under their own names."""
    for number, network in enumerate(networks, 10):
        text = network if isinstance(network, str) else json.dumps(network)
        host.write(f"{NET_D}/{number}-net.conflist", text)
    for name, text in files.items():
        host.write(f"{NET_D}/{name}", text)
    host.leaves(f"file {NET_D}/*")


def leases(host: Host, network: str = "mynet") -> list[str]:
    return leased(host, f"{NETWORKS}/{network}")


def call_hook(
    host: Host,
    event: str,
    state: Any,
    *arguments: str,
    env: dict[str, str] | None = None,
    cwd: str = "/",
    launcher: tuple[str, ...] = (),
) -> subprocess.CompletedProcess[str]:
    """Run the hook itself, in `launcher` as a runtime starts it.  `state`: its stdin, as text or as a value
    for JSON.

    For any state the exit code must be 0, 1 or 2, stdout empty, and each line on stderr of cnihook.
    """
    text = state if isinstance(state, str) else json.dumps(state)
    start = (*launcher, "/usr/bin/python3", "-IS") if launcher else ()
    argv = [*start, CNIHOOK, event, *arguments]
    process = host.run(*argv, input=text, env=env, cwd=cwd, check=False)
    check_output(process)
    return process


def check_output(done: subprocess.CompletedProcess[str]) -> None:
    assert done.returncode in (0, 1, 2), done
    assert "Traceback" not in done.stderr, done.stderr
    assert done.stdout == "", done.stdout
    assert all(line.startswith("cnihook: ") for line in done.stderr.splitlines()), done.stderr
    if done.returncode:
        assert done.stderr.count("\n") >= 1, "a failure must print its reason"


def external(host: Host, name: str, script: str, folder: str = "/run/.host/plugins") -> str:
    """Write an executable plugin for one test: a shell script.  Returns its folder for CNI_PATH.

    Each call adds the plugin's name and the command to calls().  `prev` prints the previous result.
    """
    need("jq")
    host.write(f"{folder}/{name}", PLUGIN.format(name=name, script=script, folder=folder), 0o755)
    return folder


PLUGIN = """\
#!/bin/sh
stdin=$(cat)
echo "{name} $CNI_COMMAND $$" >> {folder}/calls
prev() {{ printf '%s' "$stdin" | jq -c '.prevResult // {{cniVersion}}'; }}
{script}
"""
PASS_ON = "if [ $CNI_COMMAND = ADD ]; then prev; fi"


def calls(host: Host, folder: str = "/run/.host/plugins") -> list[str]:
    """Return the calls of external() plugins so far, as `name COMMAND`."""
    return [line.rpartition(" ")[0] for line in _calls(host, folder)]


def last_pid(host: Host, folder: str = "/run/.host/plugins") -> int:
    """Return the PID of the plugin that was called last."""
    return int(_calls(host, folder)[-1].rpartition(" ")[2])


def _calls(host: Host, folder: str) -> list[str]:
    return host.read(f"{folder}/calls").splitlines() if host.exists(f"{folder}/calls") else []


def hook(event: str, *arguments: str, env: dict[str, str] | None = None, timeout: int | None = None) -> Any:
    """Return the hook's entry for config.json."""
    entry: dict[str, Any] = {
        "path": "/usr/bin/python3",
        "args": ["python3", "-IS", CNIHOOK, event, *arguments],
    }
    if env is not None:
        entry["env"] = [f"{key}={value}" for key, value in env.items()]
    if timeout is not None:
        entry["timeout"] = timeout
    return entry


class Running(Namespace):
    """A running container: its network namespace, in which programs of the host can run."""

    def __init__(self, runtime: "Runtime", container_id: str, pid: int) -> None:
        host = runtime.host
        super().__init__(host.holder, f"{host.root}/proc/{pid}/ns/net", container_id)
        self.host = host
        self.runtime = runtime
        self.id = container_id
        self.pid = pid  # as the host sees it

    def exec(self, *argv: str) -> str:
        """Run a program of the container inside it, by the runtime's `exec`."""
        return self.runtime.call("exec", self.id, *argv).stdout

    @property
    def log(self) -> str:
        """The container's log of cnihook."""
        path = f"/run/cnihook/log/{self.id}"
        return self.host.read(path) if self.host.exists(path) else ""

    @property
    def address(self) -> str:
        """The first address of eth0."""
        return self.addresses("eth0")[0].partition("/")[0]

    def kill(self) -> None:
        """Kill its process, without the runtime, and wait until it is gone."""
        kill(self.host, self.pid)


def kill(host: Host, pid: int) -> None:
    """Kill a process of the throw-away host, by its PID there, and wait until it is gone."""
    host.run("kill", "-9", str(pid))
    wait_for(lambda: not host.exists(f"/proc/{pid}"), f"the end of process {pid}")


def need_cgroups() -> None:
    if Path("/proc/self/uid_map").read_text().split() != ["0", "0", "4294967295"]:
        skip_or_fail("container runtimes create cgroups, which only the machine's own root can do")


class Runtime:
    """One runtime on one throw-away host."""

    def __init__(self, host: Host, name: str, rootfs: Path) -> None:
        need(name)
        need_cgroups()
        self.host = host
        self.name = name
        self.program = name  # or another program with the same interface
        self.rootfs = rootfs
        self.root = ""  # the folder of its containers, if not the default one
        self._folder = tempfile.TemporaryDirectory(prefix="cnihook-bundles-")
        self._ids: list[str] = []
        # All running tests share the machine's cgroups.
        self._cgroup = f"cnihook-{uuid.uuid4().hex[:12]}"
        host.leaves(*LEAVES)

    def close(self) -> None:
        """End the containers that a failed test left, and remove their cgroups, which are the machine's."""
        for container_id in self._ids:
            self.host.run(*self._argv, "delete", "--force", container_id, check=False)
        for version in ("", "*/"):  # one hierarchy, or one for each controller
            for path in Path("/sys/fs/cgroup").glob(f"{version}{self._cgroup}*"):
                path.rmdir()
        self._folder.cleanup()

    def bundle(
        self,
        container_id: str,
        *arguments: str,
        command: tuple[str, ...] = FOR_EVER,
        hooks: Any = None,
        annotations: dict[str, str] | None = None,
        network: dict[str, str] | None = {"type": "network"},  # noqa: B006
        hostname: str = "container",
        **hook_options: Any,
    ) -> Path:
        """Write a bundle with the hook for both events.  Returns its folder.

        `arguments`: options of the hook.  `network`: the entry in `namespaces`, None for the host's network.
        """
        if hooks is None:
            hooks = {
                "createRuntime": [hook("createRuntime", *arguments, **hook_options)],
                "poststop": [hook("poststop", *arguments, **hook_options)],
            }
        namespaces = [{"type": kind} for kind in ("pid", "ipc", "uts", "mount")]
        config = {
            "ociVersion": "1.0.2",
            "process": {
                "user": {"uid": 0, "gid": 0},
                "args": list(command),
                "env": ["PATH=/bin"],
                "cwd": "/",
                "capabilities": {kind: CAPABILITIES for kind in ("bounding", "effective", "permitted")},
            },
            "root": {"path": str(self.rootfs), "readonly": True},
            "hostname": hostname,
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc"},
                # Each container has its own /dev: runtimes create files there, and the root is shared.
                {
                    "destination": "/dev",
                    "type": "tmpfs",
                    "source": "tmpfs",
                    "options": ["mode=755", "size=64k"],
                },
            ],
            "hooks": hooks,
            "linux": {
                "namespaces": [*namespaces, *([network] if network else [])],
                "cgroupsPath": f"/{self._cgroup}-{container_id}",
            },
        }
        if annotations is not None:
            config["annotations"] = annotations
        folder = self.folder(container_id)
        folder.mkdir(exist_ok=True)
        (folder / "config.json").write_text(json.dumps(config))
        return folder

    def config(self, container_id: str) -> Any:
        return json.loads((self.folder(container_id) / "config.json").read_text())

    def mount(self, container_id: str, *mounts: tuple[str, str]) -> None:
        """Add mounts, (path in the container, source), to a bundle.  The source can be tmpfs."""
        config = self.config(container_id)
        for path, source in mounts:
            kind = {"type": "tmpfs"} if source == "tmpfs" else {"type": "bind", "options": ["bind"]}
            config["mounts"].append({"destination": path, "source": source, **kind})
        (self.folder(container_id) / "config.json").write_text(json.dumps(config))

    def folder(self, container_id: str) -> Path:
        """Return the path of the container's bundle."""
        return Path(self._folder.name) / container_id

    def remove_bundle(self, container_id: str) -> None:
        shutil.rmtree(self.folder(container_id))

    def run(self, container_id: str = "c1", *arguments: str, **options: Any) -> Running:
        """Start a container; see bundle().  Raises Failed with the runtime's output if it fails."""
        self.bundle(container_id, *arguments, **options)
        starting = self.start(container_id)
        return self.started(container_id, starting)

    def create(self, container_id: str, *arguments: str, **options: Any) -> Running:
        """Create a container without starting its program."""
        self.bundle(container_id, *arguments, **options)
        return self.started(container_id, self.start(container_id, "create"))

    def start(self, container_id: str, command: str = "run") -> Process:
        """Start the runtime for a bundle, and do not wait for it."""
        folder = self.folder(container_id)
        self._ids.append(container_id)
        # No pipes, because a detached container keeps the runtime's stdout and stderr while it runs.
        detach = ["--detach"] if command == "run" else []
        options = ("--bundle", str(folder), "--pid-file", str(folder / "pid"))
        with open(folder / "output", "wb") as output:
            return self.host.popen(
                *self._argv, command, *detach, *options, container_id, stdout=output, stderr=output
            )

    def started(self, container_id: str, starting: Process) -> Running:
        """Wait until the runtime that start() has started is done."""
        status = starting.wait(30)
        output = (self.folder(container_id) / "output").read_text()
        end(starting)
        if status != 0:
            raise Failed([self.name, "run", container_id], status, "", output)
        return Running(self, container_id, int((self.folder(container_id) / "pid").read_text()))

    def state(self, container_id: str) -> Any:
        return json.loads(self.call("state", container_id).stdout)

    def delete(self, container_id: str) -> None:
        """End a container in any state.  Its poststop hook has run when this returns."""
        self._ids = [known for known in self._ids if known != container_id]
        self.call("delete", "--force", container_id)

    def delete_at_once(self, container_ids: list[str]) -> None:
        self._ids = [known for known in self._ids if known not in container_ids]
        ending = [
            self.host.popen(*self._argv, "delete", "--force", container_id) for container_id in container_ids
        ]
        for process in ending:
            _, stderr = process.communicate(timeout=30)
            assert (process.returncode, stderr) == (0, "")
        self.host.wait_for_endings()

    def delete_all(self) -> None:
        for container_id in reversed(self._ids[:]):
            self.delete(container_id)

    def knows(self, container_id: str) -> bool:
        return self.host.run(*self._argv, "state", container_id, check=False).returncode == 0

    def call(self, *argv: str) -> subprocess.CompletedProcess[str]:
        return self.host.run(*self._argv, *argv)

    @property
    def _argv(self) -> list[str]:
        return [self.program, *(["--root", self.root] if self.root else [])]
