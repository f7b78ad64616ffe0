# SPDX-License-Identifier: Apache-2.0
"""Containers that runc stops by criu and starts again: the hook runs at both, in another namespace."""

import shutil
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support.host.host import Host
from tests.support.runtimes.oci import CNIHOOK, Running, Runtime, bridge, configure, leases, wait_for
from tests.support.skip import SEARCH

pytestmark = pytest.mark.parametrize("runtime", ["runc"], indirect=True)  # crun runs no hook at a restore

# A counter, which shows that the process is the same.  It has no file of the host open.
COUNT = """\
exec < /dev/null > /dev/null 2>&1
nc -ll -p 7 -e cat &
n=0; while true; do n=$((n+1)); echo $n > /dev/count; sleep 0.05; done
"""


@pytest.fixture(autouse=True)
def criu() -> None:
    """Skip the test without a criu that works with this kernel: that of Debian 12 does not with 6.18."""
    program = shutil.which("criu", path=SEARCH)
    if not program or subprocess.run([program, "check"], capture_output=True).returncode:
        pytest.skip("no criu that works with this kernel")


def count(container: Running) -> int:
    return int(container.exec("sh", "-c", "cat /dev/count || echo 0"))


def checkpoint(runtime: Runtime, images: Path) -> None:
    folder = ("--image-path", str(images), "--work-path", str(images))
    runtime.call("checkpoint", "--tcp-established", *folder, "c1")


def restore(runtime: Runtime, images: Path) -> Running:
    folder = ("--image-path", str(images), "--work-path", str(images), "--bundle", str(runtime.folder("c1")))
    argv = ("runc", "restore", "--detach", "--tcp-established", *folder, "c1")
    with open(images / "output", "wb") as output:
        process = runtime.host.popen(*argv, stdout=output, stderr=output)
    assert process.wait(30) == 0, (images / "output").read_text()
    return Running(runtime, "c1", runtime.state("c1")["pid"])


def present(container: Running) -> Any:
    return container.addresses("eth0")[:1], container.link("eth0")["address"], container.routes()


def echo(connection: socket.socket, text: bytes) -> bytes:
    connection.sendall(text)
    return connection.recv(100)


def test_restored_container_has_its_addresses(host: Host, runtime: Runtime, tmp_path: Path) -> None:
    """A connection that is open lives on, because the MAC address is the same, too."""
    network = bridge("front", "10.1.0.0/24", capabilities={"mac": True})
    network["plugins"][0]["ipam"]["routes"] = [{"dst": "0.0.0.0/0"}]
    configure(host, network)
    host.leaves("dir /var/lib/cnihook*", "file /run/criu.kdat")
    container = runtime.run("c1", "--sticky", "web", command=("sh", "-c", COUNT))
    before = present(container)
    wait_for(lambda: count(container) > 5, "the counter")
    connection = host.inside(lambda: socket.create_connection(("10.1.0.2", 7), timeout=10))
    assert echo(connection, b"before\n") == b"before\n"

    checkpoint(runtime, tmp_path)
    assert host.read("/var/lib/cni/networks/front/10.1.0.2") == "sticky:web"
    assert runtime.run("c2").address == "10.1.0.3"
    container = restore(runtime, tmp_path)

    assert present(container) == before and count(container) > 5
    assert echo(connection, b"after\n") == b"after\n"
    connection.close()
    runtime.delete_all()
    assert leases(host, "front") == ["10.1.0.2"]
    assert host.run(CNIHOOK, "sticky", "rm", "web").stdout == "web\n"
