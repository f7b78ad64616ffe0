# SPDX-License-Identifier: Apache-2.0
"""oci-examples/chains: each network does what the README says.  These work on any kernel."""

import json
import re

import pytest

from tests.support.host.host import Host
from tests.support.host.namespace import Namespace, Process
from tests.support.plugins.cni import CHECKOUT
from tests.support.runtimes.oci import wait_for

CHAINS = CHECKOUT / "oci-examples" / "chains"
RUN = (str(CHECKOUT / "scripts" / "priv-net-run"), "--conf-dir", str(CHAINS / "net.d"), "--network")


def test_every_network_is_in_the_readme_and_valid(host: Host) -> None:
    names = [path.stem.removeprefix("10-") for path in sorted((CHAINS / "net.d").iterdir())]
    lines = r"^\| `(example-\w+)` .*--network (example-\w+) "
    listed = re.findall(lines, (CHAINS / "README.md").read_text(), re.MULTILINE)

    assert sorted(listed) == [(name, name) for name in names]
    result = host.run(str(CHECKOUT / "scripts" / "cnihook"), "validate", "--conf-dir", str(CHAINS / "net.d"))
    assert result.stdout == f"{len(names)} files checked: no problem found\n"


def start(host: Host, *words: str) -> Process:
    """Start a command on one of the networks; it prints `up` and listens on port 80."""
    running = host.popen(*RUN, *words, "sh", "-c", "echo up; exec busybox nc -ll -p 80 -e echo hello")
    assert running.stdout
    assert running.stdout.readline() == "up\n"
    return running


def answers(client: Namespace, address: str, port: int) -> bool:
    """Wait until the port answers, because the command may not listen yet; return True."""
    ask = ("busybox", "nc", "-w", "3", address, str(port))
    wait_for(lambda: client.run(*ask, check=False).stdout == "hello\n", f"an answer from port {port}")
    return True


@pytest.mark.needs("busybox")
def test_full_chain_publishes_limits_and_tunes(host: Host) -> None:
    host.leaves("dir /run/cni", "dir /run/cni/tuning")
    outside = host.outside()
    running = start(host, "example-full", "-p", "8080:80", "--bandwidth", "in=10M,out=10M")

    for client in (host, outside):
        assert answers(client, outside.HOST, 8080)
    qdiscs = json.loads(host.run("tc", "-j", "qdisc").stdout)
    assert sorted(qdisc["dev"][:3] for qdisc in qdiscs if qdisc["kind"] == "tbf") == ["bwp", "vet"]
    running.terminate()
    running.wait(30)


@pytest.mark.needs("busybox")
def test_ptp_with_published_ports(host: Host) -> None:
    outside = host.outside()
    running = start(host, "example-ptp", "-p", "8081:80")

    assert answers(outside, outside.HOST, 8081)
    running.terminate()
    running.wait(30)


@pytest.mark.needs("dnsmasq")
def test_macvlan_gets_its_address_from_dhcp_server_of_lan(host: Host) -> None:
    outside = host.outside()
    text = (CHAINS / "net.d" / "10-example-lan.conflist").read_text().replace("uplink0", "up0")
    host.write("/run/.host/net.d/10-example-lan.conflist", text)
    host.leaves("dir /run/cni*", "file /run/cni/*", "process *dhcp-keeper*")
    options = "--keep-in-foreground --port=0 --user=root --interface=up0 --bind-interfaces --no-hosts"
    server = outside.popen(
        "dnsmasq", *options.split(), "--dhcp-leasefile=/run/.host/leases",
        "--dhcp-range=198.51.100.50,198.51.100.60,1h",
    )  # fmt: skip

    words = (RUN[0], "--conf-dir", "/run/.host/net.d")
    result = host.run(*words, "ip", "-j", "-4", "addr", "show", "eth0", timeout=60)

    (link,) = json.loads(result.stdout)
    assert re.fullmatch(r"198\.51\.100\.(5\d|60)", link["addr_info"][0]["local"])
    server.terminate()
    server.wait(30)
