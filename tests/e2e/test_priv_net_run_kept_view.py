# SPDX-License-Identifier: Apache-2.0
"""priv-net-run: the command's own names stay while the host changes its files and daemons."""

import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.host.host import Host
from tests.support.host.namespace import Process
from tests.support.plugins.cni import CHECKOUT
from tests.support.runtimes.oci import LOOPBACK, MYNET, configure

RUN = str(CHECKOUT / "scripts" / "priv-net-run")
OF_NETWORK = "nameserver 10.9.9.9\n"
RESOLV_CONF = "/etc/resolv.conf"
OF_HOST = "nameserver 192.0.2.1\n"
# Wait at most ten seconds for the expected text, then print the file.
READ = 'for i in $(seq 200); do cat {path} | grep -q "{text}" && break; sleep .05; done; cat {path}; echo .'


@pytest.fixture
def mynet(host: Host) -> Host:
    configure(host, **{"10-mynet.conf": MYNET, "99-loopback.conf": LOOPBACK})
    host.write("/etc/resolv.conf", OF_HOST)
    host.leaves("file /etc/resolv.conf", "link /etc/resolv.conf*", "* /run/systemd*", "* /run/manager*")
    return host


@contextmanager
def shell(host: Host, *options: str) -> Iterator[Process]:
    """Run a shell under priv-net-run whose script comes line by line from the test."""
    running = host.popen(RUN, *options, "sh", stdin=subprocess.PIPE)
    try:
        yield running
    finally:
        running.communicate(timeout=30)


def ask(running: Process, script: str) -> str:
    """Return the output of the script, which ends with a line of one dot."""
    assert running.stdin and running.stdout
    running.stdin.write(f"{script}\n")
    running.stdin.flush()
    lines = list(iter(running.stdout.readline, ".\n"))
    assert "" not in lines
    return "".join(lines)


def read(path: str, text: str) -> str:
    return READ.format(path=path, text=text.strip())


def replace(host: Host, path: str, text: str) -> None:
    host.write(f"{path}.new", text)
    host.run("mv", f"{path}.new", path)


def rename_over(host: Host) -> None:
    replace(host, "/etc/resolv.conf", "nameserver 192.0.2.2\n")


def remove_and_make(host: Host) -> None:
    host.run("rm", "/etc/resolv.conf")
    host.write("/etc/resolv.conf", "nameserver 192.0.2.2\n")


def make_a_link(host: Host) -> None:
    host.write("/run/manager/resolv.conf", "nameserver 192.0.2.2\n")
    host.run("ln", "-s", "/run/manager/resolv.conf", "/etc/resolv.new")
    host.run("mv", "/etc/resolv.new", "/etc/resolv.conf")


@pytest.mark.parametrize("change", [rename_over, remove_and_make, make_a_link])
def test_own_resolv_conf_stays_when_the_host_replaces_its(mynet: Host, change) -> None:  # type: ignore[no-untyped-def]
    """NetworkManager, DHCP clients and VPNs replace the file; the kernel then unmounts what covered it."""
    with shell(mynet, "--dns", "10.9.9.9") as running:
        assert ask(running, "cat /etc/resolv.conf; echo .") == OF_NETWORK
        for _twice in range(2):
            change(mynet)
            assert mynet.run("cat", "/etc/resolv.conf").stdout == "nameserver 192.0.2.2\n"
            assert ask(running, read("/etc/resolv.conf", OF_NETWORK)) == OF_NETWORK


def test_own_resolv_conf_behind_a_link_stays(mynet: Host) -> None:
    """resolvconf and NetworkManager replace the file behind the link."""
    make_a_link(mynet)
    with shell(mynet, "--dns", "10.9.9.9") as running:
        assert ask(running, "cat /etc/resolv.conf; echo .") == OF_NETWORK
        replace(mynet, "/run/manager/resolv.conf", OF_HOST)
        assert ask(running, read("/etc/resolv.conf", OF_NETWORK)) == OF_NETWORK
        mynet.run("rm", "/run/manager/resolv.conf")
        replace(mynet, "/run/manager/resolv.conf", OF_HOST)
        assert ask(running, read("/etc/resolv.conf", OF_NETWORK)) == OF_NETWORK


def test_own_hosts_stays_when_the_host_replaces_its(mynet: Host) -> None:
    mynet.leaves("file /etc/hosts")
    with shell(mynet, "--add-host", "db:10.33.0.77") as running:
        replace(mynet, "/etc/hosts", "127.0.0.1 localhost\n192.0.2.3 other\n")
        assert "10.33.0.77\tdb" in ask(running, read("/etc/hosts", "10.33.0.77"))


def test_other_files_in_etc_are_shared_with_the_host(mynet: Host) -> None:
    """Only the files of names are separate; others are shared in both directions."""
    mynet.leaves("file /etc/of-*")
    with shell(mynet, "--dns", "10.9.9.9") as running:
        rename_over(mynet)
        ask(running, read("/etc/resolv.conf", OF_NETWORK))
        mynet.write("/etc/of-host", "1")
        assert ask(running, "cat /etc/of-host; echo; echo 2 > /etc/of-command; echo .") == "1\n"
        assert mynet.read("/etc/of-command") == "2\n"
        show = "cut -d' ' -f5 /proc/self/mountinfo | grep -E '^/(proc|etc/resolv.conf)'; echo ."
        outside = mynet.run("sh", "-c", show).stdout.split()[:-1]
        assert sorted(ask(running, show).split()) == sorted([*outside, RESOLV_CONF])


def test_command_in_another_root_keeps_the_files_of_that_root(mynet: Host) -> None:
    """The root has its own /etc, of which nothing is covered."""
    mynet.run("mkdir", "-p", "/run/.host/root/etc", "/run/.host/root/bin")
    mynet.run("cp", "/bin/busybox", "/run/.host/root/bin")
    mynet.write("/run/.host/root/etc/resolv.conf", "own\n")
    busybox = ("chroot", "/run/.host/root", "/bin/busybox")
    with shell(mynet, "--dns", "10.9.9.9", *busybox) as running:
        assert ask(running, "/bin/busybox cat /etc/resolv.conf; echo .") == "own\n"
        rename_over(mynet)
        assert ask(running, "/bin/busybox sleep .3; /bin/busybox cat /etc/resolv.conf; echo .") == "own\n"


def test_mounts_of_the_host_are_untouched(mynet: Host) -> None:
    """This holds also if the host's mounts are shared with the command's mount namespace."""
    script = f"mount --make-rshared /; exec {RUN} --dns 10.9.9.9 sh -c 'echo up; read end'"
    running = mynet.popen("unshare", "--mount", "sh", "-c", script, stdin=subprocess.PIPE)
    assert running.stdout and running.stdout.readline() == "up\n"
    for _ in range(3):
        rename_over(mynet)
    mounts = Path(f"/proc/{running.pid}/mountinfo").read_text()
    running.communicate("\n", timeout=30)
    mynet.leaves("dir /run/mount")  # made by mount
    assert "/run/netns" in mounts and RESOLV_CONF not in mounts and "/task" not in mounts


# Daemons of the host that answer for names

# A daemon that answers each question in nscd's protocol: there is no such host.
NSCD = """
import os, socket, struct, sys
path = sys.argv[1]
os.makedirs(os.path.dirname(path), exist_ok=True)
listening = socket.socket(socket.AF_UNIX); listening.bind(path); listening.listen()
print("up", flush=True)
while True:
    client, _ = listening.accept()
    version, kind, size = struct.unpack("iii", client.recv(12))
    client.recv(size)
    if kind in (4, 5):
        client.send(struct.pack("8i", 2, 0, 0, 0, -1, -1, 0, 1))
    elif kind == 14:
        client.send(struct.pack("6i", 2, 0, 0, 0, 0, 1))
    client.close()
"""
assert struct.calcsize("8i") == 32


@contextmanager
def daemon(host: Host, path: str) -> Iterator[Process]:
    running = host.popen("/usr/bin/python3", "-c", NSCD, path)
    try:
        assert running.stdout and running.stdout.readline() == "up\n"
        yield running
    finally:
        running.kill()
        running.communicate()
        host.run("rm", "-rf", str(Path(path).parent))


SOCKETS = ["/run/nscd/socket", "/run/avahi-daemon/socket", "/run/systemd/resolve/io.systemd.Resolve"]


def test_nscd_of_the_host_is_not_asked(mynet: Host) -> None:
    """nscd knows only the names of the host's network and of the host's /etc/hosts."""
    with daemon(mynet, SOCKETS[0]):
        assert mynet.run("getent", "hosts", "localhost", check=False).returncode == 2, (
            "the host itself asks it"
        )
        answer = mynet.run(RUN, "--add-host", "db:10.33.0.77", "getent", "hosts", "db").stdout
        assert answer.split() == ["10.33.0.77", "db"]


@pytest.mark.parametrize("path", SOCKETS)
@pytest.mark.parametrize("options", [[], ["--dns", "10.9.9.9"]], ids=["plain", "dns"])
def test_sockets_of_resolvers_are_hidden(mynet: Host, path: str, options: list[str]) -> None:
    """The sockets stay hidden after the daemon has restarted in a new folder."""
    with daemon(mynet, path), shell(mynet, *options) as running:
        assert ask(running, f"test -S {path} || echo none; echo .") == "none\n"
        mynet.run("rm", "-r", str(Path(path).parent))
        with daemon(mynet, path):
            again = f"for i in $(seq 200); do test -S {path} || break; sleep .05; done; "
            again += f"test -d {Path(path).parent} && ! test -S {path} && echo none; echo ."
            assert ask(running, again) == "none\n"
            assert mynet.run("test", "-S", path, check=False).returncode == 0


@pytest.mark.parametrize("options", [[], ["--dns", "10.9.9.9"]], ids=["plain", "dns"])
def test_files_of_systemd_resolved_are_visible(mynet: Host, options: list[str]) -> None:
    """resolv.conf is a link to one of the files in the folder, and each change replaces them."""
    stub, real = "/run/systemd/resolve/stub-resolv.conf", "/run/systemd/resolve/resolv.conf"
    mynet.write(stub, "nameserver 127.0.0.53\n")
    mynet.write(real, OF_HOST)
    mynet.run("ln", "-sf", f"..{stub}", "/etc/resolv.conf")
    expected = OF_NETWORK if options else OF_HOST

    with shell(mynet, *options) as running:
        for _twice in range(2):
            assert ask(running, f"cat /etc/resolv.conf; cat {real}; echo .") == expected + OF_HOST
            replace(mynet, stub, "nameserver 127.0.0.53\n# again\n")


@pytest.mark.parametrize("options", [[], ["--dns", "10.9.9.9"]], ids=["plain", "dns"])
def test_new_servers_of_systemd_resolved_are_used(mynet: Host, options: list[str]) -> None:
    """A laptop gets other servers on another network; the command's own stay."""
    real, new = "/run/systemd/resolve/resolv.conf", "nameserver 192.0.2.8\n"
    mynet.write(real, OF_HOST)
    mynet.write("/run/systemd/resolve/io.systemd.Resolve", "")
    mynet.run("ln", "-sf", f"..{real}", "/etc/resolv.conf")

    with shell(mynet, *options) as running:
        assert ask(running, "cat /etc/resolv.conf; echo .") == (OF_NETWORK if options else OF_HOST)
        replace(mynet, real, new)
        expected = OF_NETWORK if options else new
        assert ask(running, read("/etc/resolv.conf", expected)) == expected
        assert ask(running, "ls /run/systemd/resolve; echo .") == "resolv.conf\n"


def test_no_reader_finds_an_empty_file_of_systemd_resolved(mynet: Host) -> None:
    """The command's copy is renewed at each change while programs read it."""
    real = "/run/systemd/resolve/resolv.conf"
    mynet.write(real, OF_HOST)
    mynet.write("/run/systemd/resolve/io.systemd.Resolve", "")
    mynet.run("ln", "-sf", f"..{real}", "/etc/resolv.conf")

    with shell(mynet) as running:
        assert running.stdin
        until = 'until read -r a < /etc/resolv.conf; [ "$a" = "nameserver 192.0.2.99" ]'
        empty = f'n=0; {until}; do [ "$a" ] || n=$((n + 1)); done; echo $n; echo .'
        assert ask(running, "echo .") == ""
        running.stdin.write(f"{empty}\n")
        running.stdin.flush()
        for number in (*range(2, 40), 99):
            replace(mynet, real, f"nameserver 192.0.2.{number}\n")
        assert ask(running, "echo .") == "0\n"
