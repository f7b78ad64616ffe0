# SPDX-License-Identifier: Apache-2.0
"""One process of the benchmark: the hook, or a plugin of the reference, in a namespace for a container."""

import json
import os
import statistics
import subprocess
import sys
import time
from typing import Any

CHECKOUT = os.path.realpath(f"{__file__}/../../../..")
PYTHON = ["/usr/bin/python3", "-IS"]
HOOK = [*PYTHON, f"{CHECKOUT}/scripts/cnihook"]
REFERENCE = "/usr/lib/cni"
NETWORK: dict[str, Any] = {
    "cniVersion": "1.0.0",
    "name": "bench",
    "type": "bridge",
    "bridge": "bench0",
    "isGateway": True,
    "ipMasq": True,
    "ipam": {"type": "host-local", "subnet": "10.99.0.0/16", "routes": [{"dst": "0.0.0.0/0"}]},
}
CHAIN: dict[str, Any] = {
    "cniVersion": "1.0.0",
    "name": "chain",
    "plugins": [
        {**{k: v for k, v in NETWORK.items() if k not in ("cniVersion", "name")}, "bridge": "chain0",
         "ipam": {**NETWORK["ipam"], "subnet": "10.98.0.0/16"}},
        {"type": "portmap", "capabilities": {"portMappings": True}},
        {"type": "firewall"},
        {"type": "tuning", "sysctl": {"net.core.somaxconn": "500"}},
    ],
}  # fmt: skip
CHAIN_FOLDER = "/etc/cni/chain.d"


class Sample:
    """The wall times of one kind of process, in ms."""

    def __init__(self) -> None:
        self.times: list[float] = []

    @property
    def median(self) -> float:
        return statistics.median(self.times)


def run(sample: "Sample | None", argv: "list[str]", stdin: str, **environment: str) -> float:
    """Run a program, with its stdout in /run/bench.stdout.  Returns its wall time in ms."""
    with open("/run/bench.stdin", "w") as file:
        file.write(stdin)
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, "/run/bench.stdin", os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, "/run/bench.stdout", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600),
    ]
    began = time.perf_counter()
    pid = os.posix_spawn(argv[0], argv, {**os.environ, **environment}, file_actions=actions)
    _pid, status = os.waitpid(pid, 0)
    duration = (time.perf_counter() - began) * 1000
    if status:
        with open("/run/bench.stdout") as file:
            sys.exit(f"bench: {' '.join(argv)} failed: {file.read()}")
    if sample:
        sample.times.append(duration)
    return duration


class Namespace:
    """A network namespace that stands for a container."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.process = subprocess.Popen(
            ["unshare", "-n", "setpriv", "--pdeathsig", "KILL", "sleep", "infinity"]
        )
        own = os.readlink("/proc/self/ns/net")
        while os.readlink(f"/proc/{self.process.pid}/ns/net") == own:
            time.sleep(0.002)
        self.path = f"/proc/{self.process.pid}/ns/net"
        self.result: "dict[str, object] | None" = None

    def hook(self, sample: "Sample | None", event: str, publish: str = "", **environment: str) -> None:
        """Run the hook.  `publish`: ports; with it the network is the chain."""
        state = {
            "ociVersion": "1.0.2",
            "id": self.name,
            "status": "creating",
            "pid": self.process.pid,
            "bundle": "/",
            "annotations": {"cnihook.publish": publish} if publish else {},
        }
        if publish:
            environment["NETCONFPATH"] = CHAIN_FOLDER
        run(sample, [*HOOK, event], json.dumps(state), **environment)

    def reference(self, sample: "Sample | None", command: str) -> None:
        variables = {
            "COMMAND": command,
            "CONTAINERID": self.name,
            "NETNS": self.path,
            "IFNAME": "eth9",
            "PATH": REFERENCE,
        }
        environment = {f"CNI_{key}": value for key, value in variables.items()}
        run(
            sample,
            [f"{REFERENCE}/bridge"],
            json.dumps({**NETWORK, "name": "reference", "bridge": "ref0"}),
            **environment,
        )

    def reference_chain(self, sample: "Sample | None", command: str, ports: range) -> None:
        """Run the plugins of the chain one after the other; only their own time counts."""
        variables = {
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": self.name,
            "CNI_NETNS": self.path,
            "CNI_IFNAME": "eth8",
            "CNI_PATH": REFERENCE,
        }
        plugins = CHAIN["plugins"] if command == "ADD" else CHAIN["plugins"][::-1]
        total = 0.0
        for plugin in plugins:
            conf = {"cniVersion": "1.0.0", "name": "refchain", **plugin}
            if plugin["type"] == "bridge":
                conf["bridge"] = "refchain0"
                conf["ipam"] = {**conf["ipam"], "subnet": "10.97.0.0/16"}
            if plugin["type"] == "portmap":
                mappings = [{"hostPort": p, "containerPort": p, "protocol": "tcp"} for p in ports]
                conf["runtimeConfig"] = {"portMappings": mappings}
            if self.result:
                conf["prevResult"] = self.result
            total += run(None, [f"{REFERENCE}/{plugin['type']}"], json.dumps(conf), **variables)
            if command == "ADD":
                with open("/run/bench.stdout") as file:
                    self.result = json.load(file)
        if command == "DEL":
            self.result = None
        if sample:
            sample.times.append(total)

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
