# SPDX-License-Identifier: Apache-2.0
"""cnihook doctor: published ports that lead to a container in which no program listens there."""

from copy import deepcopy

import pytest

from tests.e2e.test_doctor import NET, attach, detach
from tests.e2e.test_suggested_commands import forget_process
from tests.support.commands import listings
from tests.support.commands.doctor import doctor, finds, run
from tests.support.host.host import Host
from tests.support.plugins.ports import listening
from tests.support.runtimes.oci import CNIHOOK, LEAVES, configure

OWN, OWN6 = "10.22.0.2", "fd22::2"
DUAL = deepcopy(NET)
DUAL["plugins"][0]["ipam"]["ranges"].append([{"subnet": "fd22::/64"}])


def unserved(host: Host) -> str:
    """Check that nothing is found but at most a note about ports without a listener.  Returns the note."""
    host.leaves(*LEAVES)
    lines = doctor(host, "--verbose", status=0)
    notes = [line for line in lines if line.startswith("note port-without-listener: container c1: ")]
    assert len(notes) <= 1 and doctor(host, status=0) == []
    return "".join(notes)


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_port_on_which_no_program_listens_is_a_note(host: Host, protocol: str) -> None:
    """A container may be starting, so this is not a fault.  Other protocols and namespaces do not count."""
    other = "udp" if protocol == "tcp" else "tcp"
    configure(host, DUAL)
    container = attach(host, "c1", publish=f"9090:8080/{protocol}")

    with listening(container, other), listening(host, protocol):
        note = unserved(host)
    assert f"no program listens on {OWN}:8080/{protocol} (port 9090 of the host)" in note
    assert f"[{OWN6}]:8080/{protocol} (port 9090 of the host)" in note
    assert note.endswith("; remedy: cnihook inspect c1")
    detach(host, "c1")


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_program_may_serve_one_ip_version(host: Host, protocol: str) -> None:
    configure(host, DUAL)
    container = attach(host, "c1", publish=f"9090:8080/{protocol}")

    with listening(container, protocol, "::"):
        assert unserved(host) == ""
    with listening(container, protocol, "::", only_v6=True):
        note = unserved(host)
        assert f" {OWN}:8080" in note and OWN6 not in note
    for address in ("0.0.0.0", OWN):
        with listening(container, protocol, address):
            note = unserved(host)
            assert f"[{OWN6}]:8080" in note and f" {OWN}:8080" not in note
    detach(host, "c1")


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_program_that_listens_on_another_address_is_found(host: Host, protocol: str, address: str) -> None:
    configure(host, DUAL)
    container = attach(host, "c1", publish=f"9090:8080/{protocol},9091:8081/{protocol}")

    with listening(container, protocol, address) as pid:
        remedy = finds(
            host,
            "listener-elsewhere",
            f"container c1: process {pid} (python3) listens on {address}, not on {OWN}:8080/{protocol} (",
            f"[{OWN6}]:8080/{protocol}",
        )
        assert remedy == "configure the program to listen on 0.0.0.0 and ::"
        with listening(container, protocol, OWN):
            assert f"[{OWN6}]:8080/{protocol}" in unserved(host)
    detach(host, "c1")


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_program_of_the_other_ip_version_is_found(host: Host, protocol: str) -> None:
    """The network has IPv4 only.  A socket on :: receives IPv4 unless its program has set IPV6_V6ONLY."""
    configure(host, NET)
    container = attach(host, "c1", publish=f"9090:8080/{protocol}")

    with listening(container, protocol, "::", only_v6=True):
        remedy = finds(host, "listener-elsewhere", "(python3) listens on ::, not on 10.22.0.2:8080")
        assert remedy == "configure the program to listen on 0.0.0.0"
    with listening(container, protocol, "::"):
        assert unserved(host) == ""
    detach(host, "c1")


def test_many_ports_are_one_note(host: Host) -> None:
    configure(host, NET)
    attach(host, "c1", publish="9000-9099:8000-8099")

    note = unserved(host)
    assert "10.22.0.2:8000/tcp (port 9000 of the host), 10.22.0.2:8001/tcp" in note
    assert "10.22.0.2:8002/tcp (port 9002 of the host) and 97 more; " in note
    detach(host, "c1")


def test_protocol_whose_sockets_cannot_be_listed_is_left_out(host: Host) -> None:
    """Kernels have a module for each protocol.  Where there is one for SCTP, a note is right."""
    configure(host, NET)
    attach(host, "c1", publish="9090:8080/sctp")

    note = unserved(host)
    assert note == "" or "10.22.0.2:8080/sctp" in note
    assert run(host).stderr == ""
    detach(host, "c1")


def test_container_of_another_runtime_is_examined(host: Host) -> None:
    configure(host, NET)
    container = listings.attach(host, "c1", "mynet", port=9090)
    forget_process(host)

    with listening(container, "udp"):
        assert f"no program listens on {OWN}:80/tcp (port 9090 of the host)" in unserved(host)
    host.run(CNIHOOK, "del", "mynet", container.path, "--container-id", "c1")


def test_dead_container_is_not_examined(host: Host) -> None:
    configure(host, NET)
    container = attach(host, "c1", publish="9090:8080")
    container.destroy()
    host.leaves(*LEAVES)

    lines = doctor(host, "--verbose", status=1)
    assert [line for line in lines if "c1" in line] == [
        line for line in lines if line.startswith("record-without-container: ")
    ]
    detach(host, "c1")
