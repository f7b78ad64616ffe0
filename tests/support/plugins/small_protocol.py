# SPDX-License-Identifier: Apache-2.0
"""CNI's protocol as the small plugin speaks it: the call, the configuration, the result, the errors."""

from __future__ import annotations

import json
import os
import re
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

VERSIONS = ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]
SINCE = {"ADD": "0.1.0", "DEL": "0.1.0", "CHECK": "0.4.0", "GC": "1.1.0", "STATUS": "1.1.0"}
NEEDS = {
    "ADD": ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"],
    "DEL": ["CNI_CONTAINERID", "CNI_IFNAME"],
    "CHECK": ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"],
    "GC": ["CNI_PATH"],
    "STATUS": [],
}
KNOWN = {"cniVersion", "name", "type", "role", "ipam", "prevResult", "args"}
RULES = set(os.environ.get("BROKEN", "").split())
COMMAND = os.environ.get("CNI_COMMAND", "")
CONTAINER = os.environ.get("CNI_CONTAINERID", "")
NETNS = os.environ.get("CNI_NETNS", "")
IFNAME = os.environ.get("CNI_IFNAME", "")


class Refused(Exception):
    def __init__(self, code: int, msg: str) -> None:
        super().__init__(msg)
        self.code = code


def show_versions() -> None:
    if "version-alone" in RULES and "CNI_CONTAINERID" not in os.environ:
        raise Refused(4, "CNI_CONTAINERID is missing")
    if "version-stdin" in RULES:
        read_conf()
    supported: Any = "1.1.0" if "version-lists" in RULES else VERSIONS
    print(json.dumps({"cniVersion": "1.1.0", "supportedVersions": supported}))


def check_environment() -> None:
    if COMMAND not in NEEDS:
        if "unknown-command" in RULES:
            sys.exit(0)
        raise Refused(4, f"unknown CNI_COMMAND {COMMAND}")
    missing = [name for name in NEEDS[COMMAND] if not os.environ.get(name)]
    if missing:
        if f"env-{COMMAND.lower()}" in RULES:
            sys.exit(0)
        raise Refused(4, f"missing {' '.join(missing)}")
    if COMMAND in ("GC", "STATUS"):
        return
    if not re.fullmatch(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*", CONTAINER) and "container-id" not in RULES:
        raise Refused(4, "bad CNI_CONTAINERID")
    if "names-longest" in RULES and len(CONTAINER) > 32:
        raise Refused(4, "CNI_CONTAINERID is too long")
    if not good_ifname(IFNAME) and "ifname" not in RULES:
        raise Refused(4, "bad CNI_IFNAME")
    if "cni-args" in RULES and "K8S" in os.environ.get("CNI_ARGS", ""):
        raise Refused(4, "unknown key in CNI_ARGS")


def good_ifname(name: str) -> bool:
    return len(name.encode()) < 16 and name not in (".", "..") and not re.search(r"[/:\s]", name)


def read_conf() -> Any:
    lenient = bool(RULES & {"stdin-broken", "stdin-absent"})
    try:
        if "stdin-late" in RULES:
            text = os.read(0, 65536)
        else:
            with open(0, "rb", closefd=False) as file:
                text = file.read(65536 if "stdin-huge" in RULES else -1)
        conf = json.loads(text)
        if not isinstance(conf, dict):
            raise ValueError("it is not an object")
        return conf
    except (OSError, ValueError) as error:
        if lenient:
            sys.exit(0)
        raise Refused(6, f"configuration: {error}") from None


def check_name(name: Any) -> None:
    if "network-name" not in RULES and not re.fullmatch(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*", str(name)):
        raise Refused(7, "bad network name")


def check_version(conf: Any) -> str:
    version = conf.get("cniVersion", "1.1.0" if "version-missing" in RULES else "0.1.0")
    if version not in VERSIONS:
        if "version-unknown" in RULES:
            return "1.1.0"
        raise Refused(1, f"version {version} is not supported")
    if VERSIONS.index(version) < VERSIONS.index(SINCE[COMMAND]):
        if "operation-version" in RULES:
            sys.exit(0)
        raise Refused(1, f"{version} has no {COMMAND}")
    return str(version)


def print_result(result: Any, version: str) -> None:
    if "add-only-json" in RULES:
        print("time=now level=info msg=added")
    wrong = f"result-{version}" in RULES
    if version < "0.3.0" and not wrong:
        shaped: Any = {}
        for ip in result["ips"]:
            key = "ip6" if ":" in ip["address"] else "ip4"
            shaped[key] = {"ip": ip["address"], "gateway": ip.get("gateway", "")}
    else:
        shaped = json.loads(json.dumps(result))
        for ip in shaped.get("ips", []):
            ip.pop("version", None)
            if ("0.3.0" <= version < "1.0.0") is not wrong:
                ip["version"] = "6" if ":" in ip["address"] else "4"
    print(json.dumps(shaped | {"cniVersion": version}))
