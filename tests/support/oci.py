# SPDX-License-Identifier: Apache-2.0
"""Real container runtimes inside a throw-away host, and bundles with our hook registered in them."""

import json
import shutil
import subprocess
import tempfile
import uuid
from pathlib import Path
from typing import Any

from tests.support.cni import CHECKOUT
from tests.support.host import Host
from tests.support.ipam import leased
from tests.support.namespace import Failed, Namespace, Process, end
from tests.support.skip import SEARCH, need, skip_or_fail
from tests.support.wait import wait_for as wait_for

RUNTIMES = ["runc", "crun"]
CNIHOOK = str(CHECKOUT / "scripts" / "cnihook")
FOR_EVER = ("sleep", "2147483647")

# What a runtime itself keeps when its last container is gone.
LEAVES = ["dir /run/runc", "dir /run/crun", "dir /run/crun/.cache", "file /run/crun/.cache/*"]

CAPABILITIES = ["CAP_NET_RAW", "CAP_NET_BIND_SERVICE", "CAP_KILL"]  # ping needs the first


def make_rootfs(folder: Path) -> Path:
    """All that the tests run in containers: one static busybox under its many names, only read."""
    need("busybox")
    busybox = shutil.which("busybox", path=SEARCH)
    assert busybox
    for name in ("bin", "proc", "dev", "sys", "etc", "tmp"):
        (folder / name).mkdir(parents=True)
    shutil.copy(busybox, folder / "bin" / "busybox")
    for name in ("sh", "sleep", "ping", "ip", "nc", "cat", "true", "wget"):
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
    """A network on a bridge of its own."""
    ipam = {"type": "host-local", "ranges": [[{"subnet": subnet}]]}
    plugin = {"type": "bridge", "bridge": f"br-{name}", "isGateway": True, "ipam": ipam}
    return {"cniVersion": "1.0.0", "name": name, "plugins": [plugin | keys]}


def configure(host: Host, *networks: str | dict[str, Any], **files: str) -> None:
    """Fill net.d: with 10-, 11-, … in the order of the networks, and with files by their own names."""
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
    """The hook alone, as a runtime would start it; `state` is what it finds on stdin, text or to be JSON.

    Whatever it is given: the exit code is one of three, stdout stays empty, each line on stderr is ours.
    """
    text = state if isinstance(state, str) else json.dumps(state)
    argv = [*launcher, "/usr/bin/python3", "-IS", CNIHOOK, event, *arguments]
    done = host.run(*argv, input=text, env=env, cwd=cwd, check=False)
    check_output(done)
    return done


def check_output(done: subprocess.CompletedProcess[str]) -> None:
    assert done.returncode in (0, 1, 2), done
    assert "Traceback" not in done.stderr, done.stderr
    assert done.stdout == "", done.stdout
    assert all(line.startswith("cnihook: ") for line in done.stderr.splitlines()), done.stderr
    if done.returncode:
        assert done.stderr.count("\n") >= 1, "a failure says why"


def external(host: Host, name: str, script: str, folder: str = "/run/.host/plugins") -> str:
    """An executable plugin, written for one test: a shell script.  Returns its folder, for CNI_PATH.

    Each time it runs it adds to calls(): its name and the command.  `prev` prints the previous result.
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
    """What external() plugins were asked so far: `name COMMAND`."""
    return [line.rpartition(" ")[0] for line in _calls(host, folder)]


def last_pid(host: Host, folder: str = "/run/.host/plugins") -> int:
    """The PID of the plugin that was called last."""
    return int(_calls(host, folder)[-1].rpartition(" ")[2])


def _calls(host: Host, folder: str) -> list[str]:
    return host.read(f"{folder}/calls").splitlines() if host.exists(f"{folder}/calls") else []


def hook(event: str, *arguments: str, env: dict[str, str] | None = None, timeout: int | None = None) -> Any:
    """Our hook, as a config.json has it."""
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
    """A container that runs: its network namespace, with the programs of the host to look at it."""

    def __init__(self, runtime: "Runtime", container_id: str, pid: int) -> None:
        host = runtime.host
        super().__init__(host.holder, f"{host.root}/proc/{pid}/ns/net", container_id)
        self.host = host
        self.runtime = runtime
        self.id = container_id
        self.pid = pid  # as the host sees it

    def exec(self, *argv: str) -> str:
        """Run a program of the container inside it, as its user would."""
        return self.runtime.call("exec", self.id, *argv).stdout

    @property
    def log(self) -> str:
        """What our log says of it."""
        path = f"/run/cnihook/log/{self.id}"
        return self.host.read(path) if self.host.exists(path) else ""

    @property
    def address(self) -> str:
        """Its first address on eth0."""
        return self.addresses("eth0")[0].partition("/")[0]

    def kill(self) -> None:
        """Kill its process and wait until it is gone; the runtime is not told."""
        kill(self.host, self.pid)


def kill(host: Host, pid: int) -> None:
    """Kill a process of the throw-away host, by its PID there, and wait until it is gone."""
    host.run("kill", "-9", str(pid))
    wait_for(lambda: not host.exists(f"/proc/{pid}"), f"the end of process {pid}")


def need_cgroups() -> None:
    if Path("/proc/self/uid_map").read_text().split() != ["0", "0", "4294967295"]:
        skip_or_fail("container runtimes make cgroups, which takes the machine's own root")


class Runtime:
    """One runtime on one throw-away host."""

    def __init__(self, host: Host, name: str, rootfs: Path) -> None:
        need(name)
        need_cgroups()
        self.host = host
        self.name = name
        self.program = name  # or one that passes for it
        self.rootfs = rootfs
        self.root = ""  # where it keeps its containers, if not where it usually does
        self._folder = tempfile.TemporaryDirectory(prefix="cnihook-bundles-")
        self._ids: list[str] = []
        # The machine's cgroups are shared by all tests that run at the time.
        self._cgroup = f"cnihook-{uuid.uuid4().hex[:12]}"
        host.leaves(*LEAVES)

    def close(self) -> None:
        """End what a failed test left running, and take away its cgroups, which are the machine's."""
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
        """The folder of a container with the hook at both ends; `arguments` are the hook's own.

        `network` is the entry among its namespaces, None for the host's.
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
                # Of its own: the runtime makes files in it, and ten containers share the root file system.
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
        """Add mounts, (path in the container, source), to what bundle() made; tmpfs is a source, too."""
        config = self.config(container_id)
        for path, source in mounts:
            kind = {"type": "tmpfs"} if source == "tmpfs" else {"type": "bind", "options": ["bind"]}
            config["mounts"].append({"destination": path, "source": source, **kind})
        (self.folder(container_id) / "config.json").write_text(json.dumps(config))

    def folder(self, container_id: str) -> Path:
        """The container's bundle."""
        return Path(self._folder.name) / container_id

    def remove_bundle(self, container_id: str) -> None:
        shutil.rmtree(self.folder(container_id))

    def run(self, container_id: str = "c1", *arguments: str, **options: Any) -> Running:
        """Start a container; see bundle().  Raises Failed, with what the runtime says, if it refuses."""
        self.bundle(container_id, *arguments, **options)
        starting = self.start(container_id)
        return self.started(container_id, starting)

    def create(self, container_id: str, *arguments: str, **options: Any) -> Running:
        """Make a container whose program waits to be started."""
        self.bundle(container_id, *arguments, **options)
        return self.started(container_id, self.start(container_id, "create"))

    def start(self, container_id: str, command: str = "run") -> Process:
        """Begin to start the container of a bundle."""
        folder = self.folder(container_id)
        self._ids.append(container_id)
        # A detached container has the runtime's stdout and stderr for as long as it runs, so no pipes.
        detach = ["--detach"] if command == "run" else []
        with open(folder / "output", "wb") as output:
            return self.host.popen(
                *self._argv, command, *detach, "--bundle", str(folder), container_id,
                stdout=output, stderr=output,
            )  # fmt: skip

    def started(self, container_id: str, starting: Process) -> Running:
        """Wait for what start() began."""
        status = starting.wait(30)
        output = (self.folder(container_id) / "output").read_text()
        end(starting)
        if status != 0:
            raise Failed([self.name, "run", container_id], status, "", output)
        return Running(self, container_id, self.state(container_id)["pid"])

    def state(self, container_id: str) -> Any:
        return json.loads(self.call("state", container_id).stdout)

    def delete(self, container_id: str) -> None:
        """End a container, whatever it is doing; its poststop hook has run when this returns."""
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
