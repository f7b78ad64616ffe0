# SPDX-License-Identifier: Apache-2.0
"""
A lease: its owner, what was granted until when, and its file.

The file decides.  It exists, whole, from before the container learns its address until the lease is
released.  A keeper that was killed leaves it to the next one.  If there is no keeper, the file alone is
enough to release the lease.

A lease belongs to a link in a namespace, which is opened by its path and compared.  The namespace is not
held open in between, because that would keep it, and the links in it, alive after its container.
"""

import os
import struct
import time

from cnihook.dhcp import message
from cnihook.dhcp.message import Message
from cnihook.fast import fastjson, statefile
from cnihook.fast.address import Address, mac_bytes
from cnihook.linux.netns import NetNS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cnihook.dhcp.rawsocket import Channel
    from cnihook.linux.rtnl import Link

Owner = tuple[str, str, str]  # network, container ID, ifname

_SO_NETNS_COOKIE = 71  # <asm-generic/socket.h>, from Linux 5.14 on
_SOL_SOCKET = 1
_DEFAULT_TIME = 3600  # seconds, if the server sends none, as in the reference
_DRAFT = ".new"
_LEAST_TIME = 2  # seconds, so that a server cannot cause requests without a pause


def folder_of(socket_path: str) -> str:
    """Return the folder with the leases of the keeper that listens at this path."""
    return f"{socket_path}.leases"


def now() -> float:
    """Return seconds since boot, suspended ones too: this clock is never set, and all processes share it."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def identity(namespace: NetNS) -> "list[int]":
    """Return what identifies a namespace until a reboot.

    The kernel gives the inode number of a dead namespace to the next one at once, so there is a cookie, too.
    """
    import _socket

    with namespace.entered():
        probe = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC)
    try:
        cookie = struct.unpack("=Q", probe.getsockopt(_SOL_SOCKET, _SO_NETNS_COOKIE, 8))[0]
    except OSError:
        cookie = 0
    finally:
        probe.close()
    return [*namespace.identity, cookie]


class Lease:
    __slots__ = (
        "address", "boot", "folder", "granted", "identity", "index", "netns", "options", "owner",
        "parameters", "server", "server_mac", "since",
    )  # fmt: skip

    def __init__(
        self,
        folder: str,
        owner: Owner,
        netns: str,
        *,
        options: "dict[int, bytes]",
        parameters: "list[int]",
    ) -> None:
        self.folder = folder
        self.owner = owner
        self.netns = netns  # path
        self.identity: list[int] = []  # of the namespace
        self.index = 0  # of the link, which may be renamed
        self.boot = _boot_id()
        self.options = options  # in each message to a server
        self.parameters = parameters  # codes of the options that the server is asked for
        # What the server has granted
        self.address = message.NOBODY
        self.server = message.NOBODY
        self.server_mac = b""  # of the server, or of the router that relays for it
        self.granted: dict[int, bytes] = {}
        self.since = 0.0

    def __str__(self) -> str:
        _network, container_id, ifname = self.owner
        return f"{ifname} of container {container_id}"

    # The namespace

    def claim(self, namespace: NetNS, link: "Link") -> None:
        """Make the namespace and the link those of this lease."""
        self.identity = identity(namespace)
        self.index = link.index

    def find(self) -> "tuple[NetNS, Link] | None":
        """Return the open namespace and the link; None if either is gone.

        Another namespace or link in its place does not count.
        """
        try:
            namespace = NetNS.open(self.netns)
        except OSError:
            return None
        try:
            if identity(namespace) == self.identity:
                link = namespace.rtnl.find_link_by_index(self.index)
                if link:
                    return namespace, link
        except OSError:
            pass  # the namespace ends at this moment
        namespace.close()
        return None

    # Time, of the clock that now() reads

    @property
    def renew_at(self) -> float:
        """T1: the time from which the server is asked for more time."""
        return self.since + self._times()[0]

    @property
    def rebind_at(self) -> float:
        """T2: the time from which any server is asked."""
        return self.since + self._times()[1]

    @property
    def expires_at(self) -> float:
        return self.since + self._times()[2]

    def _times(self) -> "tuple[float, float, float]":
        def given(code: int, default: float) -> float:
            value = message.seconds(self.granted, code)
            return default if value is None else float("inf") if value == message.FOREVER else value

        whole = max(given(message.LEASE_TIME, _DEFAULT_TIME), _LEAST_TIME)
        rebind = given(message.REBINDING_TIME, whole * 0.85)
        if not 0 < rebind <= whole:
            rebind = whole * 0.85
        renew = given(message.RENEWAL_TIME, whole * 0.5)
        if not 0 < renew <= rebind:
            renew = min(whole * 0.5, rebind)
        return renew, rebind, whole

    # The server's part

    def grant(self, reply: Message, server: Address, mac: bytes, since: float) -> None:
        """Take over what a server has confirmed.  Time counts from the request, `since`: RFC 2131, 4.4.1."""
        self.address = reply.offered
        self.server = server
        self.server_mac = mac
        self.granted = reply.options
        self.since = since

    def release(self) -> None:
        """Release the lease: notify the server, if it can be reached, and delete the file in any case."""
        from cnihook.dhcp.rawsocket import Channel  # a plugin needs it if there is no keeper

        try:
            place = self.find() if self.server_mac else None
            if place:
                namespace, link = place
                try:
                    channel = Channel(namespace, link)
                    try:
                        self._say_goodbye(channel, mac_bytes(link.mac))
                    finally:
                        channel.close()
                finally:
                    namespace.close()
        except OSError:
            pass  # the link is down, or gone at this moment: the server will see that it is not renewed
        finally:
            self.forget()

    def _say_goodbye(self, channel: "Channel", mac: bytes) -> None:
        options = {
            message.MESSAGE_TYPE: bytes((message.RELEASE,)),
            message.SERVER: self.server,
            message.CLIENT_ID: self.options.get(message.CLIENT_ID, b""),
        }
        goodbye = Message(os.urandom(4), mac, options, current=self.address)
        channel.send(goodbye, self.address, self.server, self.server_mac)

    # The file

    @property
    def path(self) -> str:
        return _path(self.folder, self.owner)

    @property
    def is_on_record(self) -> bool:
        return os.path.exists(self.path)

    def write(self) -> None:
        """Write the file, whole or not at all."""
        fields = {
            "owner": list(self.owner),
            "netns": self.netns,
            "identity": self.identity,
            "index": self.index,
            "boot": self.boot,
            "options": to_json(self.options),
            "parameters": self.parameters,
            "address": str(self.address),
            "server": str(self.server),
            "serverMac": self.server_mac.hex(),
            "granted": to_json(self.granted),
            "since": self.since,
        }
        os.makedirs(self.folder, mode=0o700, exist_ok=True)
        draft = self.path + _DRAFT
        with open(statefile.create(draft), "w") as file:
            file.write(fastjson.dumps(fields, indent=4) + "\n")
        os.replace(draft, self.path)

    def forget(self) -> None:
        _unlink(self.path)
        try:
            os.rmdir(self.folder)  # succeeds for the last lease
        except OSError:
            pass

    @classmethod
    def load(cls, folder: str, owner: Owner) -> "Lease | None":
        return cls._read(folder, _path(folder, owner))

    @classmethod
    def load_all(cls, folder: str) -> "list[Lease]":
        try:
            names = sorted(os.listdir(folder))
        except FileNotFoundError:
            return []
        for name in names:
            if name.endswith(_DRAFT):  # its writer was killed
                _unlink(f"{folder}/{name}")
        leases = [cls._read(folder, f"{folder}/{name}") for name in names if not name.endswith(_DRAFT)]
        return [lease for lease in leases if lease]

    @classmethod
    def _read(cls, folder: str, path: str) -> "Lease | None":
        """Return the lease in a file.  A file that is not a lease of this boot is deleted: then None."""
        try:
            content = statefile.read(path)
            if content is None:
                return None
            fields = fastjson.loads(content.decode())
            if fields["boot"] != _boot_id():
                raise ValueError
            network, container_id, ifname = fields["owner"]
            if not all(isinstance(text, str) for text in (network, container_id, ifname, fields["netns"])):
                raise TypeError
            lease = cls(
                folder,
                (network, container_id, ifname),
                fields["netns"],
                options=from_json(fields["options"]),
                parameters=list(bytes(fields["parameters"])),
            )
            lease.identity = list(map(int, fields["identity"]))
            lease.index = int(fields["index"])
            lease.address = Address.parse(fields["address"])
            lease.server = Address.parse(fields["server"])
            lease.server_mac = bytes.fromhex(fields["serverMac"])
            lease.granted = from_json(fields["granted"])
            lease.since = float(fields["since"])
            return lease
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
            _unlink(path)
            return None


def to_json(options: "dict[int, bytes]") -> "dict[str, str]":
    return {str(code): value.hex() for code, value in options.items()}


def from_json(options: "dict[str, str]") -> "dict[int, bytes]":
    return {bytes((int(code),))[0]: bytes.fromhex(value) for code, value in options.items()}


def _path(folder: str, owner: Owner) -> str:
    from _blake2 import blake2s

    # The three together may be too long for a file name.  They are in the file itself.
    return f"{folder}/{blake2s('/'.join(owner).encode(), digest_size=16).hexdigest()}"


def _boot_id() -> str:
    with open("/proc/sys/kernel/random/boot_id") as file:
        return file.read().strip()


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
