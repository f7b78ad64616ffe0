# SPDX-License-Identifier: Apache-2.0
"""Damaged, unreadable and lost records: nothing is released too early, and all is released at last."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.host.faults import fault
from tests.support.host.host import Container, Host
from tests.support.host.leaks import compare
from tests.support.runtimes.oci import CNIHOOK, RESULTS, bridge, call_hook, configure, wait_for

NET: dict[str, Any] = {
    "cniVersion": "1.1.0",
    "name": "full",
    "plugins": [
        {
            "type": "bridge",
            "bridge": "br2",
            "isGateway": True,
            "ipMasq": True,
            "macspoofchk": True,
            "ipam": {
                "type": "host-local",
                "ranges": [[{"subnet": "10.2.0.0/24"}], [{"subnet": "fd02::/120"}]],
                "routes": [{"dst": "0.0.0.0/0"}],
            },
        },
        {"type": "portmap", "capabilities": {"portMappings": True}},
        {"type": "firewall", "ingressPolicy": "same-bridge"},
        {
            "type": "bandwidth",
            "ingressRate": 8000,
            "ingressBurst": 8000,
            "egressRate": 8000,
            "egressBurst": 8000,
        },
        {"type": "tuning", "mtu": 1400},
    ],
}
RECORD = f"{RESULTS}/full-x-eth0"
PUBLISH = {"cnihook.publish": "8080:80"}


@pytest.fixture
def container(host: Host) -> Iterator[Container]:
    configure(host, NET)
    host.leaves("dir /run/cni*", "sysctl *", "file /run/cnihook/log/*", "dir /run/cnihook*")
    yield host.container("x", process=True)


def state_of(container: Container, pid: int | None = None) -> dict[str, Any]:
    pid = container.pid if pid is None else pid
    return {"ociVersion": "1.0", "id": "x", "pid": pid, "bundle": "/nowhere", "annotations": PUBLISH}


def create(host: Host, container: Container, *launcher: str) -> Any:
    return call_hook(host, "createRuntime", state_of(container), launcher=launcher)


def poststop(host: Host, container: Container, *launcher: str) -> Any:
    return call_hook(host, "poststop", state_of(container, 0), launcher=launcher)


def end(host: Host, container: Container) -> None:
    container.destroy()
    wait_for(lambda: not host.exists(f"/proc/{container.pid}"), "the end of the container")


def gc(host: Host, *launcher: str) -> Any:
    return host.run(*launcher, CNIHOOK, "gc", check=False)


def attached(host: Host, container: Container) -> None:
    assert create(host, container).returncode == 0
    assert is_attached(container)


def is_attached(container: Container) -> bool:
    shown = container.run("ip", "address", "show", "eth0").stdout
    return "inet 10.2.0." in shown and "inet6 fd02::" in shown


# Live containers


@pytest.mark.needs("strace")
@pytest.mark.parametrize("error", ["EIO", "EACCES", "EMFILE"])
def test_container_without_start_time_is_not_attached(host: Host, container: Container, error: str) -> None:
    """Later gc could not decide if the container is alive."""
    failed = create(
        host, container, *fault("openat", f"error={error}:when=1", f"/proc/{container.pid}/stat")
    )

    assert failed.returncode == 1
    assert f"/proc/{container.pid}/stat" in failed.stderr
    compare(host.before, host.state, host.stay)


@pytest.mark.needs("strace")
@pytest.mark.parametrize("command", [("gc",), ("gc", "full")], ids=" ".join)
@pytest.mark.parametrize(
    "what,error", [("stat", "EIO"), ("stat", "EACCES"), ("boot_id", "EIO"), ("timens_offsets", "EMFILE")]
)
def test_gc_keeps_a_container_whose_process_cannot_be_read(
    host: Host, container: Container, error: str, what: str, command: tuple[str, ...]
) -> None:
    attached(host, container)
    paths = {
        "stat": f"/proc/{container.pid}/stat",
        "boot_id": "/proc/sys/kernel/random/boot_id",
        "timens_offsets": "/proc/self/timens_offsets",
    }
    outcome = host.run(*fault("openat", f"error={error}", paths[what]), CNIHOOK, *command, check=False)

    assert outcome.returncode == 1 and outcome.stdout == "", outcome
    assert paths[what] in outcome.stderr
    assert host.exists(RECORD) and container.addresses("eth0")
    end(host, container)
    assert poststop(host, container).returncode == 0
    compare(host.before, host.state, host.stay)


@pytest.mark.parametrize("command", [("gc",), ("gc", "full"), ("doctor", "--fix")], ids=" ".join)
@pytest.mark.parametrize(
    "elsewhere",
    [
        ("unshare", "--time", "--boottime", "1000", "--fork"),
        ("unshare", "--time", "--boottime", "7", "--monotonic", "3", "--fork"),
        ("unshare", "--pid", "--fork", "--mount-proc"),
        ("unshare", "--pid", "--fork"),
    ],
    ids=" ".join,
)
def test_container_is_alive_as_seen_from_another_namespace(
    host: Host, container: Container, elsewhere: tuple[str, ...], command: tuple[str, ...]
) -> None:
    attached(host, container)

    outcome = host.run(*elsewhere, CNIHOOK, *command, check=False)
    assert "released" not in outcome.stdout
    assert container.addresses("eth0") and host.exists(RECORD)
    end(host, container)
    assert gc(host).stdout.startswith("released x: full eth0")
    compare(host.before, host.state, host.stay)


def test_container_attached_in_another_time_namespace_is_alive(host: Host, container: Container) -> None:
    launcher = ("unshare", "--time", "--boottime", "1000", "--fork")
    assert create(host, container, *launcher).returncode == 0

    assert gc(host).stdout == ""
    assert container.addresses("eth0")
    end(host, container)
    assert gc(host).stdout.startswith("released x")
    compare(host.before, host.state, host.stay)


# Unreadable records


@pytest.mark.needs("strace")
@pytest.mark.parametrize("error", ["EIO", "EMFILE", "EACCES"])
def test_unreadable_record_stays(host: Host, container: Container, error: str) -> None:
    """An error does not mean that the record is absent: the next poststop finds it."""
    attached(host, container)
    end(host, container)
    for number in (1, 2):
        failing = fault("openat", f"error={error}:when={number}", RECORD)
        outcome = poststop(host, container, *failing)
        assert outcome.returncode == 1 and RECORD in outcome.stderr, outcome
        assert host.exists(RECORD)
        outcome = gc(host, *failing)
        assert outcome.returncode == 1 and RECORD in outcome.stderr, outcome
        assert host.exists(RECORD)
    assert poststop(host, container).returncode == 0
    compare(host.before, host.state, host.stay)


# Damaged records


def _with_json(change: Callable[[dict[str, Any]], object]) -> Callable[[bytes], bytes]:
    def damage(content: bytes) -> bytes:
        raw = json.loads(content)
        change(raw)
        return json.dumps(raw).encode()

    return damage


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "cut short": lambda content: content[:700],
    "cut to a byte": lambda content: content[:1],
    "empty": lambda content: b"",
    "zeros": lambda content: bytes(len(content)),
    "not UTF-8": lambda content: content[:50] + b"\xff\xfe" + content[52:],
    "another file": lambda content: b"[1, 2]",
    "kind": _with_json(lambda raw: raw.update(kind="x")),
    "config not base64": _with_json(lambda raw: raw.update(config="\u00fc")),
    "config not JSON": _with_json(lambda raw: raw.update(config="eHg=")),
    "config empty": _with_json(lambda raw: raw.update(config="")),
    "config not a network": _with_json(lambda raw: raw.update(config="e30=")),
    "container ID": _with_json(lambda raw: raw.update(containerId="y")),
    "container ID missing": _with_json(lambda raw: raw.pop("containerId")),
    "network": _with_json(lambda raw: raw.update(networkName=7)),
    "interface": _with_json(lambda raw: raw.update(ifName=None)),
    "result": _with_json(lambda raw: raw.update(result=[])),
    "result missing": _with_json(lambda raw: raw.pop("result")),
    "pid": _with_json(lambda raw: raw["cnihook"].update(pid="x")),
    "start": _with_json(lambda raw: raw["cnihook"].update(start=None)),
    "boot": _with_json(lambda raw: raw["cnihook"].update(boot=5)),
    "namespace": _with_json(lambda raw: raw["cnihook"].update(netns=[1])),
    "process": _with_json(lambda raw: raw.update(cnihook=[])),
    "netns": _with_json(lambda raw: raw.update(netns=7)),
}
WAYS = ["poststop", "gc", "createRuntime", "gc NETWORK", "doctor"]
# Each kind with two of the ways suffices: finding the names and releasing them are independent.
CASES = [(kind, WAYS[(at + more) % len(WAYS)]) for at, kind in enumerate(DAMAGE) for more in (0, 2)]


def damage(host: Host, kind: str) -> None:
    if kind == "container ID":  # it may be a copy of another record, so it is kept
        host.leaves("dir /var/lib/cni/damaged", "file /var/lib/cni/damaged/*")
    path = Path(f"{host.root}{RECORD}")
    path.write_bytes(DAMAGE[kind](path.read_bytes()))


def release(host: Host, container: Container, way: str) -> None:
    if way == "poststop":
        outcome = poststop(host, container)
        assert outcome.returncode == 0, outcome
    elif way == "createRuntime":
        again = host.container("x", process=True)
        attached(host, again)
        end(host, again)
        assert poststop(host, again).returncode == 0
    else:
        words = {"gc": ("gc",), "gc NETWORK": ("gc", "full"), "doctor": ("doctor", "--fix")}[way]
        outcome = host.run(CNIHOOK, *words, check=False)
        assert way == "doctor" or outcome.returncode == 0, outcome
        if way == "gc NETWORK":  # it leaves the name of the namespace to gc
            assert gc(host).returncode == 0
    compare(host.before, host.state, host.stay)


@pytest.mark.parametrize("kind,way", CASES)
def test_container_with_a_damaged_record_is_released_by_its_names(
    host: Host, container: Container, kind: str, way: str
) -> None:
    attached(host, container)
    damage(host, kind)
    if way in ("gc", "gc NETWORK", "doctor"):
        outcome = host.run(CNIHOOK, *way.lower().replace("network", "full").split(), check=False)
        assert not outcome.stdout.startswith("released")
        assert is_attached(container), "the container is alive"
        assert host.exists(RECORD)
    end(host, container)
    release(host, container, way)


@pytest.mark.parametrize("way", WAYS)
def test_container_with_a_lost_record_is_released_by_its_names(
    host: Host, container: Container, way: str
) -> None:
    attached(host, container)
    host.run("rm", RECORD)
    assert gc(host).stdout == ""
    assert is_attached(container), "the container is alive"
    end(host, container)
    release(host, container, way)


@pytest.mark.parametrize("kind", ["fifo", "folder", "link", "device"])
def test_special_file_at_the_path_of_a_record_blocks_no_container(
    host: Host, container: Container, kind: str
) -> None:
    host.run("mkdir", "-p", RESULTS)
    words = {"fifo": "mkfifo", "folder": "mkdir", "link": f"ln -s {RECORD}", "device": "mknod -m 600"}[kind]
    numbers = ("c", "1", "5") if kind == "device" else ()
    host.run("timeout", "5", *words.split(), RECORD, *numbers)
    host.leaves("dir /var/lib/cni/damaged", "* /var/lib/cni/damaged/*")

    assert host.run(CNIHOOK, "ps", check=False).returncode in (0, 1)
    doctor = host.run(CNIHOOK, "doctor", check=False)
    assert f"record-damaged: the record {RECORD} is not a regular file" in doctor.stdout
    attached(host, container)
    end(host, container)
    assert poststop(host, container).returncode == 0
    assert gc(host).returncode == 0
    compare(host.before, host.state, host.stay)


@pytest.mark.parametrize("kind", ["cut short", "config not JSON", "empty", "pid"])
@pytest.mark.parametrize("way", ["detach", "del"])
def test_live_container_with_a_damaged_record_is_detached_on_request(
    host: Host, container: Container, way: str, kind: str
) -> None:
    """The operator requests it; gc would wait for the container's end."""
    attached(host, container)
    damage(host, kind)
    if way == "detach":
        host.run(CNIHOOK, "detach", "x")
    else:
        host.run(CNIHOOK, "del", "full", container.path, "--container-id", "x")
        assert host.run(CNIHOOK, "gc").stderr == "", "the name stays while the container is alive"
    assert container.links() == {"lo"}
    assert host.listdir(RESULTS) == []
    end(host, container)
    assert gc(host).returncode == 0
    compare(host.before, host.state, host.stay)


@pytest.mark.needs("strace")
def test_unreadable_record_hides_no_other(host: Host, container: Container) -> None:
    attached(host, container)
    host.write(f"{RESULTS}/full-y-eth0", host.read(RECORD).replace('"x"', '"y"'))

    outcome = host.run(*fault("openat", "error=EIO", f"{RESULTS}/full-y-eth0"), CNIHOOK, "ps", check=False)
    assert outcome.returncode == 1 and "full-y-eth0" in outcome.stderr and "\nx " in outcome.stdout, outcome
    host.run("rm", f"{RESULTS}/full-y-eth0")
    end(host, container)
    assert poststop(host, container).returncode == 0


def test_lease_from_an_earlier_boot_without_a_record_is_released(host: Host, container: Container) -> None:
    """A power cut may have deleted the record.  A lease that another runtime has made since then stays."""
    folder = "/var/lib/cni/networks/full"
    for address, time in (("10.2.0.7", "1990-01-01"), ("fd02::7", "1990-01-01"), ("10.2.0.8", "now")):
        host.write(f"{folder}/{address}", f"{'old' if time != 'now' else 'new'}\r\neth0")
        host.run("touch", "-d", time, f"{folder}/{address}")

    lost = host.run(CNIHOOK, "doctor", check=False).stdout
    assert "record-lost: full eth0 of container old" in lost and "container new is" not in lost
    assert gc(host).stdout == "released old: full eth0\n"
    assert not host.exists(f"{folder}/10.2.0.7") and not host.exists(f"{folder}/fd02::7")
    assert host.exists(f"{folder}/10.2.0.8")
    host.run("rm", "-r", folder)
    host.leaves("dir /var/lib/cni*")


def test_refused_start_does_not_remove_the_record_of_another_container(host: Host) -> None:
    """Network a-b with container c, and network a with container b-c, have one file name."""
    configure(host, bridge("a-b", "10.31.0.0/24"), bridge("a", "10.32.0.0/24"))
    host.leaves("file /run/cnihook/log/*")
    containers = [host.container(name, process=True) for name in ("c", "b-c")]
    outcomes = []
    for network, container in zip(("a-b", "a"), containers, strict=True):
        own = {"id": container.name, "annotations": {"cnihook.networks": network}}
        outcomes.append(call_hook(host, "createRuntime", state_of(container) | own))

    assert (outcomes[0].returncode, outcomes[0].stderr) == (0, "")
    assert outcomes[1].returncode == 1 and "its record would have the file name" in outcomes[1].stderr
    assert host.listdir(RESULTS) == ["a-b-c-eth0"] and host.listdir("/run/netns") == ["c"]
    end(host, containers[0])
    assert call_hook(host, "poststop", state_of(containers[0], 0) | {"id": "c"}).returncode == 0
    assert host.listdir(RESULTS) == []
