# SPDX-License-Identifier: Apache-2.0
"""A real etcd server, which a test can stop, kill, pause and empty."""

import shutil
import signal
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from cnihook.cluster.etcd import EtcdStore
from cnihook.cluster.etcd_http import Access
from cnihook.cluster.store import StoreError
from tests.support.host.host import Host
from tests.support.wait import wait_for


def free_port(address: str = "127.0.0.1") -> int:
    with socket.socket() as probe:
        probe.bind((address, 0))
        port: int = probe.getsockname()[1]
        return port


class Certificates:
    """A certificate authority, a server at 127.0.0.1, and clients with and without a common name."""

    def __init__(self, folder: Path) -> None:
        self.ca, self.server, self.named, self.client = (
            str(folder / f"{name}.pem") for name in ("ca", "server", "named", "client")
        )
        key = str(folder / "ca.key")
        new = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
        openssl("req", "-x509", *new, "-keyout", key, "-out", self.ca, "-subj", "/CN=ca", "-days", "2")
        extension = folder / "extension"
        extension.write_text("subjectAltName=IP:127.0.0.1\n")
        signing = (
            "-CA",
            self.ca,
            "-CAkey",
            key,
            "-CAcreateserial",
            "-extfile",
            str(extension),
            "-days",
            "2",
        )
        for path, subject in ((self.server, "/CN=etcd"), (self.named, "/CN=h1"), (self.client, "/O=hosts")):
            openssl("req", *new, "-keyout", f"{path}.key", "-out", f"{path}.csr", "-subj", subject)
            openssl("x509", "-req", "-in", f"{path}.csr", "-out", path, *signing)

    @property
    def options(self) -> list[str]:
        """etcd's options: only clients with a certificate may connect."""
        return [
            f"--trusted-ca-file={self.ca}",
            f"--cert-file={self.server}",
            f"--key-file={self.server}.key",
            "--client-cert-auth",
        ]


def openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)


class Etcd:
    """One server, at a port of loopback, or on a throw-away host."""

    def __init__(
        self,
        folder: Path,
        *,
        address: str = "127.0.0.1",
        on: Host | None = None,
        options: Sequence[str] = (),
    ) -> None:
        self.folder = folder / "etcd"
        self.log = folder / "etcd.log"
        self._host = on
        port = 2379 if on else free_port(address)
        scheme = "https" if any(option.startswith("--cert-file") for option in options) else "http"
        self.url = f"{scheme}://{address}:{port}"
        peer = f"http://{address}:{2380 if on else free_port(address)}"
        self._command = [
            "etcd",
            "--name=one",
            f"--data-dir={self.folder}",
            f"--listen-client-urls={self.url}",
            f"--advertise-client-urls={self.url}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=one={peer}",
            "--heartbeat-interval=20",  # ms; a new server waits for one election
            "--election-timeout=200",
            *options,
        ]
        self._process: subprocess.Popen[bytes] | subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.kill()

    def start(self, *options: str) -> None:
        """Start the server, and wait until it listens."""
        with self.log.open("ab") as log:
            size = log.tell()
            command = [*self._command, *options]
            if self._host:
                self._process = self._host.popen(*command, stdout=log, stderr=log)
            else:
                self._process = subprocess.Popen(command, stdout=log, stderr=log)
        ready = b"ready to serve client requests"
        wait_for(lambda: ready in self.log.read_bytes()[size:], f"etcd at {self.url}")

    def kill(self) -> None:
        if self._process:
            self._process.send_signal(signal.SIGCONT)
            self._process.kill()
            self._process.wait()
            self._process = None

    def pause(self) -> None:
        """Stop the process: the kernel still accepts connections and acknowledges data."""
        assert self._process
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        assert self._process
        self._process.send_signal(signal.SIGCONT)

    def empty(self) -> None:
        """Lose all data, and start again."""
        self.kill()
        shutil.rmtree(self.folder)
        self.start()

    def store(self, **access: str) -> EtcdStore:
        return EtcdStore(Access((self.url,), **access))


def is_up(store: EtcdStore) -> bool:
    try:
        store.get("up")
    except StoreError:
        return False
    return True
