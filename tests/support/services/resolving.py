# SPDX-License-Identifier: Apache-2.0
"""Containers with names in their policy, the resolver of cnihook, and a machine with a DNS server."""

import json
import secrets
import socket
import subprocess
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from cnihook.resolver import denials, listing, message
from cnihook.resolver.denials import Denial
from cnihook.resolver.message import Question
from tests.support.host.host import Container, Host
from tests.support.host.namespace import Process
from tests.support.plugins.cni import CHECKOUT
from tests.support.wait import patience, wait_for

KEEPER = ("/usr/bin/python3", "-IS", str(CHECKOUT / "scripts" / "cnihook"), "dns-keeper")
FOLDER = "/run/cnihook/resolver"
SERVER, SERVER6 = "192.0.2.53", "2001:db8:53::53"
NET, NET6 = "203.0.113", "2001:db8:113::"  # all addresses of these are the machine's
GATEWAY, GATEWAY6 = "10.22.0.1", "fd00:22::1"
PORT = 8080  # of the machine's echo server

_SET = "n-test"
_CALL = f"""\
import sys
sys.path.insert(0, {str(CHECKOUT)!r})
from cnihook.fast.address import Address
from cnihook.keeper.client import DaemonError
from cnihook.resolver import service
from cnihook.resolver.listing import Listing, Names
try:
    CALL
except (DaemonError, OSError, ValueError) as error:
    sys.exit(str(error))
"""


class World:
    """A machine beyond the host, which has a DNS server, and a TCP server at each of its addresses."""

    def __init__(self, host: Host, folder: Path) -> None:
        self.host = host
        self.log = folder / "dnsmasq.log"
        self.server: Process | None = None
        self.machine = host.container("world")
        for space in (host, self.machine):
            space.set_sysctl("net/ipv6/conf/default/accept_dad", "0")
        host.run(
            "sh", "-c", "echo 1 | tee /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv6/conf/all/forwarding"
        )
        host.run(
            "ip",
            "-batch",
            "-",
            input=f"""\
link add world0 type veth peer name eth0 netns world
address add 192.0.2.1/24 dev world0
address add 2001:db8:53::1/64 dev world0 nodad
link set world0 up
link add cni0 type bridge
address add {GATEWAY}/24 dev cni0
address add {GATEWAY6}/64 dev cni0 nodad
link set cni0 up
""",
        )
        self.machine.run(
            "ip",
            "-batch",
            "-",
            input=f"""\
link set lo up
address add {SERVER}/24 dev eth0
address add {SERVER6}/64 dev eth0 nodad
link set eth0 up
route add default via 192.0.2.1
route add local {NET}.0/24 dev lo
route add default via 2001:db8:53::1
route add local {NET6}/64 dev lo
""",
        )
        host.run("ip", "route", "add", f"{NET}.0/24", "via", SERVER)
        host.run("ip", "-6", "route", "add", f"{NET6}/64", "via", SERVER6)
        host.write("/etc/resolv.conf", f"nameserver {SERVER}\n")
        host.leaves("*")
        self._echo = self.machine.socket(family=socket.AF_INET6)  # IPv4, too
        self._echo.settimeout(None)
        self._echo.bind(("::", PORT))
        self._echo.listen(128)
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        try:
            while True:
                threading.Thread(target=_echo, args=(self._echo.accept()[0],), daemon=True).start()
        except OSError:
            pass  # closed by stop()

    def serve(self, *options: str) -> None:
        """Start dnsmasq, or restart it with other names."""
        self.stop()
        self.log.write_text("")
        ttl = [] if any("--local-ttl" in option for option in options) else ["--local-ttl=3600"]
        self.server = self.machine.popen(
            "dnsmasq",
            *("--conf-file=/dev/null", "--no-hosts", "--no-resolv", "--keep-in-foreground", "--user=root"),
            *("--pid-file=", "--log-queries", f"--log-facility={self.log}", "--local=/#/", *ttl, *options),
        )
        wait_for(lambda: "started" in self.log.read_text(), "dnsmasq serves")

    def close(self) -> None:
        self.stop()
        self._echo.shutdown(socket.SHUT_RDWR)
        self._echo.close()

    def stop(self) -> None:
        if self.server:
            self.server.kill()
            self.server.communicate()
            self.server = None

    def was_asked(self, name: str) -> bool:
        return f"] {name} from" in self.log.read_text()


def _echo(connection: socket.socket) -> None:
    with connection:
        while data := connection.recv(1024):
            connection.sendall(data)


class Sandbox:
    """A container at the bridge cni0, and the rules that a policy with names has for it."""

    def __init__(self, host: Host, number: int = 2, *, set: str = _SET) -> None:
        self.host = host
        self.set = set
        self.address, self.address6 = f"10.22.0.{number}", f"fd00:22::{number}"
        self.container: Container = host.container()
        self.name = self.container.name
        self.container.set_sysctl("net/ipv6/conf/default/accept_dad", "0")
        host.run("ip", "-batch", "-", input=f"""\
link add p{number} type veth peer name eth0 netns {self.name}
link set p{number} master cni0 up
""")  # fmt: skip
        self.container.run("ip", "-batch", "-", input=f"""\
link set lo up
address add {self.address}/24 dev eth0
address add {self.address6}/64 dev eth0 nodad
link set eth0 up
route add default via {GATEWAY}
route add default via {GATEWAY6}
""")  # fmt: skip
        self.enforce()
        host.save_state()

    def enforce(self) -> None:
        own, own6, name = self.address, self.address6, self.name
        self.host.run("nft", "-f", "-", input=f"""\
table inet cnihook {{
  set {self.set}4 {{ type ipv4_addr; flags timeout; }}
  set {self.set}6 {{ type ipv6_addr; flags timeout; }}
  chain out-{name} {{
    ip daddr @{self.set}4 return
    ip6 daddr @{self.set}6 return
    reject with icmpx admin-prohibited
  }}
  chain forward-{name} {{
    type filter hook forward priority filter
    ct state established,related accept
    ip saddr {own} jump out-{name}
    ip6 saddr {own6} jump out-{name}
  }}
  chain input-{name} {{
    type filter hook input priority filter
    ct state established,related accept
    meta l4proto {{ tcp, udp }} th dport {listing.PORT} ip daddr {GATEWAY} accept
    meta l4proto {{ tcp, udp }} th dport {listing.PORT} ip6 daddr {GATEWAY6} accept
    icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert }} accept
    ip saddr {own} reject with icmpx admin-prohibited
    ip6 saddr {own6} reject with icmpx admin-prohibited
  }}
}}
""")  # fmt: skip

    def serve(
        self, *patterns: str, check: bool = True, **options: Any
    ) -> "subprocess.CompletedProcess[str]":
        return call(self.host, self._serving(*patterns, **options), check=check)

    def start(self, *patterns: str) -> Process:
        """Call serve(), and do not wait for its end."""
        return self.host.popen("/usr/bin/python3", "-ISc", _CALL.replace("CALL", self._serving(*patterns)))

    def _serving(self, *patterns: str, **options: Any) -> str:
        addresses, gateways = [self.address, self.address6], [GATEWAY, GATEWAY6]
        parts = [f"list(map(Address.parse, {one!r}))" for one in (addresses, gateways)]
        names = f"[Names({list(patterns)!r}, {self.set!r})]"
        return f"service.serve(Listing({self.name!r}, {', '.join(parts)}, {names}, **{options!r}))"

    def forget(self) -> None:
        call(self.host, f"service.forget({self.name!r})")

    def ask(
        self,
        name: str,
        kind: int = message.A,
        *,
        at: str = GATEWAY,
        tcp: bool = False,
        edns: bool = True,
        expected: bool = True,
    ) -> "Answer":
        """Ask at the gateway, as a C library does.  Raises OSError if no answer comes.

        `expected`: the test's expectation, which sets the timeout.
        """
        with self.open(at, tcp=tcp) as client:
            client.settimeout(patience(expected))
            return exchange(client, name, kind, tcp=tcp, edns=edns)

    def open(self, at: str = GATEWAY, *, tcp: bool = False) -> socket.socket:
        family = socket.AF_INET6 if ":" in at else socket.AF_INET
        client = self.container.socket(socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM, family)
        client.connect((at, 53))
        return client

    def reaches(self, address: str, port: int = PORT) -> bool:
        """Return True if a connection to the machine's echo server works; a rejected one fails at once."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with self.container.socket(family=family) as client:
            client.settimeout(patience())
            try:
                client.connect((address, port))
                client.sendall(b"x")
                return client.recv(1) == b"x"
            except (PermissionError, ConnectionError, OSError):
                return False

    def elements(self, version: int = 4) -> "dict[str, dict[str, Any]]":
        """Return what is open, as `nft -j` lists it, by address."""
        text = self.host.run("nft", "-j", "list", "set", "inet", "cnihook", f"{self.set}{version}").stdout
        (content,) = [one["set"] for one in json.loads(text)["nftables"] if "set" in one]
        return {one["elem"]["val"]: one["elem"] for one in content.get("elem", [])}

    def denied(self) -> "list[Denial]":
        path = denials.FOLDER
        denials.FOLDER = str(self.host.root / path[1:])
        try:
            return denials.read(self.name)
        finally:
            denials.FOLDER = path


class Answer:
    """An answer that a container got."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.question = message.read_question(data)
        self.rcode = self.question.rcode
        self.is_cut = bool(self.question.flags & message.IS_CUT)
        self.records = message.read_answers(data, self.question)
        self.addresses = [str(record.address) for record in self.records if record.address]
        self.ttls = {record.ttl for record in self.records}


def labels(name: str) -> "tuple[bytes, ...]":
    return tuple(label.encode() for label in name.split("."))


def query(name: str, kind: int = message.A, ident: int = 1, *, edns: bool = True) -> bytes:
    return message.query(Question(ident, message.RECURSION_DESIRED, labels(name), kind), edns=edns)


def exchange(client: socket.socket, name: str, kind: int, *, tcp: bool, edns: bool = True) -> Answer:
    ident = secrets.randbits(16)
    data = query(name, kind, ident, edns=edns)
    client.sendall((len(data).to_bytes(2, "big") if tcp else b"") + data)
    answer = Answer(received(client) if tcp else client.recv(0xFFFF))
    assert answer.question.ident == ident and answer.question.name == labels(name)
    return answer


def received(client: socket.socket) -> bytes:
    """Return one message of a TCP connection."""
    with client.makefile("rb", buffering=0) as stream:
        size = int.from_bytes(stream.read(2) or b"", "big")
        data = b""
        while len(data) < size and (part := stream.read(size - len(data))):
            data += part
    return data


def call(host: Host, code: str, *, check: bool = True) -> "subprocess.CompletedProcess[str]":
    """Call the service as code of policies does: in a process of the host."""
    return host.run("/usr/bin/python3", "-ISc", _CALL.replace("CALL", code), check=check)


def keepers(host: Host, command: str = "dns-keeper") -> "list[int]":
    """Return the PIDs of the resolvers in a throw-away host, as programs there see them."""
    lines = [line.split() for line in host.run("ps", "-ewwo", "pid=,args=").stdout.splitlines()]
    return [int(words[0]) for words in lines if command in words]


def end_keeper(host: Host, signal: str = "KILL", command: str = "dns-keeper") -> None:
    (pid,) = keepers(host, command)
    host.run("kill", f"-{signal}", str(pid))
    wait_for(lambda: not keepers(host, command), f"{command} has ended")


def records_of(names: "Iterable[tuple[str, Sequence[str]]]") -> "list[str]":
    """Return options of dnsmasq for names with addresses."""
    return [f"--host-record={name},{address}" for name, addresses in names for address in addresses]
