# SPDX-License-Identifier: Apache-2.0
"""Host ports on which a process listens, with each way to publish a port."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.commands.repair import WEB, WebContainer, cnihook, detach
from tests.support.host.host import Host
from tests.support.plugins.cni import CHECKOUT
from tests.support.plugins.ports import listening
from tests.support.runtimes.oci import LEAVES, call_hook, configure, external, make_rootfs, wait_for
from tests.support.runtimes.podman import IMAGE, Podman, install_plugins

RUN = str(CHECKOUT / "scripts" / "priv-net-run")


def log(host: Host, name: str) -> str:
    return host.read(f"/run/cnihook/log/{name}")


def create(host: Host, name: str, **options: str) -> str:
    """Call the hook for a new container; return its exit code and what it printed."""
    space = host.container(name, process=True)
    annotations = {f"cnihook.{option}": value for option, value in options.items()}
    state = {"ociVersion": "1.0.2", "id": name, "pid": space.pid, "status": "creating", "bundle": "/"}
    process = call_hook(host, "createRuntime", state | {"annotations": annotations})
    return f"{process.returncode} {process.stderr}"


@pytest.fixture
def web(host: Host) -> None:
    host.leaves("dir /run/cni", "dir /run/cni/tuning", "dir /run/cnihook*", "file /run/cnihook*")
    configure(host, WEB)


@pytest.mark.usefixtures("web")
def test_hook_refuses_the_port_of_a_process(host: Host) -> None:
    with listening(host, own="127.0.0.1") as pid:
        printed = create(host, "c1", publish="8080:80")

    assert printed.startswith("1 ") and f"process {pid} (python3)" in printed, printed
    assert f"process {pid} (python3)" in log(host, "c1")
    assert "8080" not in host.nft()


@pytest.mark.usefixtures("web")
def test_priv_net_run_refuses_the_port_of_a_process(host: Host) -> None:
    with listening(host, "udp") as pid:
        process = host.run(RUN, "--publish", "8080:80/udp", "true", check=False)

    assert process.returncode != 0 and f"process {pid} (python3)" in process.stderr, process


@pytest.mark.usefixtures("web")
@pytest.mark.parametrize(("own", "only_v6"), [("127.0.0.1", False), ("::", True)])
def test_port_from_a_range_is_one_without_a_listener(host: Host, own: str, only_v6: bool) -> None:
    with listening(host, own=own, only_v6=only_v6):
        assert create(host, "c1", publish="8080-8081:80") == "0 "

    assert "8081" in host.nft() and "8080" not in host.nft()
    assert cnihook(host, "detach", "c1").returncode == 0


def test_validate_accepts_take_over_ports(host: Host) -> None:
    plugins = [plugin | {"takeOverPorts": plugin["type"] == "portmap"} for plugin in WEB["plugins"][1:2]]
    configure(host, WEB | {"plugins": [WEB["plugins"][0], *plugins]})
    assert cnihook(host, "validate").stdout == "1 file checked: no problem found\n"
    configure(host, WEB | {"plugins": [WEB["plugins"][0], plugins[0] | {"takeOverPorts": "yes"}]})
    assert "takeOverPorts" in cnihook(host, "validate").stdout


def test_port_take_over_is_logged(host: Host) -> None:
    """crun, podman and docker discard what a hook prints."""
    host.leaves("dir /run/cni", "dir /run/cni/tuning")
    plugins = [plugin | {"takeOverPorts": plugin["type"] == "portmap"} for plugin in WEB["plugins"]]
    configure(host, WEB | {"plugins": plugins})
    with listening(host) as pid:
        assert create(host, "c1", publish="8080:80").startswith("0 ")

    assert f"process {pid} (python3)" in log(host, "c1") and "8080/tcp" in log(host, "c1")
    assert cnihook(host, "detach", "c1").returncode == 0


@pytest.mark.parametrize("lost", ["nftables", "link"])
def test_repair_restores_a_port_despite_a_listener(host: Host, lost: str) -> None:
    host.leaves("dir /run/cni", "dir /run/cni/tuning")
    configure(host, WEB)
    web = WebContainer(host, host.outside(), "c1", publish="8080:80")
    if lost == "link":
        web.space.run("ip", "link", "del", "eth0")
    else:
        host.run("nft", "flush", "ruleset")
    with listening(host) as pid:
        process = cnihook(host, "repair", "c1")

    assert process.returncode == 0, process
    assert f"process {pid} (python3)" in log(host, "c1")
    assert web.is_published()
    detach(web)


def test_stderr_of_a_plugin_is_logged(host: Host) -> None:
    """No runtime shows an executable's debugging output if the hook succeeds."""
    folder = external(host, "chatty", 'echo "low on addresses" >&2; echo "{}"')
    configure(host, {"cniVersion": "1.0.0", "name": "net1", "plugins": [{"type": "chatty"}]})
    space = host.container("c1", process=True)
    state = {"ociVersion": "1.0.2", "id": "c1", "pid": space.pid, "status": "creating", "bundle": "/"}
    host.run(
        *("/usr/bin/python3", "-IS", str(CHECKOUT / "scripts" / "cnihook"), "createRuntime"),
        *("--cni-path", folder),
        input=str(state).replace("'", '"'),
    )

    assert "chatty printed: low on addresses" in log(host, "c1")
    assert cnihook(host, "detach", "c1").returncode == 0


# Podman reserves a published port with a socket of conmon that listens on it


@pytest.fixture
def podman(host: Host, tmp_path: Path) -> Iterator[Podman]:
    podman = Podman(host, make_rootfs(tmp_path / "rootfs"), [install_plugins(host)])
    host.leaves(*LEAVES, "file /etc/cni/net.d/*", "dir /run/libpod*", "file /run/libpod*", "dir /run/cni*")
    host.leaves("dir /var/lib/containers*", "file /var/lib/containers/*")
    host.leaves("dir /run/containers*", "file /run/containers*", "file /run/xtables.lock", "dir /run/lock*")
    host.leaves("file /etc/cni/net.d/cni.lock", "dir /etc/containers*", "dir /run/netns", "mount /run/netns")
    podman("network", "create", "net1")
    yield podman
    podman.close()


@pytest.mark.needs("podman")
@pytest.mark.root
@pytest.mark.xdist_group("podman")
def test_port_that_podman_reserves_is_published(podman: Podman, host: Host) -> None:
    serve = ("nc", "-ll", "-p", "80", "-e", "echo", "hello")
    podman.run("-d", "--name", "web", "--network", "net1", "-p", "8080:80", IMAGE, *serve)
    assert "conmon" in host.run("ss", "-lntp").stdout

    podman("network", "reload", "web")
    ask = ("busybox", "nc", "-w", "3", "127.0.0.1", "8080")
    wait_for(lambda: host.run(*ask, check=False).stdout == "hello\n", "an answer through the port")
    podman("network", "create", "net2")
    podman("network", "connect", "net2", "web")
    assert host.run(*ask).stdout == "hello\n"
    podman("rm", "-f", "-t", "0", "web")
