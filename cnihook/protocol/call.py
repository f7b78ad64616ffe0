# SPDX-License-Identifier: Apache-2.0
"""One operation of one plugin on one attachment: what the plugin receives, and the namespaces for it."""

import errno

from cnihook.fast.address import Address, IPNet
from cnihook.linux.netlink import NetlinkError
from cnihook.linux.netns import NetNS, NotANamespaceError
from cnihook.linux.rtnl import Link, Rtnl
from cnihook.types.config import NetConf
from cnihook.types.errors import INTERNAL, INVALID_ENVIRONMENT, INVALID_NETNS, CniError
from cnihook.types.result import Result

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any, Protocol, TypeAlias

    from cnihook.linux.conntrack import Flow
    from cnihook.protocol.ending import Ending

    OwedFlows: TypeAlias = tuple[frozenset[Address], Callable[[Flow], bool]]

    class Policy(Protocol):
        """The policies of an attachment; policy/enforcement.py has the class."""

        def prepare(self) -> None: ...

        def admit(self, port: str, mac: str, nets: Iterable[IPNet]) -> None: ...

        def release(self) -> None: ...


# "cn", the upper half of a link group's number.  Not an alias, because the kernel sets a group in the moment
# of creation: if a process is killed right after it, the link can be recognized.
GROUP = 0x636E
ENDING = GROUP << 16 | 0xFFFE  # the links of containers that have ended; even: host_bridge takes odd numbers

PLUGIN_TIMEOUT = 60.0  # seconds that an executable may take; a hook gets as long, see oci.inject
DEFAULT_PATH = ("/opt/cni/bin", "/usr/lib/cni", "/usr/libexec/cni")

_KEEP_KEYS = ("cni.dev/valid-attachments", "cni.dev/attachments")  # in use, and in the 1.1.0 text
_KNOWN_ARGS = frozenset(("IP", "GATEWAY", "MAC", "IgnoreUnknown"))


class Invocation:
    """One operation on one attachment, the same for every plugin of its chain.

    It owns the namespaces, opened once for all of them: close() it when the chain is done.
    """

    __slots__ = (
        "_host", "_owed_flows", "_sandbox", "_settle", "args", "cni_path", "container_id", "cuts", "ending",
        "first", "ifname", "is_repair", "netns", "plugin_dirs", "policy", "timeout",
    )  # fmt: skip

    def __init__(
        self,
        container_id: str,
        netns: str,
        ifname: str,
        *,
        args: str = "",
        plugin_dirs: "list[str] | None" = None,
        cni_path: str = "",
        timeout: float = PLUGIN_TIMEOUT,
        is_repair: bool = False,
    ) -> None:
        self.container_id = container_id
        self.netns = netns  # path; empty on a DEL whose namespace is gone
        self.ifname = ifname
        self.args = args  # CNI_ARGS, not parsed
        self.plugin_dirs = plugin_dirs  # folders that come before the built-in plugins; None: no folder
        # CNI_PATH for executables: as received, or all folders in which they may look for their delegates.
        self.cni_path = cni_path or ":".join([*(plugin_dirs or ()), *DEFAULT_PATH])
        self.timeout = timeout  # seconds that an executable may take
        # A DEL and an ADD that restore what a running container had; only built-in plugins see this.
        self.is_repair = is_repair
        self.first: NetConf | None = None  # of an update: the first plugin of the chain
        self.cuts = False  # an update ends the connections that it no longer permits
        # A DEL of a container that has ended leaves here what takes the kernel long: see remove_link().
        self.ending: Ending | None = None
        # The policies of the container; None on most hosts.  Only built-in plugins see this.
        self.policy: Policy | None = None
        self._owed_flows: list[OwedFlows] = []
        self._settle: Callable[[Invocation], None] | None = None
        self._host: NetNS | None = None
        self._sandbox: NetNS | None = None

    def owe_flows(self, flows: "OwedFlows", settle: "Callable[[Invocation], None]") -> None:
        """Leave flows to a later plugin of the chain, or to `settle` at its end: see links.flows."""
        self._owed_flows.append(flows)
        self._settle = settle

    def take_flows(self) -> "list[OwedFlows]":
        owed, self._owed_flows = self._owed_flows, []
        return owed

    def close(self) -> None:
        if self._owed_flows and self._settle:
            self._settle(self)
        for namespace in (self._host, self._sandbox):
            if namespace:
                namespace.close()
        self._host = self._sandbox = None

    @property
    def host(self) -> NetNS:
        if not self._host:
            self._host = NetNS.current()
        return self._host

    @property
    def sandbox(self) -> NetNS:
        if not self._sandbox:
            try:
                namespace = NetNS.open(self.netns)
            except OSError as error:
                raise self._unopened(error) from None
            if namespace.identity == self.host.identity:
                namespace.close()
                raise CniError(
                    INVALID_NETNS,
                    f"{self.netns} is the network namespace of the host",
                    "the container needs one of its own; the host's is never configured",
                )
            self._sandbox = namespace
        return self._sandbox

    def find_sandbox(self) -> "NetNS | None":
        """Open the sandbox; None if the path leads to no namespace, or to the host's.

        Raises CniError if that cannot be determined.
        """
        if not self._sandbox:
            try:
                namespace = NetNS.find(self.netns)
            except OSError as error:
                raise self._unopened(error) from None
            if namespace and namespace.identity == self.host.identity:
                namespace.close()
                return None
            self._sandbox = namespace
        return self._sandbox

    def _unopened(self, error: OSError) -> CniError:
        reason = error if isinstance(error, NotANamespaceError) else f"{self.netns}: {error.strerror}"
        return CniError(INTERNAL, f"failed to open netns: {reason}")


class Call:
    """The argument of a plugin's add, delete, check, gc and status."""

    __slots__ = ("_prev_result", "command", "conf", "request", "version")

    def __init__(self, command: str, conf: NetConf, request: Invocation) -> None:
        self.command = command
        self.conf = conf
        self.request = request
        self.version = conf.string("cniVersion")
        self._prev_result: Result | None = None

    @property
    def network(self) -> str:
        return self.conf.string("name")

    @property
    def container_id(self) -> str:
        return self.request.container_id

    @property
    def ifname(self) -> str:
        return self.request.ifname

    @property
    def netns(self) -> str:
        return self.request.netns

    @property
    def owner(self) -> str:
        """The owner of what the attachment makes.  It fits into a comment of nftables (127 bytes)."""
        return self.owner_of(self.container_id, self.ifname)

    def owner_of(self, container_id: str, ifname: str) -> str:
        # nft cannot write a quotation mark in a comment, and an interface name may contain one.
        ifname = ifname.replace('"', "'")
        return f"{self.owner_prefix}{_shortened(container_id, 70)} {ifname}"

    @property
    def owner_prefix(self) -> str:
        """The text that the owners on this network, and no others, begin with."""
        return f"{_shortened(self.network, 40)} "

    def is_owner(self, text: str) -> bool:
        """Return True if a link's alias can be the owner of an attachment with this interface name.

        Users and tools write aliases, too, so any other text says nothing about the owner.
        """
        words = text.split(" ")
        return len(words) == 3 and words[2] == self.owner.split(" ")[2]

    # Namespaces

    @property
    def host(self) -> Rtnl:
        return self.request.host.rtnl

    @property
    def sandbox_ns(self) -> NetNS:
        """The sandbox.  Raises CniError if it does not exist, or is the host's (code 8)."""
        return self.request.sandbox

    @property
    def sandbox(self) -> Rtnl:
        return self.request.sandbox.rtnl

    def sandbox_if_alive(self) -> "Rtnl | None":
        """Return the sandbox for DEL; None if it is gone, or its path leads elsewhere."""
        namespace = self.request.find_sandbox() if self.netns else None
        return namespace.rtnl if namespace else None

    def remove_link(self, rtnl: Rtnl, link: Link) -> None:
        """Remove a link of the host or of the sandbox, unless it is gone.

        The kernel deletes a link in 13 to 40 ms, most of it an RCU grace period.  It sets one down in
        0.1 ms, and then nothing passes.  So the links of a container that has ended are silenced here and
        put into a group, which runtime.ending deletes with one wait for all.
        """
        ending = self.request.ending
        if ending is None:
            rtnl.delete_link(link)
            return
        try:
            rtnl.set_link(link, up=False, group=ENDING)
        except NetlinkError as error:
            if error.errno != errno.ENODEV:  # it was just removed, with its other end
                raise
            return
        if rtnl is self.host:
            ending.on_host = True
        else:
            ending.in_sandbox = True

    # Configuration

    @property
    def prev_result(self) -> "Result | None":
        """The previous result.  Raises CniError if it is malformed; a DEL then continues as without it."""
        if self._prev_result is None and self.conf.has("prevResult"):
            try:
                raw = self.conf.object("prevResult").raw
                self._prev_result = Result.from_json(raw, self.version, "prevResult")
            except CniError:
                if self.command != "DEL":
                    raise
        return self._prev_result

    @property
    def recorded_mac(self) -> str:
        """The MAC address of this call's interface in prevResult; empty if it has none."""
        for each in self.prev_result.interfaces if self.prev_result else ():
            if each.sandbox and each.name == self.ifname:
                return each.mac.lower()
        return ""

    def required_prev_result(self) -> Result:
        result = self.prev_result
        if result is None:
            raise CniError(INTERNAL, "Required prevResult missing")
        return result

    @property
    def runtime_config(self) -> NetConf:
        return self.conf.object("runtimeConfig")

    @property
    def cni_args(self) -> NetConf:
        """The `args.cni` object of the configuration (CONVENTIONS.md)."""
        return self.conf.object("args").object("cni")

    def arg(self, name: str) -> str:
        """Return the value of one key of CNI_ARGS, or an empty string."""
        pairs: dict[str, str] = {}
        for pair in filter(None, self.request.args.split(";")):
            key, equals, value = pair.partition("=")
            if not (key and equals):
                raise CniError(
                    INVALID_ENVIRONMENT, f"CNI_ARGS: invalid pair {pair!r}", "it takes KEY=VALUE;KEY=VALUE"
                )
            pairs[key] = value
        unknown = [key for key in pairs if key not in _KNOWN_ARGS]
        if unknown and pairs.get("IgnoreUnknown", "").lower() not in ("1", "true"):
            raise CniError(
                INVALID_ENVIRONMENT,
                f"CNI_ARGS: unknown args {', '.join(unknown)}",
                "with IgnoreUnknown=1 in CNI_ARGS, plugins ignore the keys that they do not know",
            )
        return pairs.get(name, "")

    def valid_attachments(self) -> "set[tuple[str, str]] | None":
        """Return the (container ID, ifname) pairs that GC must keep; None if the caller passes no list.

        null is an empty list: Go's libcni writes it for a nil slice, and omits the key if it has no list.
        """
        keys = [key for key in _KEEP_KEYS if self.conf.names(key)]
        if not keys:
            return None
        items = [item for key in keys for item in self.conf.objects(key)]
        return {(item.string("containerID"), item.string("ifname")) for item in items}


def args_text(cni_args: "Mapping[str, str]") -> str:
    """Return CNI_ARGS with these keys and values."""
    return ";".join(f"{key}={value}" for key, value in cni_args.items())


def _shortened(name: str, limit: int) -> str:
    """Return the name; if it is too long, its beginning and a digest of the whole name."""
    if len(name) <= limit:
        return name
    from _blake2 import blake2s

    return f"{name[: limit - 20]}...{blake2s(name.encode(), digest_size=8).hexdigest()}"


def requested_addresses(texts: "list[Any]", where: str) -> "list[tuple[Address, IPNet | None]]":
    """Return the requested addresses, each with its network if the text has a prefix length."""
    addresses: list[tuple[Address, IPNet | None]] = []
    for text in texts:
        try:
            if "/" in text:
                net = IPNet.parse(text)
                addresses.append((net.address, net))
            else:
                addresses.append((Address.parse(text), None))
        except (ValueError, TypeError):
            raise CniError(INVALID_ENVIRONMENT, f"{where}: {text!r} is not an IP address") from None
    return addresses
