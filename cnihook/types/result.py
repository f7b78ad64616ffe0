# SPDX-License-Identifier: Apache-2.0
"""
Results in one form for all code, read from and written to the form of every version.

SPEC.md, "ADD Success".  0.1.0 and 0.2.0 have one address per family under ip4 and ip6; 0.3.0 to 0.4.0 mark
each address with its IP version; 1.0.0 drops that mark; 1.1.0 adds fields to interfaces and routes.
"""

from cnihook.fast.address import Address, IPNet
from cnihook.types import Value, versions
from cnihook.types.config import NetConf
from cnihook.types.errors import DECODING_FAILURE, INCOMPATIBLE_VERSION, CniError
from cnihook.types.fields import Field, read

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_MAX = 1 << 31
_LEGACY = ("0.1.0", "0.2.0")


def _set(**fields: "Any") -> "dict[str, Any]":
    """Return the fields that are set; JSON leaves the others out."""
    return {key: value for key, value in fields.items() if value}


class Interface(Value):
    """An interface; `sandbox` is the namespace's path, or empty for an interface on the host."""

    __slots__ = ("mac", "mtu", "name", "pci_id", "sandbox", "socket_path")

    def __init__(
        self,
        name: str,
        mac: str = "",
        sandbox: str = "",
        mtu: int = 0,
        socket_path: str = "",
        pci_id: str = "",
    ) -> None:
        self.name = name
        self.mac = mac
        self.sandbox = sandbox
        self.mtu = mtu
        self.socket_path = socket_path
        self.pci_id = pci_id

    @classmethod
    def from_json(cls, conf: NetConf) -> "Interface":
        return cls(
            conf.string("name"),
            conf.string("mac"),
            conf.string("sandbox"),
            mtu=conf.integer("mtu", default=0, low=0, high=_MAX),
            socket_path=conf.string("socketPath"),
            pci_id=conf.string("pciID"),
        )

    def to_json(self, recent: bool) -> "dict[str, Any]":
        fields: dict[str, Any] = {"name": self.name, **_set(mac=self.mac, sandbox=self.sandbox)}
        if recent:
            fields.update(_set(mtu=self.mtu, socketPath=self.socket_path, pciID=self.pci_id))
        return fields


class IP(Value):
    """An address with its prefix and gateway; `interface` is an index into Result.interfaces, or None."""

    __slots__ = ("gateway", "interface", "net")
    _ZERO = ("interface",)
    # As a configuration has it.  There, no interface has an index yet.
    FIELDS = (
        Field("address", IPNet, required=True, doc="the address and the prefix of its subnet: 10.1.0.5/24"),
        Field("gateway", Address, like="address", doc="the router of that subnet"),
    )

    def __init__(self, net: IPNet, gateway: "Address | None" = None, interface: "int | None" = None) -> None:
        self.net = net
        self.gateway = gateway
        self.interface = interface

    @classmethod
    def from_json(cls, conf: NetConf) -> "IP":
        net = conf.network("address")
        if not net:
            raise conf.refuse("address", "is missing")
        index = conf.integer("interface", default=0, low=-1, high=_MAX) if conf.has("interface") else None
        return cls(net, conf.address("gateway"), index)

    def to_json(self, marked: bool) -> "dict[str, Any]":
        fields: dict[str, Any] = {"version": str(self.net.address.version)} if marked else {}
        if self.interface is not None:
            fields["interface"] = self.interface
        fields["address"] = str(self.net)
        if self.gateway:
            fields["gateway"] = str(self.gateway)
        return fields


class Route(Value):
    """A route.  `table` and `scope` are None if they are not set, because 0 is valid for both.

    The other fields are 0 if they are not set.
    """

    __slots__ = ("advmss", "dst", "gw", "mtu", "priority", "scope", "table")
    _ZERO = ("scope", "table")
    FIELDS = (
        Field("dst", IPNet, required=True, doc="the destination: 0.0.0.0/0 is all of IPv4"),
        Field("gw", Address, doc="the next hop (default: the gateway of the address)"),
        Field("mtu", int, 0, high=_MAX, doc="MTU of the path; 0: that of the interface"),
        Field("advmss", int, 0, high=_MAX, doc="the TCP segment size that is announced; 0: by the MTU"),
        Field("priority", int, 0, high=0xFFFFFFFF, doc="the metric; the lowest one is used first"),
        Field("table", int, high=0xFFFFFFFF, doc="number of the routing table (default: main)"),
        Field("scope", int, high=255, doc="scope by number: 0 global, 253 link, 254 host"),
    )

    def __init__(
        self,
        dst: IPNet,
        gw: "Address | None" = None,
        *,
        mtu: int = 0,
        advmss: int = 0,
        priority: int = 0,
        table: "int | None" = None,
        scope: "int | None" = None,
    ) -> None:
        self.dst = dst
        self.gw = gw
        self.mtu = mtu
        self.advmss = advmss
        self.priority = priority
        self.table = table
        self.scope = scope

    @classmethod
    def from_json(cls, conf: NetConf) -> "Route":
        values = read(conf, cls.FIELDS)
        if not values["dst"]:
            raise conf.refuse("dst", "is missing")
        return cls(**values)

    def to_json(self, recent: bool) -> "dict[str, Any]":
        fields: dict[str, Any] = {"dst": str(self.dst)}
        if self.gw:
            fields["gw"] = str(self.gw)
        if recent:
            fields.update(_set(mtu=self.mtu, advmss=self.advmss, priority=self.priority))
            if self.table is not None:
                fields["table"] = self.table
            if self.scope is not None:
                fields["scope"] = self.scope
        return fields


class DNS(Value):
    __slots__ = ("domain", "nameservers", "options", "search")
    FIELDS = (
        Field("nameservers", list, of=str, doc="addresses of name servers"),
        Field("domain", str, doc="the domain of the container"),
        Field("search", list, of=str, doc="domains in which short names are searched"),
        Field("options", list, of=str, doc="options of resolv.conf(5)"),
    )

    def __init__(
        self,
        nameservers: "list[str] | None" = None,
        domain: str = "",
        search: "list[str] | None" = None,
        options: "list[str] | None" = None,
    ) -> None:
        self.nameservers = nameservers or []
        self.domain = domain
        self.search = search or []
        self.options = options or []

    def __bool__(self) -> bool:
        return bool(self.nameservers or self.domain or self.search or self.options)

    @classmethod
    def from_json(cls, conf: NetConf) -> "DNS":
        return cls(**read(conf, cls.FIELDS))

    @classmethod
    def given(cls, dns: NetConf) -> "DNS | None":
        """Return the `dns` of a plugin's configuration, None if it has no member; an empty member counts."""
        return cls.from_json(dns) if any(dns.has(key) for key in cls.__slots__) else None

    def to_json(self) -> "dict[str, Any]":
        return _set(
            nameservers=self.nameservers, domain=self.domain, search=self.search, options=self.options
        )


class Result(Value):
    """The interfaces, addresses, routes and DNS settings of an attachment."""

    __slots__ = ("dns", "interfaces", "ips", "routes")

    def __init__(
        self,
        interfaces: "list[Interface] | None" = None,
        ips: "list[IP] | None" = None,
        routes: "list[Route] | None" = None,
        dns: "DNS | None" = None,
    ) -> None:
        self.interfaces = interfaces or []
        self.ips = ips or []
        self.routes = routes or []
        self.dns = dns or DNS()

    @classmethod
    def from_json(cls, raw: "Any", default_version: str, where: str = "result") -> "Result":
        """Return a result from the JSON of any version.  Without cniVersion, that is `default_version`.

        Raises CniError, with code 1 for an unknown version and 6 for a wrong form.
        """
        if raw is None:
            return cls()
        if not isinstance(raw, dict):
            raise CniError(DECODING_FAILURE, f"{where}: a result is an object")
        stated = raw.get("cniVersion")
        version = (stated if isinstance(stated, str) else "") or default_version or versions.OLDEST
        if version not in versions.ALL:
            raise CniError(INCOMPATIBLE_VERSION, f"{where}: unsupported CNI result version {version!r}")
        conf = NetConf(raw, where)
        try:
            # The reference's loopback answers old requests in the new form, with the old version in it.
            if version in _LEGACY and not (conf.has("ips") or conf.has("interfaces")):
                return cls._from_legacy(conf)
            return cls(
                [Interface.from_json(item) for item in conf.objects("interfaces")],
                [IP.from_json(item) for item in conf.objects("ips")],
                [Route.from_json(item) for item in conf.objects("routes")],
                DNS.from_json(conf.object("dns")),
            )
        except CniError as error:
            raise CniError(DECODING_FAILURE, error.msg, error.details) from None

    @classmethod
    def _from_legacy(cls, conf: NetConf) -> "Result":
        result = cls(dns=DNS.from_json(conf.object("dns")))
        for key in ("ip4", "ip6"):
            if not conf.has(key):
                continue
            part = conf.object(key)
            net = part.network("ip")
            if not net:
                raise part.refuse("ip", "is missing")
            result.ips.append(IP(net, part.address("gateway")))
            result.routes += [Route.from_json(item) for item in part.objects("routes")]
        return result

    def to_json(self, version: str) -> "dict[str, Any]":
        """Return the result in the form of `version`, without the fields that it does not have.

        Raises CniError for an unknown version.
        """
        version = version or versions.OLDEST
        if version not in versions.ALL:
            raise CniError(INCOMPATIBLE_VERSION, f"unsupported CNI result version {version!r}")
        if version in _LEGACY:
            return self._to_legacy(version)
        recent = version == "1.1.0"
        old = version.startswith("0.")
        fields: dict[str, Any] = {"cniVersion": version}
        if self.interfaces:
            fields["interfaces"] = [interface.to_json(recent) for interface in self.interfaces]
        if self.ips:
            fields["ips"] = [ip.to_json(marked=old) for ip in self.ips]
        if self.routes:
            fields["routes"] = [route.to_json(recent) for route in self.routes]
        if self.dns or old:
            fields["dns"] = self.dns.to_json()
        return fields

    def check_fits(self, version: str) -> None:
        """Raise CniError if `version` cannot hold the result: before 0.3.0, one without addresses."""
        if version in _LEGACY and not self.ips:
            why = "no valid IP addresses"
            raise CniError(INCOMPATIBLE_VERSION, f"cannot convert to version {version}: {why}")

    def _to_legacy(self, version: str) -> "dict[str, Any]":
        fields: dict[str, Any] = {"cniVersion": version}
        for ip in self.ips:
            key = f"ip{ip.net.address.version}"
            if key in fields:
                continue  # this form holds one address for each family
            part: dict[str, Any] = {"ip": str(ip.net)}
            if ip.gateway:
                part["gateway"] = str(ip.gateway)
            routes = [
                r.to_json(False) for r in self.routes if r.dst.address.version == ip.net.address.version
            ]
            if routes:
                part["routes"] = routes
            fields[key] = part
        if len(fields) == 1:
            raise CniError(
                INCOMPATIBLE_VERSION, f"cannot convert to version {version}: no valid IP addresses"
            )
        fields["dns"] = self.dns.to_json()
        return fields
