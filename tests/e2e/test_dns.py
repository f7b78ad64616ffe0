# SPDX-License-Identifier: Apache-2.0
"""Names that a real DNS server knows, asked for inside of containers and commands; whose server it is."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.cni import CHECKOUT
from tests.support.host import Host, Outside
from tests.support.namespace import Process, end
from tests.support.oci import CNIHOOK, Running, Runtime, bridge, configure, make_rootfs, wait_for
from tests.support.skip import need

RUN = str(CHECKOUT / "scripts" / "priv-net-run")
SERVER = f"nameserver {Outside.ADDRESS}\n"


@pytest.fixture
def server(host: Host) -> Iterator[Process]:
    """A DNS server on another machine: it knows outside.example.test, which is that machine itself."""
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
    made = bridge("front", "10.1.0.0/24", ipMasq=True, **({"dns": dns} if dns else {}))
    made["plugins"][0]["ipam"]["routes"] = [{"dst": "0.0.0.0/0"}]
    return made


@pytest.fixture
def etc(runtime: Runtime, tmp_path: Path) -> Path:
    runtime.rootfs = make_rootfs(tmp_path / "rootfs")
    return runtime.rootfs / "etc"


def resolv_conf(container: Running) -> str:
    return container.exec("cat", "/etc/resolv.conf")


def resolves(container: Running, name: str = "outside.example.test") -> bool:
    """By the server itself, and by what the C library makes of resolv.conf."""
    assert f"Address: {Outside.ADDRESS}" in container.exec("busybox", "nslookup", "outside.example.test")
    return f"({Outside.ADDRESS})" in container.exec("ping", "-c1", "-W30", name)


@pytest.mark.usefixtures("server", "etc")
def test_the_networks_dns_server_is_asked(host: Host, runtime: Runtime) -> None:
    """What blogs on CNI with runc end with: "however, the DNS won't work"."""
    configure(host, network({"nameservers": [Outside.ADDRESS], "search": ["example.test"]}))

    assert resolves(runtime.run(), "outside")


@pytest.mark.usefixtures("server", "etc")
@pytest.mark.parametrize("way", ["arguments", "annotations"])
def test_the_server_that_was_asked_for_goes_before_the_networks(
    host: Host, runtime: Runtime, way: str
) -> None:
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
def test_the_servers_behind_systemd_resolved_are_asked(host: Host, runtime: Runtime) -> None:
    """Its stub at 127.0.0.53 is on the host's loopback, where no container is."""
    configure(host, network())
    host.write("/etc/resolv.conf", "nameserver 127.0.0.53\noptions edns0 trust-ad\nsearch .\n")
    host.write("/run/systemd/resolve/resolv.conf", f"# made by a machine\n\n{SERVER}search example.test\n")
    host.leaves("file /etc/resolv.conf", "* /run/systemd*")
    container = runtime.run()

    assert resolv_conf(container) == f"# cnihook: of the host\n{SERVER}search example.test\n"
    assert resolves(container, "outside")


@pytest.mark.parametrize("before", [None, "", "# cnihook: of the networks\nnameserver 192.0.2.2\n"])
def test_without_a_word_it_is_the_hosts(host: Host, runtime: Runtime, etc: Path, before: str | None) -> None:
    """Where the image has none, or the one that an earlier container of it was given."""
    configure(host, network())
    host.write("/etc/resolv.conf", "nameserver 127.0.0.1\nnameserver 192.0.2.1\nsearch here\n")
    host.leaves("file /etc/resolv.conf")
    if before is not None:
        (etc / "resolv.conf").write_text(before)

    assert resolv_conf(runtime.run()) == "# cnihook: of the host\nnameserver 192.0.2.1\nsearch here\n"


@pytest.mark.usefixtures("etc")
@pytest.mark.parametrize("text", ["nameserver 127.0.0.1\n", "nameserver fe80::1%eth0\n", "search x\n", ""])
def test_a_host_without_a_server_for_others_gives_none(host: Host, runtime: Runtime, text: str) -> None:
    """Said, and better than a file that has every name time out."""
    configure(host, network())
    host.write("/etc/resolv.conf", text)
    host.leaves("file /etc/resolv.conf")
    container = runtime.run()

    assert container.exec("sh", "-c", "test -e /etc/resolv.conf; echo $?") == "1\n"
    assert "no name servers" in container.log


def test_attached_later_it_keeps_what_was_asked_for(host: Host, runtime: Runtime, etc: Path) -> None:
    """A network that comes adds its servers, but not to those of the user's choice."""
    back = bridge("back", "10.2.0.0/24", dns={"nameservers": ["10.2.0.53"]})
    configure(host, network({"nameservers": ["10.1.0.53"]}), back)
    container = runtime.run("c1", "--network", "front")

    host.run(CNIHOOK, "attach", "c1", "--network", "back")
    assert (
        resolv_conf(container) == "# cnihook: of the networks\nnameserver 10.1.0.53\nnameserver 10.2.0.53\n"
    )
    host.run(CNIHOOK, "detach", "c1", "--network", "back")
    asked = "# cnihook: as asked for\nnameserver 192.0.2.1\n"
    host.run(CNIHOOK, "attach", "c1", "--network", "back", "--dns", "192.0.2.1")
    assert resolv_conf(container) == asked
    host.run(CNIHOOK, "detach", "c1", "--network", "back")
    host.run(CNIHOOK, "attach", "c1", "--network", "back")
    assert resolv_conf(container) == asked
    # A new container in the same place begins anew.
    runtime.delete("c1")
    container = runtime.run("c1", "--network", "front")
    assert resolv_conf(container) == "# cnihook: of the networks\nnameserver 10.1.0.53\n"


# priv-net-run


@pytest.mark.usefixtures("server")
def test_a_command_asks_the_networks_server_or_its_own(host: Host) -> None:
    configure(host, network({"nameservers": [Outside.ADDRESS], "search": ["example.test"]}))
    host.run(RUN, "ping", "-c1", "-W30", "outside")

    configure(host, network())
    host.run(RUN, "--dns", Outside.ADDRESS, "--dns-search=example.test", "ping", "-c1", "-W30", "outside")


def test_a_command_finds_hosts_and_containers_by_name(host: Host, runtime: Runtime, etc: Path) -> None:
    """And is found itself, if it has a name; the host's own files are as before."""
    configure(host, network())
    host.write("/etc/hosts", "127.0.0.1 localhost\n192.0.2.1 of-the-host\n")
    host.write("/etc/resolv.conf", "")  # nobody is to be asked, and waited for
    host.leaves("file /etc/hosts", "file /etc/resolv.conf")
    container = runtime.run("c1", "--network-alias", "db")
    before = host.read("/etc/hosts")

    show = "getent hosts of-the-host db c1 up extra; ping -c1 -W30 c1 > /dev/null && echo reached"
    done = host.run(RUN, "--add-host", "up:host-gateway", "--add-host=extra:192.0.2.3", "sh", "-c", show)
    assert [line.split()[0] for line in done.stdout.splitlines()] == [
        *("192.0.2.1", "10.1.0.2", "10.1.0.2", "10.1.0.1", "192.0.2.3", "reached")
    ]
    script = "hostname; hostname -f; getent hosts www; echo; read line"
    with host.popen(
        *(RUN, "--hostname", "web.example.test", "--network-alias", "www", "sh", "-c", script), stdin=-1
    ) as running:
        wait_for(lambda: "\twww" in (etc / "hosts").read_text().replace(" ", "\t"), "its name")
        assert "10.1.0.4" in container.exec("ping", "-c1", "-W30", "www")
        assert "10.1.0.4" in container.exec("ping", "-c1", "-W30", "web")
        stdout, stderr = running.communicate("\n", timeout=30)
    assert (stdout.split(), stderr) == (
        ["web.example.test", "web.example.test", "10.1.0.4", "web.example.test", "web", "www"],
        "",
    )
    assert "www" not in (etc / "hosts").read_text()
    assert host.read("/etc/hosts") == before and host.run("hostname").stdout != "web.example.test\n"


def test_a_command_that_needs_no_hosts_file_keeps_the_hosts(host: Host) -> None:
    configure(host, network())

    assert host.run(RUN, "sh", "-c", "grep /etc/hosts /proc/self/mountinfo; :").stdout == ""
