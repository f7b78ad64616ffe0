# SPDX-License-Identifier: Apache-2.0
"""The cost of every container's start: the modules that the hot path imports.  It starts no process.

The tests count instead of measuring time: a busy machine changes no count.  scripts/bench measures time.
"""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from tests.support.host.host import Container, Host
from tests.support.host.namespace import Namespace, base_environment
from tests.support.plugins import cni
from tests.support.runtimes.oci import LOOPBACK, MYNET, NET_D

PYTHON = "/usr/bin/python3"
SCRIPTS = cni.CHECKOUT / "scripts"

# Each of these takes less than 0.5 ms.  The list keeps out, in ms on CPython 3.11: dataclasses 13.7, logging
# 11.2, subprocess 9.7, argparse 8, typing 7.6, socket 7.4, json 7.1, re 4.1, signal 3.6, ipaddress 2.9, enum
# 2.6, ctypes 2.3.
CHEAP = {
    *(
        "_blake2",
        "_ctypes",
        "_json",
        "_posixsubprocess",
        "_signal",
        "_socket",
        "_struct",
        "binascii",
        "errno",
    ),
    *("fcntl", "gc", "select", "struct", "time"),
    "_sha2" if sys.version_info >= (3, 12) else "_sha512",
}

# Runs in front of a launcher: logs each module that is not loaded yet, for any kind of import.
# os is loaded, because every program needs it; most of its 2 ms are for the modules that os imports.
WATCH = """\
import os, sys
log = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
class Watch:
    @staticmethod
    def find_spec(name, path=None, target=None):
        os.write(log, name.encode() + b"\\n")
sys.meta_path.insert(0, Watch)
del sys.argv[0:2]
with open(sys.argv[0]) as file:
    code = compile(file.read(), sys.argv[0], "exec")
exec(code, {"__name__": "__main__", "__file__": sys.argv[0]})
"""


@pytest.fixture
def implementation(implementations: dict[str, cni.Implementation]) -> cni.Implementation:
    """Return the built-in plugins only: the reference is not written in Python."""
    return implementations["builtin"]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


@pytest.fixture
def sandbox(host: Host) -> Container:
    """Return a container of a runtime; write two networks for it."""
    host.write(f"{NET_D}/10-mynet.conf", MYNET)
    host.write(f"{NET_D}/99-loopback.conf", LOOPBACK)
    host.leaves(f"file {NET_D}/*")
    return host.container(process=True)


@pytest.fixture
def state(sandbox: Container, tmp_path: Path) -> str:
    bundle = {
        "ociVersion": "1.0.2",
        "linux": {"namespaces": [{"type": "network"}]},
        "root": {"path": "rootfs"},
    }
    (tmp_path / "config.json").write_text(json.dumps(bundle))
    (tmp_path / "rootfs" / "etc").mkdir(parents=True)
    return json.dumps(
        {
            "ociVersion": "1.0.2",
            "id": "c1",
            "status": "creating",
            "pid": sandbox.pid,
            "bundle": str(tmp_path),
        }
    )


def imports(
    where: Namespace, log: Path, program: Path | str, *arguments: str, **options: str | dict[str, str]
) -> set[str]:
    """Return the modules that a Python program imports, without those of cnihook."""
    where.run(PYTHON, "-ISc", WATCH, str(log), str(program), *arguments, **options)  # type: ignore[arg-type]
    seen = set(log.read_text().split())
    log.unlink()
    assert any(name.startswith("cnihook") for name in seen), "the watch sees nothing"
    return {name for name in seen if name.partition(".")[0] != "cnihook"}


def expect_cheap(modules: set[str]) -> None:
    dear = {module: f"{cost(module):.1f} ms" for module in modules - CHEAP}
    assert not dear


def cost(module: str) -> float:
    command = [PYTHON, "-IS", "-X", "importtime", "-c", f"import {module}"]
    report = subprocess.run(command, capture_output=True, text=True).stderr.splitlines()
    match = re.search(r"\|\s+(\d+) \|", report[-1]) if report else None
    return int(match[1]) / 1000 if match else 0


def starts(where: Namespace, log: Path, *argv: str, **options: str | dict[str, str]) -> list[str]:
    """Return the system calls with which a program starts processes."""
    calls = "fork,vfork,clone,clone3,execve,execveat"
    where.run("strace", "-fqq", f"--trace={calls}", f"--output={log}", *argv, **options)  # type: ignore[arg-type]
    own, *others = log.read_text().splitlines()
    assert "execve(" in own
    return others


def test_watch_logs_every_import(host: Host, log: Path, tmp_path: Path) -> None:
    """This tests the tests below: imports in a function, by importlib, from a package, in C."""
    program = tmp_path / "program.py"
    program.write_text(
        f"import sys; sys.path.insert(0, {str(cni.CHECKOUT)!r}); import cnihook\n"
        "def later():\n  import _json\n"
        "later(); import importlib; importlib.import_module('email.errors'); import os\n"
    )

    modules = imports(host, log, program)
    assert {"_json", "importlib", "email", "email.errors"} <= modules and "os" not in modules


def test_create_runtime_has_cheap_imports_only(host: Host, log: Path, state: str) -> None:
    modules = imports(host, log, SCRIPTS / "cnihook", "createRuntime", input=state)
    host.run(PYTHON, "-IS", str(SCRIPTS / "cnihook"), "poststop", input=state)

    expect_cheap(modules)


@pytest.mark.parametrize("alive", [True, False], ids=["alive", "dead"])
def test_poststop_has_cheap_imports_only(
    host: Host, log: Path, sandbox: Container, state: str, alive: bool
) -> None:
    host.run(PYTHON, "-IS", str(SCRIPTS / "cnihook"), "createRuntime", input=state)
    if not alive:
        sandbox.destroy()

    expect_cheap(imports(host, log, SCRIPTS / "cnihook", "poststop", input=state))


def test_bounds_on_annotations_are_cheap(host: Host, log: Path, state: str) -> None:
    """A container with annotations opens the file once, and no process is started for it."""
    host.write("/etc/cnihook/config.json", '{"annotations": {"allow": ["networks"], "ports": "1024-65535"}}')
    asking = json.dumps(json.loads(state) | {"annotations": {"cnihook.networks": "mynet"}})
    hook = (PYTHON, "-IS", str(SCRIPTS / "cnihook"))

    expect_cheap(imports(host, log, SCRIPTS / "cnihook", "createRuntime", "--allow=networks", input=asking))
    host.run(*hook, "poststop", input=asking)
    assert starts(host, log, *hook, "createRuntime", input=asking) == []
    host.run(*hook, "poststop", input=asking)
    for text, times in ((asking, 1), (state, 0)):
        trace = ("strace", "-qq", "--trace=open,openat", f"--output={log}")
        host.run(*trace, *hook, "createRuntime", input=text)
        assert log.read_text().count("/etc/cnihook/config.json") == times
        host.run(*hook, "poststop", input=text)
    host.leaves("* /etc/cnihook*")


def test_hook_executes_no_program(host: Host, log: Path, state: str) -> None:
    hook = (PYTHON, "-IS", str(SCRIPTS / "cnihook"))

    assert starts(host, log, *hook, "createRuntime", input=state) == []
    (forked,) = starts(host, log, *hook, "poststop", input=state)
    assert "clone(" in forked, "it removes links after the hook has returned, and executes no program"


def test_hook_loads_its_modules_from_one_file(host: Host, log: Path, state: str) -> None:
    """Except for the two modules that run before the file is opened."""
    hook = (PYTHON, "-IS", str(SCRIPTS / "cnihook"))
    host.run(*hook, "compile")
    opened = []
    for event in ("createRuntime", "poststop"):
        host.run("strace", "-qq", "--trace=openat", f"--output={log}", *hook, event, input=state)
        opened += re.findall(
            rf'"{cni.CHECKOUT}/(cnihook[^"]*)/__pycache__/(\w+)\.[^"]*\.pyc"', log.read_text()
        )

    assert {f"{folder}/{name}" for folder, name in opened} == {"cnihook/__init__", "cnihook/codecache"}


def test_hook_loads_only_the_plugins_of_its_networks(host: Host, log: Path, state: str) -> None:
    """The plugin of another network in the folder would cost 1 to 4 ms."""
    other = {"cniVersion": "1.0.0", "name": "other", "type": "macvlan", "master": "up0"}
    host.write(f"{NET_D}/20-other.conf", json.dumps(other))
    hook = ("-ISc", WATCH, str(log), str(SCRIPTS / "cnihook"))
    for event in ("createRuntime", "poststop"):
        environment = base_environment() | {"CNIHOOK_DEBUG": "1"}
        host.run(PYTHON, *hook, event, "--network", "mynet", input=state, env=environment)
        names = log.read_text().split()
        plugins = {name for name in names if name.startswith("cnihook.plugins.")}
        assert "cnihook.process.steps" not in names, "it is for CNIHOOK_TIMING"
        assert not [name for name in names if "mdns" in name], "the container does not request it"
        assert plugins == {"cnihook.plugins.bridge", "cnihook.plugins.host_local"}
        log.unlink()


NAMES = ("--dns", "192.0.2.1", "--add-host", "up:host-gateway", "--hostname", "web", "--network-alias", "db")


def test_names_need_no_process_and_cheap_imports_only(host: Host, log: Path, state: str) -> None:
    """Both for a container that shares a network with another, and for a command."""
    hook = str(SCRIPTS / "cnihook")
    host.run(PYTHON, "-IS", hook, "createRuntime", *NAMES, input=state)
    other = json.dumps(json.loads(state) | {"id": "c2", "pid": host.container(process=True).pid})

    expect_cheap(imports(host, log, SCRIPTS / "priv-net-run", *NAMES, "true"))
    expect_cheap(imports(host, log, hook, "createRuntime", *NAMES, input=other))
    expect_cheap(imports(host, log, hook, "poststop", input=other))
    assert starts(host, log, PYTHON, "-IS", hook, "createRuntime", *NAMES, input=other) == []
    assert len(starts(host, log, PYTHON, "-IS", hook, "poststop", input=other)) == 1
    host.run(PYTHON, "-IS", hook, "poststop", input=state)


def test_priv_net_run_has_cheap_imports_only(host: Host, log: Path, sandbox: Container) -> None:
    expect_cheap(imports(host, log, SCRIPTS / "priv-net-run", "true"))


IPAM = {"type": "host-local", "ranges": [[{"subnet": "10.9.0.0/24"}], [{"subnet": "2001:db8:9::/64"}]]}
CONF: dict[str, Any] = {"cniVersion": "1.0.0", "name": "net1", "ipam": IPAM}
PLUGINS: dict[str, dict[str, Any]] = {
    "bridge": {"isDefaultGateway": True, "ipMasq": True, "macspoofchk": True},
    "host-device": {"device": "dev0"},
    "host-local": {},
    "loopback": {},
    "macvlan": {"master": "up0"},
    "ptp": {"ipMasq": True},
    "static": {"ipam": {"type": "static", "addresses": [{"address": "10.9.0.2/24"}]}},
    "tap": {},
}
CHAINED: dict[str, dict[str, Any]] = {
    "bandwidth": {"ingressRate": 10**7, "ingressBurst": 10**6, "egressRate": 10**7, "egressBurst": 10**6},
    "portmap": {
        "runtimeConfig": {"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]}
    },
    "sbr": {},
    "tuning": {"mtu": 1400, "sysctl": {"net.core.somaxconn": "99"}},
}


@pytest.fixture(params=[*PLUGINS, *CHAINED])
def plugin(request: pytest.FixtureRequest) -> str:
    return cast(str, request.param)


@pytest.fixture
def conf(host: Host, container: Container, plugin: str) -> str:
    """Return the stdin for the plugin, after setting up all that the plugin needs."""
    if plugin in PLUGINS:
        conf = CONF | {"type": plugin} | PLUGINS[plugin]
        if "master" in conf:
            host.outside()
        if "device" in conf:
            host.run(*"ip link add dev0 type veth peer name ved0".split())
            host.run("ip", "link", "set", "ved0", "up")  # else the plugin waits for a carrier
            host.save_state()
        return json.dumps(conf)
    before = CONF | {"type": "bridge", "isGateway": True}
    host.leaves("dir /run/cni", "dir /run/cni/*")
    result = host.cni("ADD", before, container)
    return json.dumps(
        {"cniVersion": "1.0.0", "name": "net1", "type": plugin, "prevResult": result} | CHAINED[plugin]
    )


def requests(host: Host, container: Container) -> Iterator[dict[str, str]]:
    for command in ("ADD", "DEL"):
        yield {
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": "c1",
            "CNI_NETNS": container.path,
            "CNI_IFNAME": "eth0",
            "CNI_PATH": "/nowhere",  # so that the built-in IPAM plugin is used
        }


def test_plugin_has_cheap_imports_only(
    host: Host, container: Container, implementation: cni.Implementation, log: Path, plugin: str, conf: str
) -> None:
    modules = [
        imports(host, log, implementation.program(plugin), input=conf, env=env)
        for env in requests(host, container)
    ]

    expect_cheap(set.union(*modules))


def test_plugin_starts_no_process(
    host: Host, container: Container, implementation: cni.Implementation, log: Path, plugin: str, conf: str
) -> None:
    for env in requests(host, container):
        assert starts(host, log, implementation.program(plugin), input=conf, env=env) == []


def test_every_cheap_module_exists() -> None:
    """A name that this Python does not have would hide a spelling mistake."""
    for module in CHEAP:
        __import__(module)
    assert sys.version_info >= (3, 11)


STAND_IN = "#!/bin/sh\nexit 0\n"


@pytest.mark.parametrize("asks", [True, False], ids=["asks", "does not ask"])
def test_cni_runc_has_cheap_imports_only_and_starts_no_process(
    host: Host, log: Path, tmp_path: Path, asks: bool
) -> None:
    """An engine's default runtime runs at every container's start, and at every other call as well."""
    config = {"linux": {"namespaces": [{"type": "network"}]}, "process": {"env": ["CNIHOOK_WANTS=x.y"]}}
    config |= {"annotations": {"cnihook.networks": "mynet"}} if asks else {}
    (tmp_path / "config.json").write_text(json.dumps(config))
    host.write("/run/.host/bin/runc", STAND_IN, 0o755)
    env = {"PATH": "/run/.host/bin:/usr/bin:/bin"}
    words = (str(SCRIPTS / "cni-runc"), "create", "--bundle", str(tmp_path), "c1")
    host.leaves("file /run/cnihook/log/c1")

    expect_cheap(imports(host, log, *words, env=env))
    expect_cheap(imports(host, log, words[0], "state", "c1", env=env))
    (becomes,) = starts(host, log, *words, env=env)
    assert 'execve("/run/.host/bin/runc"' in becomes


def test_start_on_a_network_of_several_hosts_reads_one_file(host: Host, log: Path, state: str) -> None:
    """A start asks neither the agent nor etcd, so it is as fast without them.

    It imports nothing of these.  Other networks do not even import what reads the file.
    """
    host.write("/var/lib/cnihook/cluster/mynet/block.json", '{"blocks": ["10.60.7.0/24"]}')
    host.leaves("* /var/lib/cnihook*", "* /var/lib/cni/networks*")
    hook = ("-ISc", WATCH, str(log), str(SCRIPTS / "cnihook"))
    environment = base_environment() | {"CNIHOOK_DEBUG": "1"}
    block = {"type": "host-local", "block": "mynet", "routes": [{"dst": "0.0.0.0/0"}]}
    for ipam, has_block in (({}, False), (block, True)):
        conf = json.loads(MYNET)
        host.write(f"{NET_D}/10-mynet.conf", json.dumps(conf | {"ipam": ipam or conf["ipam"]}))
        host.run(PYTHON, *hook, "createRuntime", input=state, env=environment)
        names = set(log.read_text().split())
        log.unlink()
        assert not [name for name in names if name.startswith("cnihook.cluster")]
        assert ("cnihook.ipam.block" in names) is has_block
        host.run(PYTHON, "-IS", str(SCRIPTS / "cnihook"), "poststop", input=state)
    program = (PYTHON, "-IS", str(SCRIPTS / "cnihook"))
    expect_cheap(imports(host, log, SCRIPTS / "cnihook", "createRuntime", input=state))
    host.run(*program, "poststop", input=state)
    trace = ("strace", "-qq", "--trace=socket,openat", f"--output={log}")
    host.run(*trace, *program, "createRuntime", input=state)
    sockets = re.findall(r"socket\((\w+)", log.read_text())
    assert sockets and set(sockets) <= {"AF_NETLINK", "AF_UNIX"}
    assert log.read_text().count("/var/lib/cnihook/cluster/") == 1
    host.run(*program, "poststop", input=state)
