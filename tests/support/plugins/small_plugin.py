# SPDX-License-Identifier: Apache-2.0
"""A small CNI plugin.  The variable BROKEN names checks whose promises it then breaks.

`role` in its configuration makes it an interface plugin (a veth pair), an IPAM plugin, or a chained one.  It
shares no code with cnihook, so its outcomes depend on the suite only.  It is started some thousand times.
So it is imported, and not compiled each time, and it does not import subprocess and pathlib, which would
take longer than everything else that it does.
"""

from __future__ import annotations

import fcntl
import json
import os
import sys

from tests.support.plugins.small_protocol import (
    COMMAND,
    CONTAINER,
    IFNAME,
    KNOWN,
    NETNS,
    RULES,
    Refused,
    check_environment,
    check_name,
    check_version,
    print_result,
    read_conf,
    show_versions,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn


def main() -> None:
    if not COMMAND:
        print("small plugin", file=sys.stdout if "about" in RULES else sys.stderr)
        return
    version = "1.1.0"
    try:
        if COMMAND == "VERSION":
            show_versions()
            return
        check_environment()
        conf = read_conf()
        check_name(conf.get("name", ""))
        version = check_version(conf)
        unknown = [key for key in conf if key not in KNOWN and not key.startswith("cni.dev/")]
        if "unknown-keys" in RULES and unknown:
            raise Refused(7, "unknown keys")
        roles = {"ipam": Ipam, "chained": Chained}
        plugin = roles.get(conf.get("role", ""), Plugin)(conf, version)
        operations = {"ADD": plugin.add, "DEL": plugin.delete, "CHECK": plugin.check}
        operations |= {"GC": plugin.collect, "STATUS": plugin.status}
        operations[COMMAND]()
    except Refused as error:
        answer = {"cniVersion": version, "code": error.code, "msg": str(error)}
        if "error-version" in RULES:
            del answer["cniVersion"]
        if "error-code" in RULES:
            answer["code"] = 999
        if "error-text" in RULES:
            sys.exit(str(error))
        print(json.dumps(answer))
        sys.exit(0 if "error-json" in RULES else 1)


# The kernel


def ip(*argv: str, check: bool = True, stdin: str = "") -> Any:
    status, stdout, stderr = run(["ip", "-j", *argv], stdin)
    if check and status != 0:
        raise Refused(100, f"ip {' '.join(argv)}: {stderr.strip()}")
    return json.loads(stdout) if stdout.strip() else []


def run(argv: list[str], stdin: str = "", **variables: str) -> tuple[int, str, str]:
    """Run a program.  Returns its exit status, stdout and stderr."""
    streams = [os.memfd_create(name) for name in ("stdin", "stdout", "stderr")]
    os.write(streams[0], stdin.encode())
    os.lseek(streams[0], 0, os.SEEK_SET)
    actions = [(os.POSIX_SPAWN_DUP2, stream, number) for number, stream in enumerate(streams)]
    pid = os.posix_spawnp(argv[0], argv, os.environ | variables, file_actions=actions)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return status, written(streams[1]), written(streams[2])


def written(stream: int) -> str:
    os.lseek(stream, 0, os.SEEK_SET)
    with open(stream) as file:
        return file.read()


def namespace() -> str:
    if not os.path.exists(NETNS) or os.path.dirname(NETNS) != "/run/netns":
        raise Refused(100, f"{NETNS} is not a namespace")
    return os.path.basename(NETNS)


def crash() -> NoReturn:
    sys.stderr.write("Traceback: this is a crash\n")
    sys.exit(3)


class Plugin:
    """An interface plugin."""

    def __init__(self, conf: Any, version: str) -> None:
        self.conf = conf
        self.version = version
        self.prev = conf.get("prevResult")
        if "prev-result-tolerated" in RULES and self.prev and COMMAND == "ADD":
            crash()

    def add(self) -> None:
        if "netns-missing" in RULES and not os.path.exists(NETNS):
            print_result({"ips": []}, self.version)
            return
        if "add" in RULES or ("add-after-del" in RULES and self.was_here()):
            raise Refused(100, "not today")
        name = namespace()
        host = "veth-small" if "parallel" in RULES else f"v{os.urandom(4).hex()}"
        if "add-existing" in RULES:
            ip("-n", name, "link", "del", IFNAME, check=False)
        ip("link", "add", host, "type", "veth", "peer", "name", IFNAME, "netns", name)
        if "del-host" in RULES:
            ip("link", "add", f"x{os.urandom(4).hex()}", "type", "veth")
        try:
            print_result(self.set_up(name, host), self.version)
        except Refused:
            if "delegate-released" not in RULES:
                self.delegate("DEL", quiet=True)
            if "delegate-refuses-clean" not in RULES:
                ip("link", "del", host)
            raise

    def was_here(self) -> bool:
        os.makedirs("/run/small", exist_ok=True)
        try:
            os.mkdir(f"/run/small/{CONTAINER}")
        except FileExistsError:
            return True
        return False

    def set_up(self, name: str, host: str) -> Any:
        ipam = self.delegate("ADD") or {"ips": []}
        if "ip4" in ipam or "ip6" in ipam:
            parts = [ipam[key] for key in ("ip4", "ip6") if key in ipam]
            ipam = {"ips": [{"address": one["ip"], "gateway": one.get("gateway")} for one in parts]}
        ip("link", "set", host, "up")
        lines = [f"link set {IFNAME} up"]
        lines += [f"address add {one['address']} dev {IFNAME} nodad" for one in ipam["ips"]]
        for route in ipam.get("routes", []):
            gateway = route.get("gw") or ipam["ips"][0]["gateway"]
            lines.append(f"route add {route['dst']} via {gateway}")
        ip("-n", name, "-batch", "-", stdin="\n".join(lines))
        (outer,) = ip("link", "show", host)
        (inner,) = ip("-n", name, "link", "show", IFNAME)
        mac = "02:00:00:00:00:99" if "result-interface" in RULES else inner["address"]
        sandbox = "/somewhere/else" if "result-sandbox" in RULES else NETNS
        ips = [{**one, "interface": 7 if "result-indexes" in RULES else 1} for one in ipam["ips"]]
        if "result-addresses" in RULES:
            ips[0]["address"] = "10.77.0.0/24"
        result = ipam | {
            "interfaces": [
                {"name": host, "mac": outer["address"]},
                {"name": IFNAME, "mac": mac, "sandbox": sandbox},
            ],
            "ips": ips,
        }
        for key in ("routes", "dns"):
            if f"result-{key}" in RULES:
                result.pop(key, None)
        return result

    def delete(self) -> None:
        if "del-no-prev-result" in RULES and not self.prev:
            raise Refused(100, "prevResult is missing")
        if "del-bad-prev-result" in RULES and self.prev and "/" not in self.prev["ips"][0]["address"]:
            raise Refused(6, "prevResult is wrong")
        if "del-empty-netns" in RULES and not NETNS:
            raise Refused(4, "CNI_NETNS is missing")
        if "del-others" in RULES:
            for other in os.listdir("/run/netns"):
                ip("-n", other, "link", "del", IFNAME, check=False)
        if "del-host-links-gone" in RULES and len(ip("link")) == 1:
            raise Refused(100, "the host has no links")
        gone = not NETNS or not os.path.exists(NETNS)
        if gone and NETNS and "del-netns-gone" in RULES:
            raise Refused(100, f"{NETNS} is gone")
        if not gone and "del" not in RULES:
            self.delete_link()
        if gone and "delegate-del-no-netns" in RULES:
            return
        self.delegate("DEL", quiet="delegate-del-error" in RULES)
        if "quiet" in RULES:
            print("{}")

    def delete_link(self) -> None:
        name = os.path.basename(NETNS)
        strict = bool(RULES & {"del-twice", "del-link-gone", "del-never-added", "del-failed-add"})
        ip("-n", name, "link", "del", IFNAME, check=strict)
        if "add-other-ifname" in RULES:
            ip("-n", name, "link", "del", "eth0", check=False)

    def check(self) -> None:
        if "check" in RULES:
            raise Refused(100, "nothing is as it should be")
        if not self.prev:
            if "check-prev-result" in RULES:
                return
            raise Refused(7, "prevResult is missing")
        interfaces = self.prev.get("interfaces", [])
        if "check-later-plugins" in RULES and len(interfaces) != 2:
            raise Refused(100, "there are strange interfaces")
        if "check-route" in RULES and any("gw" not in one for one in self.prev.get("routes", [])):
            raise Refused(100, "a route is missing")
        links = {one["ifname"]: one for one in ip("-n", namespace(), "address", "show")}
        if IFNAME not in links and not RULES & {"check-link-gone", "check-not-added"}:
            raise Refused(100, f"{IFNAME} is missing")
        addresses = [one["local"] for one in links.get(IFNAME, {}).get("addr_info", [])]
        for one in self.prev["ips"]:
            blind = bool(RULES & {"check-address-gone", "check-link-gone", "check-not-added"})
            if one["address"].split("/")[0] not in addresses and not blind:
                raise Refused(100, f"{one['address']} is missing")
        self.delegate("CHECK")

    def collect(self) -> None:
        self.delegate("GC")

    def status(self) -> None:
        if "status" in RULES:
            raise Refused(100, "no idea")
        self.delegate("STATUS")

    def delegate(self, command: str, *, quiet: bool = False) -> Any:
        delegate = self.conf.get("ipam", {}).get("type")
        if f"delegate-{command.lower()}" in RULES and command != "ADD":
            return None
        folders = os.environ["CNI_PATH"].split(":") if delegate else []
        executable = next(
            (f"{one}/{delegate}" for one in folders if os.path.exists(f"{one}/{delegate}")), None
        )
        if not executable:
            if quiet or "delegate-missing" in RULES or command != "ADD":
                return None
            raise Refused(100, f"there is no {delegate}")
        arguments = "" if "delegate-add" in RULES else os.environ.get("CNI_ARGS", "")
        conf = {"ipam": self.conf["ipam"]} if "delegate-conf" in RULES else self.conf
        status, stdout, stderr = run([executable], json.dumps(conf), CNI_COMMAND=command, CNI_ARGS=arguments)
        if "delegate-stderr" not in RULES:
            sys.stderr.write(stderr)
        if status != 0 and not quiet and ("delegate-refuses" not in RULES or command == "STATUS"):
            error = json.loads(stdout)
            raise Refused(error["code"], error["msg"])
        return json.loads(stdout) if command == "ADD" and status == 0 else None


class Chained(Plugin):
    """A chained plugin: it sets the MTU of the interface."""

    def add(self) -> None:
        if not self.prev:
            if "prev-result-missing" in RULES:
                crash()
            raise Refused(7, "prevResult is missing")
        if not self.sound() and "prev-result-bad" not in RULES:
            raise Refused(6, "prevResult is wrong")
        if "prev-result-passed-on" in RULES:
            self.prev.pop("dns", None)
        ip("-n", namespace(), "link", "set", IFNAME, "mtu", "1400")
        print_result(self.prev if isinstance(self.prev, dict) else {}, self.version)

    def sound(self) -> bool:
        ips = self.prev.get("ips", []) if isinstance(self.prev, dict) else [{"address": ""}]
        return all("/" in one["address"] for one in ips)

    def delete(self) -> None:
        if NETNS and os.path.exists(NETNS):
            name = os.path.basename(NETNS)
            ip("-n", name, "link", "set", IFNAME, "mtu", "1500", check=False)
            if "del-undoes" in RULES:
                ip("-n", name, "link", "del", IFNAME, check=False)

    def check(self) -> None:
        if not self.prev:
            raise Refused(7, "prevResult is missing")
        (link,) = ip("-n", namespace(), "link", "show", IFNAME)
        if link["mtu"] != 1400:
            raise Refused(100, "the MTU is not 1400")


class Ipam(Plugin):
    """An IPAM plugin: an address for each interface, in a file."""

    def __init__(self, conf: Any, version: str) -> None:
        super().__init__(conf, version)
        self.root = "/run/small-ipam"
        self.folder = f"{self.root}/networks/{conf['name']}"
        os.makedirs(self.folder, exist_ok=True)
        self.lock = open(f"{self.root}/lock", "w")
        fcntl.flock(self.lock, fcntl.LOCK_EX)
        self.mine = f"{self.folder}/{CONTAINER}+{IFNAME}"

    def add(self) -> None:
        leased = set()
        for name in os.listdir(self.folder):
            with open(f"{self.folder}/{name}") as file:
                leased.add(file.read())
        free = (f"10.77.0.{number}/24" for number in range(2, 255))
        address = next(one for one in free if one not in leased or "ipam-different" in RULES)
        with open(self.mine, "w") as file:
            file.write(address)
        result: Any = {"ips": [{"address": address, "gateway": "10.77.0.1"}]}
        if "ipam-abbreviated" in RULES:
            result["interfaces"] = [{"name": IFNAME}]
        print_result(result, self.version)

    def delete(self) -> None:
        if os.path.exists(self.mine):
            os.unlink(self.mine)

    def check(self) -> None:
        if not os.path.exists(self.mine):
            raise Refused(100, "there is no such address")

    def collect(self) -> None:
        keys = ["cni.dev/valid-attachments", "cni.dev/attachments"]
        listed = next((self.conf[key] or [] for key in keys if key in self.conf), None)
        if "gc-old-key" in RULES:
            listed = self.conf.get(keys[0])
        if "gc-no-list" in RULES:
            listed = listed or []
        if "gc-empty-list" in RULES:
            listed = listed or None
        if "gc-keeps" in RULES:
            listed = []
        if listed is None or "gc-removes" in RULES:
            return
        keep = {f"{one['containerID']}+{one['ifname']}" for one in listed}
        ids = {one["containerID"] for one in listed}
        networks = f"{self.root}/networks"
        folders = [self.folder]
        if "gc-other-network" in RULES:
            folders = [f"{networks}/{name}" for name in os.listdir(networks)]
        files = [f"{folder}/{name}" for folder in folders for name in os.listdir(folder)]
        if "gc-twice" in RULES and not files:
            raise Refused(100, "there is nothing to collect")
        for path in files:
            name = os.path.basename(path)
            if name not in keep and not ("gc-ifname" in RULES and name.split("+")[0] in ids):
                os.unlink(path)

    def status(self) -> None:
        pass


main()
