# SPDX-License-Identifier: Apache-2.0
"""`cnihook install` and `uninstall` on a throw-away host, whose /usr, /opt and /etc it may change."""

import json
import shlex

import pytest

from tests.support.host.hidden_programs import hide
from tests.support.host.host import Host
from tests.support.host.machine_files import changes, overlay
from tests.support.plugins.cni import CHECKOUT
from tests.support.runtimes.oci import CNIHOOK, LEAVES, MYNET, configure
from tests.support.skip import need

PLACES = ("/usr", "/opt", "/etc")
ALL = "hooks.d,systemd,man,completion,docker,containerd"
DAEMON = "/etc/docker/daemon.json"


@pytest.fixture
def machine(host: Host) -> Host:
    """Return a host with a docker daemon's configuration, and without podman, which may be too old."""
    overlay(host, "/usr", "/opt")
    hide(host, "podman")
    host.run("mkdir", "-p", "/etc/docker")
    host.write(DAEMON, '{ "debug":true }')
    host.leaves("file /etc/docker/daemon.json", "dir /etc/docker", *LEAVES)
    host.leaves("dir /etc/fish*", "dir /etc/systemd*", "* /run/systemd*")  # folders of the machine
    host.leaves("* /run/.cache*", "* /run/.config*", "* /run/.local*")  # of fish, whose home is /run
    return host


def test_install_puts_everything_at_its_place_and_uninstall_removes_it(machine: Host) -> None:
    before = changes(machine, *PLACES)
    planned = machine.run(CNIHOOK, "install", "--with", ALL, "--dry-run").stdout.splitlines()
    assert changes(machine, *PLACES) == before

    lines = machine.run(CNIHOOK, "install", "--with", ALL).stdout.splitlines()
    assert f"files: {len(planned) - 1} written, 1 changed; `cnihook uninstall` removes" in lines[0]
    assert "next: systemctl reload docker" in lines
    after = changes(machine, *PLACES)
    written = {line.split()[1] for line in planned if "/__pycache__/" not in line}
    assert written <= after.keys() - before.keys() | {DAEMON}
    assert machine.run(CNIHOOK, "install", "--with", ALL).stdout == "nothing to do\n"
    assert changes(machine, *PLACES) == after
    check_programs(machine)
    check_units(machine)
    check_engines(machine)
    check_shells(machine)

    configure(machine, MYNET)
    container = machine.container("web", process=True)
    machine.run("/usr/local/bin/cnihook", "add", "mynet", str(container.pid), "--container-id", "web")
    after = changes(machine, *PLACES)
    refused = machine.run("/usr/local/bin/cnihook", "uninstall", check=False)
    assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)
    assert "containers are attached: web" in refused.stderr and changes(machine, *PLACES) == after
    machine.run("/usr/local/bin/cnihook", "detach", "web")

    steps = machine.run("/usr/local/bin/cnihook", "uninstall", "--dry-run").stdout.splitlines()
    assert written <= {line.split()[1] for line in steps}
    machine.run("/usr/local/bin/cnihook", "uninstall")
    assert changes(machine, *PLACES) == before
    assert "nothing is installed" in machine.run(CNIHOOK, "uninstall", check=False).stderr


def check_programs(host: Host) -> None:
    for program in ("cnihook", "priv-net-run"):
        assert host.run(program, "--version", cwd="/").stdout.startswith(f"{program} ")
    assert host.run("docker-run", "--help").stdout.startswith("usage: docker-run ")
    for name in ("runc", "crun"):
        assert host.run(f"cni-{name}", "--version").stdout == host.run(name, "--version").stdout
    host.run("priv-net-run", "true")


def check_units(host: Host) -> None:
    """Each unit calls a program that exists; systemd accepts them, and `uninstall` disables them."""
    need("systemd-analyze", "systemctl")
    folder = "/usr/local/lib/systemd/system"
    units = host.listdir(folder)
    assert units == sorted(path.name for path in (CHECKOUT / "cnihook/systemd").glob("cnihook-*"))
    result = host.run("systemd-analyze", "verify", *(f"{folder}/{name}" for name in units), check=False)
    assert (result.returncode, result.stderr) == (0, "")
    for name in ("cnihook-gc.service", "cnihook-repair.service", "cnihook-resolv-conf.service"):
        (line,) = [line for line in host.read(f"{folder}/{name}").splitlines() if "ExecStart=" in line]
        assert host.run(*shlex.split(line.removeprefix("ExecStart="))).stderr == ""
    host.run("systemctl", "enable", "cnihook-gc.timer")
    assert "cnihook-gc.timer" in host.listdir("/etc/systemd/system/timers.target.wants")


def check_engines(host: Host) -> None:
    assert json.loads(host.read(DAEMON)) == {
        "debug": True,
        "runtimes": {"cni": {"path": "/usr/local/bin/cni-runc"}},
    }
    for stage in ("createRuntime", "poststop"):
        entry = json.loads(host.read(f"/usr/share/containers/oci/hooks.d/90-cnihook-{stage}.json"))["hook"]
        assert entry["args"] == [entry["path"], "-IS", CNIHOOK, stage]
    environment = {"CNI_COMMAND": "VERSION", "PATH": "/usr/bin:/bin"}
    assert "1.1.0" in host.run("/opt/cni/bin/bridge", input='{"cniVersion":"1.0.0"}', env=environment).stdout


def check_shells(host: Host) -> None:
    need("bash", "zsh", "fish", "man")
    bash = ". /usr/local/share/bash-completion/completions/{0}; complete -p {0}"
    assert "_cnihook cnihook" in host.run("bash", "-c", bash.format("cnihook")).stdout
    assert "docker-run" in host.run("bash", "-c", bash.format("docker-run")).stdout
    zsh = "autoload -U compinit; compinit -D -u; print $_comps[cnihook] $_comps[priv-net-run]"
    assert host.run("zsh", "-fc", zsh).stdout == "_cnihook _cnihook\n"
    fish = "complete -C 'cnihook compl'; complete -C 'priv-net-run --netw'"
    completed = host.run("fish", "-c", fish, env={"HOME": "/run", "PATH": "/usr/local/bin:/usr/bin:/bin"})
    assert "completion" in completed.stdout and "--network" in completed.stdout
    path = host.run("man", "-w", "cnihook-ps", env={"PATH": "/usr/local/bin:/usr/bin"}).stdout
    assert path.startswith("/usr/local/") and path.endswith("/man8/cnihook-ps.8\n")
