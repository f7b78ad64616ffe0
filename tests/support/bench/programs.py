# SPDX-License-Identifier: Apache-2.0
"""The programs that are compared: cnihook's hook, of one checkout or two, and the reference's plugins."""

import json
import os
import subprocess
from typing import Any

from tests.support.bench.machine import (
    FOLDERS,
    PLUGINS,
    Machine,
    Operation,
    Sandbox,
    Spawn,
    configuration,
    run,
)

PYTHON = ["/usr/bin/python3", "-IS"]
REFERENCE = "/usr/lib/cni"


class Container:
    """A container of the benchmark.  `ports` are published; only a chain can do that."""

    def __init__(self, name: str, network: str, ports: range) -> None:
        self.name = name
        self.network = network
        self.ports = ports
        self.sandbox: Sandbox | None = None
        self.result: dict[str, Any] | None = None


class Program:
    """A program that attaches containers, and the machine where it does."""

    def __init__(self, label: str) -> None:
        self.label = label
        self.machine = Machine()

    def new(self, name: str, network: str, ports: range = range(0)) -> Container:
        """Make a container that is not attached yet."""
        raise NotImplementedError

    def add(self, container: Container) -> Operation:
        raise NotImplementedError

    def delete(self, container: Container) -> Operation:
        raise NotImplementedError

    def kill(self, container: Container) -> None:
        """End the container's process, as before its poststop."""

    def discard(self, container: Container) -> None:
        """Remove what is left of a container after its DEL."""

    def end(self) -> None:
        self.machine.end()


class Hook(Program):
    """cnihook as a runtime starts it.  A container is a process, which has ended at poststop."""

    def __init__(self, label: str, checkout: str, plugin_dirs: str = "") -> None:
        super().__init__(label)
        self.checkout = checkout
        self.command = [*PYTHON, f"{checkout}/scripts/cnihook"]
        self._variables = {"CNI_PATH": plugin_dirs} if plugin_dirs else {}

    def new(self, name: str, network: str, ports: range = range(0)) -> Container:
        container = Container(name, network, ports)
        container.sandbox = Sandbox()
        return container

    def _event(self, event: str, container: Container) -> Operation:
        assert container.sandbox
        state: dict[str, Any] = {"ociVersion": "1.0.2", "id": container.name, "status": "creating"}
        state |= {"pid": container.sandbox.pid, "bundle": "/"}
        if container.ports:
            first, last = container.ports[0], container.ports[-1]
            publish = f"{first}-{last}:{first}-{last}" if last > first else f"{first}:80"
            state["annotations"] = {"cnihook.publish": publish}
        variables = {"NETCONFPATH": FOLDERS[container.network], **self._variables}
        yield Spawn([*self.command, event], json.dumps(state), variables)

    def add(self, container: Container) -> Operation:
        return self._event("createRuntime", container)

    def delete(self, container: Container) -> Operation:
        return self._event("poststop", container)

    def kill(self, container: Container) -> None:
        assert container.sandbox
        container.sandbox.end()


class Reference(Program):
    """The reference's plugins, started directly: what a runtime costs in addition is left out.

    A container is a namespace with a name, because runtimes that call these plugins keep one for DEL.
    """

    def __init__(self, label: str, folder: str) -> None:
        super().__init__(label)
        self._folder = folder

    def new(self, name: str, network: str, ports: range = range(0)) -> Container:
        run("ip", "netns", "add", name)
        return Container(name, network, ports)

    def _call(self, command: str, container: Container) -> Operation:
        variables = {"COMMAND": command, "CONTAINERID": container.name, "IFNAME": "eth0"}
        variables |= {"NETNS": f"/run/netns/{container.name}", "PATH": self._folder}
        environment = {f"CNI_{key}": value for key, value in variables.items()}
        plugins = PLUGINS[container.network]
        for plugin in plugins if command == "ADD" else plugins[::-1]:
            conf = configuration(container.network, plugin)
            if "capabilities" in plugin:
                ports = [(port, 80 if len(container.ports) == 1 else port) for port in container.ports]
                mappings = [{"hostPort": o, "containerPort": i, "protocol": "tcp"} for o, i in ports]
                conf["runtimeConfig"] = {"portMappings": mappings}
            if container.result:
                conf["prevResult"] = container.result
            printed = yield Spawn([f"{self._folder}/{plugin['type']}"], json.dumps(conf), environment)
            if command == "ADD":
                container.result = json.loads(printed)

    def add(self, container: Container) -> Operation:
        container.result = None
        return self._call("ADD", container)

    def delete(self, container: Container) -> Operation:
        return self._call("DEL", container)

    def discard(self, container: Container) -> None:
        run("ip", "netns", "delete", container.name)


def version_of(folder: str) -> str:
    """Return what the reference's plugins say about themselves."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("CNI_")}
    argv = [f"{folder}/bridge"]
    process = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=environment)
    return ", ".join((process.stdout + process.stderr).strip().splitlines())
