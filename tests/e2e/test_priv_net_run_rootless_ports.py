# SPDX-License-Identifier: Apache-2.0
"""priv-net-run --publish for an ordinary user: from a port of the host to the command."""

import subprocess
from typing import Any

from tests.e2e.test_priv_net_run_rootless import (
    AS_USER,
    RUN,
    hide,
    mynet,
    open_tun,
    processes,
    refused,
    user,
)
from tests.support.host.host import Host, Outside
from tests.support.host.namespace import Process
from tests.support.runtimes.oci import bridge, configure, wait_for

__all__ = ["mynet", "open_tun", "user"]

PYTHON = ("/usr/bin/python3", "-IS", "-c")
# Answers a client of TCP and UDP on its port with the protocol and the address of the client.
SERVE = """
import select, socket, sys
tcp = socket.create_server(("::", 8000), family=socket.AF_INET6, dualstack_ipv6=True)
udp = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
udp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
udp.bind(("::", 8000))
print("up", flush=True)
while True:
    for ready in select.select([tcp, udp, 0], [], [])[0]:
        if ready == 0:
            sys.exit()
        if ready is tcp:
            connection, peer = tcp.accept()
            connection.recv(1)
            connection.sendall(b"tcp " + peer[0].encode())
            connection.recv(1)
            connection.close()
        else:
            _data, peer = udp.recvfrom(1)
            udp.sendto(b"udp " + peer[0].encode(), peer)
"""
ASK = """
import socket, sys
for word in sys.argv[1:]:
    kind, host, port = word.split(",")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    client = socket.socket(family, {"t": socket.SOCK_STREAM, "u": socket.SOCK_DGRAM}[kind])
    client.settimeout(20)
    try:
        client.connect((host, int(port)))
        client.send(b"x")
        print(client.recv(100).decode())
    except OSError as error:
        print(type(error).__name__)
"""
LISTEN = "import socket; s = socket.create_server(('127.0.0.1', 8000)); print('up', flush=True); input()"
PORTS = {"type": "portmap", "capabilities": {"portMappings": True}}


def network(*subnets: str) -> dict[str, Any]:
    """Return the network `front`, on which the command can answer machines outside."""
    front = bridge("front", "", ipMasq=True)
    front["plugins"][0]["ipam"] = {
        "type": "host-local",
        "ranges": [[{"subnet": subnet}] for subnet in subnets],
        "routes": [{"dst": "::/0" if ":" in subnet else "0.0.0.0/0"} for subnet in subnets],
    }
    front["plugins"].append(PORTS)
    return front


ONE = network("10.23.0.0/16")
BOTH = network("10.23.0.0/16", "fd00:23::/64")


def serve(host: Host, *options: str) -> Process:
    running = host.popen(
        *AS_USER, RUN, "--network", "front", *options, *PYTHON, SERVE, stdin=subprocess.PIPE
    )
    assert running.stdout
    line = running.stdout.readline()
    assert line == "up\n", running.communicate(timeout=20)
    return running


def ask(place: Host | Outside, *words: str) -> list[str]:
    return place.run(*PYTHON, ASK, *words).stdout.split("\n")[:-1]


def outside_of(host: Host) -> Outside:
    return Outside(host, Outside.NAME, f"/run/netns/{Outside.NAME}")


def stop(running: Process) -> str:
    _output, errors = running.communicate(timeout=30)
    assert running.returncode == 0
    return errors


def test_published_ports_lead_to_the_command(user: Host) -> None:
    """The host reaches them on its loopback, and another machine at the requested address of the host."""
    configure(user, ONE)
    at_host = f"{Outside.HOST}:9000:8000"
    running = serve(
        user, "-p", "8080:8000", "-p", "8080:8000/udp", "-p", at_host, "-p", "127.0.0.1:9001:8000/udp"
    )

    assert ask(user, "t,127.0.0.1,8080", "u,127.0.0.1,8080")[0].startswith("tcp ")
    assert (
        ask(user, "t,::1,8080", "t,127.0.0.1,9000", "u,127.0.0.1,9001")[:2] == ["ConnectionRefusedError"] * 2
    )
    answers = ask(
        outside_of(user),
        *(
            f"{what},{Outside.HOST},{port}"
            for what, port in (("t", 8080), ("u", 8080), ("t", 9000), ("u", 9001))
        ),
    )
    assert [answer.split()[0] for answer in answers[:3]] == ["tcp", "udp", "tcp"]
    assert answers[3] == "ConnectionRefusedError"
    assert stop(running) == ""
    wait_for(lambda: len(processes(user)) == 2, "the end of all processes")
    assert [name for name in user.listdir("/tmp") if name.startswith("priv-net-run")] == []


def test_ipv6_leads_to_the_command(open_tun: Host) -> None:
    open_tun.outside()
    hide(open_tun, "/usr/bin/slirp4netns")  # it forwards IPv4 only
    configure(open_tun, BOTH)
    running = serve(open_tun, "-p", "8080:8000", "-p", "8080:8000/udp")

    places = [f"{kind},{address},8080" for kind in "tu" for address in (Outside.HOST, Outside.HOST6)]
    assert ask(outside_of(open_tun), *places) == [
        f"{kind} {address}"
        for kind in ("tcp", "udp")
        for address in (f"::ffff:{Outside.ADDRESS}", Outside.ADDRESS6)
    ]
    stop(running)


def test_free_port_is_chosen_on_the_host(user: Host) -> None:
    configure(user, ONE)
    with user.popen(*PYTHON, LISTEN, stdin=subprocess.PIPE) as other:
        assert other.stdout and other.stdout.readline() == "up\n"
        running = serve(user, "-p", "8000-8001:8000")
        assert ask(user, "t,127.0.0.1,8001")[0].startswith("tcp ")
        assert stop(running) == "priv-net-run: port 8001 of the host leads to port 8000/tcp\n"
        line = refused(user, "--network", "front", "-p", "8000:8000", "true")
        assert "--publish 0.0.0.0:8000/tcp: Address already in use" in line
        other.communicate("\n", timeout=20)


def test_port_that_cannot_be_published_is_refused(open_tun: Host) -> None:
    open_tun.outside()
    configure(open_tun, ONE)
    for options, message in (
        (["-p", "80:8000"], "0.0.0.0:80/tcp: Permission denied; use a port from 1024 on, or `sysctl"),
        (["-p", "127.0.0.1:8080:8000", "-p", f"{Outside.HOST}:8080:8001"], "two ports of the command"),
        (["-p", "192.0.2.99:8080:8000"], "192.0.2.99:8080/tcp: Cannot assign requested address"),
        (["-p", "8080:8000/sctp"], "needs root"),
    ):
        assert message in refused(open_tun, "--network", "front", *options, "true")
    hide(open_tun, "/usr/bin/pasta")
    assert "slirp4netns forwards IPv4 only" in refused(
        open_tun, "--network", "front", "-p", f"[{Outside.HOST6}]:8080:8000", "true"
    )
