# SPDX-License-Identifier: Apache-2.0
"""
The form of a result in each version of the specification, written a second time.

cnihook's own plugins build their results with types/result.py, so a check of them must not use it.
"""

import ipaddress
import re
from collections.abc import Mapping, Sequence
from typing import Any

LEGACY = ("0.1.0", "0.2.0")
_MAC = re.compile(r"([0-9a-fA-F]{2}[:-]){5,}[0-9a-fA-F]{2}")
_TEXTS = "texts"  # a list of strings
_DNS = {"nameservers": _TEXTS, "domain": str, "search": _TEXTS, "options": _TEXTS}
_RECENT_INTERFACE = {"mtu": int, "socketPath": str, "pciID": str}
_RECENT_ROUTE = {"mtu": int, "advmss": int, "priority": int, "table": int, "scope": int}


def problems(result: Mapping[str, Any], version: str) -> "list[str]":
    """Return what is wrong with a result of this version, one text for each problem."""
    wrong = _Problems(version)
    if result.get("cniVersion") != version:
        wrong.add(f"cniVersion is {result.get('cniVersion')!r}, not {version!r} as in the configuration")
    if version in LEGACY:
        wrong.legacy(result)
    else:
        wrong.modern(result)
    dns = result.get("dns")
    if dns is not None:
        wrong.keys("dns", dns, _DNS)
    return wrong.lines


class _Problems:
    def __init__(self, version: str) -> None:
        self.version = version
        self.lines: list[str] = []

    def add(self, line: str) -> None:
        self.lines.append(line)

    def keys(self, where: str, value: Any, types: Mapping[str, Any], needed: Sequence[str] = ()) -> bool:
        if not isinstance(value, dict):
            self.add(f"{where} is not an object")
            return False
        for key in needed:
            if not value.get(key):
                self.add(f"{where} has no {key}")
        for key, item in value.items():
            kind = types.get(key)
            if kind is None:
                if key in {**_RECENT_INTERFACE, **_RECENT_ROUTE, "version": str}:
                    self.add(f"{where} has {key}, which {self.version} does not know")
            elif kind is _TEXTS:
                if not isinstance(item, list) or not all(isinstance(text, str) for text in item):
                    self.add(f"{where}: {key} is not a list of strings")
            elif not isinstance(item, kind) or (kind is int and isinstance(item, bool)):
                self.add(f"{where}: {key} is {item!r}")
        return True

    def legacy(self, result: Mapping[str, Any]) -> None:
        for key in ("interfaces", "ips", "routes"):
            if key in result:
                self.add(f"{key} came with 0.3.0, the configuration is of {self.version}")
        if not ("ip4" in result or "ip6" in result):
            self.add("neither ip4 nor ip6")
        for key, family in (("ip4", 4), ("ip6", 6)):
            part = result.get(key)
            if part is None or not self.keys(key, part, {"ip": str, "gateway": str, "routes": list}, ["ip"]):
                continue
            self.address(f"{key}.ip", part.get("ip"), prefix=True, family=family)
            self.address(f"{key}.gateway", part.get("gateway"), family=family)
            self.routes(f"{key}.routes", part.get("routes"))

    def modern(self, result: Mapping[str, Any]) -> None:
        for key in ("ip4", "ip6"):
            if key in result:
                self.add(f"{key} ended with 0.2.0, the configuration is of {self.version}")
        recent = self.version >= "1.1.0"
        types = {"name": str, "mac": str, "sandbox": str, **(_RECENT_INTERFACE if recent else {})}
        interfaces = self.items(result, "interfaces")
        for index, item in enumerate(interfaces):
            where = f"interfaces[{index}]"
            if self.keys(where, item, types, ["name"]) and item.get("mac"):
                if not _MAC.fullmatch(str(item["mac"])):
                    self.add(f"{where}: mac is {item['mac']!r}")
        marked = self.version < "1.0.0"
        types = {"address": str, "gateway": str, "interface": int, **({"version": str} if marked else {})}
        for index, item in enumerate(self.items(result, "ips")):
            where = f"ips[{index}]"
            if not self.keys(where, item, types, ["address", *(["version"] if marked else [])]):
                continue
            family = int(item["version"]) if marked and item.get("version") in ("4", "6") else 0
            self.address(f"{where}.address", item.get("address"), prefix=True, family=family)
            self.address(f"{where}.gateway", item.get("gateway"), family=family)
        self.routes("routes", result.get("routes"))

    def items(self, result: Mapping[str, Any], key: str) -> "list[Any]":
        value = result.get(key)
        if value is None:
            return []
        if not isinstance(value, list):
            self.add(f"{key} is not a list")
            return []
        return value

    def routes(self, where: str, value: Any) -> None:
        types = {"dst": str, "gw": str, **(_RECENT_ROUTE if self.version >= "1.1.0" else {})}
        for index, item in enumerate(self.items({where: value}, where)):
            if self.keys(f"{where}[{index}]", item, types, ["dst"]):
                self.address(f"{where}[{index}].dst", item.get("dst"), prefix=True)
                self.address(f"{where}[{index}].gw", item.get("gw"))

    def address(self, where: str, value: Any, *, prefix: bool = False, family: int = 0) -> None:
        if value is None or value == "":
            return
        try:
            if ("/" in value) is not prefix:
                raise ValueError
            parsed = ipaddress.ip_interface(value).ip if prefix else ipaddress.ip_address(value)
        except (ValueError, TypeError):
            what = "address with a prefix length" if prefix else "address"
            self.add(f"{where}: {value!r} is not an {what}")
            return
        if family and parsed.version != family:
            self.add(f"{where}: {value} is not an IPv{family} address")
