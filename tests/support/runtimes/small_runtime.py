# SPDX-License-Identifier: Apache-2.0
"""A small CNI runtime, called as cnitool is; it breaks the rules whose names are in the variable BROKEN.

It shares no code with cnihook, so its outcomes depend on the suite only.  It imports as little as possible,
because it is started some hundred times.
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
RULES = set(os.environ.get("BROKEN", "").split())
COUNT = 0


class Refused(Exception):
    pass


def load(name: str) -> Any:
    folder = os.environ["NETCONFPATH"]
    for path in sorted(f"{folder}/{file}" for file in os.listdir(folder) if file.endswith(".conflist")):
        try:
            network = json.loads(read(path))
        except ValueError:
            if "broken-neighbour" in RULES:
                raise Refused(f"{path} is not JSON") from None
            continue
        if network["name"] == name:
            return network
    if "missing" in RULES:
        sys.exit(0)
    raise Refused(f"no network {name}")


def read(path: str) -> str:
    with open(path) as file:
        return file.read()


def version_of(network: Any) -> str:
    offered = [one for one in network.get("cniVersions", []) if one in VERSIONS]
    if "cni-versions" in RULES:
        offered = []
    return str(max([network["cniVersion"], *offered], key=VERSIONS.index))


def derive(network: Any, plugin: Any, extra: Any) -> Any:
    declared = plugin.get("capabilities", {})
    args = json.loads(os.environ.get("CAP_ARGS") or "{}")
    runtime_config = {
        key: value for key, value in args.items() if declared.get(key) or "runtime-config" in RULES
    }
    conf = {key: value for key, value in plugin.items() if not dropped(key)}
    conf |= {"name": network["name"], "cniVersion": version_of(network)}
    if "name-version" in RULES:
        conf |= plugin
    if runtime_config or "empty-runtime-config" in RULES:
        conf["runtimeConfig"] = runtime_config
    return conf | extra


def dropped(key: str) -> bool:
    if key == "capabilities":
        return "capabilities" not in RULES
    if key.startswith("cni.dev/"):
        return "reserved-keys" not in RULES
    return key == "number" and "other-keys" in RULES


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
    if "environment" in RULES:
        environment = variables | {"CNI_COMMAND": command, "CNI_PATH": os.environ["CNI_PATH"]}
    if "variables" in RULES and COUNT > 1:
        del environment["CNI_IFNAME"]
    if "optional-variables" in RULES and not environment["CNI_ARGS"]:
        del environment["CNI_ARGS"]
    process = subprocess.Popen(
        [executable], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    conf = json.dumps(derive(network, plugin, extra)).encode()
    if "stdin-unread" in RULES:
        assert process.stdin
        process.stdin.write(conf)
        process.stdin.flush()
    stdout, stderr = process.communicate(b"" if "stdin-unread" in RULES else conf)
    if process.returncode != 0 and "add-odd-errors" not in RULES:
        raise Refused(reason(stdout) or stderr.decode() or f"exit {process.returncode}")
    if "stderr" not in RULES:
        sys.stderr.write(stderr.decode())
    if command != "ADD":
        return None
    try:
        result = json.loads(stdout)
    except ValueError:
        if "add-odd-errors" in RULES:
            return {}
        raise Refused("the plugin's result is not JSON") from None
    if "result-version" not in RULES:
        result.setdefault("cniVersion", version_of(network))
    stated = result.get("cniVersion")
    if stated and stated < "1.0.0" <= version_of(network) and "result-converted" not in RULES:
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
    if "names" not in RULES and (" " in network or len(ifname) > 15):
        raise Refused("that name is not allowed")


class Runtime:
    def __init__(self, name: str, netns: str) -> None:
        self.network = load(name)
        ifname = os.environ.get("CNI_IFNAME") or "eth0"
        check_names(name, ifname)
        self.variables = {
            "CNI_CONTAINERID": f"small-{binascii.crc32(netns.encode()):08x}",
            "CNI_NETNS": netns,
            "CNI_IFNAME": "eth0" if "ifname-args" in RULES else ifname,
            "CNI_ARGS": os.environ.get("CNI_ARGS", ""),
        }
        self.cache = f"/var/lib/cni/small/{name}"
        self.plugins = self.network["plugins"]

    def at_least(self, version: str) -> bool:
        return VERSIONS.index(version_of(self.network)) >= VERSIONS.index(version)

    def cached(self) -> Any:
        if not os.path.exists(self.cache) or (not self.at_least("0.4.0") and "del-old-version" not in RULES):
            return {}
        return {"prevResult": json.loads(read(self.cache))}

    def add(self) -> None:
        result: Any = None
        order = list(reversed(self.plugins)) if "add-order" in RULES else self.plugins
        problem = None
        for plugin in order:
            extra = {} if result is None or "add-prev-result" in RULES else {"prevResult": result}
            try:
                result = run("ADD", self.network, plugin, self.variables, **extra)
            except Refused as error:
                problem = error
                if "add-error" not in RULES:
                    break
        if problem:
            if "add-rollback" not in RULES:
                self.delete()
            raise problem
        os.makedirs(os.path.dirname(self.cache), exist_ok=True)
        with open(self.cache, "w") as file:
            json.dump(result, file)
        if "add-result" in RULES:
            result = {"cniVersion": version_of(self.network)}
        print(json.dumps(result))

    def delete(self) -> None:
        problem = None
        variables = self.variables | ({"CNI_NETNS": ""} if "del-same" in RULES else {})
        cached = {} if "del-prev-result" in RULES else self.cached()
        if "del-twice" in RULES and not cached:
            raise Refused("it is not attached")
        for plugin in self.plugins if "del-order" in RULES else reversed(self.plugins):
            try:
                run("DEL", self.network, plugin, variables, **cached)
            except Refused as error:
                problem = error
                if "del-past-failure" in RULES:
                    break
        if problem is None or "del-error" in RULES:
            if os.path.exists(self.cache):
                os.unlink(self.cache)
        if problem:
            raise problem

    def check(self) -> None:
        if not self.at_least("0.4.0") and "check-old-version" not in RULES:
            raise Refused("there is no CHECK in this version")
        if self.network.get("disableCheck") and "check-disabled" not in RULES:
            return
        for plugin in self.plugins:
            try:
                extra = {} if "check" in RULES else self.cached()
                run("CHECK", self.network, plugin, self.variables, **extra)
            except Refused:
                if "check-error" not in RULES:
                    raise

    def collect(self) -> None:
        if self.network.get("disableGC") and "gc-disabled" not in RULES:
            return
        if not self.at_least("1.1.0") and "gc-old-version" not in RULES:
            return
        listed = []
        if os.path.exists(self.cache):
            listed = [{"containerID": self.variables["CNI_CONTAINERID"], "ifname": "eth0"}]
        if "gc-list" in RULES:
            listed = [{"containerId": one["containerID"], "ifName": "eth0"} for one in listed]
        extra = {"cni.dev/valid-attachments": listed, "cni.dev/attachments": listed}
        if "gc-old-key" in RULES:
            del extra["cni.dev/attachments"]
        problem = None
        variables = dict.fromkeys(self.variables, "")
        for plugin in self.plugins[1:] if "gc" in RULES else self.plugins:
            try:
                run("GC", self.network, plugin, variables, **extra)
            except Refused as error:
                problem = error
                if "gc-error" in RULES:
                    break
        if problem:
            raise problem

    def status(self) -> None:
        if not self.at_least("1.1.0") and "status-old-version" not in RULES:
            return
        for plugin in self.plugins[1:] if "status" in RULES else self.plugins:
            try:
                run("STATUS", self.network, plugin, dict.fromkeys(self.variables, ""))
            except Refused:
                if "status-error" not in RULES:
                    raise


def main() -> None:
    verb, name, netns = sys.argv[1:]
    try:
        runtime = Runtime(name, netns)
        verbs = {"add": runtime.add, "del": runtime.delete, "check": runtime.check}
        (verbs | {"gc": runtime.collect, "status": runtime.status})[verb]()
    except Refused as error:
        sys.exit("it does not work" if "message" in RULES else f"small runtime: {error}")
    if "quiet" in RULES and verb != "add":
        print("done")


main()
