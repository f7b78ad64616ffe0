# SPDX-License-Identifier: Apache-2.0
"""Names and messages from a container, an image or a plugin never control a terminal or a log."""

import base64
import json
import shlex
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.commands.listings import INSTALLED, Screen, attach, detach_all
from tests.support.host.host import Container, Host
from tests.support.host.namespace import base_environment
from tests.support.runtimes.oci import CNIHOOK, NET_D, NETWORKS, RESULTS, bridge, call_hook, configure

# Colour, cursor, bell, DEL, C1, text direction, other line ends, an incomplete character.
CONTROLS = "\x1b[31m\r\b\a\x7f\x9b2J\x85\u202e\u2066\u200f\u2028\u2029\x0b\x1c"
TEXT = f"A{CONTROLS}2026-11-30T00:00:00.000     1.0 ms  forged"
LINK = "e\x1b[1m\x7f\u202e0"  # 11 bytes
HOSTILE: dict[str, Any] = {
    "cniVersion": "1.0.0",
    "name": "hostile",
    f"key{CONTROLS}": TEXT,
    "plugins": [{"type": f"no{CONTROLS}", "bridge": TEXT, "ipam": {"type": TEXT}}],
}
PLUGIN = f"""\
#!/bin/sh
cat > /dev/null
printf %s {shlex.quote(TEXT)} >&2
printf '%s' {shlex.quote(json.dumps({"cniVersion": "1.0.0", "code": 100, "msg": TEXT, "details": TEXT}))}
exit 1
"""
COMMANDS = [
    "ps",
    "ps --json",
    "ps --quiet",
    "ps --format '{container} {ifname} {addresses} {ports} {netns} {state}'",
    "inspect web",
    "inspect web --json",
    *(f"graph --format {form}" for form in ("text", "dot", "mermaid", "svg", "html", "json")),
    "stats --once",
    "stats --json",
    "doctor",
    "doctor --verbose",
    "doctor --json",
    "metrics",
    "logs",
    "logs web",
    "check --all",
    "check --all --json",
    "check front web",
    "status front",
    "status hostile",
    "list",
    "list --json",
    "validate",
    "validate --json",
    "network ls",
    "network ls --format json",
    "network ls --format '{{.Name}} {{.Driver}} {{.Labels}} {{json .}}'",
    "network inspect front",
    "plan front",
    "plan front --json",
    "plan hostile",
    "add failing web --ifname eth7",
    "add hostile web --ifname eth7",
    "del failing web --ifname eth7",
    "repair web",
    "repair --all",
    "gc --dry-run",
    "gc",
    "attach nothing",
    "detach nothing",
    "conformance /run/plugins/failing --check version-lists-versions",
    "conformance /run/plugins/failing --json",
    "inject /run/bundle --dry-run",
    "hooks.d status --dir /run/hooks.d",
]


@pytest.fixture
def infested(host: Host) -> Iterator[Host]:
    """Put hostile text wherever a command reads."""
    failing = {"cniVersion": "1.0.0", "name": "failing", "plugins": [{"type": "failing"}]}
    front = bridge("front", "10.30.0.0/24", ipMasq=True)
    front["plugins"].append({"type": "tuning", "capabilities": {"portMappings": True}})
    configure(host, front, failing, HOSTILE, **{f"30-{CONTROLS}.conflist": '{"name": ', "31.conf": TEXT})
    host.write("/run/plugins/failing", PLUGIN, 0o755)
    host.run("ip", "link", "add", LINK, "type", "veth", "peer", "name", "other")
    host.run("ip", "link", "set", LINK, "up", "alias", TEXT)
    host.run("ip", "link", "set", "other", "up")
    host.run("ip", "addr", "add", "192.0.2.1/24", "dev", LINK)
    host.run("ip", "route", "add", "default", "via", "192.0.2.2", "dev", LINK)
    attach(host, "web", "front", port=8080)
    spoil_record(host)
    host.write(f"{RESULTS}/front-{CONTROLS}-eth0", "{")
    host.write(f"{NETWORKS}/front/10.30.0.99", TEXT)
    host.write("/run/cnihook/log/web", f"2026-11-30T00:00:00.000     1.0 ms  {TEXT}\n")
    host.write(f"/run/cnihook/log/x{CONTROLS}", f"{TEXT}\n")
    host.write("/run/bundle/config.json", json.dumps({"hooks": {"poststop": [{"path": TEXT}]}, TEXT: TEXT}))
    host.write(
        "/run/hooks.d/cnihook-createRuntime.json", json.dumps({"hook": {"path": TEXT, "args": [TEXT]}})
    )
    host.run("nft", 'add table inet x { comment "\x1b[31m\u202e" ; chain c\\{\\} }', check=False)
    host.leaves("*")
    yield host
    detach_all(host)


def spoil_record(host: Host) -> None:
    path = f"{RESULTS}/front-web-eth0"
    record = json.loads(host.read(path))
    config = json.loads(base64.b64decode(record["config"]))
    config["plugins"][1]["comment"] = TEXT
    config["plugins"][1]["sysctl"] = {f"net.core.{CONTROLS}": TEXT}
    record["config"] = base64.b64encode(json.dumps(config).encode()).decode()
    record["capabilityArgs"]["portMappings"][0]["protocol"] = TEXT
    record["cniArgs"] = [[TEXT, TEXT]]
    record["result"]["interfaces"].append({"name": TEXT, "mac": TEXT, "sandbox": TEXT})
    record["result"]["dns"] = {"nameservers": [TEXT], "domain": TEXT}
    host.write(path, json.dumps(record), 0o600)


def check(source: str, output: str) -> None:
    bad = sorted({character for character in output if not character.isprintable()} - {"\n", "\t"})
    assert not bad, f"{source}: {bad} in {output!r}"


def test_commands_print_no_control_character(infested: Host) -> None:
    env = base_environment() | {"CNI_PATH": "/run/plugins"}
    # Sets a hostile host name.
    start = ("unshare", "--uts", "sh", "-c", 'printf %s "$0" > /proc/sys/kernel/hostname; exec "$@"', TEXT)
    for command in COMMANDS:
        outcome = infested.run(*start, INSTALLED, *shlex.split(command), env=env, check=False)

        assert outcome.returncode in (0, 1, 2)
        assert "Traceback" not in outcome.stderr
        assert outcome.stdout or outcome.stderr or outcome.returncode == 0
        check(command, outcome.stdout + outcome.stderr)


def test_terminal_gets_no_control_character(infested: Host) -> None:
    for command in ("ps", "inspect web", "graph", "stats --once", "doctor", "list", "logs"):
        check(command, Screen(infested, 100, *shlex.split(command), env={"NO_COLOR": "1"}).end())


ANNOTATIONS: list[dict[str, str]] = [
    {"cnihook.networks": f"front:{LINK}"},
    {"cnihook.networks": f"front{CONTROLS}"},
    {f"cnihook.{CONTROLS}": "x"},
    {"cnihook.publish": TEXT},
    {"cnihook.ip": TEXT},
    {"cnihook.mac-address": TEXT},
    {"cnihook.network-alias": TEXT},
    {"cnihook.hostname": TEXT},
    {"cnihook.dns": TEXT},
    {"cnihook.add-host": TEXT},
    {"cnihook.route": TEXT},
    {"cnihook.bandwidth": TEXT},
    {"k8s.v1.cni.cncf.io/networks": TEXT},
    {"k8s.v1.cni.cncf.io/networks": json.dumps([{"name": TEXT, "interface": TEXT}])},
    {"k8s.v1.cni.cncf.io/networks": json.dumps([{"name": "front", "interface": LINK}])},
    {"cnihook.networks": "failing"},
]


def test_hook_prints_and_logs_no_control_character(infested: Host) -> None:
    env = base_environment() | {"CNI_PATH": "/run/plugins"}
    container = infested.container("c1", process=True)
    for number, annotations in enumerate(ANNOTATIONS):
        state = {
            "id": f"c{number}",
            "pid": container.pid,
            "bundle": "/run/bundle",
            "annotations": annotations,
        }

        outcome = call_hook(infested, "createRuntime", state, env=env)

        assert outcome.returncode == 1, annotations
        check(str(annotations), outcome.stderr)
        log = infested.read(f"/run/cnihook/log/c{number}")
        assert log.count("\n") == len(log.splitlines())
        check(str(annotations), log)


def test_state_with_control_characters_is_printed_escaped(infested: Host) -> None:
    for key in ("id", "bundle", "status", "ociVersion"):
        state = {"id": "c1", "pid": 2, "bundle": "/run/bundle", "status": "created"} | {key: TEXT}

        check(key, call_hook(infested, "createRuntime", state).stderr)
        check(key, call_hook(infested, "poststop", state).stderr)


def test_name_of_a_listening_process_is_escaped(host: Host, container: Container) -> None:
    """The error about a port in use names the process."""
    script = (
        "import socket, time\n"
        "open('/proc/self/comm', 'w').write('n\\x1b[1m\\x7f\\u202eo')\n"
        "s = socket.create_server(('127.0.0.1', 8081))\n"
        "print('ready', flush=True)\n"
        "time.sleep(60)\n"
    )
    front = bridge("front", "10.30.0.0/24")
    front["plugins"].append({"type": "portmap", "capabilities": {"portMappings": True}})
    configure(host, front)
    process = host.popen("/usr/bin/python3", "-c", script)
    assert process.stdout and process.stdout.readline() == "ready\n"
    host.leaves("*")

    outcome = host.run(
        CNIHOOK,
        *("add", "front", container.name, "--capability-args"),
        json.dumps({"portMappings": [{"hostPort": 8081, "containerPort": 80, "protocol": "tcp"}]}),
        check=False,
    )

    process.kill()
    process.wait(30)
    check("add", outcome.stderr)


@pytest.fixture
def container(host: Host) -> Container:
    return host.container()


def test_name_of_a_network_folder_is_escaped(host: Host) -> None:
    host.write(f"{NET_D}/{CONTROLS}/x", "")
    host.leaves("*")

    outcome = host.run(CNIHOOK, "list", "--conf-dir", f"{NET_D}/{CONTROLS}", check=False)

    check("list", outcome.stdout + outcome.stderr)
