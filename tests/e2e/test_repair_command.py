# SPDX-License-Identifier: Apache-2.0
"""`cnihook repair`: which containers it repairs, what it reports, and what its containers notice."""

import pytest

from tests.support.commands.repair import WEB, WebContainer, cnihook, detach, repair
from tests.support.host import sockets
from tests.support.host.host import Host, Outside
from tests.support.runtimes.oci import CNIHOOK, MYNET, NET_D, Runtime, bridge, configure, external


@pytest.fixture
def outside(host: Host) -> Outside:
    host.leaves("dir /run/cni", "dir /run/cni/tuning")
    return host.outside()


@pytest.fixture
def web(host: Host, outside: Outside) -> WebContainer:
    configure(host, WEB)
    return WebContainer.published(host, outside)


def test_repair_of_nothing_prints_nothing(host: Host, web: WebContainer) -> None:
    before = host.nft(), host.ip("link")

    assert repair(host) == repair(host, "c1") == []
    assert (host.nft(), host.ip("link")) == before
    detach(web)


def test_repair_needs_no_configuration(host: Host, web: WebContainer) -> None:
    """The record has the configuration; later changes of the file are for new containers."""
    host.run("rm", f"{NET_D}/10-net.conflist")
    host.run("nft", "flush", "ruleset")

    assert repair(host)
    assert web.works() and web.is_published()
    detach(web)


def test_address_taken_by_another_container_is_reported_and_tried_again(
    host: Host, web: WebContainer
) -> None:
    """Another container has the lease; no other address is assigned silently."""
    web.space.run("ip", "link", "del", "eth0")
    host.write("/var/lib/cni/networks/web/10.22.0.2", "stranger\r\neth0")

    outcome = cnihook(host, "repair", "--all")

    assert outcome.returncode == 1 and outcome.stderr.count("\n") == 1
    assert outcome.stderr.startswith("cnihook: repair: c1: web eth0: ")
    assert "10.22.0.2 is not available" in outcome.stderr
    host.run("rm", "/var/lib/cni/networks/web/10.22.0.2")
    assert repair(host)
    assert web.works() and web.is_published()
    detach(web)
    host.leaves("file /run/cnihook/log/c1")


def test_failure_of_one_attachment_does_not_stop_the_others(host: Host, outside: Outside) -> None:
    configure(host, WEB, bridge("other", "10.24.0.0/24"))
    first = WebContainer(host, outside, "c1")
    second = WebContainer(host, outside, "c2", networks="web")
    first.space.run("ip", "link", "del", "eth1")
    host.write("/var/lib/cni/networks/other/10.24.0.2", "stranger\r\neth0")
    host.run("nft", "flush", "ruleset")

    assert cnihook(host, "repair", "--all").returncode == 1
    assert first.works() and second.works()
    host.run("rm", "/var/lib/cni/networks/other/10.24.0.2")
    assert repair(host)
    assert first.space.addresses("eth1") == ["10.24.0.2/24"]
    detach(first, second)
    host.leaves("file /run/cnihook/log/c1")


def test_dead_container_is_left_to_gc(host: Host, web: WebContainer) -> None:
    web.space.destroy()

    assert repair(host) == []
    outcome = cnihook(host, "repair", "c1")
    assert (outcome.returncode, outcome.stderr.count("\n")) == (1, 1) and "cnihook gc" in outcome.stderr
    host.run(CNIHOOK, "gc")


def test_repair_completes_if_its_output_is_closed(host: Host, web: WebContainer) -> None:
    host.run("nft", "flush", "ruleset")
    (port,) = [link["ifname"] for link in host.ip("link", "show", "master", "cni0")]
    host.run("tc", "qdisc", "del", "dev", port, "root")

    outcome = host.run("sh", "-c", f"exec {CNIHOOK} repair --all | exec true")

    assert (outcome.stdout, outcome.stderr) == ("", "")
    assert web.is_published() and repair(host) == []
    detach(web)  # if there had been a failure, the log would be kept


def test_repair_requires_a_container_or_all(host: Host) -> None:
    assert cnihook(host, "repair").returncode == 2
    assert cnihook(host, "repair", "c1", "--all").returncode == 2
    outcome = cnihook(host, "repair", "c9")
    assert (outcome.returncode, outcome.stderr) == (
        1,
        "cnihook: repair c9: no network of this container is on record\n",
    )


def test_changed_address_is_reported(host: Host, outside: Outside) -> None:
    """The IPAM plugin cannot be asked for a certain address."""
    script = """if [ $CNI_COMMAND = ADD ]; then
    calls=$(wc -l < /run/.host/plugins/calls)
    printf '{"cniVersion": "1.0.0", "ips": [{"address": "10.22.0.%d/24"}]}' $calls
fi"""
    path = external(host, "counting", script)
    conf = {"type": "bridge", "bridge": "cni0", "ipam": {"type": "counting"}}
    configure(host, {"cniVersion": "1.0.0", "name": "web", "plugins": [conf]})
    attached = WebContainer(host, outside, "c1", plugins=path)
    (before,), mac = attached.space.addresses("eth0"), attached.space.link("eth0")["address"]
    attached.space.run("ip", "link", "del", "eth0")

    lines = repair(host)

    (now,) = attached.space.addresses("eth0")
    assert f"(attached again, with {now} instead of {before})" in lines[0]
    assert attached.space.link("eth0")["address"] == mac
    detach(attached)


def test_container_of_a_runtime_keeps_running(host: Host, outside: Outside, runtime: Runtime) -> None:
    configure(host, MYNET)
    container = runtime.run("c1")
    address = container.address
    host.run("nft", "flush", "ruleset")
    container.run("ip", "link", "del", "eth0")

    assert repair(host, "c1")
    assert container.address == address and runtime.state("c1")["pid"] == container.pid
    assert sockets.connect(container, outside, Outside.ADDRESS) == Outside.HOST
    container.exec("ping", "-c1", "-W30", Outside.ADDRESS)


def test_repairs_at_once_do_not_conflict(host: Host, web: WebContainer) -> None:
    """A restart of the firewall may start several."""
    host.run("nft", "flush", "ruleset")
    web.space.run("ip", "link", "del", "eth0")

    at_once = [host.popen(CNIHOOK, "repair", "--all") for _ in range(4)]
    outputs = [process.communicate(timeout=30) for process in at_once]

    assert [process.returncode for process in at_once] == [0] * 4
    assert sum(bool(stdout) for stdout, _ in outputs) == 1, (
        "one repaired it, and the others had nothing to do"
    )
    assert web.works() and web.is_published()
    detach(web)


@pytest.mark.needs("conntrack")
def test_connection_is_kept_with_a_new_link(host: Host, web: WebContainer) -> None:
    """The container keeps its address, so the host keeps the flows that a DEL would delete."""
    with web.outside.socket() as server, web.space.socket() as client:
        server.bind((Outside.ADDRESS, 5353))
        server.listen()
        client.connect((Outside.ADDRESS, 5353))
        peer, _ = server.accept()
        flow = host.run("conntrack", "-L", "-o", "id", "-p", "tcp", "--orig-port-dst", "5353").stdout
        web.space.run("ip", "link", "del", "eth0")
        assert repair(host)

        again = host.run("conntrack", "-L", "-o", "id", "-p", "tcp", "--orig-port-dst", "5353").stdout
        assert flow.split("id=")[1] == again.split("id=")[1]
        with peer:
            peer.sendall(b"ping")
            assert client.recv(16) == b"ping"
    detach(web)
