# SPDX-License-Identifier: Apache-2.0
"""A network as `network ls` and `network inspect` show it, with docker's names of its properties."""

from cnihook.cli.networks import store
from cnihook.cli.shared.listing import Row
from cnihook.doctor.addresses import subnets_of
from cnihook.doctor.finding import plugins_of
from cnihook.ipam import block
from cnihook.runtime.networks import Network

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

HERE, SHARED = "local", "global"  # scopes of docker: a network of one host, or of several


class View:
    """`rows`: the attachments of the network."""

    def __init__(self, network: Network, rows: "list[Row]") -> None:
        self.network = network
        self.rows = rows
        self.name = network.name
        self.id = store.id_of(network.name)
        self.created = network.created
        self.labels = store.labels_of(network)
        self._plugins = plugins_of(network)
        self._first = self._plugins[0]
        self.driver = self._first.type
        self.scope = SHARED if block.network_of(network.plugins[0]) else HERE
        self.subnets = sorted(map(str, subnets_of(self._first)))

    @property
    def has_ipv6(self) -> bool:
        return any(":" in subnet for subnet in self.subnets)

    @property
    def is_internal(self) -> bool:
        """True if nothing leads to the outside: by a policy, or because the bridge has no gateway."""
        by_policy = any(plugin.string("forwardPolicy") == "none" for plugin in self._plugins)
        return by_policy or bool(self._first.bridge and not self._first.routes)

    @property
    def containers(self) -> "list[str]":
        return list(dict.fromkeys(row.shown for row in self.rows))

    def summary(self) -> "dict[str, Any]":
        """Return the line of `network ls`; the names and forms are those of docker's --format json."""
        return {
            "CreatedAt": self.created,
            "Driver": self.driver,
            "ID": self.id[: store.LEAST_ID],
            "IPv6": str(self.has_ipv6).lower(),
            "Internal": str(self.is_internal).lower(),
            "Labels": ",".join(f"{key}={value}" for key, value in sorted(self.labels.items())),
            "Name": self.name,
            "Scope": self.scope,
            "Subnets": ",".join(self.subnets),
            "Containers": ",".join(self.containers),
        }

    def details(self) -> "dict[str, Any]":
        """Return what `docker network inspect` prints, with the file and its content in addition."""
        return {
            "Name": self.name,
            "Id": self.id,
            "Created": self.created,
            "Scope": self.scope,
            "Driver": self.driver,
            "EnableIPv6": self.has_ipv6,
            "IPAM": {"Driver": self._first.ipam, "Config": self._ranges()},
            "Internal": self.is_internal,
            "Containers": self._endpoints(),
            "Options": self._options(),
            "Labels": self.labels,
            "File": self.network.source,
            "CNI": self.network.raw,
        }

    def _ranges(self) -> "list[dict[str, str]]":
        conf = self._first.with_leases()
        return [
            {"Subnet": str(part.subnet), "Gateway": str(part.gateway)}
            for one in (conf.sets if conf else ())
            for part in one.ranges
        ]

    def _options(self) -> "dict[str, Any]":
        """Return the keys of the driver that hold a single value."""
        raw = self.network.plugins[0]
        return {
            key: value for key, value in raw.items() if key != "type" and not isinstance(value, dict | list)
        }

    def _endpoints(self) -> "dict[str, dict[str, str]]":
        endpoints = {}
        for row in self.rows:
            inner = [each for each in row.result.interfaces if each.sandbox and each.name == row.ifname]
            endpoints[row.container] = {
                "Name": row.shown,
                "Interface": row.ifname,
                "MacAddress": inner[0].mac if inner else "",
                "IPv4Address": ",".join(each for each in row.addresses if ":" not in each),
                "IPv6Address": ",".join(each for each in row.addresses if ":" in each),
                "State": row.state,
            }
        return endpoints
