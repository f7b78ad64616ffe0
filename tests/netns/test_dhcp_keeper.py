# SPDX-License-Identifier: Apache-2.0
"""cnihook dhcp-keeper: how it starts and ends, and what happens to the leases while it does not run."""

import json
import os
import stat
from pathlib import Path

import pytest

from tests.netns.test_hot_path import expect_cheap, imports
from tests.support.host import sockets
from tests.support.host.host import Container, Host
from tests.support.plugins import cni
from tests.support.services import dhcp
from tests.support.services.dhcp import (
    KEEPER,
    LEASES,
    SOCKET,
    Lan,
    address,
    keepers,
    network,
    request,
    wait_for,
)

pytestmark = pytest.mark.needs("dnsmasq")

SHORT = "--dhcp-option=58,3"  # T1, so that a test need not wait for a minute until a lease is renewed


@pytest.fixture
def implementation(implementations: dict[str, cni.Implementation]) -> cni.Implementation:
    """Return the built-in plugins only: the reference's daemon is another program."""
    return implementations["builtin"]


@pytest.fixture
def container(host: Host, lan: Lan) -> Container:
    """Return a container that has a link, so that the plugin dhcp can be called by itself."""
    return lan.plug(host.container())


def test_keeper_starts_with_the_first_lease_and_ends_after_the_last(
    host: Host, lan: Lan, container: Container
) -> None:
    lan.serve()
    containers = [container, lan.plug(host.container())]
    for each in containers:
        request(host, "ADD", network(), each)
    assert len(keepers(host)) == 1 and len(dhcp.lease_files(host)) == 2

    request(host, "DEL", network(), containers[0])
    assert len(keepers(host)) == 1 and len(dhcp.lease_files(host)) == 1

    request(host, "DEL", network(), containers[1])
    wait_for(lambda: not keepers(host), "the keeper ends")
    assert not host.exists(SOCKET) and not host.exists(LEASES)


def test_keeper_holds_no_descriptor_of_the_process_that_started_it(
    host: Host, lan: Lan, container: Container
) -> None:
    """A runtime waits until every process has closed the hook's output, and any pipe that it passed on."""
    lan.serve()
    read, write = os.pipe()
    environment = cni.Attachment(network(), container, "eth0", "dhcp", {}).environment("ADD", Path("/x"))
    assert host.implementation
    program = host.implementation.program("dhcp")
    with host.popen(program, env=environment, stdin=-1, pass_fds=[write]) as plugin:
        os.close(write)
        stdout, _stderr = plugin.communicate(
            json.dumps(network()), 20
        )  # returns when every writer has closed it
    with open(read, "rb") as pipe:
        assert pipe.read() == b""

    assert json.loads(stdout)["ips"]
    (pid,) = keepers(host)
    own = host.run("sh", "-c", f"readlink /proc/{pid}/fd/*; readlink /proc/{pid}/cwd").stdout.splitlines()
    assert own[:3] == ["/dev/null"] * 3 and own[-1] == "/"
    request(host, "DEL", network(), container)


def test_only_root_can_access_socket_and_leases(host: Host, lan: Lan, container: Container) -> None:
    lan.serve()
    request(host, "ADD", network(), container)

    modes = {path: stat.S_IMODE(os.stat(host.root / path[1:]).st_mode) for path in (SOCKET, LEASES)}
    assert modes == {SOCKET: 0o600, LEASES: 0o700}
    assert {os.stat(host.root / LEASES[1:] / name).st_mode & 0o777 for name in dhcp.lease_files(host)} == {
        0o600
    }


def test_lease_survives_a_killed_keeper(host: Host, lan: Lan, container: Container) -> None:
    """The next request of any kind starts another keeper, which continues where the first one stopped."""
    lan.serve(SHORT)
    result = request(host, "ADD", network(), container)
    dhcp.end_keeper(host)
    before = lan.seen("DHCPACK")

    request(host, "CHECK", network() | {"prevResult": result}, container)

    lan.wait_until_seen("DHCPACK", before + 1)
    wait_for(lambda: list(lan.leases()) == [address(result)], "the server has that lease")


def test_del_releases_the_address_without_a_keeper(host: Host, lan: Lan, container: Container) -> None:
    lan.serve()
    result = request(host, "ADD", network(), container)
    dhcp.end_keeper(host)

    for _time in range(2):
        request(host, "DEL", network() | {"prevResult": result}, container)

    lan.wait_until_seen(rf"DHCPRELEASE\(eth0\) {address(result)}")
    assert keepers(host) == [] and not host.exists(LEASES)


def test_del_removes_a_lease_whose_namespace_ended_without_a_keeper(host: Host, lan: Lan) -> None:
    lan.serve()
    container = lan.plug(host.container("c"))
    request(host, "ADD", network(), container)
    dhcp.end_keeper(host)
    lan.crash(container)

    request(host, "DEL", network(), container, CNI_NETNS="")

    assert not host.exists(LEASES)


def test_lease_is_never_renewed_for_another_namespace_at_the_same_path(host: Host, lan: Lan) -> None:
    """The runtime may use the path again.  The lease ends, and with the last lease the keeper ends."""
    lan.serve(SHORT)
    first = host.container("c")
    request(host, "ADD", network(), lan.plug(first))
    lan.crash(first)
    host.container("c")

    wait_for(lambda: not keepers(host), "the keeper ends")
    assert not host.exists(LEASES) and lan.seen("DHCPACK") == 1


def test_gc_releases_leases_that_are_not_on_the_list(host: Host, lan: Lan, container: Container) -> None:
    others = [lan.plug(host.container()) for _ in range(2)]
    lan.serve()
    kept = request(host, "ADD", network(), container)
    request(host, "ADD", network(), others[0])
    other = request(host, "ADD", network() | {"name": "net2"}, others[1])

    keep = [{"containerID": container.name, "ifname": "eth0"}]
    conf = network(version="1.1.0")
    request(host, "GC", conf | {"cni.dev/valid-attachments": keep}, None)

    lan.wait_until_seen("DHCPRELEASE")
    wait_for(lambda: len(lan.leases()) == 2, "the server has two leases")
    assert set(lan.leases()) == {address(kept), address(other)}

    dhcp.end_keeper(host)
    request(host, "GC", conf | {"cni.dev/valid-attachments": []}, None)
    wait_for(lambda: set(lan.leases()) == {address(other)}, "the server has the other network's lease")


def test_socket_can_be_elsewhere(host: Host, lan: Lan, container: Container) -> None:
    lan.serve()
    conf = network(daemonSocketPath="/run/other/d.sock")
    request(host, "ADD", conf, container)

    assert host.exists("/run/other/d.sock") and not host.exists(SOCKET)
    request(host, "DEL", conf, container)
    host.leaves("file /run/other/d.sock", "dir /run/other")


@pytest.mark.parametrize(
    "keys", [{"type": "bridge"}, {"type": "macvlan", "master": "cni0"}], ids=["bridge", "macvlan"]
)
def test_interface_plugins_of_the_reference_can_use_dhcp(
    host: Host, lan: Lan, implementations: dict[str, cni.Implementation], keys: dict[str, str]
) -> None:
    """The reference finds this plugin as an executable in CNI_PATH."""
    lan.serve()
    folder = str(implementations["builtin"].folder)
    host.implementation = implementations["reference"]
    container = host.container()
    result = host.cni("ADD", network() | keys, container, CNI_PATH=folder)

    assert container.addresses("eth0") == [f"{address(result)}/24"]
    assert len(keepers(host)) == 1
    host.cni("DEL", network() | keys | {"prevResult": result}, container, CNI_PATH=folder)
    assert not host.exists(LEASES)


def test_damaged_file_is_not_a_lease(host: Host, lan: Lan, container: Container) -> None:
    """Nor does a partial file count, or a file of another boot.  They are removed, and valid leases stay."""
    lan.serve(SHORT)
    result = request(host, "ADD", network(), container)
    dhcp.end_keeper(host)
    (name,) = dhcp.lease_files(host)
    kept = host.read(f"{LEASES}/{name}")
    host.write(f"{LEASES}/{name}.new", kept)
    host.write(f"{LEASES}/0", kept.replace('"boot": "', '"boot": "0'))
    host.write(f"{LEASES}/1", kept[:100])
    host.write(f"{LEASES}/2", "")

    request(host, "CHECK", network() | {"prevResult": result}, container)

    assert dhcp.lease_files(host) == [name]


def test_command_gets_an_address_and_releases_it(host: Host, lan: Lan) -> None:
    """The whole way: network file, chain, bridge, keeper, resolv.conf.  No process is left waiting."""
    lan.serve("--dhcp-option=6,192.0.2.53")
    host.write("/etc/cni/net.d/10-lan.conf", json.dumps(network()))
    host.leaves("file /etc/cni/net.d/*")
    script = "ip -4 -br addr show eth0; cat /etc/resolv.conf; ping -c1 -W30 10.9.0.1"
    output = host.run(str(cni.CHECKOUT / "scripts" / "priv-net-run"), "sh", "-c", script).stdout

    assert "10.9.0." in output and "nameserver 192.0.2.53" in output and " 0% packet loss" in output
    lan.wait_until_seen("DHCPRELEASE")


def test_plugin_has_cheap_imports_only(host: Host, lan: Lan, container: Container, tmp_path: Path) -> None:
    """Every start of a container pays for the plugin's imports; the keeper's are paid for once."""
    lan.serve()
    assert host.implementation
    program = host.implementation.program("dhcp")
    for command in ("ADD", "DEL"):
        environment = cni.Attachment(network(), container, "eth0", "dhcp", {}).environment(
            command, Path("/x")
        )
        modules = imports(host, tmp_path / "imports", program, input=json.dumps(network()), env=environment)
        expect_cheap(modules)


# As systemd passes the socket: as descriptor 3.
ACTIVATE = """\
import os, socket, sys
path, *command = sys.argv[1:]
os.makedirs(os.path.dirname(path), exist_ok=True)
listener = socket.socket(socket.AF_UNIX)
listener.bind(path)
listener.listen()
print(flush=True)
os.dup2(listener.fileno(), 3)
os.set_inheritable(3, True)
os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()))
os.execv(command[0], command)
"""


def test_systemd_may_hold_the_socket(host: Host, lan: Lan, container: Container) -> None:
    """The keeper serves on it, ends when it has nothing to do, and leaves the socket to systemd."""
    lan.serve()
    keeper = host.popen(KEEPER[0], "-c", ACTIVATE, SOCKET, *KEEPER, "--linger", "3")
    assert keeper.stdout
    keeper.stdout.readline()

    request(host, "ADD", network(), container)
    assert keepers(host) == [keeper.inside_pid]
    request(host, "DEL", network(), container)

    assert keeper.wait(30) == 0
    assert host.exists(SOCKET)


def test_ten_requests_at_once_get_ten_addresses_from_one_keeper(host: Host, lan: Lan) -> None:
    """A request that comes while a keeper starts waits for this keeper."""
    containers = [lan.plug(host.container()) for _ in range(10)]
    lan.serve(SHORT)
    assert host.implementation
    program = host.implementation.program("dhcp")
    running = []
    for container in containers:
        attachment = cni.Attachment(network(), container, "eth0", "dhcp", {})
        host.attachments.append(attachment)
        running.append(host.popen(program, env=attachment.environment("ADD", Path("/x")), stdin=-1))
    answers = [json.loads(process.communicate(json.dumps(network()), 30)[0]) for process in running]

    addresses = {address(answer) for answer in answers}
    assert len(addresses) == 10 and len(keepers(host)) == 1
    lan.wait_until_seen("DHCPACK", 20)
    wait_for(lambda: set(lan.leases()) == addresses, "the server has ten leases")


def test_frames_of_a_neighbour_do_not_disturb_the_keeper(host: Host, lan: Lan) -> None:
    """Any neighbour can send them.  The next renewal is sent and answered as before."""
    lan.serve(SHORT)
    container = host.container()
    result = host.cni("ADD", network(), container)
    hardware = container.link("eth0")["address"]
    with sockets.packet_socket(lan.machine, "eth0") as neighbour:
        for payload in (b"", b"\x02", b"\x02\x01\x06" + bytes(233) + b"\x63\x82\x53\x63" + b"\x35\xff"):
            neighbour.send(dhcp.frame(hardware, payload))
        before = lan.seen("DHCPACK")
        while lan.seen("DHCPACK") < before + 1:
            neighbour.send(dhcp.frame(hardware, b"\x02\x01\x06" + bytes(233) + b"\x63\x82\x53\x63\xff"))

    assert host.cni("CHECK", network() | {"prevResult": result}, container) is None
