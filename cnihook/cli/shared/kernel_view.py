# SPDX-License-Identifier: Apache-2.0
"""
The kernel's state of a namespace, read through pyroute2 and nft.

Rejected: cnihook.linux.rtnl.  A mistake that it makes in setting up, it could repeat in reading.
"""

import json
import os
import shutil
import subprocess

from cnihook.cli.shared import optional
from cnihook.linux.netns import NetNS
from cnihook.protocol.call import Call, Invocation
from cnihook.types.config import NetConf

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Json = dict[str, Any]

_AF_INET, _AF_INET6 = 2, 10
_IFF_UP = 1
_RT_TABLE_LOCAL = 255
_RTN_UNICAST = 1
_SCOPES = {0: "global", 253: "link", 254: "host"}
_NUD = {1: "incomplete", 2: "reachable", 4: "stale", 8: "delay", 16: "probe", 32: "failed", 64: "noarp",
        128: "permanent"}  # fmt: skip


class View:
    """One namespace at one time: `links` by name, the rest as lists in which every entry has its `dev`."""

    def __init__(self, path: str) -> None:
        pyroute2 = optional.package("pyroute2", "python3-pyroute2")
        namespace = NetNS.open(path)
        try:
            with namespace.entered(), pyroute2.IPRoute() as ip:
                links = list(ip.get_links())
                self._names = {link["index"]: link.get_attr("IFLA_IFNAME") for link in links}
                self.links = {link.get_attr("IFLA_IFNAME"): self._link(link) for link in links}
                self.addresses = [self._address(one) for one in ip.get_addr()]
                routes = [*ip.get_routes(family=_AF_INET), *ip.get_routes(family=_AF_INET6)]
                self.routes = [self._route(one) for one in routes if _is_shown(one)]
                self.neighbours = [self._neighbour(one) for one in ip.get_neighbours() if _is_known(one)]
                self.qdiscs = [self._qdisc(one) for one in ip.get_qdiscs()]
        finally:
            namespace.close()

    def of(self, dev: str) -> "Json":
        """Return all that belongs to one interface."""
        fields: Json = {"link": self.links.get(dev)}
        for name in ("addresses", "routes", "neighbours", "qdiscs"):
            fields[name] = [one for one in getattr(self, name) if one["dev"] == dev]
        return fields

    def _link(self, link: "Any") -> "Json":
        info = link.get_attr("IFLA_LINKINFO")
        return {
            "name": link.get_attr("IFLA_IFNAME"),
            "index": link["index"],
            "kind": info.get_attr("IFLA_INFO_KIND") if info else None,
            "mac": link.get_attr("IFLA_ADDRESS"),
            "mtu": link.get_attr("IFLA_MTU"),
            "up": bool(link["flags"] & _IFF_UP),
            "state": (link.get_attr("IFLA_OPERSTATE") or "").lower(),
            "master": self._names.get(link.get_attr("IFLA_MASTER")),
        }

    def _address(self, one: "Any") -> "Json":
        address = one.get_attr("IFA_LOCAL") or one.get_attr("IFA_ADDRESS")
        return {
            "dev": self._names.get(one["index"]),
            "address": f"{address}/{one['prefixlen']}",
            "scope": _SCOPES.get(one["scope"], str(one["scope"])),
        }

    def _route(self, one: "Any") -> "Json":
        everything = "0.0.0.0/0" if one["family"] == _AF_INET else "::/0"
        destination = one.get_attr("RTA_DST")
        table = one.get_attr("RTA_TABLE")
        return {
            "dev": self._names.get(one.get_attr("RTA_OIF")),
            "dst": f"{destination}/{one['dst_len']}" if destination else everything,
            "gw": one.get_attr("RTA_GATEWAY"),
            "table": one["table"] if table is None else table,
            "metric": one.get_attr("RTA_PRIORITY"),
        }

    def _neighbour(self, one: "Any") -> "Json":
        return {
            "dev": self._names.get(one["ifindex"]),
            "address": one.get_attr("NDA_DST"),
            "mac": one.get_attr("NDA_LLADDR"),
            "state": _NUD.get(one["state"], str(one["state"])),
        }

    def _qdisc(self, one: "Any") -> "Json":
        return {"dev": self._names.get(one["index"]), "kind": one.get_attr("TCA_KIND")}


def _is_shown(route: "Any") -> bool:
    """Return False for routes that the kernel makes itself: to its own addresses, multicast."""
    return bool(route["type"] == _RTN_UNICAST and route["table"] != _RT_TABLE_LOCAL)


def _is_known(neighbour: "Any") -> bool:
    return neighbour["family"] in (_AF_INET, _AF_INET6) and _NUD.get(neighbour["state"]) != "noarp"


# nftables


def nft_elements(network: str, container_id: str, ifname: str) -> "list[Json] | None":
    """Return what has this owner's comment in the tables `cnihook`; None if there is no program nft."""
    owner = Call("CHECK", NetConf({"name": network}), Invocation(container_id, "", ifname)).owner
    tables = _nft("list", "tables")
    if tables is None:
        return None
    elements = []
    for table in (one["table"] for one in tables if "table" in one):
        if table["name"] not in ("cnihook", "cnihook-policy"):
            continue
        for item in _nft("list", "table", table["family"], table["name"]) or ():
            elements += _owned(item, owner)
    return elements


def _nft(*words: str) -> "list[Json] | None":
    program = shutil.which("nft", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")
    if not program:
        return None
    process = subprocess.run([program, "-j", *words], capture_output=True, text=True)
    if process.returncode != 0:
        raise OSError(0, f"nft {' '.join(words)}: {process.stderr.strip() or 'it gives no reason'}")
    listed = json.loads(process.stdout).get("nftables", [])
    return [one for one in listed if isinstance(one, dict)]


def _owned(item: "Json", owner: str) -> "list[Json]":
    elements = []
    for kind in ("set", "map"):
        content = item.get(kind) or {}
        for entry in content.get("elem", ()):
            key, value = entry if kind == "map" else (entry, None)
            elem = key.get("elem") if isinstance(key, dict) else None
            if elem and elem.get("comment") == owner:
                leads = {"to": _words(value)} if kind == "map" else {}
                elements.append({"in": content["name"], "key": _words(elem["val"]), **leads})
    rule = item.get("rule") or {}
    limit = item.get("quota") or {}
    if limit.get("comment") == owner:
        elements.append({"in": limit["name"], "key": f"{limit['used']} of {limit['bytes']} bytes used"})
    if rule.get("comment") == owner:
        elements.append({"in": rule["chain"], "key": "a rule"})
    return elements


def _words(value: "Any") -> str:
    """Return an expression of nft's JSON as text, about as nft writes it."""
    if isinstance(value, list):
        return " . ".join(map(_words, value))
    if not isinstance(value, dict):
        return str(value)
    ((kind, inner),) = list(value.items())[:1]
    if kind in ("concat", "set"):
        return _words(inner)
    if kind in ("jump", "goto"):
        return f"{kind} {inner['target']}"
    if kind == "prefix":
        return f"{inner['addr']}/{inner['len']}"
    if kind == "range":
        return "-".join(map(_words, inner))
    return str(kind) if inner is None else f"{kind} {json.dumps(inner)}"
