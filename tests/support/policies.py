# SPDX-License-Identifier: Apache-2.0
"""Containers with policies on a throw-away host, and the connections that they have or do not have."""

import json
import socket
import subprocess
from typing import Any

from tests.support.commands.repair import cnihook
from tests.support.host.host import ACCEPT_DAD, Host
from tests.support.host.namespace import Namespace
from tests.support.runtimes.oci import call_hook
from tests.support.wait import patience

FOLDER = "/etc/cnihook/policy.d"
LEAVES = ("dir /etc/cnihook", f"dir {FOLDER}", f"file {FOLDER}/*")
_BR_NETFILTER = (
    "for i in /proc/sys/net/bridge/bridge-nf-call-*tables; do echo {} > $i; done 2>/dev/null; true"
)
NO_BR_NETFILTER, WITH_BR_NETFILTER = (_BR_NETFILTER.format(value) for value in (0, 1))


def network(kind: str = "bridge", name: str = "front", number: int = 7, **keys: Any) -> dict[str, Any]:
    """Return a network of both IP versions."""
    ipam = {
        "type": "host-local",
        "ranges": [[{"subnet": f"10.{number}.0.0/24"}], [{"subnet": f"fd0{number}::/64"}]],
        "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
    }
    plugin: dict[str, Any] = {"type": kind, "ipam": ipam, "ipMasq": True}
    if kind == "bridge":
        plugin |= {"bridge": f"br-{name}", "isGateway": True}
    return {"cniVersion": "1.0.0", "name": name, "plugins": [plugin | keys, {"type": "portmap",
            "capabilities": {"portMappings": True}}]}  # fmt: skip


class Sandbox:
    """A container that the hook has attached, with one address of each IP version."""

    def __init__(self, host: Host, name: str, bundle: str = "/", **wants: str) -> None:
        self.host = host
        self.id = name
        self.space = host.container(name, process=True)
        self.space.set_sysctl(ACCEPT_DAD, "0")
        process = self.start(bundle, **wants)
        assert (process.returncode, process.stderr) == (0, "")
        addresses = [each.partition("/")[0] for each in self.space.addresses("eth0")]
        self.v4 = next(each for each in addresses if "." in each)
        self.v6 = next(each for each in addresses if ":" in each)

    def start(self, bundle: str = "/", **wants: str) -> subprocess.CompletedProcess[str]:
        return start(self.host, self.id, self.space, bundle, **wants)

    def stop(self) -> None:
        state = {"ociVersion": "1.0.2", "id": self.id, "pid": 0, "status": "stopped", "bundle": "/"}
        self.space.destroy()
        assert call_hook(self.host, "poststop", state).returncode == 0

    def address(self, version: int) -> str:
        return self.v4 if version == 4 else self.v6


def start(
    host: Host, name: str, space: Any, bundle: str = "/", **wants: str
) -> subprocess.CompletedProcess[str]:
    annotations = {f"cnihook.{word.replace('_', '-')}": value for word, value in wants.items()}
    state = {"ociVersion": "1.0.2", "id": name, "pid": space.pid, "status": "creating", "bundle": bundle}
    return call_hook(host, "createRuntime", state | {"annotations": annotations})


def refusal(host: Host, name: str, bundle: str = "/", **wants: str) -> str:
    """Start a container that must not start; return the one line that the hook prints."""
    process = start(host, name, host.container(name, process=True), bundle, **wants)
    assert process.returncode == 1
    (line,) = process.stderr.splitlines()
    return line


def tcp(client: Namespace, server: Namespace, address: str, port: int, *, expected: bool) -> bool:
    """Return True if a connection is accepted; a port can be used again at once."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with server.socket(family=family) as listener, client.socket(family=family) as one:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind(("", port))
        listener.listen()
        one.settimeout(patience(expected))
        return one.connect_ex((address, port)) == 0


def policy(host: Host, *argv: str, status: int = 0, text: str | None = None) -> list[str]:
    """Run `cnihook policy`; return the lines on stdout, or on stderr if it fails."""
    if text is None:
        process = cnihook(host, "policy", *argv)
    else:
        host.write("/run/.host/policy.json", text)
        process = cnihook(host, "policy", *argv, "/run/.host/policy.json")
    assert process.returncode == status, process
    return (process.stderr if status == 1 else process.stdout).splitlines()


def apply(
    host: Host, *policies: dict[str, Any], options: tuple[str, ...] = (), status: int = 0
) -> list[str]:
    return policy(host, "apply", *options, text=json.dumps(policies), status=status)
