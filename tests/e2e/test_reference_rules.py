# SPDX-License-Identifier: Apache-2.0
"""Rules that the reference plugins made for a container which cnihook detaches: none may stay.

The rules after a DEL of cnihook are compared with those before the container.
"""

import json
import re
from hashlib import sha512
from pathlib import Path
from typing import Any

import pytest

from tests.support.commands.doctor import doctor
from tests.support.host.host import Container, Host
from tests.support.host.namespace import base_environment
from tests.support.plugins.cni import REFERENCE
from tests.support.runtimes.oci import CNIHOOK, NET_D, NETWORKS, RESULTS
from tests.support.skip import skip_or_fail

NETWORK: dict[str, Any] = {
    "cniVersion": "1.0.0",
    "name": "mynet",
    "plugins": [
        {
            "type": "bridge",
            "bridge": "cni0",
            "isGateway": True,
            "ipMasq": True,
            "macspoofchk": True,
            "ipam": {
                "type": "host-local",
                "ranges": [[{"subnet": "10.9.0.0/24"}], [{"subnet": "fd00:9::/64"}]],
            },
        },
        {"type": "portmap", "capabilities": {"portMappings": True}},
        {"type": "firewall", "backend": "iptables"},
    ],
}
PROGRAMS = (
    "iptables",
    "ip6tables",
    "iptables-save",
    "iptables-restore",
    "ip6tables-save",
    "ip6tables-restore",
)


@pytest.fixture(autouse=True)
def network(host: Host) -> None:
    if not REFERENCE.is_dir():
        skip_or_fail(f"no reference plugins in {REFERENCE}")
    host.write(f"{NET_D}/10-mynet.conflist", json.dumps(NETWORK))
    host.leaves(f"file {NET_D}/*", "empty bridges", "link cni0*", "address cni0*", "nft: *", "dir /run/cni*")
    host.leaves("file /run/xtables.lock", f"dir {NETWORKS}/*", f"file {NETWORKS}/*")


def cnihook(
    host: Host, command: str, container: Container, port: int, plugins: Path | None = None, path: str = ""
) -> None:
    ports = [
        {"hostPort": port, "containerPort": 80, "protocol": "tcp"},
        {"hostPort": port, "containerPort": 53, "protocol": "udp", "hostIP": "10.9.0.1"},
    ]
    env = base_environment() | {"CAP_ARGS": json.dumps({"portMappings": ports})}
    if plugins:
        env["CNI_PATH"] = str(plugins)
    if path:
        env["PATH"] = f"{path}:{env['PATH']}"
    host.run(CNIHOOK, command, "mynet", container.path, env=env)


def as_libcni_writes_it(host: Host) -> None:
    """Remove from the records the key that cnihook adds to libcni's."""
    for name in host.listdir(RESULTS):
        record = json.loads(host.read(f"{RESULTS}/{name}"))
        record.pop("cnihook", None)
        host.write(f"{RESULTS}/{name}", json.dumps(record), 0o600)


def rules(host: Host, kind: str = "") -> list[str]:
    """Return all rules without counters; those of iptables-legacy come from its program."""
    text = host.nft()
    if kind == "legacy":
        text = host.run("iptables-legacy-save").stdout + host.run("ip6tables-legacy-save").stdout
    lines = (re.sub(r"counter packets \d+ bytes \d+|\[\d+:\d+\]", "", line) for line in text.splitlines())
    return [line for line in lines if line.strip() and not line.startswith("#")]


@pytest.mark.parametrize("kind", ["nft", "legacy"])
@pytest.mark.parametrize("interface", ["bridge", "ptp"])
@pytest.mark.parametrize("version", ["1.0.0", "0.4.0"])
def test_del_removes_the_rules_of_the_reference(
    host: Host, tmp_path: Path, interface: str, kind: str, version: str
) -> None:
    """The rules of another container stay."""
    path = ""
    if kind == "legacy":
        if host.run("iptables-legacy", "-t", "nat", "-S", check=False).returncode:
            pytest.skip("the kernel has no iptables-legacy")
        for name in PROGRAMS:
            (tmp_path / name).symlink_to(f"/usr/sbin/{name.replace('tables', 'tables-legacy')}")
        path = str(tmp_path)
    conf = json.loads(json.dumps(NETWORK))
    conf["cniVersion"] = version
    conf["plugins"][0]["type"] = interface
    host.write(f"{NET_D}/10-mynet.conflist", json.dumps(conf))
    other, container = host.container(), host.container()
    cnihook(host, "add", other, 8080, REFERENCE, path)
    before = rules(host, kind)
    cnihook(host, "add", container, 8081, REFERENCE, path)
    assert any("CNI-DN" in line for line in rules(host, kind)) and rules(host, kind) != before
    as_libcni_writes_it(host)

    cnihook(host, "del", container, 8081)

    assert rules(host, kind) == before
    cnihook(host, "del", other, 8080)
    assert not any(re.search(r"CNI-(DN-|[0-9a-f]{24})|10\.9\.|fd00:9", line) for line in rules(host, kind))
    assert not any(line.startswith("rules-without-owner") for line in doctor(host))


def digest(text: str) -> str:
    return sha512(text.encode()).hexdigest()[:16]


NFT = """
add table ip cni_hostport
add chain ip cni_hostport hostports
add chain ip cni_hostport hostip_hostports
add chain ip cni_hostport masquerading {{ type nat hook postrouting priority 100; }}
add rule ip cni_hostport hostports tcp dport {port} dnat to 10.9.0.2:80 comment "{id}"
add rule ip cni_hostport hostip_hostports ip daddr 10.9.0.1 udp dport {port} dnat to 10.9.0.2:53 \
comment "{id}"
add rule ip cni_hostport masquerading ip saddr 10.9.0.2 ip daddr 10.9.0.2 masquerade comment "{id}"
add table ip6 cni_hostport
add chain ip6 cni_hostport hostports
add rule ip6 cni_hostport hostports tcp dport {port} dnat to [fd00:9::2]:80 comment "{id}"
add table inet cni_plugins_masquerade
add chain inet cni_plugins_masquerade masq_checks
add rule inet cni_plugins_masquerade masq_checks ip saddr 10.9.0.2 ip daddr != 10.9.0.0/24 masquerade \
comment "{network}-{instance}, net: mynet, if: eth0, id: {id}"
"""


def add_nft(host: Host, container_id: str, port: int) -> None:
    """Add the rules that the newest reference makes with nftables; Debian's plugins are older."""
    instance = digest(f"eth0:{container_id}")
    text = NFT.format(port=port, id=container_id, network=digest("mynet"), instance=instance)
    host.run("nft", "-f", "-", input=text)


def test_del_removes_rules_of_the_newest_reference(host: Host) -> None:
    container = host.container()
    cnihook(host, "add", container, 8080, REFERENCE)
    (name,) = host.listdir(RESULTS)
    container_id = json.loads(host.read(f"{RESULTS}/{name}"))["containerId"]
    as_libcni_writes_it(host)
    add_nft(host, "another", 9090)
    before = [line for line in rules(host) if "another" in line]
    add_nft(host, container_id, 8080)

    cnihook(host, "del", container, 8080)

    assert not any(container_id in line for line in rules(host))
    assert [line for line in rules(host) if "another" in line] == before and len(before) == 5


def test_rules_without_an_attachment_are_found(host: Host) -> None:
    """The record was lost, or another runtime has its cache elsewhere.  The suggestion removes the rules."""
    container = host.container()
    cnihook(host, "add", container, 8080, REFERENCE)
    as_libcni_writes_it(host)
    assert not any(line.startswith("rules-without-owner") for line in doctor(host))
    before = rules(host)
    (name,) = host.listdir(RESULTS)
    host.run("rm", f"{RESULTS}/{name}")
    add_nft(host, "gone", 9090)

    lines = [line for line in doctor(host, status=1) if line.startswith("rules-without-owner")]
    assert len(lines) == 2 * 2 + 5 and before
    for line in lines:
        host.run("sh", "-c", line.rpartition("; remedy: ")[2])
    assert not any(line.startswith("rules-without-owner") for line in doctor(host))
    assert not any(re.search(r"CNI-(DN-|[0-9a-f]{24})|gone", line) for line in rules(host))
    container.destroy()
    host.run("sh", "-c", f"rm -r {NETWORKS}/mynet")
