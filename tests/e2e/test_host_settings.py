# SPDX-License-Identifier: Apache-2.0
"""The page about changes on the host lists every setting that the code writes, and no other."""

import ast
import re
from typing import Any

import pytest

from tests.support.host.host import Host
from tests.support.host.namespace import base_environment
from tests.support.plugins.cni import CHECKOUT
from tests.support.runtimes.oci import CNIHOOK, configure
from tests.support.skip import need

PAGE = (CHECKOUT / "cnihook" / "pages" / "host-settings.md").read_text()
_TABLES = PAGE.split("## Rules")[0]
LISTED = set(re.findall(r"`(net\.ipv[46]\.[\w.]+)`", "\n".join(re.findall(r"^\|.*", _TABLES, flags=re.M))))
PORT = '{"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]}'
READ_ONLY = {"doctor"}  # folders that only read settings, or write settings named elsewhere
SET_BACK = {"net.ipv4.conf.LINK.route_localnet"}  # set by an earlier version; now only reset to 0


def in_the_code() -> set[str]:
    """Return the names of settings in the strings of all modules, with LINK for the variable part."""
    names = set()
    for path in (CHECKOUT / "cnihook").rglob("*.py"):
        if path.parent.name in READ_ONLY | {"conformance"}:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            text = ast.unparse(node) if isinstance(node, ast.JoinedStr | ast.Constant) else ""
            for name in re.findall(r"['\"](net/ipv[46]/[\w/{}.]*[\w}])['\"]", text):
                names.add(re.sub(r"{[^}]*}", "LINK", name).replace("/", "."))
    return names


def test_page_lists_the_settings_of_the_code() -> None:
    assert in_the_code() - SET_BACK == LISTED
    assert len(LISTED) > 8


def network(kind: str, subnets: tuple[str, ...], **keys: Any) -> dict[str, Any]:
    ipam = {"type": "host-local", "ranges": [[{"subnet": subnet}] for subnet in subnets]}
    plugins = [
        {"type": kind, "ipam": ipam} | keys,
        {"type": "portmap", "capabilities": {"portMappings": True}},
    ]
    return {"cniVersion": "1.0.0", "name": kind, "plugins": plugins}


def test_page_lists_the_settings_that_are_written(host: Host) -> None:
    """Trace the plugins that create an interface here; each written setting must be listed."""
    need("strace")
    host.outside()
    both = ("10.31.0.0/24", "fd31::/64"), ("10.32.0.0/24", "fd32::/64"), ("10.33.0.0/24", "fd33::/64")
    kinds: dict[str, dict[str, Any]] = {
        "bridge": {"bridge": "br31", "isGateway": True, "ipMasq": True, "enabledad": True},
        "ptp": {"ipMasq": True},
        "macvlan": {"master": "up0"},
    }
    configure(
        host, *(network(kind, subnets, **kinds[kind]) for kind, subnets in zip(kinds, both, strict=True))
    )
    host.run("sysctl", "-qw", "net.ipv4.ip_forward=0", "net.ipv6.conf.all.forwarding=0")
    host.container("c1")
    host.run("ip", "netns", "exec", "c1", "sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1")

    for number, kind in enumerate(kinds):
        for command in ("add", "del"):
            trace = ("strace", "-f", "-qq", "-e", "trace=openat", "-o", f"/run/trace-{kind}-{command}")
            env = base_environment() | {"CNI_IFNAME": f"eth{number}", "CAP_ARGS": PORT}
            host.run(*trace, CNIHOOK, command, kind, "c1", env=env)
    traces = [host.read(f"/run/{name}") for name in host.listdir("/run") if name.startswith("trace-")]
    host.run("sh", "-c", "rm /run/trace-*")

    written = set()
    for path in re.findall(r'"/proc/sys/(net/\S+)", O_(?:WRONLY|RDWR)', "".join(traces)):
        kind, _, rest = path.partition("/conf/")
        link, _, name = rest.partition("/")
        link = link if not rest or link in ("all", "lo", "default") else "LINK"
        written.add(".".join(filter(None, (kind.replace("/", "."), rest and "conf", link, name))))
    assert written <= LISTED
    assert {"net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding", "net.ipv6.conf.LINK.accept_ra"} <= written


@pytest.mark.parametrize(
    "path", ["/var/lib/cni/results", "/run/netns", "/run/cnihook", "/var/log/cnihook", "/run/cni"]
)
def test_page_lists_the_folders(path: str) -> None:
    assert f"| `{path}" in PAGE
