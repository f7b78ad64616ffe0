# SPDX-License-Identifier: Apache-2.0
"""Containers for the commands that show attachments, and a terminal for their output."""

import base64
import fcntl
import json
import os
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.host.host import Container, Host
from tests.support.host.namespace import Process, base_environment, end
from tests.support.runtimes.oci import CNIHOOK, RESULTS, bridge, configure

# The installed command has the packages that `inspect` needs; the launcher of a checkout has the machine's.
INSTALLED = str(Path(sys.executable).with_name("cnihook"))
COLOUR = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")

FRONT = bridge("front", "10.30.0.0/24", ipMasq=True)
BACK = bridge("back", "10.31.0.0/24", isGateway=False)
for _network in (FRONT, BACK):
    # The chain does not publish ports: only their output is tested here.
    _network["plugins"].append({"type": "tuning", "capabilities": {"portMappings": True}})


def show(host: Host, *words: str, env: "dict[str, str] | None" = None) -> "subprocess.CompletedProcess[str]":
    """Run a command with all optional packages; it must not print a traceback."""
    process = host.run(INSTALLED, *words, check=False, env=base_environment() | (env or {}))
    assert "Traceback" not in process.stderr, process.stderr
    assert all(line.startswith("cnihook: ") for line in process.stderr.splitlines()), process.stderr
    return process


def shown(host: Host, *words: str) -> str:
    process = show(host, *words)
    assert (process.returncode, process.stderr) == (0, "")
    return process.stdout


def shown_json(host: Host, *words: str) -> Any:
    return json.loads(shown(host, *words, "--json"))


def attach(host: Host, name: str, *networks: str, port: int = 0) -> Container:
    """Attach a container to networks, as eth0, eth1, ...; `port` of the host is published on the first."""
    container = host.container(name, process=True)
    for number, network in enumerate(networks):
        words = ["add", network, str(container.pid), "--container-id", name, "--ifname", f"eth{number}"]
        if port and not number:
            ports = [{"hostPort": port, "containerPort": 80, "protocol": "tcp"}]
            words += ["--capability-args", json.dumps({"portMappings": ports})]
        host.run(CNIHOOK, *words)
    return container


@contextmanager
def populated(host: Host) -> Iterator[dict[str, Container]]:
    """Yield three containers on two networks: web on both and with a port, db and job on one each."""
    configure(host, FRONT, BACK)
    yield {
        "web": attach(host, "web", "front", "back", port=8080),
        "db": attach(host, "db", "back"),
        "job": attach(host, "job", "front"),
    }
    detach_all(host)


def detach_all(host: Host) -> None:
    for container_id in host.run(CNIHOOK, "ps", "--quiet", check=False).stdout.split():
        host.run(CNIHOOK, "detach", container_id)


def damage(host: Host) -> str:
    """Write a damaged file among the records, such as a crash of the machine leaves.  Returns its path."""
    path = f"{RESULTS}/front-lost-eth0"
    host.write(path, "{")
    host.leaves(f"file {path}")
    return path


def remember(host: Host, number: int, pid: int) -> None:
    """Write records of many containers on three networks, all of one process, without any link."""
    stat = host.read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    holder = {
        "boot": Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
        "pid": pid,
        "start": int(stat[19]),
        "netns": [0, 0],
    }
    networks = [
        bridge(name, f"10.{40 + place}.0.0/16", ipMasq=place == 0) for place, name in enumerate("abc")
    ]
    configure(host, *networks)
    host.leaves(f"file {RESULTS}/*")
    for count in range(number):
        for order, place in enumerate([count % 3, *([(count + 1) % 3] if count % 5 == 0 else [])]):
            network = networks[place]
            address = f"10.{40 + place}.{count // 250}.{count % 250 + 2}"
            record = {
                "kind": "cniCacheV1",
                "containerId": f"box-{count:03}",
                "ifName": f"eth{order}",
                "networkName": network["name"],
                "config": base64.b64encode(json.dumps(network).encode()).decode(),
                "capabilityArgs": {"portMappings": [{"hostPort": 8000 + count, "containerPort": 80}]}
                if count % 4 == 0 and not order
                else {},
                "result": {"cniVersion": "1.0.0", "ips": [{"address": f"{address}/16"}]},
                "cnihook": {**holder, "sequence": order, "pluginPath": None},
            }
            name = f"{network['name']}-box-{count:03}-eth{order}"
            host.write(f"{RESULTS}/{name}", json.dumps(record), 0o600)


class Screen:
    """A command with a terminal of its own for its input and output."""

    def __init__(self, host: Host, columns: int, *words: str, env: "dict[str, str] | None" = None) -> None:
        self._fd, terminal = os.openpty()
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        environment = base_environment() | {"TERM": "xterm"} | (env or {})
        for name in ("COLUMNS", "LINES", "NO_COLOR"):
            if name not in (env or {}):
                environment.pop(name, None)
        self.process: Process = host.popen(
            *("setsid", "--ctty", INSTALLED, *words),
            env=environment,
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
        )
        os.close(terminal)
        self.text = ""

    def type(self, keys: str) -> None:
        os.write(self._fd, keys.encode())

    def wait_for(self, pattern: str, timeout: float = 20) -> None:
        """Read until the text without its colours matches."""
        deadline = time.monotonic() + timeout
        while not re.search(pattern, plain(self.text)):
            left = deadline - time.monotonic()
            readable = left > 0 and select.select([self._fd], [], [], left)[0]
            assert readable and self._read(), f"no {pattern!r} in {self.text[-3000:]!r}"

    def end(self) -> str:
        """Wait until the command ends by itself.  Returns its whole output."""
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and select.select([self._fd], [], [], 20)[0] and self._read():
            pass
        self.process.wait(30)
        os.close(self._fd)
        end(self.process)
        return self.text.replace("\r\n", "\n")

    def _read(self) -> bool:
        try:
            more = os.read(self._fd, 65536).decode(errors="replace")
        except OSError:  # EIO: no process has the other end open
            return False
        self.text += more
        return bool(more)


def on_screen(host: Host, columns: int, *words: str, env: "dict[str, str] | None" = None) -> str:
    return Screen(host, columns, *words, env=env).end()


def plain(text: str) -> str:
    return COLOUR.sub("", text)
