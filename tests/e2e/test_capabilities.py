# SPDX-License-Identifier: Apache-2.0
"""The capabilities that the hook needs: those on the page Security suffice, and each is needed."""

import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.host.host import Host
from tests.support.plugins.cni import CHECKOUT
from tests.support.runtimes.oci import CNIHOOK, RESULTS, Runtime, configure
from tests.support.services.dhcp import Lan, leave_keeper, network

pytestmark = [pytest.mark.root, pytest.mark.needs("setpriv")]

ALWAYS = ("net_admin", "sys_admin", "sys_ptrace")
OWNER = 1000  # a user other than root that owns the container's files
FULL = {
    "cniVersion": "1.0.0",
    "name": "full",
    "plugins": [
        {
            "type": "bridge",
            "bridge": "br-full",
            "isGateway": True,
            "ipMasq": True,
            "macspoofchk": True,
            "ipam": {
                "type": "host-local",
                "ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd01::/64"}]],
                "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
            },
        },
        {"type": "portmap", "capabilities": {"portMappings": True}},
        {"type": "bandwidth", "capabilities": {"bandwidth": True}},
        {"type": "firewall"},
        {"type": "tuning", "sysctl": {"net.ipv4.conf.eth0.arp_filter": "1"}},
        {"type": "sbr"},
    ],
}
ANNOTATIONS = {
    "cnihook.publish": "8080:80",
    "cnihook.bandwidth": "in=10M,out=2M",
    "cnihook.mac-address": "02:00:00:00:00:01",
    "cnihook.hostname": "web",
    "cnihook.dns": "192.0.2.1",
    "cnihook.add-host": "up:host-gateway",
}


class Limited:
    """A container, and the hook that runs as root with a few capabilities."""

    def __init__(self, host: Host, folder: Path, owner: int) -> None:
        self.host = host
        sleep = "sleep 2147483647 > /dev/null 2>&1 & echo $!"
        self.pid = int(host.run("unshare", "--net", "--uts", "--mount", "sh", "-c", sleep).stdout)
        self.etc = folder / "rootfs" / "etc"
        self.etc.mkdir(parents=True)
        for path in (*(self.etc / name for name in ("hosts", "resolv.conf", "hostname")), self.etc):
            if path != self.etc:
                path.write_text("")
            path.chmod(0o700)
            os.chown(path, owner, owner)
        namespaces = [{"type": "network"}, {"type": "uts"}]
        config = {"ociVersion": "1.0.2", "linux": {"namespaces": namespaces}, "root": {"path": "rootfs"}}
        (folder / "config.json").write_text(json.dumps(config))
        self.state = {"ociVersion": "1.0.2", "id": "c1", "bundle": str(folder), "annotations": ANNOTATIONS}
        host.leaves("file /run/cnihook/log/*", "dir /run/cni", "dir /run/cni/tuning")

    def hook(self, event: str, *capabilities: str) -> subprocess.CompletedProcess[str]:
        bounding = ",".join(["-all", *(f"+{name}" for name in capabilities)])
        state = self.state | {"pid": self.pid if event == "createRuntime" else 0}
        argv = (
            "setpriv",
            "--inh-caps=-all",
            f"--bounding-set={bounding}",
            "/usr/bin/python3",
            "-IS",
            CNIHOOK,
        )
        return self.host.run(*argv, event, input=json.dumps(state), check=False)

    def end(self, *capabilities: str) -> None:
        self.host.run("kill", "-9", str(self.pid))
        outcome = self.hook("poststop", *capabilities)
        assert (outcome.returncode, outcome.stderr) == (0, "")
        assert self.host.listdir(RESULTS) == []

    @property
    def has_names(self) -> bool:
        return (
            "192.0.2.1" in (self.etc / "resolv.conf").read_text()
            and "up" in (self.etc / "hosts").read_text()
        )


@pytest.fixture
def lan(host: Host, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lan]:
    with Lan(host, tmp_path_factory.mktemp("lan")) as lan:
        lan.serve()
        host.save_state()
        leave_keeper(host)
        yield lan


@pytest.mark.parametrize("owner", [0, OWNER])
def test_hook_works_with_these_capabilities(host: Host, tmp_path: Path, owner: int) -> None:
    configure(host, FULL)
    capabilities = (*ALWAYS, "dac_override") if owner else ALWAYS
    container = Limited(host, tmp_path, owner)
    outcome = container.hook("createRuntime", *capabilities)

    assert (outcome.returncode, outcome.stderr) == (0, "")
    assert container.has_names
    assert "not in" not in host.run(CNIHOOK, "logs", "c1").stdout
    container.end(*capabilities)


@pytest.mark.parametrize("missing", ALWAYS)
def test_each_capability_is_needed(host: Host, tmp_path: Path, missing: str) -> None:
    """The container does not start without it, and nothing is left behind."""
    configure(host, FULL)
    container = Limited(host, tmp_path, 0)
    outcome = container.hook("createRuntime", *(name for name in ALWAYS if name != missing))

    assert outcome.returncode == 1 and outcome.stderr.count("\n") == 1
    assert re.search("not permitted|denied", outcome.stderr)
    container.end(*ALWAYS)


def test_files_of_other_users_need_dac_override(host: Host, tmp_path: Path) -> None:
    """The container starts without it, and the log names the files that were not written."""
    configure(host, FULL)
    container = Limited(host, tmp_path, OWNER)
    outcome = container.hook("createRuntime", *ALWAYS)

    assert outcome.returncode == 0 and not container.has_names
    assert "resolv.conf: Permission denied" in host.run(CNIHOOK, "logs", "c1").stdout
    container.end(*ALWAYS)


@pytest.mark.needs("dnsmasq")
@pytest.mark.parametrize("more", [(), ("net_raw",)], ids=["without", "with"])
def test_dhcp_needs_net_raw(host: Host, lan: Lan, tmp_path: Path, more: tuple[str, ...]) -> None:
    configure(host, {"cniVersion": "1.0.0", "name": "net1", "plugins": [network()]})
    container = Limited(host, tmp_path, 0)
    container.state["annotations"] = {}
    outcome = container.hook("createRuntime", *ALWAYS, *more)

    if more:
        assert (outcome.returncode, outcome.stderr) == (0, "")
    else:
        assert outcome.returncode == 1 and "not permitted" in outcome.stderr
    container.end(*ALWAYS, *more)


@pytest.mark.parametrize(
    ("user", "more", "works"),
    [
        (0, ("setgid",), True),
        (0, (), False),
        (OWNER, ("setuid", "setgid"), True),
        (OWNER, ("setgid",), False),
    ],
)
def test_attach_needs_setuid_and_setgid(
    runtime: Runtime, host: Host, tmp_path: Path, user: int, more: tuple[str, ...], works: bool
) -> None:
    """The files are written with the rights of the container's user.  For root, setgid is enough."""
    configure(host, FULL)
    folder = runtime.bundle("c1", hooks={})
    (tmp_path / "resolv.conf").touch()
    os.chown(tmp_path / "resolv.conf", user, user)
    runtime.mount("c1", ("/etc/resolv.conf", str(tmp_path / "resolv.conf")))
    config = runtime.config("c1")
    config["process"]["user"] = {"uid": user, "gid": user}
    (folder / "config.json").write_text(json.dumps(config))
    runtime.started("c1", runtime.start("c1"))
    host.leaves("dir /run/cni", "dir /run/cni/tuning", "file /run/cnihook/log/*")
    # CAP_KILL: crun itself sends signal 0 to learn whether a container runs.
    capabilities = ",".join(["-all", *(f"+{name}" for name in (*ALWAYS, "dac_override", "kill", *more))])
    argv = ("setpriv", "--inh-caps=-all", f"--bounding-set={capabilities}", CNIHOOK)
    outcome = host.run(*argv, "attach", "c1", "--dns", "192.0.2.1", check=False)

    assert outcome.returncode == 0, outcome.stderr
    assert ("192.0.2.1" in (tmp_path / "resolv.conf").read_text()) is works
    assert (
        "/etc/resolv.conf: Operation not permitted" in host.run(CNIHOOK, "logs", "c1").stdout
    ) is not works
    host.run(CNIHOOK, "detach", "c1")


def test_security_page_lists_these_capabilities() -> None:
    page = (CHECKOUT / "cnihook" / "pages" / "security.md").read_text()
    listed = re.findall(r"^\| `CAP_(\w+)` \|", page, flags=re.M)

    assert [name.lower() for name in listed] == [*ALWAYS, "dac_override", "net_raw", "setgid", "setuid"]
