# SPDX-License-Identifier: Apache-2.0
"""DNS in containers and commands, with a real DNS server: which server is used, and that it answers."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.host.host import Host, Outside
from tests.support.host.namespace import Process, end
from tests.support.plugins.cni import CHECKOUT
from tests.support.runtimes.oci import CNIHOOK, Running, Runtime, bridge, configure, make_rootfs, wait_for
from tests.support.skip import need

RUN = str(CHECKOUT / "scripts" / "priv-net-run")
SERVER = f"nameserver {Outside.ADDRESS}\n"


@pytest.fixture
def server(host: Host) -> Iterator[Process]:
    """Start a DNS server on another machine; it resolves outside.example.test to that machine."""
    need("dnsmasq")
    outside = host.outside()
    process = outside.popen(
        *("dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--user=root", "--pid-file="),
        *("--no-resolv", "--no-hosts", f"--listen-address={Outside.ADDRESS}", "--bind-interfaces"),
        f"--host-record=outside.example.test,{Outside.ADDRESS},{Outside.ADDRESS6}",
    )
    host.leaves("process dnsmasq *")  # until the test is over
    wait_for(lambda: ":53 " in outside.run("ss", "-Hlun").stdout, "the DNS server")
    yield process
    end(process)


def network(dns: dict[str, Any] | None = None) -> dict[str, Any]:
    network = bridge("front", "10.1.0.0/24", ipMasq=True, **({"dns": dns} if dns else {}))
    network["plugins"][0]["ipam"]["routes"] = [{"dst": "0.0.0.0/0"}]
    return network


@pytest.fixture
def etc(runtime: Runtime, tmp_path: Path) -> Path:
    runtime.rootfs = make_rootfs(tmp_path / "rootfs")
    return runtime.rootfs / "etc"


def resolv_conf(container: Running) -> str:
    return container.exec("cat", "/etc/resolv.conf")


def of_host(container: Running) -> str:
    """Return the lines that are of the host, and that follow it: below two lines of cnihook."""
    first, second, text = resolv_conf(container).split("\n", 2)
    assert first == "# cnihook: of the host" and "when the host's change" in second
    return text


def resolves(container: Running, name: str = "outside.example.test") -> bool:
    """Query the server itself, then let the C library resolve the name by resolv.conf."""
    assert f"Address: {Outside.ADDRESS}" in container.exec("busybox", "nslookup", "outside.example.test")
    return f"({Outside.ADDRESS})" in container.exec("ping", "-c1", "-W30", name)


@pytest.mark.usefixtures("server", "etc")
def test_dns_server_of_the_network_is_used(host: Host, runtime: Runtime) -> None:
    """Blog posts on CNI with runc end with "however, the DNS won't work"."""
    configure(host, network({"nameservers": [Outside.ADDRESS], "search": ["example.test"]}))

    assert resolves(runtime.run(), "outside")


@pytest.mark.usefixtures("server", "etc")
@pytest.mark.parametrize("way", ["arguments", "annotations"])
def test_requested_dns_server_overrides_the_networks(host: Host, runtime: Runtime, way: str) -> None:
    configure(
        host, network({"nameservers": ["192.0.2.1"], "search": ["wrong.test"], "options": ["ndots:1"]})
    )
    if way == "arguments":
        container = runtime.run("c1", "--dns", Outside.ADDRESS, "--dns-search", "example.test")
    else:
        annotations = {"cnihook.dns": Outside.ADDRESS, "cnihook.dns-search": "example.test"}
        container = runtime.run("c1", annotations=annotations)

    assert (
        resolv_conf(container) == f"# cnihook: as asked for\nsearch example.test\n{SERVER}options ndots:1\n"
    )
    assert resolves(container, "outside")


@pytest.mark.usefixtures("server", "etc")
def test_servers_behind_systemd_resolved_are_used(host: Host, runtime: Runtime) -> None:
    """The stub at 127.0.0.53 is on the host's loopback, which no container can reach."""
    configure(host, network())
    host.write("/etc/resolv.conf", "nameserver 127.0.0.53\noptions edns0 trust-ad\nsearch .\n")
    host.write("/run/systemd/resolve/resolv.conf", f"# made by a machine\n\n{SERVER}search example.test\n")
    host.leaves("file /etc/resolv.conf", "* /run/systemd*")
    container = runtime.run()

    assert of_host(container) == f"{SERVER}search example.test\n"
    assert resolves(container, "outside")


@pytest.mark.parametrize("before", [None, "", "# cnihook: of the networks\nnameserver 192.0.2.2\n"])
def test_default_is_resolv_conf_of_the_host(
    host: Host, runtime: Runtime, etc: Path, before: str | None
) -> None:
    """The image has no resolv.conf, or the one written for an earlier container of it."""
    configure(host, network())
    host.write("/etc/resolv.conf", "nameserver 127.0.0.1\nnameserver 192.0.2.1\nsearch here\n")
    host.leaves("file /etc/resolv.conf")
    if before is not None:
        (etc / "resolv.conf").write_text(before)

    assert of_host(runtime.run()) == "nameserver 192.0.2.1\nsearch here\n"


@pytest.mark.usefixtures("etc")
@pytest.mark.parametrize("text", ["nameserver 127.0.0.1\n", "nameserver fe80::1%eth0\n", "search x\n", ""])
def test_host_without_reachable_server_writes_no_resolv_conf(
    host: Host, runtime: Runtime, text: str
) -> None:
    """The log says so.  With a file, every look-up would time out."""
    configure(host, network())
    host.write("/etc/resolv.conf", text)
    host.leaves("file /etc/resolv.conf")
    container = runtime.run()

    assert container.exec("sh", "-c", "test -e /etc/resolv.conf; echo $?") == "1\n"
    assert "no name servers" in container.log


def test_later_attach_keeps_requested_servers(host: Host, runtime: Runtime, etc: Path) -> None:
    """A network attached later adds its servers, except if the user requested servers."""
    back = bridge("back", "10.2.0.0/24", dns={"nameservers": ["10.2.0.53"]})
    configure(host, network({"nameservers": ["10.1.0.53"]}), back)
    container = runtime.run("c1", "--network", "front")

    host.run(CNIHOOK, "attach", "c1", "--network", "back")
    assert (
        resolv_conf(container) == "# cnihook: of the networks\nnameserver 10.1.0.53\nnameserver 10.2.0.53\n"
    )
    host.run(CNIHOOK, "detach", "c1", "--network", "back")
    override = "# cnihook: as asked for\nnameserver 192.0.2.1\n"
    host.run(CNIHOOK, "attach", "c1", "--network", "back", "--dns", "192.0.2.1")
    assert resolv_conf(container) == override
    host.run(CNIHOOK, "detach", "c1", "--network", "back")
    host.run(CNIHOOK, "attach", "c1", "--network", "back")
    assert resolv_conf(container) == override
    # A new container with the same files starts from the networks again.
    runtime.delete("c1")
    container = runtime.run("c1", "--network", "front")
    assert resolv_conf(container) == "# cnihook: of the networks\nnameserver 10.1.0.53\n"


# priv-net-run


@pytest.mark.usefixtures("server")
def test_command_uses_servers_of_network_or_option(host: Host) -> None:
    configure(host, network({"nameservers": [Outside.ADDRESS], "search": ["example.test"]}))
    host.run(RUN, "ping", "-c1", "-W30", "outside")

    configure(host, network())
    host.run(RUN, "--dns", Outside.ADDRESS, "--dns-search=example.test", "ping", "-c1", "-W30", "outside")


def test_command_resolves_hosts_and_containers_by_name(host: Host, runtime: Runtime, etc: Path) -> None:
    """Containers resolve the command's names too.  The host's own files do not change."""
    configure(host, network())
    host.write("/etc/hosts", "127.0.0.1 localhost\n192.0.2.1 of-the-host\n")
    host.write("/etc/resolv.conf", "")  # no server, so that no look-up waits for one
    host.leaves("file /etc/hosts", "file /etc/resolv.conf")
    container = runtime.run("c1", "--network-alias", "db")
    before = host.read("/etc/hosts")

    show = "getent hosts of-the-host db c1 up extra; ping -c1 -W30 c1 > /dev/null && echo reached"
    result = host.run(RUN, "--add-host", "up:host-gateway", "--add-host=extra:192.0.2.3", "sh", "-c", show)
    assert [line.split()[0] for line in result.stdout.splitlines()] == [
        *("192.0.2.1", "10.1.0.2", "10.1.0.2", "10.1.0.1", "192.0.2.3", "reached")
    ]
    script = "hostname; hostname -f; getent hosts www; echo; read line"
    with host.popen(
        *(RUN, "--hostname", "web.example.test", "--network-alias", "www", "sh", "-c", script), stdin=-1
    ) as running:
        wait_for(lambda: "\twww" in (etc / "hosts").read_text().replace(" ", "\t"), "the command's name")
        assert "10.1.0.4" in container.exec("ping", "-c1", "-W30", "www")
        assert "10.1.0.4" in container.exec("ping", "-c1", "-W30", "web")
        stdout, stderr = running.communicate("\n", timeout=30)
    assert (stdout.split(), stderr) == (
        ["web.example.test", "web.example.test", "10.1.0.4", "web.example.test", "web", "www"],
        "",
    )
    assert "www" not in (etc / "hosts").read_text()
    assert host.read("/etc/hosts") == before and host.run("hostname").stdout != "web.example.test\n"


def test_command_without_names_keeps_hosts_file_of_the_host(host: Host) -> None:
    configure(host, network())

    assert host.run(RUN, "sh", "-c", "grep /etc/hosts /proc/self/mountinfo; :").stdout == ""
