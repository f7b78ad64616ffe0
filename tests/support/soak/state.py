# SPDX-License-Identifier: Apache-2.0
"""The leak check of a soak: everything that a hook can leave in a host, as lines, read without a program."""

import contextlib
import ctypes
import hashlib
import os
import re
import socket
import struct
from collections.abc import Callable, Collection, Iterator
from functools import cache
from typing import TypeVar

from tests.support.host import enclosure
from tests.support.host.netns_state import NetnsState, nft_lines

T = TypeVar("T")

FOLDERS = (
    "/run",
    "/etc/cni",
    "/var/lib/cni",
    "/var/log",
    "/run/.host/etc",
    "/run/.host/lib",
    "/run/.host/neighbours",
)
SKIPPED = ("/run/.host", "/run/cnihook/log", "/var/log/cnihook")  # logs of failures stay by design
# Their content differs after every container.
CHANGING = ("last_reserved_ip.", "lock")
DELLINK, GETQDISC = 17, 38  # linux/rtnetlink.h, RTM_*

SYSCTLS = """
    forwarding accept_ra route_localnet rp_filter proxy_arp arp_notify accept_dad disable_ipv6 addr_gen_mode
    autoconf accept_redirects send_redirects arp_filter
""".split()
OTHER_SYSCTLS = ("net/ipv4/ip_forward", "net/core/somaxconn", "net/ipv4/ip_nonlocal_bind")


def of_host(processes: Collection[int]) -> frozenset[str]:
    """Return the lines of this process's host.  `processes`: known PIDs, which are left out."""
    lines = [*kernel(), *_sysctls(), *_mounts(), *_processes(processes)]
    for folder in FOLDERS:
        lines += _files(folder)
    return frozenset(lines)


def kernel() -> list[str]:
    """Return the lines of this thread's network namespace."""
    view = NetnsState()
    lines = view.lines()
    lines += _qdiscs()
    if view.nftables:
        lines += _ruleset()
    return lines


def in_namespace(path: str, function: Callable[[], T]) -> T:
    """Call a function in another network namespace, with this thread."""
    home = enclosure.net_of_this_thread()
    try:
        other = enclosure.open_space(path)
        try:
            enclosure.enter_net(other)
        finally:
            os.close(other)
        try:
            return function()
        finally:
            enclosure.enter_net(home)
    finally:
        os.close(home)


def _qdiscs() -> Iterator[str]:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as netlink:
        netlink.send(struct.pack("=IHHII", 36, GETQDISC, 0x301, 1, 0) + bytes(20))
        while True:
            answer = netlink.recv(1 << 16)
            at = 0
            while at < len(answer):
                length, kind = struct.unpack_from("=IH", answer, at)
                if kind in (2, 3):  # NLMSG_ERROR, NLMSG_DONE
                    return
                _family, index, handle, parent = struct.unpack_from("=iiII", answer, at + 16)
                # the kind of the qdisc is the first attribute
                (size,) = struct.unpack_from("=H", answer, at + 36)
                name = answer[at + 40 : at + 36 + size].rstrip(b"\0").decode()
                with contextlib.suppress(OSError):  # the link is gone
                    yield f"qdisc {socket.if_indextoname(index)} {name} {handle:x} parent {parent:x}"
                at += length + 3 & ~3


def _sysctls() -> Iterator[str]:
    for key in OTHER_SYSCTLS:
        with contextlib.suppress(FileNotFoundError), open(f"/proc/sys/{key}") as file:
            yield f"sysctl {key} = {file.read().strip()}"
    for family in ("ipv4", "ipv6"):
        for link in os.listdir(f"/proc/sys/net/{family}/conf"):
            for key in SYSCTLS:
                with contextlib.suppress(OSError), open(f"/proc/sys/net/{family}/conf/{link}/{key}") as file:
                    yield f"sysctl {family} {link} {key} = {file.read().strip()}"


def _mounts() -> Iterator[str]:
    with open("/proc/self/mounts") as file:
        for line in file:
            yield f"mount {line.split()[1]}"


def _processes(known: Collection[int]) -> Iterator[str]:
    for name in os.listdir("/proc"):
        if name.isdecimal() and int(name) != os.getpid() and int(name) not in known:
            with contextlib.suppress(OSError), open(f"/proc/{name}/cmdline", "rb") as file:
                command = file.read().rstrip(b"\0").replace(b"\0", b" ").decode(errors="replace")
                if command or _state(name) not in "ZX":
                    yield f"process {command or name}"


def _state(pid: str) -> str:
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0]


def _files(top: str) -> Iterator[str]:
    for folder, folders, files in os.walk(top):
        folders[:] = [name for name in folders if f"{folder}/{name}" not in SKIPPED]
        for name in folders:
            yield f"dir {folder}/{name}"
        for name in files:
            yield _file(f"{folder}/{name}", name)


def _file(path: str, name: str) -> str:
    with contextlib.suppress(OSError):
        if os.path.islink(path):
            return f"link {path} to {os.readlink(path)}"
        if os.path.isfile(path) and not name.startswith(CHANGING) and os.stat(path).st_size < 1 << 16:
            with open(path, "rb") as file:
                return f"file {path} {hashlib.blake2s(file.read(), digest_size=4).hexdigest()}"
    return f"file {path}"


class _Nftables:
    """libnftables, loaded once, because the program `nft list ruleset` takes five times as long."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL("libnftables.so.1")
        self._library.nft_ctx_new.restype = ctypes.c_void_p
        self._library.nft_ctx_get_output_buffer.restype = ctypes.c_char_p
        for name in ("nft_ctx_buffer_output", "nft_ctx_buffer_error", "nft_ctx_get_output_buffer"):
            getattr(self._library, name).argtypes = [ctypes.c_void_p]
        self._library.nft_run_cmd_from_buffer.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
        self._library.nft_ctx_free.argtypes = [ctypes.c_void_p]

    def run(self, command: str) -> str:
        context = self._library.nft_ctx_new(0)
        try:
            self._library.nft_ctx_buffer_output(context)
            self._library.nft_ctx_buffer_error(context)
            self._library.nft_run_cmd_from_buffer(context, command.encode())
            return str(self._library.nft_ctx_get_output_buffer(context).decode())
        finally:
            self._library.nft_ctx_free(context)


@cache
def _nftables() -> _Nftables:
    return _Nftables()


def flush_ruleset() -> None:
    _nftables().run("flush ruleset")


def delete_link(name: str) -> None:
    """Delete a link of this thread's namespace, with its peer."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as netlink:
        index = socket.if_nametoindex(name)
        netlink.send(struct.pack("=IHHII BxHiII", 32, DELLINK, 0x5, 1, 0, 0, 0, index, 0, 0))  # NLM_F_ACK
        netlink.recv(1 << 12)


def _ruleset() -> Iterator[str]:
    for line in nft_lines(_nftables().run("list ruleset")):
        # Elements have no fixed order, and several are on one line; counters and timeouts differ.
        line = re.sub(r"expires \S+|packets \d+ bytes \d+", "", line.replace("elements = { ", ""))
        for element in line.split(", "):
            yield f"nft {element.strip(' ,}')}"
