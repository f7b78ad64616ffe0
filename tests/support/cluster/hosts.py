# SPDX-License-Identifier: Apache-2.0
"""Hosts of a cluster: throw-away hosts on one switch, and etcd on another one, with which all can talk."""

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.support.cluster.etcd import Etcd
from tests.support.host.host import Container, Host
from tests.support.host.namespace import Process
from tests.support.plugins.cni import CHECKOUT
from tests.support.wait import wait_for

PROGRAM = ("/usr/bin/python3", "-IS", str(CHECKOUT / "scripts" / "cnihook"))
NETWORK = "wide"
ETCD = "172.16.0.100"
FOLDER = f"/var/lib/cnihook/cluster/{NETWORK}"


class ClusterHost:
    """One host, with its name, its machine ID, and its address 172.16.0.N on the switch."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.name = f"h{number}"
        self.machine_id = f"{number:032x}"
        self.address = f"172.16.0.{number}"
        self.host = Host()
        self.agent: Process | None = None
        self.host.write("/etc/machine-id", f"{self.machine_id}\n")

    def command(self, *argv: str) -> str:
        """Run a command of cnihook, which must succeed; return its output."""
        return self.host.run(*PROGRAM, *argv).stdout

    def refusal(self, *argv: str) -> str:
        """Run a command of cnihook, which must fail; return its error."""
        with self.host.popen(*PROGRAM, *argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            out, error = process.communicate(timeout=60)
            assert process.returncode == 1, (out, error)
            return error

    def join(self, *options: str, url: str = f"http://{ETCD}:2379") -> None:
        self.command("cluster", "join", NETWORK, "--etcd", url, *options)

    def start_agent(self, program: Sequence[str] = PROGRAM) -> None:
        script = f'hostname {self.name}; exec "$@" 2>> /run/agent.log'
        self.agent = self.host.popen("unshare", "--uts", "sh", "-c", script, "sh", *program, "agent")

    def kill_agent(self) -> None:
        if self.agent:
            self.agent.kill()
            self.agent.wait()
            self.agent = None

    def stop_agent(self) -> None:
        """End the agent as systemd does."""
        assert self.agent
        self.agent.terminate()
        assert self.agent.wait(30) == 0
        self.agent = None

    def log(self) -> str:
        path = self.host.root / "run/agent.log"
        return path.read_text() if path.exists() else ""

    def status(self) -> dict[str, Any]:
        """Return what `cnihook cluster status` says, right or wrong."""
        argv = (*PROGRAM, "cluster", "status", NETWORK, "--json")
        with self.host.popen(*argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            out, error = process.communicate(timeout=60)
        assert not error and process.returncode in (0, 1), error
        (report,) = json.loads(out)
        assert process.returncode == bool(report["problems"])
        report_: dict[str, Any] = report
        return report_

    def figures(self) -> dict[str, float]:
        """Return the numbers of `cnihook metrics` about the network, without the prefix of their names."""
        start, labels = "cnihook_cluster_", f'{{network="{NETWORK}"}}'
        samples = [line.split() for line in self.command("metrics").splitlines() if line.startswith(start)]
        return {name.removeprefix(start).removesuffix(labels): float(value) for name, value in samples}

    def file(self, name: str) -> dict[str, Any]:
        path = self.host.root / f"{FOLDER}/{name}".lstrip("/")
        try:
            content: dict[str, Any] = json.loads(path.read_text())
        except FileNotFoundError:
            return {}
        return content

    @property
    def block(self) -> str:
        """The IPv4 block, as host-local reads it; empty without one."""
        blocks = self.file("block.json").get("blocks")
        return str(blocks[0]) if blocks else ""

    @property
    def reported(self) -> dict[str, Any]:
        """The agent's report of itself."""
        path = self.host.root / f"run/cnihook/cluster/{NETWORK}.json"
        try:
            content: dict[str, Any] = json.loads(path.read_text())
        except FileNotFoundError:
            return {}
        return content

    def routes(self) -> list[str]:
        """Return the destinations of the agent's routes to other hosts."""
        # Not as JSON: there, the destination of the encapsulation hides that of the route.
        listed = self.host.run("ip", "route", "show", "proto", "117").stdout.splitlines()
        return sorted(line.split()[0] for line in listed if not line.startswith("unreachable"))

    def start(self, name: str) -> "Peer":
        """Start a container on the network."""
        container = self.host.container(name)
        result = json.loads(self.command("add", NETWORK, container.path))
        return Peer(container, *(ip["address"].partition("/")[0] for ip in result["ips"]))


class Peer:
    """A container of a cluster host, and its addresses."""

    def __init__(self, container: Container, address: str, address6: str = "") -> None:
        self.container = container
        self.address = address
        self.address6 = address6

    def reaches(self, other: "Peer | str") -> bool:
        address = other if isinstance(other, str) else other.address
        return self._ping(address) == 0

    def _ping(self, address: str) -> int:
        argv = ("ping", "-c", "1", "-W", "1", address)
        with self.container.popen(*argv, stdout=subprocess.DEVNULL) as process:
            return process.wait(20)

    def stream(self, other: "Peer") -> "Stream":
        return Stream(self.container, other.address)


class Stream:
    """Pings that go on while something happens; no more than `lost` of them may have no answer."""

    def __init__(self, container: Container, address: str) -> None:
        argv = ("ping", "-i", "0.1", "-W", "1", address)
        self._process = container.popen(*argv, stdout=subprocess.PIPE)

    def end(self) -> tuple[int, int]:
        """Stop it.  Returns the numbers of requests and answers."""
        self._process.send_signal(2)
        out, _ = self._process.communicate(timeout=20)
        (line,) = [line for line in out.splitlines() if "packets transmitted" in line]
        sent, received = (int(part.split()[0]) for part in line.split(",")[:2])
        return sent, received


class Cluster:
    """A switch with etcd, and hosts on it."""

    def __init__(self, folder: Path, count: int) -> None:
        self.switch = Host()
        self.switch.run("ip", "-batch", "-", input=f"""\
link add sw address 02:00:00:00:00:64 type bridge forward_delay 0
address add {ETCD}/24 dev sw
link set sw up
""")  # fmt: skip
        self.hosts: list[ClusterHost] = []
        self.etcd = Etcd(folder, address=ETCD, on=self.switch)
        for _ in range(count):
            self.add()

    def __enter__(self) -> Self:
        self.etcd.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for one in self.hosts:
            one.kill_agent()
            one.host.__exit__(kind, error, trace)
        self.etcd.kill()
        self.switch.__exit__(kind, error, trace)

    def add(self) -> ClusterHost:
        """Add a host to the switch."""
        one = ClusterHost(len(self.hosts) + 1)
        self.hosts.append(one)
        number, port = one.number, f"port{one.number}"
        # The ends have different indexes; see Host.outside().
        self._ip(
            "link", "add", "eth0", "index", str(2000 + number), "netns", str(one.host.holder),
            "type", "veth", "peer",
            "name", port, "index", str(1000 + number), "netns", str(self.switch.holder),
        )  # fmt: skip
        self.switch.run("ip", "link", "set", port, "up", "master", "sw")
        one.host.run("ip", "-batch", "-", input=f"""\
address add {one.address}/24 dev eth0
link set eth0 up
""")  # fmt: skip
        reach = ("ping", "-c", "1", "-W", "1", ETCD)
        wait_for(lambda: one.host.run(*reach, check=False).returncode == 0, "the port of the switch")
        return one

    @staticmethod
    def _ip(*argv: str) -> None:
        subprocess.run(["ip", *argv], check=True)

    def cut(self, one: ClusterHost, *others: str, only: Sequence[str] = ("",)) -> None:
        """Drop what a host sends to these addresses, and what they send to it; `only`: of these packets."""
        rules = "".join(
            f"add rule inet cut {chain} ip {way} {address} {kind} drop\n"
            for address in others
            for chain, way in (("out", "daddr"), ("in", "saddr"))
            for kind in only
        )
        one.host.run(
            "nft",
            "-f",
            "-",
            input=f"""\
add table inet cut
add chain inet cut out {{ type filter hook output priority -500; }}
add chain inet cut in {{ type filter hook prerouting priority -500; }}
{rules}""",
        )

    def heal(self, one: ClusterHost) -> None:
        one.host.run("nft", "delete", "table", "inet", "cut")


def wait_for_routes(hosts: Sequence[ClusterHost]) -> None:
    """Wait until each of these hosts has routes to the blocks of the others, and to no more."""

    def right() -> bool:
        blocks = {one.block for one in hosts}
        return "" not in blocks and all(set(one.routes()) == blocks - {one.block} for one in hosts)

    wait_for(right, lambda: f"routes: {[(one.name, one.block, one.routes(), one.log()) for one in hosts]}")
