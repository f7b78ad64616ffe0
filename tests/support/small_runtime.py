# SPDX-License-Identifier: Apache-2.0
"""A small CNI runtime, called as cnitool is; with BROKEN in its environment it breaks the rule of that name.

It shares no code with cnihook, so that what the suite says of it is said of the suite alone.  Of what takes
long to import it has the least: it is started some hundred times.
"""

from __future__ import annotations

import binascii
import json
import os
import subprocess
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

VERSIONS = ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]
RULE = os.environ.get("BROKEN", "")
COUNT = 0


class Refused(Exception):
    pass


def load(name: str) -> Any:
    folder = os.environ["NETCONFPATH"]
    for path in sorted(f"{folder}/{file}" for file in os.listdir(folder) if file.endswith(".conflist")):
        try:
            found = json.loads(read(path))
        except ValueError:
            if RULE == "broken-neighbour":
                raise Refused(f"{path} is no JSON") from None
            continue
        if found["name"] == name:
            return found
    raise Refused(f"no network {name}" if RULE != "missing" else "something is wrong")


def read(path: str) -> str:
    with open(path) as file:
        return file.read()


def version_of(network: Any) -> str:
    offered = [one for one in network.get("cniVersions", []) if one in VERSIONS]
    if RULE == "cni-versions":
        offered = []
    return str(max([network["cniVersion"], *offered], key=VERSIONS.index))


def derive(network: Any, plugin: Any, extra: Any) -> Any:
    declared = plugin.get("capabilities", {})
    given = json.loads(os.environ.get("CAP_ARGS") or "{}")
    wanted = {key: value for key, value in given.items() if declared.get(key) or RULE == "runtime-config"}
    conf = {key: value for key, value in plugin.items() if not dropped(key)}
    conf |= {"name": network["name"], "cniVersion": version_of(network)}
    if RULE == "name-version":
        conf |= plugin
    if wanted:
        conf["runtimeConfig"] = wanted
    return conf | extra


def dropped(key: str) -> bool:
    if key == "capabilities":
        return RULE != "capabilities"
    if key.startswith("cni.dev/"):
        return RULE != "reserved-keys"
    return key == "number" and RULE == "other-keys"


def run(command: str, network: Any, plugin: Any, variables: Any, **extra: Any) -> Any:
    global COUNT
    COUNT += 1
    for folder in os.environ["CNI_PATH"].split(":"):
        executable = f"{folder}/{plugin['type']}"
        if os.path.isfile(executable):
            break
    else:
        raise Refused(f"there is no plugin {plugin['type']}")
    environment = os.environ | variables | {"CNI_COMMAND": command}
    if RULE == "environment":
        environment = variables | {"CNI_COMMAND": command, "CNI_PATH": os.environ["CNI_PATH"]}
    if RULE == "variables" and COUNT > 1:
        del environment["CNI_ARGS"]
    process = subprocess.Popen(
        [executable], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    conf = json.dumps(derive(network, plugin, extra)).encode()
    if RULE == "stdin-unread":
        assert process.stdin
        process.stdin.write(conf)
        process.stdin.flush()
    stdout, stderr = process.communicate(b"" if RULE == "stdin-unread" else conf)
    if process.returncode != 0 and RULE != "add-odd-errors":
        raise Refused(reason(stdout) or stderr.decode() or f"exit {process.returncode}")
    if RULE != "stderr":
        sys.stderr.write(stderr.decode())
    if command != "ADD":
        return None
    try:
        result = json.loads(stdout)
    except ValueError:
        if RULE == "add-odd-errors":
            return {}
        raise Refused("its result is no JSON") from None
    if RULE != "result-version":
        result.setdefault("cniVersion", version_of(network))
    stated = result.get("cniVersion")
    if stated and stated < "1.0.0" <= version_of(network) and RULE != "result-converted":
        for ip in result["ips"]:
            ip.pop("version", None)
        result["cniVersion"] = version_of(network)
    return result


def reason(stdout: bytes) -> str:
    try:
        return str(json.loads(stdout)["msg"])
    except ValueError:
        return ""


def check_names(network: str, ifname: str) -> None:
    if RULE != "names" and (" " in network or len(ifname) > 15):
        raise Refused("that name is not allowed")


class Runtime:
    def __init__(self, name: str, netns: str) -> None:
        self.network = load(name)
        ifname = os.environ.get("CNI_IFNAME") or "eth0"
        check_names(name, ifname)
        self.variables = {
            "CNI_CONTAINERID": f"small-{binascii.crc32(netns.encode()):08x}",
            "CNI_NETNS": netns,
            "CNI_IFNAME": "eth0" if RULE == "ifname-args" else ifname,
            "CNI_ARGS": os.environ.get("CNI_ARGS", ""),
        }
        self.cache = f"/var/lib/cni/small/{name}"
        self.plugins = self.network["plugins"]

    def at_least(self, version: str) -> bool:
        return VERSIONS.index(version_of(self.network)) >= VERSIONS.index(version)

    def cached(self) -> Any:
        if not os.path.exists(self.cache) or (not self.at_least("0.4.0") and RULE != "del-old-version"):
            return {}
        return {"prevResult": json.loads(read(self.cache))}

    def add(self) -> None:
        result: Any = None
        order = list(reversed(self.plugins)) if RULE == "add-order" else self.plugins
        problem = None
        for plugin in order:
            extra = {} if result is None or RULE == "add-prev-result" else {"prevResult": result}
            try:
                result = run("ADD", self.network, plugin, self.variables, **extra)
            except Refused as error:
                problem = error
                if RULE != "add-error":
                    break
        if problem:
            if RULE != "add-rollback":
                self.delete()
            raise problem
        os.makedirs(os.path.dirname(self.cache), exist_ok=True)
        with open(self.cache, "w") as file:
            json.dump(result, file)
        if RULE == "add-result":
            result = {"cniVersion": version_of(self.network)}
        print(json.dumps(result))

    def delete(self) -> None:
        problem = None
        variables = self.variables | ({"CNI_NETNS": ""} if RULE == "del-same" else {})
        cached = {} if RULE == "del-prev-result" else self.cached()
        if RULE == "del-twice" and not cached:
            raise Refused("it is not attached")
        for plugin in self.plugins if RULE == "del-order" else reversed(self.plugins):
            try:
                run("DEL", self.network, plugin, variables, **cached)
            except Refused as error:
                problem = error
                if RULE == "del-past-failure":
                    break
        if problem is None or RULE == "del-error":
            if os.path.exists(self.cache):
                os.unlink(self.cache)
        if problem:
            raise problem

    def check(self) -> None:
        if not self.at_least("0.4.0") and RULE != "check-old-version":
            raise Refused("there is no CHECK in this version")
        if self.network.get("disableCheck") and RULE != "check-disabled":
            return
        for plugin in self.plugins:
            try:
                extra = {} if RULE == "check" else self.cached()
                run("CHECK", self.network, plugin, self.variables, **extra)
            except Refused:
                if RULE != "check-error":
                    raise

    def collect(self) -> None:
        if self.network.get("disableGC") and RULE != "gc-disabled":
            return
        if not self.at_least("1.1.0") and RULE != "gc-old-version":
            return
        listed = []
        if os.path.exists(self.cache):
            listed = [{"containerID": self.variables["CNI_CONTAINERID"], "ifname": "eth0"}]
        if RULE == "gc-list":
            listed = [{"containerId": one["containerID"], "ifName": "eth0"} for one in listed]
        extra = {"cni.dev/valid-attachments": listed, "cni.dev/attachments": listed}
        if RULE == "gc-old-key":
            del extra["cni.dev/attachments"]
        problem = None
        variables = self.variables if RULE == "gc" else dict.fromkeys(self.variables, "")
        for plugin in self.plugins:
            try:
                run("GC", self.network, plugin, variables, **extra)
            except Refused as error:
                problem = error
                if RULE == "gc-error":
                    break
        if problem:
            raise problem

    def status(self) -> None:
        if not self.at_least("1.1.0") and RULE != "status-old-version":
            return
        for plugin in self.plugins[1:] if RULE == "status" else self.plugins:
            try:
                run("STATUS", self.network, plugin, dict.fromkeys(self.variables, ""))
            except Refused:
                if RULE != "status-error":
                    raise


def main() -> None:
    verb, name, netns = sys.argv[1:]
    try:
        runtime = Runtime(name, netns)
        verbs = {"add": runtime.add, "del": runtime.delete, "check": runtime.check}
        (verbs | {"gc": runtime.collect, "status": runtime.status})[verb]()
    except Refused as error:
        sys.exit(f"small runtime: {error}")
    if RULE == "quiet" and verb != "add":
        print("done")


main()
