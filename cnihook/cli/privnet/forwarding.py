# SPDX-License-Identifier: Apache-2.0
"""
`priv-net-run --publish` for an ordinary user: two steps from a port of the host to the command.

    host        pasta or slirp4netns listens on the port, and passes it on, with the same number
    outer       the namespace that plays the host: the plugin portmap publishes the port there
    command     the port that was requested

The ports are chosen on the host, where they must be free.  The address of the host is only for the first
step: in the outer namespace, the port is published on each address.
"""

import errno
import os
import socket
import time

from cnihook.cli.privnet.options import Options, UsageError
from cnihook.container import attach
from cnihook.doctor.finding import has_version
from cnihook.fast import fastjson
from cnihook.links import ready
from cnihook.linux import netlink
from cnihook.linux.netns import NetNS
from cnihook.request.options import OPTIONS, option_for
from cnihook.request.request import ContainerRequest
from cnihook.request.resolve import choose_host_ports
from cnihook.runtime.settings import Settings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_ALL4, _ALL6 = "0.0.0.0", "::"
_KINDS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}
_ETHERTYPE_ARP = 0x0806
_PATIENCE = 10.0  # seconds for an answer of slirp4netns


class Forward:
    """A port of the host that is passed on.  `addresses`: one, or those of all, without IPv6 or with it."""

    def __init__(self, protocol: str, addresses: "list[str]", port: int) -> None:
        self.protocol = protocol
        self.addresses = addresses
        self.port = port

    def __str__(self) -> str:
        first = self.addresses[0]
        return f"{f'[{first}]' if ':' in first else first}:{self.port}/{self.protocol}"

    @property
    def ipv4_address(self) -> str:
        """The IPv4 address; empty if there is none."""
        return next((address for address in self.addresses if ":" not in address), "")

    def refuse_if_taken(self) -> None:
        """Raise UsageError if the caller cannot listen on it."""
        for address in self.addresses:
            self._try_to_listen(address)

    def _try_to_listen(self, address: str) -> None:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        try:
            with socket.socket(family, _KINDS[self.protocol]) as probe:
                if family == socket.AF_INET6:
                    probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                if self.protocol == "tcp":  # connections that have just ended do not matter
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((address, self.port))
        except OSError as error:
            hint = ""
            if error.errno == errno.EACCES:
                hint = (
                    f"; use a port from 1024 on, or `sysctl net.ipv4.ip_unprivileged_port_start={self.port}`"
                )
            raise UsageError(f"--publish {self}: {error.strerror}{hint}") from None


def take(options: Options, settings: Settings, complain: "Callable[[str], None]") -> "list[Forward]":
    """Return what is to be passed on, and change the requests of `options` accordingly.

    Raises UsageError or CniError if a port cannot be published.
    """
    request = ContainerRequest()
    others = []
    for option, value in options.requested:
        reader = option_for(option)
        assert reader
        reader.add(request, value)
        if reader is not OPTIONS["publish"]:
            others.append((option, value))
    ports = request.common.ports
    if not ports:
        return []
    for port in ports:
        if port.protocol not in _KINDS:
            raise UsageError(
                f"--publish {port.container}/{port.protocol} needs root; try `sudo priv-net-run ...`"
            )
    chosen = attach.select(request, settings, lambda _problem: None)  # the caller selects them again
    # Where no IPv6 address follows, a client of `localhost` must not be accepted on ::1.
    has_ipv6 = any(one.ports and has_version(one.network, 6) for one in chosen)
    forwards = []
    targets: dict[tuple[str, int], int] = {}
    mappings = choose_host_ports(ports)
    netlink.reopen_netfilter()  # it has looked for published ports on the host
    for port, mapping in zip(ports, mappings, strict=True):
        number = mapping["hostPort"]
        if targets.setdefault((port.protocol, number), port.container) != port.container:
            raise UsageError(
                f"--publish {number}/{port.protocol} is requested for two ports of the command:"
                " without root, a port of the host leads to the same port from all addresses"
            )
        every = [_ALL4, _ALL6] if has_ipv6 else [_ALL4]
        forwards.append(Forward(port.protocol, [port.host_ip] if port.host_ip else every, number))
        if not port.is_fixed:
            complain(f"port {number} of the host leads to port {port.container}/{port.protocol}")
    for forward in forwards:
        forward.refuse_if_taken()
    published = [
        ("--publish", f"{number}:{container}/{protocol}")
        for (protocol, number), container in targets.items()
    ]
    options.requested = [*others, *published]
    return forwards


# pasta


def pasta_arguments(forwards: "list[Forward]") -> "list[str]":
    arguments = []
    for protocol, option in (("tcp", "-t"), ("udp", "-u")):
        ports = []
        for each in forwards:
            if each.protocol == protocol:
                # Two addresses are those of all, which pasta takes without an address.
                address = f"{each.addresses[0]}/" if len(each.addresses) == 1 else ""
                ports.append(f"{address}{each.port}")
        arguments += [word for port in ports or ["none"] for word in (option, port)]
    return arguments


def make_ready(forwards: "list[Forward]") -> None:
    """Wait until what pasta passes on is accepted in this namespace.

    It sends to the broadcast address until it has seen a frame, and the kernel forwards no such packet.
    """
    namespace = NetNS.current()
    try:
        for link in namespace.rtnl.links():
            if link.name == "lo":
                continue
            _send_frame(link.name)
            if any(not each.ipv4_address or len(each.addresses) > 1 for each in forwards):
                nets = [address.net for address in namespace.rtnl.addresses(link)]
                ready.wait_for_addresses(namespace.rtnl, link, nets)
    finally:
        namespace.close()


def _send_frame(name: str) -> None:
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as link:
        link.bind((name, 0))
        mac = link.getsockname()[4]
        # An ARP request of no address for no address, which has no answer.
        header = b"\xff" * 6 + mac + _ETHERTYPE_ARP.to_bytes(2, "big")
        link.send(header + bytes((0, 1, 8, 0, 6, 4, 0, 1)) + mac + bytes(14))


# slirp4netns


def refuse_for_slirp(forwards: "list[Forward]") -> None:
    for each in forwards:
        if not each.ipv4_address:
            raise UsageError(
                f"--publish {each}: slirp4netns forwards IPv4 only; install pasta (package passt)"
            )


def add_to_slirp(path: str, forwards: "list[Forward]") -> None:
    """Request the ports from slirp4netns at its socket.

    Raises UsageError with its answer if it refuses one.
    """
    for each in forwards:
        arguments = {
            "proto": each.protocol,
            "host_addr": each.ipv4_address,
            "host_port": each.port,
            "guest_port": each.port,
        }
        request = fastjson.dumps({"execute": "add_hostfwd", "arguments": arguments}).encode()
        try:
            with _connect(path) as connection:
                connection.sendall(request)
                connection.shutdown(socket.SHUT_WR)
                answer = connection.recv(4096).decode(errors="replace")
        except OSError as error:
            raise UsageError(f"--publish {each}: slirp4netns: {error.strerror or error}") from None
        if '"error"' in answer or not answer:
            raise UsageError(f"--publish {each}: slirp4netns: {answer or 'it does not answer'}")


def _connect(path: str) -> socket.socket:
    """Connect to slirp4netns, which makes its socket soon after its link."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(_PATIENCE)
        try:
            connection.connect(path)
            return connection
        except OSError as error:
            connection.close()
            is_early = isinstance(error, (FileNotFoundError, ConnectionRefusedError))
            if not is_early or time.monotonic() > deadline:
                raise
            time.sleep(0.002)


def socket_folder() -> str:
    """Make a folder for the socket of slirp4netns that only the caller can enter."""
    import tempfile

    folder = os.environ.get("XDG_RUNTIME_DIR", "")
    return tempfile.mkdtemp(prefix="priv-net-run-", dir=folder if os.path.isdir(folder) else None)
