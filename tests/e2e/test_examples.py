# SPDX-License-Identifier: Apache-2.0
"""oci-examples/: one command does what the README shows, and leaves nothing behind."""

import fcntl
import re
import subprocess
from collections.abc import Iterator

import pytest

from tests.support.host.hidden_programs import hide, path_of
from tests.support.host.host import Host
from tests.support.host.namespace import base_environment
from tests.support.plugins.cni import CHECKOUT, REFERENCE
from tests.support.runtimes.oci import LEAVES, RUNTIMES
from tests.support.skip import need, skip_or_fail

EXAMPLES = CHECKOUT / "oci-examples"
NAMES = sorted(path.parent.name for path in EXAMPLES.glob("*/config.json"))

pytestmark = [
    pytest.mark.needs("runc", "busybox"),
    pytest.mark.root,
    pytest.mark.xdist_group("oci-examples"),
]

# What each example must print, whatever its README quotes.
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
    """Run one test at a time, because containers of one name share a cgroup even on two throw-away hosts."""
    with open(path_of("busybox")) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def run(host: Host, name: str, runtime: str = "runc") -> subprocess.CompletedProcess[str]:
    """Run the example from another folder than its own."""
    host.leaves(*LEAVES)
    env = base_environment() | {"RUNTIME": runtime}
    result = host.run(str(EXAMPLES / name / "run"), env=env, check=False)
    # On a busy machine runc may have to try twice until the kernel has emptied a killed container's cgroup.
    result.stderr = re.sub(r".*Failed to remove cgroup \(will retry\).*\n", "", result.stderr)
    return result


def quote(name: str) -> str:
    """Return the output of ./run that the example's README shows."""
    _, rest = (EXAMPLES / name / "README.md").read_text().split("    # ./run\n")
    block = re.match(r"(?:(?: {4}.*)?\n)+", rest)
    assert block
    return re.sub("^ {4}", "", block[0], flags=re.MULTILINE).strip()


def without_changing_parts(text: str) -> list[str]:
    for pattern, name in CHANGING:
        text = re.sub(pattern, name, text, flags=re.MULTILINE)
    return text.splitlines()


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("name", NAMES)
def test_example_prints_what_its_readme_shows(host: Host, name: str, runtime: str) -> None:
    """A new user's first container is one of these, and readers compare their output with the README."""
    need(runtime)
    if name == "reference-plugins":
        if not REFERENCE.is_dir():
            skip_or_fail(f"the reference plugins are not in {REFERENCE}")
        host.leaves("nft: table ip nat*", "file /run/xtables.lock")

    result = run(host, name, runtime)

    assert (result.returncode, result.stderr) == (0, "")
    assert [promise for promise in PROMISES[name] if promise not in result.stdout] == []
    transcript = quote(name).replace("$ runc ", f"$ {runtime} ")
    assert without_changing_parts(result.stdout) == without_changing_parts(transcript)
    assert host.sysctl("net/ipv4/ip_forward") == "0", "it was off before, so it must be off again"


def test_example_leaves_forwarding_on(host: Host) -> None:
    """Docker's containers need it, for example."""
    host.run("sysctl", "-qw", "net.ipv4.ip_forward=1")

    run(host, "bridge")

    assert host.sysctl("net/ipv4/ip_forward") == "1"


def test_failed_example_cleans_up(host: Host) -> None:
    """A firewall of the host drops the ping to the gateway."""
    host.run(
        "nft",
        "add table inet block; add chain inet block in { type filter hook input priority 0; policy drop; }",
    )

    result = run(host, "bridge")
    host.run("nft", "delete table inet block")

    assert result.returncode == 1
    assert "100% packet loss" in result.stdout


def test_example_does_not_use_an_existing_link(host: Host) -> None:
    """A link of another program can have the name of an example's bridge."""
    host.run("ip", "link", "add", "example-back", "type", "bridge")

    result = run(host, "two-networks")
    host.run("ip", "link", "delete", "example-back")

    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith("two-networks: there is a link example-back already")


@pytest.mark.parametrize("name", NAMES)
def test_example_without_root_prints_one_line(host: Host, name: str) -> None:
    """The example prints it before it creates anything."""
    host.run("cp", "-r", str(EXAMPLES), "/run/.host/oci-examples")  # where a user without root can read it
    host.run("chmod", "-R", "a+rX", "/run/.host")

    result = host.run(
        "setpriv", "--reuid=65534", "--clear-groups", f"/run/.host/oci-examples/{name}/run", check=False
    )

    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == (
        f"{name}: only root can give a container a network; try: sudo /run/.host/oci-examples/{name}/run\n"
    )


def test_missing_programs_are_named_in_one_line(host: Host) -> None:
    """The line contains the command that installs them."""
    hide(host, "runc", "busybox")

    result = run(host, "bridge")

    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == "bridge: something is missing; as root: apt-get install runc busybox-static\n"
