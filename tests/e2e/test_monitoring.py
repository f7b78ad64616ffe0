# SPDX-License-Identifier: Apache-2.0
"""cnihook check for all containers, metrics, and logs --follow: the commands for monitoring."""

import json
import re

from tests.support.commands.listings import populated, show, shown
from tests.support.host.host import Host
from tests.support.host.namespace import end
from tests.support.runtimes.oci import (
    CNIHOOK,
    LOOPBACK,
    MYNET,
    Runtime,
    bridge,
    call_hook,
    configure,
    external,
    wait_for,
)

# https://prometheus.io/docs/instrumenting/exposition_formats/
SAMPLE = re.compile(r'[a-z_:][a-z0-9_:]*(\{([a-z_]+="([^"\\\n]|\\[\\"n])*",?)*\})? [-+0-9.e]+')


# check


def test_check_without_differences_exits_0(host: Host) -> None:
    with populated(host):
        assert shown(host, "check", "--all").splitlines() == [
            "well db back eth0", "well job front eth0", "well web front eth0", "well web back eth1",
        ]  # fmt: skip
        assert shown(host, "check", "--container", "db") == "well db back eth0\n"


def test_check_with_a_difference_exits_1_and_reports_it(host: Host) -> None:
    with populated(host) as containers:
        containers["web"].run("ip", "addr", "flush", "dev", "eth1")
        result = show(host, "check", "--all", "--json")
        assert show(host, "check", "--container", "db").returncode == 0

    assert result.returncode == 1
    differences = [one for one in json.loads(result.stdout) if one["state"] != "well"]
    assert [(one["container"], one["network"], one["state"]) for one in differences] == [
        ("web", "back", "different")
    ]
    assert "10.31.0.2" in differences[0]["why"]


def test_crashed_container_is_a_difference(host: Host, runtime: Runtime) -> None:
    configure(host, MYNET)
    container = runtime.run("c1")
    assert show(host, "check", "--all").returncode == 0
    container.kill()

    result = show(host, "check", "--all")
    assert result.returncode == 1
    assert result.stdout == "different c1 mynet eth0: its container is gone; `cnihook gc` releases it\n"


def test_network_of_cni_version_without_check_is_checked(host: Host, runtime: Runtime) -> None:
    """Most example networks have CNI version 0.2.0.  The built-in plugins check them all the same."""
    configure(host, MYNET, LOOPBACK)
    container = runtime.run("c1")
    assert show(host, "check", "--all").returncode == 0
    host.run("nft", "flush", "ruleset")
    flushed = show(host, "check", "--all")
    assert flushed.returncode == 1
    assert "different c1 mynet eth0: " in flushed.stdout and "10.22.0.2 is not masqueraded" in flushed.stdout
    host.run(CNIHOOK, "repair", "c1")
    container.run("ip", "addr", "del", "10.22.0.2/16", "dev", "eth0")
    assert (
        "different c1 mynet eth0: eth0 does not have the address 10.22.0.2/16"
        in show(host, "check", "--all").stdout
    )
    container.run("ip", "link", "del", "eth0")
    assert "eth0 does not exist" in show(host, "check", "--all").stdout


def test_plugin_that_cannot_check_is_unknown(host: Host, runtime: Runtime) -> None:
    """An executable has no CHECK in version 0.2.0, so `well` would be a guess."""
    make = "ip link add eth0 type bridge && ip addr add 10.9.0.2/24 dev eth0"
    result = '{"cniVersion": "0.2.0", "ip4": {"ip": "10.9.0.2/24"}}'
    script = f"if [ $CNI_COMMAND = ADD ]; then nsenter --net=$CNI_NETNS sh -c '{make}'; echo '{result}'; fi"
    folder = external(host, "own", script)
    configure(host, json.dumps({"cniVersion": "0.2.0", "name": "old", "type": "own"}))
    runtime.run("c1", "--cni-path", folder)
    outcome = show(host, "check", "--all")

    assert outcome.returncode == 2
    assert outcome.stdout.startswith("unknown c1 old eth0: version 0.2.0 of the specification has no CHECK")
    notes = host.run(CNIHOOK, "doctor", "--verbose", check=False).stdout
    assert "attachment-not-checked: container c1, old eth0: version 0.2.0" in notes


# metrics


def test_metrics_have_the_exposition_format(host: Host) -> None:
    with populated(host):
        text = shown(host, "metrics")

    seen: list[str] = []
    for line in text.splitlines():
        if line.startswith("# HELP "):
            seen.append(line.split()[2])
        elif line.startswith("# TYPE "):
            assert line.split()[2:] == [seen[-1], "gauge"]
        else:
            assert SAMPLE.fullmatch(line), line
            assert re.split("[ {]", line)[0] == seen[-1]
    assert len(seen) == len(set(seen)) and text.endswith("\n")
    assert "cnihook_cluster" not in text


def test_attachments_and_leases_are_counted(host: Host) -> None:
    with populated(host):
        lines = shown(host, "metrics").splitlines()

    assert 'cnihook_attachments{network="front",state="attached"} 2' in lines
    assert 'cnihook_leases_free{network="front",range="10.30.0.1-10.30.0.254"} 251' in lines
    assert 'cnihook_leases{network="front",range="10.30.0.1-10.30.0.254"} 253' in lines


def test_failures_and_durations_come_from_the_logs(host: Host, runtime: Runtime) -> None:
    configure(host, MYNET, bridge("other", "10.23.0.0/24"))
    runtime.run("c1")
    host.run(CNIHOOK, "attach", "c1", "--network", "other", check=False)

    text = shown(host, "metrics")
    assert 'cnihook_logged_failures{operation="attach"} 1\n' in text
    match = re.search(r'cnihook_attach_seconds\{network="mynet"\} ([0-9.]+)\n', text)
    assert match and 0 < float(match[1]) < 60
    host.leaves("file /run/cnihook/log/c1")


def test_metrics_ignore_logs_that_they_cannot_read(host: Host) -> None:
    """Logs of an earlier version have no fields.  Those of another program may have any."""
    lines = [
        "attached to old as eth0",
        "attach failed: why",
        'attached to cut as eth0\t{"event": "attached", "netw',
        'x\t{"event": "attached", "network": ["mynet"], "seconds": "1"}',
        'x\t{"event": {}, "operation": "attach"}',
        'attach failed: \t{"event": "failed", "seconds": 0.5, "operation": "at\\u0022tach", "error": "y"}',
    ]
    host.write("/run/cnihook/log/c1", "".join(f"2026-11-30T00:00:00.000     1.0 ms  {x}\n" for x in lines))
    host.leaves("file /run/cnihook/log/c1", "dir /run/cnihook*")

    text = shown(host, "metrics")
    failures = [line for line in text.splitlines() if line.startswith("cnihook_logged_failures")]
    assert failures == ['cnihook_logged_failures{operation="at\\"tach"} 1']
    assert "cnihook_attach_seconds{" not in text


def test_metrics_file_is_written_completely(host: Host) -> None:
    shown(host, "metrics", "--output", "/run/.host/cnihook.prom")

    assert host.read("/run/.host/cnihook.prom") == shown(host, "metrics")
    assert [name for name in host.listdir("/run/.host") if "cnihook.prom" in name] == ["cnihook.prom"]
    assert "/nosuch" in show(host, "metrics", "--output", "/nosuch/cnihook.prom").stderr


# logs


def test_follow_continues_across_containers(host: Host, runtime: Runtime) -> None:
    """The command starts before the first container and runs on after the last one."""

    def count(name: str) -> int:
        path = f"/run/.host/{name}"
        return host.read(path).count("attached to mynet") if host.exists(path) else 0

    configure(host, MYNET)
    all_of_them = host.popen("sh", "-c", f"exec {CNIHOOK} logs -f > /run/.host/all")
    one = host.popen("sh", "-c", f"exec {CNIHOOK} logs --follow c1 > /run/.host/c1")
    try:
        for number in (1, 2):
            runtime.run("c1")
            wait_for(lambda: count("c1") == number, "the line of c1")  # noqa: B023
            runtime.delete("c1")
        runtime.run("c2")
        wait_for(lambda: " c2 " in host.read("/run/.host/all"), "the line of c2")
    finally:
        end(one)
        end(all_of_them)
    lines = [line.split()[1] for line in host.read("/run/.host/all").splitlines()]
    assert {"c1", "c2"} <= set(lines)


def test_follow_shows_short_lived_containers(host: Host) -> None:
    """A container may start and end between two reads.  One that ended before the start is not shown."""

    def call(event: str, name: str, pid: int | None) -> None:
        state = {"ociVersion": "1.0", "id": name, "pid": pid, "bundle": "/nowhere"}
        assert call_hook(host, event, state).returncode == 0

    def come_and_go(name: str) -> None:
        container = host.container(name, process=True)
        call("createRuntime", name, container.pid)
        container.destroy()
        call("poststop", name, None)

    names = [f"c{number}" for number in range(5)]
    configure(host, MYNET)
    come_and_go("before")
    stays = host.container("stays", process=True)
    call("createRuntime", "stays", stays.pid)
    host.write("/run/.host/all", "")
    follower = host.popen("sh", "-c", f"exec {CNIHOOK} logs -f > /run/.host/all")
    try:
        wait_for(lambda: " stays " in host.read("/run/.host/all"), "its first read")
        for name in names:
            come_and_go(name)
        call("poststop", "stays", stays.pid)
        wait_for(lambda: host.read("/run/.host/all").count(" all networks released") == 6, "each end")
    finally:
        end(follower)
    lines = [line.split()[1] for line in host.read("/run/.host/all").splitlines()]
    counts = {name: lines.count(name) for name in lines}
    assert counts == dict.fromkeys([*names, "stays"], lines.count("stays"))
