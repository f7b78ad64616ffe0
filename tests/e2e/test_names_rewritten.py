# SPDX-License-Identifier: Apache-2.0
"""Names in an /etc/hosts that the engine writes after the hook, as docker does from version 26 on."""

from functools import partial
from pathlib import Path

import pytest

from tests.support.commands.doctor import doctor, finds, fixes
from tests.support.host.host import Host
from tests.support.host.namespace import end
from tests.support.plugins.cni import CHECKOUT
from tests.support.runtimes.oci import CNIHOOK, Running, Runtime, bridge, configure, wait_for

ENGINES = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost\n192.0.2.1\tof-the-engine\n"
NAMES = "/run/cnihook/names"


@pytest.fixture
def engine(host: Host, runtime: Runtime, tmp_path: Path) -> "Engine":
    configure(host, bridge("front", "10.1.0.0/24", mtu=1400), bridge("back", "10.2.0.0/24"))
    return Engine(runtime, tmp_path)


class Engine:
    """An engine that mounts an empty hosts file and writes it before `start`, as docker does."""

    def __init__(self, runtime: Runtime, folder: Path) -> None:
        self.runtime = runtime
        runtime.program = str(CHECKOUT / "scripts" / f"cni-{runtime.name}")
        self._folder = folder

    def file(self, container_id: str) -> Path:
        return self._folder / f"{container_id}.hosts"

    def create(self, container_id: str, networks: str = "front", **wants: str) -> Running:
        self.file(container_id).write_text("")
        annotations = {"cnihook.networks": networks}
        annotations |= {f"cnihook.{name.replace('_', '-')}": value for name, value in wants.items()}
        self.runtime.bundle(container_id, hooks={}, annotations=annotations)
        self.runtime.mount(container_id, ("/etc/hosts", str(self.file(container_id))))
        return self.runtime.started(container_id, self.runtime.start(container_id, "create"))

    def write_hosts(self, container_id: str) -> None:
        self.file(container_id).write_text(ENGINES)

    def start(self, container_id: str) -> None:
        self.runtime.call("start", container_id)

    def run(self, container_id: str, networks: str = "front", **wants: str) -> Running:
        container = self.create(container_id, networks, **wants)
        self.write_hosts(container_id)
        self.start(container_id)
        return container


def hosts(container: Running) -> str:
    return container.exec("cat", "/etc/hosts")


def names(container: Running) -> set[str]:
    """Return the lines of cnihook, after checking that those of the engine are there."""
    text = hosts(container)
    assert text.startswith(ENGINES)
    lines = text.removeprefix(ENGINES).splitlines()
    assert len(lines) == len(set(lines))
    return {line.partition("\t# cnihook: ")[0] for line in lines}


def test_names_are_in_the_file_before_the_program_runs(engine: Engine) -> None:
    """The names are the container's own, those of others, and extra hosts; the lines of the engine stay."""
    one = engine.run("one", "front,back", network_alias="www", add_host="far:192.0.2.7,gate:host-gateway")
    two = engine.run("two", hostname="db1")

    own = {"10.1.0.2\tcontainer one www", "10.2.0.2\tcontainer one www"}
    assert names(one) == {*own, "192.0.2.7\tfar", "10.1.0.1\tgate", "10.1.0.3\tdb1 two"}
    assert names(two) == {"10.1.0.3\tdb1 container two", "10.1.0.2\tone www"}
    assert "(10.1.0.2)" in two.exec("ping", "-c1", "-W30", "www")
    assert "which was written after they were set" in one.log


def test_names_of_a_container_started_between_create_and_start_are_in_the_file(engine: Engine) -> None:
    one = engine.create("one")
    two = engine.run("two")
    engine.write_hosts("one")
    three = engine.run("three")
    engine.start("one")

    for container in (one, two, three):
        assert {line.split()[-1] for line in names(container)} == {"one", "two", "three"}
    engine.runtime.delete("two")
    assert {line.split()[-1] for line in names(one)} == {"one", "three"}


def test_own_name_is_not_the_loopback(engine: Engine) -> None:
    """Engines write the loopback if there is no network; after the last network their line is restored."""
    one = engine.create("one")
    engine.file("one").write_text(f"{ENGINES}127.0.1.1\tcontainer web\n")
    engine.start("one")

    assert one.exec("ping", "-c1", "-W30", "container").partition("(")[2].startswith("10.1.0.2)")
    assert "(10.1.0.2)" in one.exec("ping", "-c1", "-W2", "web")
    assert "\n127.0.1.1" not in hosts(one)
    engine.runtime.host.run(CNIHOOK, "detach", "one")
    assert hosts(one) == f"{ENGINES}127.0.1.1\tcontainer web\n"


def test_file_that_the_engine_has_not_changed_is_not_written(engine: Engine) -> None:
    """Docker before 26 writes the file before `create`."""
    one = engine.create("one")
    before = engine.file("one").stat()
    engine.start("one")

    assert engine.file("one").stat().st_mtime_ns == before.st_mtime_ns
    assert "written after" not in one.log


def test_extra_hosts_stay_until_the_last_network(host: Host, engine: Engine) -> None:
    one = engine.run("one", "front,back", add_host="far:192.0.2.7")
    host.run(CNIHOOK, "detach", "one", "--network", "front")

    engine.write_hosts("one")
    host.run(CNIHOOK, "repair", "one")
    assert names(one) == {"10.2.0.2\tcontainer one", "192.0.2.7\tfar"}
    host.run(CNIHOOK, "detach", "one")
    assert hosts(one) == ENGINES
    assert not host.exists(NAMES)


@pytest.mark.parametrize("what", ["link", "device", "gone", "locked"])
def test_container_starts_with_anything_at_the_path_of_its_file(
    host: Host, engine: Engine, what: str
) -> None:
    """The container starts without its names, and no other file is written."""
    one = engine.create("one")
    file = engine.file("one")
    other = file.with_name("other")
    other.write_text("mine\n")
    if what != "locked":
        file.rename(file.with_name("old"))
    if what == "link":
        file.symlink_to(other)
    elif what == "device":
        host.run("mknod", str(file), "c", "1", "3")
    elif what == "locked":
        file.write_text("")
        holder = host.popen("flock", "--no-fork", "/run/cnihook/lock/names.lock", "sleep", "60")
        wait_for(lambda: host.exists("/run/cnihook/lock/names.lock"), "the lock")

    engine.start("one")

    assert engine.runtime.state("one")["status"] == "running"
    assert "names are not in its /etc/hosts" in one.log
    assert other.read_text() == "mine\n"
    if what == "locked":
        end(holder)


def test_doctor_finds_lost_names_and_repair_writes_them(host: Host, engine: Engine) -> None:
    """The engine may write the file at any time."""
    one, _two = engine.run("one", add_host="far:192.0.2.7"), engine.run("two")
    before = names(one)
    assert doctor(host, status=0) == []

    engine.write_hosts("one")
    remedy = finds(host, "container-names", "container one: /etc/hosts has lost the names")
    assert remedy == "cnihook repair one"
    assert (
        host.run(CNIHOOK, *remedy.split()[1:]).stdout == "repaired one: its /etc/hosts had lost its names\n"
    )
    assert names(one) == before
    assert host.run(CNIHOOK, "repair", "one").stdout == ""
    engine.write_hosts("one")
    fixes(host, "container-names")
    assert names(one) == before


# The arguments of the runtime's parent under podman; see cnihook.oci.podman.
CONMON = """\
#!/bin/sh
exec sh -c 'shift 2; {runtime} "$@"; exit $?' sh --exit-command podman "$@"
"""


@pytest.fixture
def conmon(host: Host, engine: Engine) -> Engine:
    """Return the engine without cni-runc, which calls nothing of cnihook at `start`."""
    host.write("/run/.host/conmon", CONMON.format(runtime=engine.runtime.name), 0o755)
    engine.runtime.program = "/run/.host/conmon"
    return engine


def create_by_hook(engine: Engine, container_id: str) -> Running:
    engine.file(container_id).write_text("")
    engine.runtime.bundle(container_id, "--network", "front", "--add-host", "far:192.0.2.7")
    engine.runtime.mount(container_id, ("/etc/hosts", str(engine.file(container_id))))
    return engine.runtime.started(container_id, engine.runtime.start(container_id, "create"))


def is_renewed(file: Path) -> bool:
    return "far" in file.read_text()


def test_hook_writes_names_after_podman_has_written(host: Host, conmon: Engine) -> None:
    one = create_by_hook(conmon, "one")
    two = create_by_hook(conmon, "two")  # writes to the file of the first, whose process goes on waiting
    for container_id in ("one", "two"):
        conmon.write_hosts(container_id)
        wait_for(partial(is_renewed, conmon.file(container_id)), "the names")
        conmon.start(container_id)

    expected = {"192.0.2.7\tfar", "10.1.0.2\tcontainer one"}
    assert names(one) == {*expected, "10.1.0.3\ttwo"}
    assert names(two) == {"192.0.2.7\tfar", "10.1.0.3\tcontainer two", "10.1.0.2\tone"}
    wait_for(lambda: "cnihook" not in host.run("ps", "-eo", "args").stdout, "the end of the waiting process")


def test_process_that_waits_ends_with_the_container(host: Host, conmon: Engine) -> None:
    """Podman may fail before it writes the file."""
    create_by_hook(conmon, "one")
    assert "cnihook" in host.run("ps", "-eo", "args").stdout

    conmon.runtime.delete("one")

    wait_for(lambda: "cnihook" not in host.run("ps", "-eo", "args").stdout, "the end of the waiting process")
