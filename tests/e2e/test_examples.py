# SPDX-License-Identifier: Apache-2.0
"""oci-examples/: each does with one command what its README says, and leaves nothing."""

import fcntl
import re
import subprocess
from collections.abc import Iterator

import pytest

from tests.support.cni import CHECKOUT, REFERENCE
from tests.support.hide import hide, path_of
from tests.support.host import Host
from tests.support.namespace import base_environment
from tests.support.oci import LEAVES, RUNTIMES
from tests.support.skip import need, skip_or_fail

EXAMPLES = CHECKOUT / "oci-examples"
NAMES = sorted(path.parent.name for path in EXAMPLES.glob("*/config.json"))

pytestmark = [
    pytest.mark.needs("runc", "busybox"),
    pytest.mark.root,
    pytest.mark.xdist_group("oci-examples"),
]

# What each is there to show, whatever its README quotes.
PROMISES = {
    "bridge": ["inet 10.213.1.2/24", "default via 10.213.1.1 dev eth0", "64 bytes from 10.213.1.1"],
    "dual-stack": ["inet 10.213.6.2/24", "inet6 fd00:213:6::2/64", "64 bytes from fd00:213:6::2"],
    "no-network": ["inet 127.0.0.1/8 scope host lo", "LOOPBACK,UP", "routes: 0"],
    "reference-plugins": ["inet 10.213.2.2/24", "64 bytes from 10.213.2.1", "-j CNI-"],
    "two-networks": [
        "eth0    inet 10.213.3.2/24",
        "eth1    inet 10.213.4.2/24",
        "default via 10.213.3.1 dev eth0",
    ],
}

# What differs from one run to the next.
CHANGING = [
    (r"/tmp/cnihook-example\.\w+", "BUNDLE"),
    (r"[0-9a-f]{2}(:[0-9a-f]{2}){5}", "MAC"),
    (r"fe80::[0-9a-f:]+", "LINK-LOCAL"),
    (r"eth0@if\d+", "eth0@PEER"),
    (r"\d+\.\d{3}( ms|/)", r"TIME\1"),
    (r" +$", ""),
]


@pytest.fixture(autouse=True)
def alone() -> Iterator[None]:
    """Containers of one name share a cgroup, even on two throw-away hosts: cgroups are the machine's."""
    with open(path_of("busybox")) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def run(host: Host, name: str, runtime: str = "runc") -> subprocess.CompletedProcess[str]:
    """The one command, from another folder than its own."""
    host.leaves(*LEAVES)
    env = base_environment() | {"RUNTIME": runtime}
    done = host.run(str(EXAMPLES / name / "run"), env=env, check=False)
    # On a busy machine runc may have to look twice until the kernel has emptied a killed container's cgroup.
    done.stderr = re.sub(r".*Failed to remove cgroup \(will retry\).*\n", "", done.stderr)
    return done


def quote(name: str) -> str:
    """What the example's README says that ./run prints."""
    _, rest = (EXAMPLES / name / "README.md").read_text().split("    # ./run\n")
    block = re.match(r"(?:(?: {4}.*)?\n)+", rest)
    assert block
    return re.sub("^ {4}", "", block[0], flags=re.MULTILINE).strip()


def what_stays_the_same(text: str) -> list[str]:
    for pattern, name in CHANGING:
        text = re.sub(pattern, name, text, flags=re.MULTILINE)
    return text.splitlines()


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("name", NAMES)
def test_an_example_shows_what_its_readme_says(host: Host, name: str, runtime: str) -> None:
    """A stranger's first container is one of these, and a README is believed to the letter."""
    need(runtime)
    if name == "reference-plugins":
        if not REFERENCE.is_dir():
            skip_or_fail(f"the reference plugins are not in {REFERENCE}")
        host.leaves("nft: table ip nat*", "file /run/xtables.lock")

    done = run(host, name, runtime)

    assert (done.returncode, done.stderr) == (0, "")
    assert [promise for promise in PROMISES[name] if promise not in done.stdout] == []
    said = quote(name).replace("$ runc ", f"$ {runtime} ")
    assert what_stays_the_same(done.stdout) == what_stays_the_same(said)
    assert host.sysctl("net/ipv4/ip_forward") == "0", "a gateway needs it, and the host did not have it on"


def test_an_example_leaves_forwarding_on_where_it_was(host: Host) -> None:
    """Docker, for one, would be lost without."""
    host.run("sysctl", "-qw", "net.ipv4.ip_forward=1")

    run(host, "bridge")

    assert host.sysctl("net/ipv4/ip_forward") == "1"


def test_an_example_that_fails_cleans_up_too(host: Host) -> None:
    """Here a firewall of the host keeps the gateway from answering."""
    host.run(
        "nft",
        "add table inet block; add chain inet block in { type filter hook input priority 0; policy drop; }",
    )

    done = run(host, "bridge")
    host.run("nft", "delete table inet block")

    assert done.returncode == 1
    assert "100% packet loss" in done.stdout


def test_an_example_does_not_take_what_is_there(host: Host) -> None:
    """Somebody else's link may bear the name of an example's bridge."""
    host.run("ip", "link", "add", "example-back", "type", "bridge")

    done = run(host, "two-networks")
    host.run("ip", "link", "delete", "example-back")

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("two-networks: there is a link example-back already")


@pytest.mark.parametrize("name", NAMES)
def test_not_root_is_told_in_one_line(host: Host, name: str) -> None:
    """Before anything is made."""
    host.run("cp", "-r", str(EXAMPLES), "/run/.host/oci-examples")  # where an ordinary user can read it
    host.run("chmod", "-R", "a+rX", "/run/.host")

    done = host.run(
        "setpriv", "--reuid=65534", "--clear-groups", f"/run/.host/oci-examples/{name}/run", check=False
    )

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"{name}: only root can give a container a network; try: sudo /run/.host/oci-examples/{name}/run\n"
    )


def test_what_is_missing_is_told_in_one_line(host: Host) -> None:
    """With the command that installs it."""
    hide(host, "runc", "busybox")

    done = run(host, "bridge")

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "bridge: something is missing; as root: apt-get install runc busybox-static\n"
