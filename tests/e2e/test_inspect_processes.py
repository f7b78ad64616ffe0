# SPDX-License-Identifier: Apache-2.0
"""cnihook inspect: the processes in the container's network namespace, and where they listen."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.support.commands.listings import INSTALLED, attach, detach_all, show, shown, shown_json
from tests.support.host.host import Container, Host
from tests.support.host.namespace import Namespace, base_environment, end
from tests.support.plugins.ports import listening
from tests.support.runtimes.oci import CNIHOOK, bridge, configure

FRONT = bridge("front", "10.30.0.0/24")


@pytest.fixture
def web(host: Host) -> Container:
    configure(host, FRONT)
    return attach(host, "web", "front")


@contextmanager
def program(where: Namespace, *argv: str, **options: Any) -> Iterator[int]:
    """Run a program that prints a line when it is ready.  Yields its PID as the host sees it."""
    process = where.popen(*argv, **options)
    try:
        assert process.stdout and process.stdout.readline()
        yield process.inside_pid
    finally:
        end(process)


def python(text: str) -> tuple[str, ...]:
    ready = "print(1, flush=True); time.sleep(1000)"
    return "/usr/bin/python3", "-IS", "-c", f"import socket, time\n{text}\n{ready}"


def listener(protocol: str, address: str, pid: int | None, name: str | None = "python3") -> dict[str, Any]:
    return {"protocol": protocol, "address": address, "port": 8080, "pid": pid, "name": name}


def test_processes_and_their_sockets_are_shown(host: Host, web: Container) -> None:
    """Sockets of the host are not shown, nor are those that are connected or only bound."""
    others = """\
server, client, bound = (socket.socket() for _ in range(3))
bound.bind(("", 1000))
server.bind(("127.0.0.1", 7000))
server.listen()
client.connect(("127.0.0.1", 7000))
connected = server.accept()
server.close()
"""
    web.run("ip", "link", "set", "lo", "up")
    with (
        listening(host),
        listening(web) as tcp,
        listening(web, "tcp", "::1") as tcp6,
        listening(web, "udp") as udp,
        listening(web, "udp", "::", only_v6=True) as udp6,
        program(web, *python(others)) as other,
    ):
        report = shown_json(host, "inspect", "web")
        text = shown(host, "inspect", "web")

    assert report["listening"] == [
        listener("tcp", "0.0.0.0", tcp),
        listener("tcp", "::1", tcp6),
        listener("udp", "0.0.0.0", udp),
        listener("udp", "::", udp6),
    ]
    processes = {each["pid"]: (each["name"], each["command"][:19]) for each in report["processes"]}
    assert processes.pop(web.pid) == ("sleep", "sleep 2147483647")
    assert processes == dict.fromkeys((tcp, tcp6, udp, udp6, other), ("python3", "/usr/bin/python3 -I"))
    lines = text.splitlines()
    assert lines[lines.index("web  processes") - 1] == ""
    assert f"    {web.pid} sleep: sleep 2147483647" in lines
    assert f"    tcp 0.0.0.0:8080 by {tcp} (python3)" in lines
    assert f"    udp [::]:8080 by {udp6} (python3)" in lines
    detach_all(host)


def test_container_with_a_user_namespace_is_read(host: Host) -> None:
    configure(host, FRONT)
    words = "unshare", "--user", "--map-root-user", "--net", *python('s = socket.create_server(("", 8080))')
    with program(host, *words) as pid:
        host.run(CNIHOOK, "add", "front", str(pid), "--container-id", "web")
        report = shown_json(host, "inspect", "web")
        host.run(CNIHOOK, "del", "front", str(pid), "--container-id", "web")

    assert [each["pid"] for each in report["processes"]] == [pid]
    assert report["listening"] == [listener("tcp", "0.0.0.0", pid)]


def test_namespace_without_processes_has_none(host: Host) -> None:
    configure(host, FRONT)
    container = host.container("web")
    host.run(CNIHOOK, "add", "front", container.path, "--container-id", "web")

    report = shown_json(host, "inspect", "web")
    assert (report["processes"], report["listening"]) == ([], [])
    host.run(CNIHOOK, "del", "front", container.path, "--container-id", "web")


def test_namespace_that_is_gone_has_no_lists(host: Host, web: Container) -> None:
    web.destroy()
    host.run("sh", "-c", "while [ -e /sys/class/net/veth* ]; do sleep 0.01; done")

    report = shown_json(host, "inspect", "web")
    assert (report["processes"], report["listening"]) == (None, None)
    assert "processes" not in shown(host, "inspect", "web")
    detach_all(host)


def test_processes_may_end_in_between(host: Host, web: Container) -> None:
    with program(web, "sh", "-c", "echo; while :; do /bin/true; done"):
        for _ in range(3):
            report = shown_json(host, "inspect", "web")
            assert {"sleep", "sh"} <= {each["name"] for each in report["processes"]}
    detach_all(host)


def test_process_that_proc_does_not_show_is_not_named(host: Host) -> None:
    """The kernel hides the files of other processes from a caller without CAP_SYS_PTRACE."""
    configure(host, FRONT)
    container = host.container("web")
    host.run(CNIHOOK, "add", "front", container.path, "--container-id", "web")
    without = "setpriv", "--bounding-set=-sys_ptrace", "--inh-caps=-sys_ptrace", INSTALLED, "inspect", "web"
    with listening(container):
        report = json.loads(host.run(*without, "--json").stdout)
        text = host.run(*without).stdout

    assert (report["processes"], report["listening"]) == ([], [listener("tcp", "0.0.0.0", None, None)])
    assert "    tcp 0.0.0.0:8080 by a process that /proc does not show" in text.splitlines()
    host.run(CNIHOOK, "del", "front", container.path, "--container-id", "web")


def test_text_lists_some_of_many_sockets(host: Host, web: Container) -> None:
    """The sockets of the workers of one server, with the same port and PID, are one entry."""
    many = """\
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
sockets = [socket.create_server(("", port), reuse_port=True) for port in [*range(2000, 5000), 2000]]
"""
    with program(web, *python(many)) as pid:
        listed = shown_json(host, "inspect", "web")["listening"]
        lines = shown(host, "inspect", "web").splitlines()

    assert [each["port"] for each in listed] == [*range(2000, 5000)]
    listing = lines[lines.index("  listening") + 1 :]
    assert listing[0] == f"    tcp 0.0.0.0:2000 by {pid} (python3)"
    assert listing[-1] == "    and 2980 more (--json lists all)" and len(listing) == 21
    detach_all(host)


def test_name_of_a_process_cannot_control_the_terminal(host: Host, web: Container) -> None:
    hostile = "a\x1b[31m\n\udcff\u202e"
    script = f"exec -a \"$0\" {python('')[0]} -IS -c 'import time; print(1, flush=True); time.sleep(1000)'"
    with program(web, "bash", "-c", script, hostile) as pid:
        text = shown(host, "inspect", "web")
        (process,) = [each for each in shown_json(host, "inspect", "web")["processes"] if each["pid"] == pid]

    assert process["command"].startswith(hostile)
    assert all(character.isprintable() for line in text.splitlines() for character in line)
    assert f"    {pid} " in text
    detach_all(host)


def test_missing_psutil_is_named_beside_the_rest(host: Host, web: Container) -> None:
    host.write("/run/.host/missing/psutil.py", 'raise ModuleNotFoundError("missing", name="psutil")\n')
    env = {"PYTHONPATH": "/run/.host/missing"}

    lines = show(host, "inspect", "web", env=env).stdout.splitlines()
    report = json.loads(host.run(INSTALLED, "inspect", "web", "--json", env=base_environment() | env).stdout)
    assert "    address 10.30.0.2/24" in lines
    assert lines[-1] == (
        "    not looked at: the Python package psutil is not installed; "
        "`apt-get install python3-psutil`, or `pip install psutil`"
    )
    assert (report["processes"], report["listening"]) == (None, None)
    detach_all(host)
