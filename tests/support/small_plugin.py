# SPDX-License-Identifier: Apache-2.0
"""A small CNI plugin; with BROKEN in its environment it breaks the promise of the check of that name.

`role` in its configuration says what it is: an interface plugin (a veth pair), an IPAM plugin, or a chained
one.  It shares no code with cnihook, so that what the suite says of it is said of the suite alone.  It is
started some thousand times: imported, so that it is not compiled each time, and without subprocess and
pathlib, which take longer to import than all else that it does.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

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
RULE = os.environ.get("BROKEN", "")
COMMAND = os.environ.get("CNI_COMMAND", "")
CONTAINER = os.environ.get("CNI_CONTAINERID", "")
NETNS = os.environ.get("CNI_NETNS", "")
IFNAME = os.environ.get("CNI_IFNAME", "")


class Refused(Exception):
    def __init__(self, code: int, msg: str) -> None:
        super().__init__(msg)
        self.code = code


# The protocol


def main() -> None:
    if not COMMAND:
        print("small plugin", file=sys.stdout if RULE == "about" else sys.stderr)
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
        if RULE == "unknown-keys" and set(conf) - KNOWN - {"cni.dev/valid-attachments"}:
            raise Refused(7, "unknown keys")
        roles = {"ipam": Ipam, "chained": Chained}
        plugin = roles.get(conf.get("role", ""), Plugin)(conf, version)
        operations = {"ADD": plugin.add, "DEL": plugin.delete, "CHECK": plugin.check}
        operations |= {"GC": plugin.collect, "STATUS": plugin.status}
        operations[COMMAND]()
    except Refused as error:
        told = {"cniVersion": version, "code": error.code, "msg": str(error)}
        if RULE == "error-version":
            del told["cniVersion"]
        print(json.dumps(told))
        sys.exit(0 if RULE == "error-json" else 1)


def show_versions() -> None:
    if RULE == "version-alone" and not CONTAINER:
        raise Refused(4, "CNI_CONTAINERID is missing")
    supported: Any = "1.1.0" if RULE == "version-lists" else VERSIONS
    print(json.dumps({"cniVersion": "1.1.0", "supportedVersions": supported}))


def check_environment() -> None:
    if COMMAND not in NEEDS:
        if RULE == "unknown-command":
            sys.exit(0)
        raise Refused(4, f"unknown CNI_COMMAND {COMMAND}")
    missing = [name for name in NEEDS[COMMAND] if not os.environ.get(name)]
    if missing:
        if RULE == f"env-{COMMAND.lower()}":
            sys.exit(0)
        raise Refused(4, f"missing {' '.join(missing)}")
    if COMMAND in ("GC", "STATUS"):
        return
    if not re.fullmatch(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*", CONTAINER) and RULE != "container-id":
        raise Refused(4, "bad CNI_CONTAINERID")
    if RULE == "names-longest" and len(CONTAINER) > 32:
        raise Refused(4, "CNI_CONTAINERID is too long")
    if not good_ifname(IFNAME) and RULE != "ifname":
        raise Refused(4, "bad CNI_IFNAME")
    if RULE == "cni-args" and "K8S" in os.environ.get("CNI_ARGS", ""):
        raise Refused(4, "unknown key in CNI_ARGS")


def good_ifname(name: str) -> bool:
    return len(name.encode()) < 16 and name not in (".", "..") and not re.search(r"[/:\s]", name)


def read_conf() -> Any:
    lenient = RULE in ("stdin-broken", "stdin-absent")
    try:
        if RULE in ("stdin-late", "stdin-huge"):
            text = os.read(0, 65536)
        else:
            with open(0, "rb", closefd=False) as file:
                text = file.read()
        conf = json.loads(text)
        if not isinstance(conf, dict):
            raise ValueError("it is no object")
        return conf
    except (OSError, ValueError) as error:
        if lenient:
            sys.exit(0)
        raise Refused(6, f"configuration: {error}") from None


def check_name(name: Any) -> None:
    if RULE != "network-name" and not re.fullmatch(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*", str(name)):
        raise Refused(7, "bad network name")


def check_version(conf: Any) -> str:
    version = conf.get("cniVersion", "1.1.0" if RULE == "version-missing" else "0.1.0")
    if version not in VERSIONS:
        if RULE == "version-unknown":
            return "1.1.0"
        raise Refused(1, f"version {version} is not supported")
    if VERSIONS.index(version) < VERSIONS.index(SINCE[COMMAND]):
        if RULE == "operation-version":
            sys.exit(0)
        raise Refused(1, f"{version} has no {COMMAND}")
    return str(version)


def print_result(result: Any, version: str) -> None:
    if RULE == "add-only-json":
        print("time=now level=info msg=added")
    wrong = RULE == f"result-{version}"
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


# The kernel


def ip(*argv: str, check: bool = True, stdin: str = "") -> Any:
    status, stdout, stderr = run(["ip", "-j", *argv], stdin)
    if check and status != 0:
        raise Refused(100, f"ip {' '.join(argv)}: {stderr.strip()}")
    return json.loads(stdout) if stdout.strip() else []


def run(argv: list[str], stdin: str = "", **variables: str) -> tuple[int, str, str]:
    """A program's exit status, and all of its stdout and stderr."""
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
        raise Refused(100, f"{NETNS} is no namespace")
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
        if RULE == "prev-result-tolerated" and self.prev and COMMAND == "ADD":
            crash()

    def add(self) -> None:
        if RULE == "netns-missing" and not os.path.exists(NETNS):
            print_result({"ips": []}, self.version)
            return
        if RULE == "add" or (RULE == "add-after-del" and self.was_here()):
            raise Refused(100, "not today")
        name = namespace()
        host = "veth-small" if RULE == "parallel" else f"v{os.urandom(4).hex()}"
        if RULE == "add-existing":
            ip("-n", name, "link", "del", IFNAME, check=False)
        ip("link", "add", host, "type", "veth", "peer", "name", IFNAME, "netns", name)
        if RULE == "del-host":
            ip("link", "add", f"x{os.urandom(4).hex()}", "type", "veth")
        try:
            print_result(self.set_up(name, host), self.version)
        except Refused:
            if RULE != "delegate-released":
                self.delegate("DEL", quiet=True)
            if RULE != "delegate-refuses-clean":
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
        given = self.delegate("ADD") or {"ips": []}
        if "ip4" in given or "ip6" in given:
            parts = [given[key] for key in ("ip4", "ip6") if key in given]
            given = {"ips": [{"address": one["ip"], "gateway": one.get("gateway")} for one in parts]}
        ip("link", "set", host, "up")
        lines = [f"link set {IFNAME} up"]
        lines += [f"address add {one['address']} dev {IFNAME} nodad" for one in given["ips"]]
        for route in given.get("routes", []):
            gateway = route.get("gw") or given["ips"][0]["gateway"]
            lines.append(f"route add {route['dst']} via {gateway}")
        ip("-n", name, "-batch", "-", stdin="\n".join(lines))
        (outer,) = ip("link", "show", host)
        (inner,) = ip("-n", name, "link", "show", IFNAME)
        mac = "02:00:00:00:00:99" if RULE == "result-interface" else inner["address"]
        sandbox = "/somewhere/else" if RULE == "result-sandbox" else NETNS
        ips = [{**one, "interface": 7 if RULE == "result-indexes" else 1} for one in given["ips"]]
        if RULE == "result-addresses":
            ips[0]["address"] = "10.77.0.0/24"
        result = given | {
            "interfaces": [
                {"name": host, "mac": outer["address"]},
                {"name": IFNAME, "mac": mac, "sandbox": sandbox},
            ],
            "ips": ips,
        }
        if RULE in ("result-routes", "result-dns"):
            result.pop(RULE.removeprefix("result-"), None)
        return result

    def delete(self) -> None:
        if RULE == "del-no-prev-result" and not self.prev:
            raise Refused(100, "prevResult is missing")
        if RULE == "del-bad-prev-result" and self.prev and "/" not in self.prev["ips"][0]["address"]:
            raise Refused(6, "prevResult is wrong")
        if RULE == "del-empty-netns" and not NETNS:
            raise Refused(4, "CNI_NETNS is missing")
        if RULE == "del-others":
            for other in os.listdir("/run/netns"):
                ip("-n", other, "link", "del", IFNAME, check=False)
        if RULE == "del-host-links-gone" and len(ip("link")) == 1:
            raise Refused(100, "the host has no links")
        gone = not NETNS or not os.path.exists(NETNS)
        if gone and NETNS and RULE in ("del-netns-gone", "del-failed-add"):
            raise Refused(100, f"{NETNS} is gone")
        if not gone and RULE != "del":
            self.delete_link()
        if gone and RULE == "delegate-del-no-netns":
            return
        self.delegate("DEL", quiet=RULE == "delegate-del-error")
        if RULE == "quiet":
            print("{}")

    def delete_link(self) -> None:
        name = os.path.basename(NETNS)
        strict = RULE in ("del-twice", "del-link-gone", "del-never-added")
        ip("-n", name, "link", "del", IFNAME, check=strict)
        if RULE == "add-other-ifname":
            ip("-n", name, "link", "del", "eth0", check=False)

    def check(self) -> None:
        if RULE == "check":
            raise Refused(100, "nothing is as it should be")
        if not self.prev:
            if RULE == "check-prev-result":
                return
            raise Refused(7, "prevResult is missing")
        interfaces = self.prev.get("interfaces", [])
        if RULE == "check-later-plugins" and len(interfaces) != 2:
            raise Refused(100, "there are strange interfaces")
        if RULE == "check-route" and any("gw" not in one for one in self.prev.get("routes", [])):
            raise Refused(100, "a route is missing")
        links = {one["ifname"]: one for one in ip("-n", namespace(), "address", "show")}
        if IFNAME not in links and RULE not in ("check-link-gone", "check-not-added"):
            raise Refused(100, f"{IFNAME} is missing")
        found = [one["local"] for one in links.get(IFNAME, {}).get("addr_info", [])]
        for one in self.prev["ips"]:
            blind = RULE in ("check-address-gone", "check-link-gone", "check-not-added")
            if one["address"].split("/")[0] not in found and not blind:
                raise Refused(100, f"{one['address']} is missing")
        self.delegate("CHECK")

    def collect(self) -> None:
        self.delegate("GC")

    def status(self) -> None:
        if RULE == "status":
            raise Refused(100, "no idea")
        self.delegate("STATUS")

    def delegate(self, command: str, *, quiet: bool = False) -> Any:
        delegate = self.conf.get("ipam", {}).get("type")
        if RULE == f"delegate-{command.lower()}" and command != "ADD":
            return None
        folders = os.environ["CNI_PATH"].split(":") if delegate else []
        found = next((f"{one}/{delegate}" for one in folders if os.path.exists(f"{one}/{delegate}")), None)
        if not found:
            if quiet or RULE == "delegate-missing" or command != "ADD":
                return None
            raise Refused(100, f"there is no {delegate}")
        conf = {"ipam": self.conf["ipam"]} if RULE == "delegate-add" else self.conf
        status, stdout, stderr = run([found], json.dumps(conf), CNI_COMMAND=command)
        if RULE != "delegate-stderr":
            sys.stderr.write(stderr)
        if status != 0 and not quiet and RULE != "delegate-refuses":
            error = json.loads(stdout)
            raise Refused(error["code"], error["msg"])
        return json.loads(stdout) if command == "ADD" and status == 0 else None


class Chained(Plugin):
    """Sets the MTU of the interface."""

    def add(self) -> None:
        if not self.prev:
            if RULE == "prev-result-missing":
                crash()
            raise Refused(7, "prevResult is missing")
        if not self.sound() and RULE != "prev-result-bad":
            raise Refused(6, "prevResult is wrong")
        if RULE == "prev-result-passed-on":
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
            if RULE == "del-undoes":
                ip("-n", name, "link", "del", IFNAME, check=False)

    def check(self) -> None:
        if not self.prev:
            raise Refused(7, "prevResult is missing")
        (link,) = ip("-n", namespace(), "link", "show", IFNAME)
        if link["mtu"] != 1400:
            raise Refused(100, "the MTU is another")


class Ipam(Plugin):
    """An address for each interface, in a file each."""

    def __init__(self, conf: Any, version: str) -> None:
        super().__init__(conf, version)
        self.root = "/run/small-ipam"
        self.folder = f"{self.root}/networks/{conf['name']}"
        os.makedirs(self.folder, exist_ok=True)
        self.lock = open(f"{self.root}/lock", "w")
        fcntl.flock(self.lock, fcntl.LOCK_EX)
        self.mine = f"{self.folder}/{CONTAINER}+{IFNAME}"

    def add(self) -> None:
        taken = set()
        for name in os.listdir(self.folder):
            with open(f"{self.folder}/{name}") as file:
                taken.add(file.read())
        free = (f"10.77.0.{number}/24" for number in range(2, 255))
        address = next(one for one in free if one not in taken or RULE == "ipam-different")
        with open(self.mine, "w") as file:
            file.write(address)
        result: Any = {"ips": [{"address": address, "gateway": "10.77.0.1"}]}
        if RULE == "ipam-abbreviated":
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
        if RULE == "gc-old-key":
            listed = self.conf.get(keys[0])
        if RULE == "gc-no-list":
            listed = listed or []
        if RULE == "gc-empty-list":
            listed = listed or None
        if listed is None or RULE == "gc":
            return
        keep = {f"{one['containerID']}+{one['ifname']}" for one in listed}
        ids = {one["containerID"] for one in listed}
        networks = f"{self.root}/networks"
        folders = [self.folder]
        if RULE == "gc-other-network":
            folders = [f"{networks}/{name}" for name in os.listdir(networks)]
        files = [f"{folder}/{name}" for folder in folders for name in os.listdir(folder)]
        if RULE == "gc-twice" and not files:
            raise Refused(100, "there is nothing to collect")
        for path in files:
            name = os.path.basename(path)
            if name not in keep and not (RULE == "gc-ifname" and name.split("+")[0] in ids):
                os.unlink(path)

    def status(self) -> None:
        pass


main()
