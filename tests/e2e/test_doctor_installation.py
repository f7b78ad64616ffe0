# SPDX-License-Identifier: Apache-2.0
"""The findings of `cnihook doctor` about hooks, configurations, plugins, programs and rights to files."""

import json
import os
import shutil
from typing import Any

import pytest

from tests.e2e.test_doctor import NET
from tests.support.commands.doctor import doctor, finds, run
from tests.support.host.host import Host
from tests.support.runtimes.oci import (
    CNIHOOK,
    LEAVES,
    NET_D,
    bridge,
    configure,
)

HOOKS_D = "/etc/containers/oci/hooks.d"

HOOKS_LEAVE = ("dir /etc/containers*", f"file {HOOKS_D}/*")


@pytest.mark.parametrize(
    ("hook", "problem"),
    [
        ('{"version": "1.0.0", "hook": {"path": "/opt/gone/hook"}}', "there is no program /opt/gone/hook"),
        (
            '{"hook": {"path": "/usr/bin/python3", "args": ["python3", "/opt/gone/cnihook", "poststop"]}}',
            "there is no /opt/gone/cnihook",
        ),
        ('{"version": ', "it cannot be read"),
        ("[]", "it has no hook.path"),
    ],
    ids=["program", "script", "malformed", "other"],
)
def test_hook_that_cannot_be_run(host: Host, hook: str, problem: str) -> None:
    host.write(f"{HOOKS_D}/99-hook.json", hook)
    host.leaves(*HOOKS_LEAVE)

    remedy = finds(host, "hook-broken", "99-hook.json", problem)

    host.run(*remedy.split())
    assert doctor(host, status=0) == []


def test_installed_hook_is_healthy(host: Host) -> None:
    arguments = ["python3", "-IS", CNIHOOK, "createRuntime", "--trust-images"]
    hook = {"path": "/usr/bin/python3", "args": arguments}
    host.write(f"{HOOKS_D}/99-cnihook.json", json.dumps({"version": "1.0.0", "hook": hook}))
    host.leaves(*HOOKS_LEAVE)

    assert doctor(host, status=0) == []


def test_malformed_configurations(host: Host) -> None:
    bad = bridge("bad", "10.23.0.0/24", mtu="big")
    configure(host, NET, **{"20-bad.conflist": json.dumps(bad), "30-cut.conflist": '{"name": '})

    lines = doctor(host, status=1)

    assert [line.partition(":")[0] for line in lines] == ["configuration"] * 2
    assert f'{NET_D}/20-bad.conflist: plugins[0] (bridge): "mtu" must be an integer' in lines[0]
    assert f"{NET_D}/30-cut.conflist" in lines[1]


def test_plugin_and_plugin_folder_are_missing(host: Host) -> None:
    network = bridge("mynet", "10.22.0.0/24")
    network["plugins"].append({"type": "nowhere"})
    configure(host, network)

    lines = doctor(host, "--cni-path", "/opt/none", status=1)

    assert [line.partition(":")[0] for line in lines] == ["configuration", "plugin-folder"]
    assert 'failed to find plugin "nowhere"' in lines[0] and "/opt/none" in lines[1]


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o775])
@pytest.mark.parametrize(
    "path",
    [
        "/run/plugins",
        "/run/plugins/mine",
        NET_D,
        f"{NET_D}/10-net.conflist",
        "/etc/cni",
        "/etc/cnihook",
        "/etc/containers/oci/hooks.d",
        "/etc/containers/oci/hooks.d/cnihook.json",
        "/var/lib/cni",
    ],
)
def test_code_and_configuration_that_others_can_write(host: Host, path: str, mode: int) -> None:
    configure(host, bridge("mynet", "10.22.0.0/24"))
    host.write("/run/plugins/mine", "", 0o755)
    for folder in ("/etc/cnihook", "/etc/containers/oci/hooks.d", "/var/lib/cni"):
        host.run("mkdir", "-p", folder)
    if path.endswith("cnihook.json"):
        host.write(path, "{}")
    env = {"CNI_PATH": "/run/plugins"}
    assert not [line for line in doctor(host, env=env) if line.startswith("writable")]
    (host.root / path.lstrip("/")).chmod(mode)
    if not mode & 0o002:
        host.run("chgrp", "games", path)

    lines = [line for line in doctor(host, env=env) if line.startswith("writable: ")]
    host.leaves("*")
    if path in ("/etc/cni", "/var/lib/cni") and mode & 0o1000:
        assert not lines, "others can replace nothing in such a folder"
        return

    assert lines and all(line.startswith(f"writable: {path}: other users can write it; ") for line in lines)
    assert f"remedy: chmod go-w {path}" in lines[0]
    run(host, "--fix", env=env)
    assert not [line for line in doctor(host, env=env) if line.startswith("writable")]


def test_file_of_another_user_in_a_folder_that_root_obeys(host: Host) -> None:
    configure(host, bridge("mynet", "10.22.0.0/24"))
    host.run("chown", "65534", f"{NET_D}/10-net.conflist")

    remedy = finds(host, "writable", f"{NET_D}/10-net.conflist: other users can write it")

    assert remedy.startswith(f"chown 0 {NET_D}/10-net.conflist; ")


def test_kernel_does_not_support_a_configured_network(host: Host) -> None:
    """Doctor tries it in a namespace of its own, so the host's links do not change."""
    probe = host.run("unshare", "-n", "ip", "link", "add", "x", "type", "dummy", check=False)
    conf: dict[str, Any] = {"cniVersion": "1.0.0", "name": "mynet", "plugins": [{"type": "dummy"}]}
    conf["plugins"][0]["ipam"] = {"type": "host-local", "subnet": "10.22.0.0/24"}
    configure(host, conf)
    links = host.links()

    if probe.returncode == 0:
        assert doctor(host, status=0) == []
    else:
        remedy = finds(host, "kernel-dummy", "links of the kind dummy cannot be used", "mynet (dummy)")
        assert remedy == "modprobe -a dummy"
    assert host.links() == links


def test_program_for_conditions_is_missing(host: Host) -> None:
    program = shutil.which("nft", path="/usr/sbin:/sbin:/usr/bin:/bin")
    assert program
    conf: dict[str, Any] = {"type": "portmap", "capabilities": {"portMappings": True}}
    network = {**NET, "plugins": [NET["plugins"][0], conf]}
    configure(host, network)
    host.leaves(*LEAVES, "dir /run/mount", "file /run/mount/utab*")
    host.run("mount", "--bind", "/dev/null", os.path.realpath(program))
    try:
        assert doctor(host, status=0) == []
        conf["conditionsV4"] = ["tcp sport 1"]
        configure(host, network)
        remedy = finds(host, "program", "the program nft is not installed", "conditionsV4 of network mynet")
        assert remedy == "apt-get install nftables"
    finally:
        host.run("umount", os.path.realpath(program))
    assert doctor(host, status=0) == []
