# SPDX-License-Identifier: Apache-2.0
"""Containers on the network `web`, which has most of the parts that can be lost, for tests of repair."""

import subprocess
from typing import Any

from tests.support.host import sockets
from tests.support.host.host import Host, Outside
from tests.support.host.namespace import base_environment
from tests.support.runtimes.oci import CNIHOOK, RESULTS, call_hook
from tests.support.wait import patience

PORT = 8080
WEB: dict[str, Any] = {
    "cniVersion": "1.0.0",
    "name": "web",
    "plugins": [
        {
            "type": "bridge",
            "bridge": "cni0",
            "isGateway": True,
            "hairpinMode": True,
            "ipMasq": True,
            "ipam": {
                "type": "host-local",
                "ranges": [[{"subnet": "10.22.0.0/24"}]],
                "routes": [{"dst": "0.0.0.0/0"}],
            },
        },
        {"type": "portmap", "capabilities": {"portMappings": True}},
        {"type": "bandwidth", "capabilities": {"bandwidth": True}},
        {"type": "firewall"},
        {"type": "tuning", "sysctl": {"net.ipv4.conf.IFNAME.arp_filter": "1"}},
    ],
}


def cnihook(host: Host, *argv: str) -> subprocess.CompletedProcess[str]:
    process = host.run(CNIHOOK, *argv, check=False)
    assert "Traceback" not in process.stderr, process.stderr
    return process


def repair(host: Host, *argv: str) -> list[str]:
    """Run repair and return its lines; then run it again, which must repair nothing."""
    first = cnihook(host, "repair", *(argv or ("--all",)))
    assert (first.returncode, first.stderr) == (0, "")
    again = cnihook(host, "repair", *(argv or ("--all",)))
    assert (again.returncode, again.stdout, again.stderr) == (0, "", "")
    return first.stdout.splitlines()


class WebContainer:
    """A process with a network namespace of its own, attached by the hook."""

    def __init__(self, host: Host, outside: Outside, name: str, *, plugins: str = "", **wants: str) -> None:
        self.host, self.outside, self.id = host, outside, name
        self.space = host.container(name, process=True)
        annotations = {f"cnihook.{word}": value for word, value in wants.items()}
        env = base_environment() | ({"CNI_PATH": plugins} if plugins else {})
        state = {"ociVersion": "1.0.2", "id": name, "pid": self.space.pid, "status": "creating"}
        process = call_hook(
            host, "createRuntime", state | {"bundle": "/", "annotations": annotations}, env=env
        )
        assert (process.returncode, process.stderr) == (0, ""), process.stderr
        self.identity = self.link()

    @classmethod
    def published(cls, host: Host, outside: Outside) -> "WebContainer":
        """Attach container c1 with a published port and a limit; both work."""
        container = cls(host, outside, "c1", publish=f"{PORT}:80", bandwidth="in=100M,out=100M")
        assert container.works() and container.is_published()
        return container

    def link(self) -> tuple[str, list[str]]:
        return self.space.link("eth0")["address"], self.space.addresses("eth0")

    @property
    def address(self) -> str:
        return self.identity[1][0].partition("/")[0]

    def reaches_outside(self, *, expected: bool = True) -> bool:
        """Return True if it reaches a machine outside, which must see the host's address.

        No machine outside has a route to the container's address.
        """
        timeout = patience(expected)
        try:
            return sockets.connect(self.space, self.outside, Outside.ADDRESS, timeout) == Outside.HOST
        except OSError:
            return False

    def is_published(self, *, expected: bool = True) -> bool:
        with self.space.socket() as listener, self.outside.socket() as client:
            listener.bind(("", 80))
            listener.listen()
            client.settimeout(patience(expected))
            try:
                client.connect((Outside.HOST, PORT))
            except OSError:
                return False
        return True

    def works(self) -> bool:
        """Check that address and MAC address are the same; return True if it reaches a machine outside."""
        assert self.link() == self.identity
        return self.reaches_outside()


def detach(*attached: WebContainer) -> None:
    for one in attached:
        assert cnihook(one.host, "detach", one.id).returncode == 0
        assert not one.host.exists(f"{RESULTS}/web-{one.id}-eth0")
