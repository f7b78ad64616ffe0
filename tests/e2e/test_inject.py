# SPDX-License-Identifier: Apache-2.0
"""cnihook inject: real runtimes run the bundles that it prepares."""

import json
import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.host.host import Host
from tests.support.runtimes.oci import (
    CNIHOOK,
    MYNET,
    NET_D,
    RESULTS,
    Runtime,
    configure,
    hook,
    leases,
    make_rootfs,
)

NO_HOOKS: dict[str, Any] = {}


@pytest.fixture
def prepared(host: Host, runtime: Runtime, tmp_path: Path) -> Iterator[Path]:
    """Return a bundle without hooks.  It has its own root file system, because mounts leave files there."""
    configure(host, MYNET)
    runtime.rootfs = make_rootfs(tmp_path / "rootfs")
    yield runtime.bundle("c1", hooks=NO_HOOKS)


def inject(host: Host, *argv: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    result = host.run(CNIHOOK, "inject", *argv, check=check)
    assert "Traceback" not in result.stderr, result.stderr
    return result


def refused(host: Host, *argv: str, status: int = 1) -> str:
    result = inject(host, *argv, check=False)
    assert (result.returncode, result.stdout) == (status, "")
    assert result.stderr.startswith("cnihook: inject") and result.stderr.count("\n") == 1, result.stderr
    return result.stderr


def test_container_of_prepared_bundle_is_attached(host: Host, runtime: Runtime, prepared: Path) -> None:
    inject(host, str(prepared), "--network", "mynet:net5", "--ip", "10.22.0.77")
    container = runtime.started("c1", runtime.start("c1"))

    assert container.addresses("net5") == ["10.22.0.77/16"]
    runtime.delete("c1")
    assert leases(host) == host.listdir(RESULTS) == []


def test_requested_host_name_is_set(host: Host, runtime: Runtime, prepared: Path) -> None:
    """The runtime sets the host name of config.json after the hook, so inject changes it there."""
    before = (prepared / "config.json").read_bytes()
    inject(host, str(prepared), "--hostname", "web")
    container = runtime.started("c1", runtime.start("c1"))

    assert container.exec("cat", "/proc/sys/kernel/hostname") == "web\n"
    runtime.delete("c1")
    inject(host, str(prepared), "--remove")
    assert (prepared / "config.json").read_bytes() == before


def test_etc_files_are_mounted_from_the_bundle(host: Host, runtime: Runtime, prepared: Path) -> None:
    """The mounts have paths relative to the bundle, so it can be moved."""
    inject(host, str(prepared))
    moved = runtime.folder("c2")
    prepared.rename(moved)
    container = runtime.started("c2", runtime.start("c2"))

    assert container.exec("cat", "/etc/hostname") == "container\n"
    hosts = container.exec("cat", "/etc/hosts")
    assert "127.0.0.1\tlocalhost\n" in hosts and hosts == (moved / "cnihook" / "hosts").read_text()
    assert container.exec("cat", "/etc/resolv.conf") == (moved / "cnihook" / "resolv.conf").read_text()


def test_container_without_network_namespace_gets_one(host: Host, runtime: Runtime) -> None:
    configure(host, MYNET)
    bundle = runtime.bundle("c1", hooks=NO_HOOKS, network=None)
    inject(host, str(bundle))
    container = runtime.started("c1", runtime.start("c1"))

    assert container.addresses("eth0") == ["10.22.0.2/16"]


def test_hook_uses_conf_dir_given_to_inject(host: Host, runtime: Runtime, prepared: Path) -> None:
    """The hook does not see the environment in which inject ran."""
    (host.root / NET_D.lstrip("/") / "10-net.conflist").unlink()
    host.write("/run/.host/net.d/10-mynet.conf", MYNET)
    inject(host, str(prepared), "--conf-dir", "/run/.host/net.d")
    container = runtime.started("c1", runtime.start("c1"))

    assert container.addresses("eth0") == ["10.22.0.2/16"]


# Without a container


@pytest.fixture
def bundle(host: Host, tmp_path: Path) -> Path:
    """Create a bundle with `runc spec`, with a mode that inject must keep."""
    folder = tmp_path / "bundle"
    folder.mkdir()
    host.run("runc", "spec", cwd=str(folder))
    (folder / "config.json").chmod(0o640)
    return folder


def test_remove_restores_config_byte_for_byte(host: Host, bundle: Path) -> None:
    path = bundle / "config.json"
    before = path.read_bytes()
    inject(host, str(bundle), "--network", "mynet", "-p", "8080:80", "--publish=9090:90")
    once = path.read_bytes()
    inject(host, str(bundle), "--network", "mynet", "-p", "8080:80", "--publish=9090:90")

    assert path.read_bytes() == once != before
    assert json.loads(once)["annotations"] == {
        "cnihook.networks": "mynet",
        "cnihook.publish": "8080:80,9090:90",
    }
    for file in (path, bundle / "cnihook" / "config.json"):  # there may be secrets in it
        assert stat.S_IMODE(file.stat().st_mode) == 0o640
    inject(host, str(bundle), "--remove")
    assert path.read_bytes() == before and os.listdir(bundle) == ["config.json"]
    inject(host, str(bundle), "--remove")
    assert path.read_bytes() == before


def test_remove_keeps_other_files_in_its_folder(host: Host, bundle: Path) -> None:
    (bundle / "cnihook" / "src").mkdir(parents=True)
    inject(host, str(bundle))
    inject(host, str(bundle), "--remove")

    assert os.listdir(bundle / "cnihook") == ["src"]


def test_second_inject_replaces_the_request(host: Host, bundle: Path) -> None:
    path = bundle / "config.json"
    config = json.loads(path.read_text())
    config["annotations"] = {"cnihook.networks": "first", "org.example": "x"}
    path.write_text(json.dumps(config))
    before = path.read_bytes()

    inject(host, str(bundle), "--network", "second")
    inject(host, str(bundle), "--network", "third", "--hostname", "web")
    assert json.loads(path.read_text())["annotations"] == {
        "cnihook.networks": "third",
        "org.example": "x",
        "cnihook.hostname": "web",
    }
    inject(host, str(bundle), "--remove")
    assert path.read_bytes() == before


def test_dry_run_shows_the_difference_and_changes_nothing(host: Host, bundle: Path) -> None:
    before = (bundle / "config.json").read_bytes()
    shown = inject(host, str(bundle), "--dry-run", "--network", "mynet").stdout

    added = [line for line in shown.splitlines() if line.startswith("+") and not line.startswith("+++")]
    assert '+\t\t"cnihook.networks": "mynet"' in added
    assert [line for line in shown.splitlines() if line.startswith("-")][1:] == []
    assert (bundle / "config.json").read_bytes() == before and os.listdir(bundle) == ["config.json"]

    inject(host, str(bundle), "--network", "mynet")
    assert inject(host, str(bundle), "--dry-run", "--network", "mynet").stdout == ""
    assert '-\t\t"cnihook.networks"' in inject(host, str(bundle), "--dry-run", "--remove").stdout


def test_dry_run_splits_json_on_one_line(host: Host, bundle: Path) -> None:
    path = bundle / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()), separators=(",", ":")))

    shown = inject(host, str(bundle), "--dry-run", "--hostname", "web").stdout
    assert '+    "cnihook.hostname": "web"\n' in shown


def test_existing_hook_keeps_its_arguments(host: Host, bundle: Path) -> None:
    path = bundle / "config.json"
    config = json.loads(path.read_text())
    config["hooks"] = {"createRuntime": [hook("createRuntime", "--network", "mynet")]}
    path.write_text(json.dumps(config))
    before = path.read_bytes()

    inject(host, str(bundle))
    hooks = json.loads(path.read_text())["hooks"]
    assert hooks["createRuntime"] == config["hooks"]["createRuntime"] and len(hooks["poststop"]) == 1
    inject(host, str(bundle), "--remove")
    assert path.read_bytes() == before


def test_invalid_bundle_or_option_is_reported_in_one_line(host: Host, bundle: Path, tmp_path: Path) -> None:
    path = bundle / "config.json"
    config = json.loads(path.read_text())

    assert "No such file" in refused(host, str(tmp_path))
    assert "multicast" in refused(host, str(bundle), "--mac-address", "01:00:00:00:00:01", status=2)
    assert "--remove" in refused(host, str(bundle), "--remove", "--network", "a", status=2)
    config["linux"]["namespaces"] = [{"type": "network", "path": "/run/netns/x"}]
    path.write_text(json.dumps(config))
    assert "by path" in refused(host, str(bundle))
    path.write_text("{")
    assert "config.json" in refused(host, str(bundle))
    assert path.read_text() == "{"


def test_read_only_root_gets_no_mount_without_target(host: Host, bundle: Path) -> None:
    """The runtime creates missing mount points.  If it could not, it would reject the container."""
    path, rootfs = bundle / "config.json", bundle / "rootfs"
    path.write_text(path.read_text().replace('"rootfs"', '"./rootfs/"'))
    (rootfs / "etc").mkdir(parents=True)
    (rootfs / "etc" / "hosts").touch()
    host.run("mount", "--bind", "--options", "ro", str(rootfs), str(rootfs))
    inject(host, str(bundle))
    host.run("umount", str(rootfs))
    host.leaves("dir /run/mount")

    mounts = json.loads(path.read_text())["mounts"]
    assert [m["destination"] for m in mounts if m["destination"].startswith("/etc")] == ["/etc/hosts"]
