# SPDX-License-Identifier: Apache-2.0
"""The leak check: the state of a throw-away host as lines, which are compared before and after a test."""

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.host.netns_state import NetnsState, nft_lines
from tests.support.wait import patience

if TYPE_CHECKING:
    from tests.support.host import host as hosts

# These stay by design, because they belong to the network or to the host, not to one attachment.
STAYS = [
    "dir /run/cnihook",
    "dir /run/cnihook/ending",
    "dir /run/cnihook/lock",
    "dir /run/cnihook/log",
    "dir /var/lib/cni/networks",
    "dir /var/lib/cni/networks/*",
    "file /var/lib/cni/networks/*/lock",
    "file /var/lib/cni/networks/*/last_reserved_ip.[0-9]*",
    "dir /var/lib/cni/results",
]

# The folders to which a host writes, and their names in lines; of /etc and /var/lib its own files only.
FOLDERS = {
    "run": "/run",
    "etc/cni": "/etc/cni",
    "var/lib/cni": "/var/lib/cni",
    "run/.host/etc": "/etc",
    "run/.host/lib": "/var/lib",
}


class HostState:
    """Lines such as `link cni0 bridge up mtu 1500`, `address eth0 10.22.0.2/16`, `process sleep 60`."""

    def __init__(self, lines: Iterable[str], bridges: Iterable[str]) -> None:
        self.lines = frozenset(lines)
        self.bridges = frozenset(bridges)  # of the host, without a port

    @classmethod
    def of(cls, host: "hosts.Host", containers: "Sequence[hosts.Container]") -> "HostState":
        seen = host.inside(NetnsState)
        lines = seen.lines(leave_out={"up0"})  # the uplink that Host.outside() makes
        for container in containers:
            if container.pid is None:
                lines += [f"in {container.name}: {line}" for line in _inside(container)]
        if seen.nftables:
            lines += nft_lines(host.run("nft", "list", "ruleset", check=False).stdout)
        ours = {"/run/netns", "/run/netns/outside", *(container.path for container in containers)}
        lines += _mounts(host, ours)
        for folder, shown_as in FOLDERS.items():
            lines += _files(host.root, folder, shown_as, ours)
        host.starter.reap()
        lines += _processes(host, {container.pid for container in containers})
        return cls(lines, seen.bridges)

    @classmethod
    def of_new(cls, host: "hosts.Host") -> "HostState":
        """Return the state of a host that was just made.

        New hosts differ only in the mounts of the machine.  Listing the rest takes the guest 80 ms.
        """
        if not _new:
            _new.append(cls.of(host, []).without("mount "))
        return _new[0].plus(_mounts(host, {"/run/netns"}))

    def plus(self, lines: Iterable[str]) -> "HostState":
        return HostState(self.lines.union(lines), self.bridges)

    def without(self, prefix: str) -> "HostState":
        return HostState((line for line in self.lines if not line.startswith(prefix)), self.bridges)


_new: list[HostState] = []  # none, or the state of a new host without its mounts


def compare(before: HostState, now: Callable[[], HostState], stay: Sequence[str]) -> None:
    """Fail if `now` differs from `before` by more than what may stay.

    The comparison is repeated for a while, because the kernel removes a namespace and its links some time
    after the last user has ended.
    """
    deadline, pause = time.monotonic() + patience() / 4, 0.002  # 0.5 s for a test that is known to fail
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
        time.sleep(pause)
        pause = min(2 * pause, 0.05)
    report = [f"+ {line}" for line in sorted(new)] + [f"- {line}" for line in sorted(gone)]
    pytest.fail("the host is not as it was:\n" + "\n".join(report), pytrace=False)


def _mounts(host: "hosts.Host", leave_out: set[str]) -> list[str]:
    mounts = Path(f"/proc/{host.holder}/mounts").read_text().splitlines()
    return [f"mount {path}" for path in (line.split()[1] for line in mounts) if path not in leave_out]


def _inside(container: "hosts.Container") -> list[str]:
    try:
        return container.inside(NetnsState).lines()
    except OSError:  # the namespace is gone, or has no name any more
        return []


def _files(root: Path, top: str, shown_as: str, leave_out: set[str]) -> Iterator[str]:
    for folder, folders, files in os.walk(root / top):
        for names, kind in ((folders, "dir"), (files, "file")):
            for name in names[:]:
                path = os.path.join(shown_as, os.path.relpath(os.path.join(folder, name), root / top))
                if path in leave_out or path == "/run/.host":
                    names.remove(name)
                else:
                    yield f"{kind} {path}"


def _processes(host: "hosts.Host", ours: set[int | None]) -> list[str]:
    lines = []
    proc = host.root / "proc"  # it shows the host's own PID namespace, and those of containers below it
    space = os.readlink(proc / "1/ns/pid")
    for name in os.listdir(proc):
        if not name.isdigit() or name == "1" or int(name) in ours:
            continue
        try:
            if os.readlink(proc / name / "ns/pid") != space:
                continue
            command = (proc / name / "cmdline").read_bytes().rstrip(b"\0").replace(b"\0", b" ")
            words = command.decode(errors="replace") or (proc / name / "comm").read_text().rstrip()
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
        lines.append(f"process {words}")
    return lines
