# SPDX-License-Identifier: Apache-2.0
"""A network with a real DHCP server, and the DHCP daemons that a test starts or ends."""

import os
import re
import struct
from pathlib import Path
from typing import Any

from tests.support.host.host import Container, Host
from tests.support.host.namespace import Process
from tests.support.plugins.cni import CHECKOUT
from tests.support.wait import wait_for as wait_for

SOCKET = "/run/cni/dhcp.sock"
LEASES = f"{SOCKET}.leases"
KEEPER = ("/usr/bin/python3", "-IS", str(CHECKOUT / "scripts" / "cnihook"), "dhcp-keeper")
CONF = {
    "cniVersion": "1.0.0",
    "name": "net1",
    "type": "bridge",
    "bridge": "cni0",
    "ipam": {"type": "dhcp"},
}


def network(*, version: str = "1.0.0", **ipam: Any) -> dict[str, Any]:
    """Return a network for the bridge plugin, or for the plugin dhcp alone if the link exists."""
    return CONF | {"cniVersion": version, "ipam": {"type": "dhcp"} | ipam}


def request(
    host: Host, command: str, conf: Any, container: Container | None, ifname: str = "eth0", **env: str
) -> Any:
    """Call the plugin dhcp itself, without an interface plugin."""
    return host.cni(command, conf, container, ifname, "dhcp", **env)


class Lan:
    """An existing bridge, and a machine on it that runs dnsmasq."""

    ADDRESS = "10.9.0.1"

    def __init__(self, host: Host, folder: Path) -> None:
        self.host = host
        self.folder = folder
        self.machine = host.container("lan")
        host.run(
            "ip",
            "-batch",
            "-",
            input="""\
link add cni0 address 02:00:00:00:00:01 type bridge
link set cni0 up
link add lan0 type veth peer name eth0 netns lan
link set lan0 master cni0 up
""",
        )
        self.machine.run("ip", "-batch", "-", input="link set eth0 up\naddress add 10.9.0.1/24 dev eth0\n")
        self.server: Process | None = None
        wait_for(lambda: host.link("lan0")["operstate"] == "UP", "the machine's port is up")

    def __enter__(self) -> "Lan":
        return self

    def __exit__(self, *_error: object) -> None:
        self.stop()

    def serve(
        self,
        *options: str,
        range: str = "10.9.0.10,10.9.0.99,255.255.255.0,2m",
        authoritative: bool = True,
    ) -> None:
        """Start dnsmasq, or restart it with other options.  Its leases are kept."""
        self.stop()
        self.log.write_text("")
        self.server = self.machine.popen(
            "dnsmasq",
            *("--conf-file=/dev/null", "--no-hosts", "--no-resolv", "--port=0", "--keep-in-foreground"),
            *("--interface=eth0", "--bind-interfaces", "--user=root", "--pid-file=", "--no-ping"),
            *("--log-dhcp", f"--log-facility={self.log}", f"--dhcp-leasefile={self.folder / 'leases'}"),
            *(f"--dhcp-range={range}", *["--dhcp-authoritative"][: int(authoritative)], *options),
        )
        wait_for(lambda: "DHCP, IP range" in self.log.read_text(), "dnsmasq serves")

    def plug(self, container: Container, ifname: str = "eth0") -> Container:
        """Give a container a link to the network, as an interface plugin does before it calls dhcp."""
        port = f"p-{container.name}-{ifname}"[-15:]
        self.host.run(
            "ip",
            "-batch",
            "-",
            input=f"""\
link add {port} type veth peer name {ifname} netns {container.name}
link set {port} master cni0 up
""",
        )
        container.ip("link", "set", ifname, "up")
        wait_for(lambda: self.host.link(port)["operstate"] == "UP", f"{port} is up")
        self.host.save_state()
        return container

    def crash(self, container: Container) -> None:
        """End a container that has a link to the network."""
        container.destroy()
        port = f"p-{container.name}-eth0"
        wait_for(lambda: port not in self.host.links(), f"{port} is gone")
        self.host.before = self.host.before.without(f"link {port} ")

    def stop(self) -> None:
        if self.server:
            self.server.terminate()
            self.server.wait(30)
            for stream in (self.server.stdout, self.server.stderr):
                assert stream
                stream.close()
            self.server = None

    @property
    def log(self) -> Path:
        return self.folder / "log"

    def seen(self, pattern: str) -> int:
        """Return how often the pattern is in the server's log."""
        return len(re.findall(pattern, self.log.read_text()))

    def wait_until_seen(self, pattern: str, times: int = 1) -> None:
        wait_for(lambda: self.seen(pattern) >= times, f"{pattern!r} {times} times in the server's log")

    def leases(self) -> dict[str, tuple[str, str, str]]:
        """Return MAC address, host name and client ID by address."""
        lines = (self.folder / "leases").read_text().splitlines()
        fields = [line.split() for line in lines]
        return {field[2]: (field[1], field[3], field[4]) for field in fields}


def keepers(host: Host) -> list[int]:
    """Return the PIDs of the DHCP daemons in a throw-away host, as programs there see them."""
    pids = []
    for line in host.run("ps", "-ewwo", "pid=,args=").stdout.splitlines():
        pid, _, command = line.strip().partition(" ")
        if "dhcp-keeper" in command:
            pids.append(int(pid))
    return pids


def end_keeper(host: Host, signal: str = "KILL") -> None:
    (pid,) = keepers(host)
    host.run("kill", f"-{signal}", str(pid))
    wait_for(lambda: not keepers(host), "the keeper has ended")


def start_keeper(host: Host, *options: str) -> Process:
    started = host.popen(*KEEPER, *options)
    wait_for(lambda: host.exists(SOCKET), "the keeper listens")
    return started


def lease_files(host: Host) -> list[str]:
    return host.listdir(LEASES)


def dns(result: Any) -> Any:
    return result.get("dns", {})


def address(result: Any) -> str:
    return str(result["ips"][0]["address"]).partition("/")[0]


def client_id(container: Container, network: str = "net1", ifname: str = "eth0") -> str:
    """Return the client ID as dnsmasq writes it."""
    return (b"\0" + f"{container.name}/{network}/{ifname}".encode())[:255].hex(":")


def reference_daemon(host: Host) -> Process:
    """Start the daemon that the reference plugin needs."""
    os.makedirs(host.root / "run/cni", exist_ok=True)
    daemon = host.popen("/usr/lib/cni/dhcp", "daemon")
    wait_for(lambda: host.exists(SOCKET), "the reference's daemon listens")
    return daemon


def frame(destination: str, payload: bytes) -> bytes:
    """Return an Ethernet frame to a DHCP client, from an arbitrary MAC address and 0.0.0.0."""
    udp = struct.pack("!HHHH", 67, 68, 8 + len(payload), 0) + payload
    ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0, bytes(4), b"\xff" * 4)
    return bytes.fromhex(destination.replace(":", "")) + b"\2" * 6 + b"\x08\0" + ip + udp


def leave_keeper(host: Host) -> None:
    """Let the leak check accept the DHCP daemon and the server, which end shortly after the last DEL."""
    files = (f"file {SOCKET}", "dir /run/cni", f"dir {LEASES}")
    host.leaves("process *dhcp-keeper*", "process dnsmasq *", *files)
