# SPDX-License-Identifier: Apache-2.0
"""A container's own host name resolves to its address, with any lines of an engine or an image."""

from pathlib import Path

import pytest

from tests.support.host.host import Host
from tests.support.plugins.cni import CHECKOUT
from tests.support.runtimes.oci import CNIHOOK, Running, Runtime, bridge, configure, make_rootfs

RUN = str(CHECKOUT / "scripts" / "priv-net-run")
# Of podman for `--network none`; of Debian; both IP versions, in capitals and with a comment.
PODMANS = "127.0.0.1\tlocalhost localhost.localdomain\n::1\tlocalhost\n127.0.0.1\tcontainer web\n"
DEBIANS = "127.0.0.1 localhost\n127.0.1.1 container.example.test container\n"
ON_ONE_LINE = "::1 localhost CONTAINER ip6-localhost # of the image\n127.0.0.1 localhost container\n"
DUAL = {"type": "host-local", "ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd01::/64"}]]}


@pytest.fixture
def etc(host: Host, runtime: Runtime, tmp_path: Path) -> Path:
    front = bridge("front", "10.1.0.0/24")
    front["plugins"][0]["ipam"] = DUAL
    configure(host, front, bridge("back", "10.2.0.0/24"))
    runtime.rootfs = make_rootfs(tmp_path / "rootfs")
    return runtime.rootfs / "etc"


def addresses(container: Running, name: str) -> list[str]:
    """Return the addresses that a name has in the container's hosts file."""
    lines = [line.partition("#")[0].split() for line in container.exec("cat", "/etc/hosts").splitlines()]
    return [line[0] for line in lines if name in [word.lower() for word in line[1:]]]


@pytest.mark.parametrize("text", [PODMANS, DEBIANS, ON_ONE_LINE], ids=["podman", "debian", "one-line"])
def test_own_name_is_not_the_loopback(runtime: Runtime, etc: Path, text: str) -> None:
    """Erlang, Kafka, RabbitMQ and Java bind to the address of the host name, or announce it."""
    (etc / "hosts").write_text(text)
    container = runtime.run("c1", "--network", "front")

    own = ["10.1.0.2", "fd01::2"]
    assert addresses(container, "container") == own
    beside = {PODMANS: "web", DEBIANS: "container.example.test"}.get(text, "container")
    assert addresses(container, beside) == own
    assert container.exec("busybox", "hostname", "-i").split()[0] in own
    assert set(addresses(container, "localhost")) <= {"127.0.0.1", "::1"} != set()


@pytest.mark.parametrize("text", [PODMANS, DEBIANS])
def test_lines_of_the_engine_are_restored_after_the_last_network(
    host: Host, runtime: Runtime, etc: Path, text: str
) -> None:
    """A running container must still be able to resolve its own name."""
    (etc / "hosts").write_text(text)
    container = runtime.run("c1", "--network", "front,back")
    host.run(CNIHOOK, "detach", "c1", "--network", "front")
    assert addresses(container, "container") == ["10.2.0.2"]
    host.run(CNIHOOK, "detach", "c1")
    assert addresses(container, "container")[0].startswith("127.")
    assert text.splitlines()[-1].split() in [line.split() for line in etc.joinpath("hosts").open()]
    assert "cnihook" not in container.exec("cat", "/etc/hosts")

    host.run(CNIHOOK, "attach", "c1", "--network", "back")
    assert addresses(container, "container") == ["10.2.0.3"]


def test_requested_names_are_not_the_loopback(runtime: Runtime, etc: Path) -> None:
    (etc / "hosts").write_text("127.0.0.1 localhost app www other\n")
    container = runtime.run("c1", "--network", "back", "--hostname", "app", "--network-alias", "www")

    assert addresses(container, "app") == addresses(container, "www") == ["10.2.0.2"]
    assert addresses(container, "other") == ["127.0.0.1"]


def test_lines_of_a_container_without_addresses_stay(host: Host, runtime: Runtime, etc: Path) -> None:
    """Otherwise its name would have no address at all."""
    bare = {"cniVersion": "1.0.0", "name": "bare", "plugins": [{"type": "bridge", "bridge": "br9"}]}
    configure(host, bare)
    (etc / "hosts").write_text(PODMANS)
    container = runtime.run("c1", "--network", "bare")

    assert addresses(container, "container") == ["127.0.0.1"]


def test_own_name_of_a_command_is_not_the_loopback(host: Host) -> None:
    """The host may have the name in its own file, as hosts of developers often do."""
    configure(host, bridge("front", "10.1.0.0/24"))
    host.write("/etc/hosts", "127.0.0.1 localhost\n127.0.0.1 app other\n")
    host.leaves("file /etc/hosts")
    for number, option in ((2, "--hostname"), (4, "--network-alias")):
        shown = host.run(RUN, option, "app", "getent", "ahostsv4", "app")
        assert {line.split()[0] for line in shown.stdout.splitlines()} == {f"10.1.0.{number}"}
        assert host.run(RUN, option, "app", "getent", "ahostsv4", "other").stdout[:9] == "127.0.0.1"
    assert host.run(RUN, "--add-host", "db:10.1.0.9", "getent", "ahostsv4", "app").stdout[:9] == "127.0.0.1"
