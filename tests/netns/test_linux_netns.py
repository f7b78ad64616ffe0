# SPDX-License-Identifier: Apache-2.0
"""linux.netns and linux.sysctl: namespaces created, held, entered and named, compared with `ip netns`.

The code under test moves its whole process and mounts, so it runs as a program of the throw-away host.
"""

import json
import os
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.host.host import Host
from tests.support.plugins.cni import CHECKOUT

PREAMBLE = f"""\
import errno, os, sys
sys.path.insert(0, {str(CHECKOUT)!r})
from cnihook.fast import fastjson
from cnihook.linux import netns, sysctl
from cnihook.linux.netns import NetNS, NotANamespaceError

def kind(function, *arguments, **options):
    try:
        function(*arguments, **options)
    except OSError as error:
        return type(error).__name__
    return "nothing"

def here():
    namespace = NetNS.current()
    try:
        return list(namespace.identity)
    finally:
        namespace.close()

found = {{}}
before = sorted(os.listdir("/proc/self/fd"))
"""
FINISH = """
assert sorted(os.listdir("/proc/self/fd")) == before, "a descriptor is left open"
print(fastjson.dumps(found))
"""


@pytest.fixture(autouse=True)
def implementation() -> None:
    """No plugin takes part: one run is enough."""


def run(host: Host, code: str, *argv: str) -> Any:
    """Run `code` as a program of the host.  It fills `found`, and has to close what it opens."""
    return json.loads(host.run("/usr/bin/python3", "-IS", "-c", PREAMBLE + code + FINISH, *argv).stdout)


def named(host: Host) -> list[str]:
    return sorted(line.split()[0] for line in host.run("ip", "netns", "list").stdout.splitlines())


def test_a_namespace_is_created_and_left(host: Host) -> None:
    report = run(
        host,
        """
home = here()
made = NetNS.create()
found["links"] = [link.name for link in made.rtnl.links()]
found["other"] = list(made.identity) != home
found["back"] = here() == home
made.close()
made.close()
""",
    )

    assert report == {"links": ["lo"], "other": True, "back": True}


def test_a_namespace_is_entered_and_left(host: Host) -> None:
    """Also if the block fails."""
    report = run(
        host,
        """
home = here()
made = NetNS.create()
sysctl.write("net/ipv4/conf/lo/forwarding", 0)
with made.entered():
    found["inside"] = here() == list(made.identity)
    sysctl.write("net/ipv4/conf/lo/forwarding", 1)
    found["lo inside"] = sysctl.read("net/ipv4/conf/lo/forwarding")
found["lo outside"] = sysctl.read("net/ipv4/conf/lo/forwarding")
try:
    with made.entered():
        raise KeyError
except KeyError:
    found["back"] = here() == home
made.close()
""",
    )

    assert report == {"inside": True, "lo inside": "1", "lo outside": "0", "back": True}


def test_one_namespace_has_one_identity(host: Host) -> None:
    container = host.container(process=True)
    named_one = host.container("other")
    report = run(
        host,
        """
one, again, other = (NetNS.open(path) for path in (sys.argv[1], sys.argv[1], sys.argv[2]))
found["same"] = one.identity == again.identity
found["bound"] = kind(netns.bind, one, "bound")
bound = NetNS.open(netns.named("bound"))
found["by another path"] = bound.identity == one.identity
found["other"] = one.identity != other.identity
netns.unbind("bound", one.identity)
for namespace in (one, again, other, bound):
    namespace.close()
""",
        container.path,
        named_one.path,
    )

    assert report == {"same": True, "bound": "nothing", "by another path": True, "other": True}


def test_other_files_than_network_namespaces_are_refused(host: Host) -> None:
    """The error comes at once: opening a FIFO would wait for ever."""
    host.write("/run/file", "")
    os.mkfifo(host.root / "run/fifo")
    host.leaves("file /run/file", "*/run/fifo")
    paths = [
        "/run/file",
        "/run/fifo",
        "/run",
        "/dev/null",
        "/proc/self/ns/mnt",
        "/proc/self/ns/user",
        "/proc/self/status",
    ]

    report = run(
        host,
        """
for path in sys.argv[1:]:
    found[path] = kind(NetNS.open, path)
found["words"] = str(NotANamespaceError("/run/file"))
""",
        *paths,
        "/run/none",
        "",
    )

    assert report == {
        **dict.fromkeys(paths, "NotANamespaceError"),
        "/run/none": "FileNotFoundError",
        "": "FileNotFoundError",
        "words": "/run/file is not a network namespace",
    }


def test_a_name_keeps_a_namespace_alive(host: Host) -> None:
    report = run(
        host,
        """
made = NetNS.create()
made.rtnl.add_bridge("br0")
found["path"] = netns.bind(made, "c1")
found["again"] = netns.bind(made, "c1")
made.close()
""",
    )

    assert report == {"path": "/run/netns/c1", "again": "/run/netns/c1"}
    assert named(host) == ["c1"]
    links = json.loads(host.run("ip", "-n", "c1", "-j", "link").stdout)
    assert [link["ifname"] for link in links] == ["lo", "br0"]

    run(
        host,
        """
bound = NetNS.open("/run/netns/c1")
identity = bound.identity
bound.close()
netns.unbind("c1", identity)
netns.unbind("c1", identity)
""",
    )
    assert named(host) == [] and not host.exists("/run/netns/c1")


def test_a_name_of_another_namespace_is_refused_and_stays(host: Host) -> None:
    container = host.container("c1")
    report = run(
        host,
        """
made = NetNS.create()
found["bind"] = kind(netns.bind, made, "c1")
found["unbind"] = kind(netns.unbind, "c1", made.identity)
found["unknown"] = kind(netns.unbind, "c1", (0, 0))
made.close()
""",
    )

    assert report == {"bind": "FileExistsError", "unbind": "nothing", "unknown": "nothing"}
    assert named(host) == ["c1"] and container.links() == {"lo"}


def test_an_empty_file_is_used_as_a_name(host: Host) -> None:
    """A crash between two steps leaves one, or a mount that another mount namespace does not see."""
    report = run(
        host,
        """
for umask, name in ((0o022, "c1"), (0o077, "c2")):
    os.umask(umask)
    os.close(os.open(f"/run/netns/{name}", os.O_CREAT, 0o444))
made = NetNS.create()
found["bind"] = netns.bind(made, "c1")
netns.unbind("c1", made.identity)
netns.unbind("c2", made.identity)
made.close()
""",
    )

    assert report == {"bind": "/run/netns/c1"}
    assert host.listdir("/run/netns") == []


OTHERS = [
    "text",
    "empty file",
    "name of another mount namespace",
    "link",
    "link to it",
    "folder",
    "FIFO",
    "device",
]


@pytest.mark.parametrize("kind", OTHERS)
def test_a_file_of_another_program_is_refused_and_stays(host: Host, kind: str) -> None:
    host.write("/run/netns/other", "")
    path = f"{host.root}/run/netns/c1"
    make: dict[str, Callable[[], object]] = {
        "text": lambda: host.write("/run/netns/c1", "text"),
        "empty file": lambda: host.write("/run/netns/c1", ""),
        "name of another mount namespace": lambda: host.run(
            "unshare", "-m", "--propagation", "private", "ip", "netns", "add", "c1",
        ),
        "link": lambda: os.symlink("other", path),
        "link to it": lambda: os.symlink("/proc/1/ns/net", path),
        "folder": lambda: os.mkdir(path),
        "FIFO": lambda: os.mkfifo(path),
        "device": lambda: os.mknod(path, 0o20444, os.makedev(1, 3)),
    }  # fmt: skip
    make[kind]()
    before = os.lstat(path)

    report = run(
        host,
        """
made = NetNS.open("/proc/1/ns/net") if sys.argv[1] == "link to it" else NetNS.create()
found["bind"] = kind(netns.bind, made, "c1")
found["unbind"] = kind(netns.unbind, "c1", made.identity)
found["unknown"] = kind(netns.unbind, "c1", (0, 0))
made.close()
""",
        kind,
    )

    assert report == {"bind": "FileExistsError", "unbind": "nothing", "unknown": "nothing"}
    after = os.lstat(path)
    assert (after.st_ino, after.st_mode, after.st_size) == (before.st_ino, before.st_mode, before.st_size)
    (os.rmdir if kind == "folder" else os.unlink)(path)
    os.unlink(f"{host.root}/run/netns/other")


def test_a_name_from_ip_netns_attach_is_not_used_again(host: Host) -> None:
    container = host.container("c1")
    report = run(
        host,
        """
same = NetNS.open(sys.argv[1])
found["first"] = kind(netns.bind, same, "c1", again=False)
found["again"] = netns.bind(same, "c1")
same.close()
""",
        container.path,
    )

    assert report == {"first": "FileExistsError", "again": "/run/netns/c1"}


def test_a_name_is_removed_while_a_process_is_inside(host: Host) -> None:
    """A shell in `ip netns exec` must not keep a container's name."""
    run(
        host,
        """
made = NetNS.create()
netns.bind(made, "c1")
made.close()
""",
    )
    inside = host.popen("ip", "netns", "exec", "c1", "sh", "-c", "echo; exec sleep 60")
    assert inside.stdout
    inside.stdout.readline()
    run(
        host,
        """
bound = NetNS.open("/run/netns/c1")
identity = bound.identity
bound.close()
netns.unbind("c1", identity)
""",
    )
    inside.kill()
    inside.communicate()

    assert named(host) == []


def test_settings_are_written_if_they_differ(host: Host) -> None:
    report = run(
        host,
        """
sysctl.write("net/ipv4/ip_forward", "0")
found["off"] = sysctl.read("net/ipv4/ip_forward")
sysctl.write("net/ipv4/ip_forward", 1)
found["on"] = sysctl.read("net/ipv4/ip_forward")
found["missing"] = kind(sysctl.write, "net/ipv4/conf/none/forwarding", 1)
found["read"] = kind(sysctl.read, "net/ipv4/conf/none/forwarding")
found["if present"] = kind(sysctl.write_if_present, "net/ipv4/conf/none/forwarding", 1)
found["refused"] = kind(sysctl.write, "net/ipv4/ip_forward", "nonsense")
""",
    )

    assert report == {
        "off": "0",
        "on": "1",
        "missing": "FileNotFoundError",
        "read": "FileNotFoundError",
        "if present": "nothing",
        "refused": "OSError",
    }


def test_a_setting_that_is_right_already_is_not_written(host: Host) -> None:
    """A container's /proc/sys may be read-only, which must not make this fail."""
    host.run("mount", "--bind", "/proc/sys", "/proc/sys")
    host.run("mount", "-o", "remount,ro,bind", "/proc/sys")
    host.leaves("mount /proc/sys", "dir /run/mount")  # the latter is mount(8)'s own

    report = run(
        host,
        """
now = sysctl.read("net/ipv4/ip_forward")
found["same"] = kind(sysctl.write, "net/ipv4/ip_forward", now)
found["other"] = kind(sysctl.write, "net/ipv4/ip_forward", 1 - int(now))
""",
    )

    assert report == {"same": "nothing", "other": "OSError"}
