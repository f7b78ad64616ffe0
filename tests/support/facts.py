# SPDX-License-Identifier: Apache-2.0
"""The leak check: all of a throw-away host that must be as before, as lines that can be compared."""

import json
import os
import time
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.support import host as hosts

# What stays by design: it belongs to the network or to the host, not to one attachment.
STAYS = [
    "dir /run/cnihook",
    "dir /run/cnihook/lock",
    "dir /run/cnihook/log",
    "dir /var/lib/cni/networks",
    "dir /var/lib/cni/networks/*",
    "file /var/lib/cni/networks/*/lock",
    "file /var/lib/cni/networks/*/last_reserved_ip.[0-9]*",
    "dir /var/lib/cni/results",
]

# One process for all that only programs know, so that a check costs 15 ms and not 40.
COLLECT = """\
cut="$1"; shift
show() {
  printf 'address show\\nroute show table all\\nrule show\\n' | ip "$@" -d -j -batch -
  printf 'route show table all\\nrule show\\n' | ip "$@" -6 -j -batch -
}
show
for name; do echo "$cut"; show -n "$name"; done
echo "$cut"
nft list ruleset 2> /dev/null
"""
CUT = "--8<--"

# Where a host writes, and under which name; of /etc and /var/lib, what is not the machine's own.
FOLDERS = {
    "run": "/run",
    "etc/cni": "/etc/cni",
    "var/lib/cni": "/var/lib/cni",
    "run/.host/etc": "/etc",
    "run/.host/lib": "/var/lib",
}


class Facts:
    """Lines such as `link cni0 bridge up mtu 1500`, `address eth0 10.22.0.2/16`, `process sleep 60`."""

    def __init__(self, lines: Iterable[str], bridges: Iterable[str]) -> None:
        self.lines = frozenset(lines)
        self.bridges = frozenset(bridges)  # of the host, without a port

    @classmethod
    def of(cls, host: "hosts.Host", containers: "Sequence[hosts.Container]") -> "Facts":
        named = [container for container in containers if container.pid is None]
        script = ["sh", "-c", COLLECT, "collect", CUT, *(container.name for container in named)]
        own, *inside, nft = host.run(*script).stdout.split(CUT + "\n")

        lines, bridges = _network(own, leave_out={"up0"})  # the uplink that Host.outside() makes
        for container, text in zip(named, inside, strict=True):
            lines += [f"in {container.name}: {line}" for line in _network(text)[0]]
        lines += _nft(nft)
        ours = {"/run/netns", "/run/netns/outside", *(container.path for container in containers)}
        mounts = Path(f"/proc/{host.holder}/mounts").read_text().splitlines()
        lines += [f"mount {path}" for path in (line.split()[1] for line in mounts) if path not in ours]
        for place, shown_as in FOLDERS.items():
            lines += _files(host.root, place, shown_as, ours)
        lines += _processes(host, {container.pid for container in containers})
        return cls(lines, bridges)

    def plus(self, lines: Iterable[str]) -> "Facts":
        return Facts(self.lines.union(lines), self.bridges)

    def without(self, prefix: str) -> "Facts":
        return Facts((line for line in self.lines if not line.startswith(prefix)), self.bridges)


def compare(before: Facts, now: Callable[[], Facts], stay: Sequence[str]) -> None:
    """Fail if `now` differs from `before`, other than by what may stay.

    Looks again for a while: the kernel takes down a namespace and its links after the last user has gone.
    """
    deadline = time.monotonic() + 0.5
    while True:
        after = now()
        allowed = [*STAYS, *stay]
        if "empty bridges" in stay:
            allowed += [f"* {bridge} *" for bridge in after.bridges]
        new = [line for line in after.lines - before.lines if not any(fnmatchcase(line, a) for a in allowed)]
        gone = before.lines - after.lines
        if not new and not gone:
            return
        if time.monotonic() > deadline:
            break
        time.sleep(0.05)
    report = [f"+ {line}" for line in sorted(new)] + [f"- {line}" for line in sorted(gone)]
    pytest.fail("the host is not as it was:\n" + "\n".join(report), pytrace=False)


def _documents(text: str) -> list[Any]:
    """All JSON values of a text, one after the other, as `ip -j -batch` prints them."""
    decoder, position, found = json.JSONDecoder(), 0, []
    text = text.strip()
    while position < len(text):
        value, position = decoder.raw_decode(text, position)
        found.append(value)
        while position < len(text) and text[position].isspace():
            position += 1
    return found


def _files(root: Path, place: str, shown_as: str, leave_out: set[str]) -> Iterator[str]:
    for folder, folders, files in os.walk(root / place):
        for names, kind in ((folders, "dir"), (files, "file")):
            for name in names[:]:
                path = os.path.join(shown_as, os.path.relpath(os.path.join(folder, name), root / place))
                if path in leave_out or path == "/run/.host":
                    names.remove(name)
                else:
                    yield f"{kind} {path}"


def _network(text: str, leave_out: Container[str] = ()) -> tuple[list[str], set[str]]:
    links: list[Any] = []
    routes: list[Any] = []
    rules: list[Any] = []
    for document in _documents(text):
        for item in document:
            (links if "ifname" in item else rules if "priority" in item else routes).append(item)

    lines = []
    masters = {link.get("master") for link in links}
    bridges = set()
    for link in links:
        name = link["ifname"]
        if name in leave_out:
            continue
        kind = link.get("linkinfo", {}).get("info_kind", link["link_type"])
        if kind == "bridge" and name not in masters:
            bridges.add(name)
        flags = " ".join(flag.lower() for flag in link["flags"] if flag in ("UP", "PROMISC", "ALLMULTI"))
        master = f" in {link['master']}" if "master" in link else ""
        lines.append(f"link {name} {kind} {flags} mtu {link['mtu']} mac {link.get('address')}{master}")
        for address in link["addr_info"]:
            if not address["local"].startswith(("fe80:", "127.", "::1")):  # the kernel's own
                lines.append(f"address {name} {address['local']}/{address['prefixlen']}")
    for route in routes:
        # The kernel's own, some of which come and go with IPv6's duplicate address detection.
        if route["dst"].startswith(("fe80:", "ff00:", "127.", "::1")) or route.get("dev") in leave_out:
            continue
        if route.get("type") in ("anycast", "multicast"):
            continue
        words = [route.get("dev", "-"), route.get("type", ""), str(route["dst"])]
        words += [f"{key} {route[key]}" for key in ("gateway", "table", "metric") if key in route]
        lines.append(f"route {' '.join(filter(None, words))}")
    for rule in rules:
        if rule["src"] != "all":  # those are the kernel's own; one comes with the first VRF, and stays
            lines.append(f"rule {rule['priority']} from {rule['src']} table {rule.get('table')}")
    return lines, bridges


def _nft(text: str) -> list[str]:
    lines, blocks = [], ["nft"]
    for line in map(str.strip, text.splitlines()):
        if line == "}":
            blocks.pop()
        elif line.endswith("{"):
            blocks.append(line.removesuffix("{").strip())
            lines.append(": ".join([blocks[0], " / ".join(blocks[1:])]))
        elif line:
            lines.append(f"{blocks[0]}: {' / '.join([*blocks[1:], line])}")
    return lines


def _processes(host: "hosts.Host", ours: set[int | None]) -> list[str]:
    lines = []
    space = os.readlink(f"/proc/{host.holder}/ns/pid")
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == host.holder:
            continue
        try:
            if os.readlink(entry / "ns/pid") != space:
                continue
            command = (
                (entry / "cmdline").read_bytes().rstrip(b"\0").replace(b"\0", b" ").decode(errors="replace")
            )
            status = (entry / "status").read_text()
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
        pid = int(status.partition("NSpid:")[2].split("\n")[0].split()[-1])
        if pid not in ours:
            lines.append(f"process {command or status.split()[1]}")
    return lines
