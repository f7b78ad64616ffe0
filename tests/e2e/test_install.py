# SPDX-License-Identifier: Apache-2.0
"""The project installed by pip, in an environment without other packages."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.host.host import Host
from tests.support.runtimes.oci import LEAVES, MYNET, Runtime, configure, make_rootfs

pytestmark = pytest.mark.xdist_group("install")  # pip runs once and takes 10 s

CHECKOUT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the project; return the folder of the commands.  A build leaves files, so it uses a copy."""
    folder = tmp_path_factory.mktemp("install")
    source = folder / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(CHECKOUT / name, source)
    shutil.copytree(CHECKOUT / "cnihook", source / "cnihook", ignore=shutil.ignore_patterns("__pycache__"))
    subprocess.run([sys.executable, "-m", "venv", str(folder / "venv")], check=True)
    pip = [str(folder / "venv" / "bin" / "python"), "-m", "pip", "install", "--quiet", "--no-deps"]
    subprocess.run([*pip, str(source)], check=True)
    return folder / "venv" / "bin"


@pytest.mark.parametrize("command", ["cnihook", "priv-net-run", "docker-run"])
def test_commands_are_installed_and_have_help(installed: Path, command: str) -> None:
    """The dependencies are missing, because none of these commands needs them to start."""
    result = subprocess.run(
        [installed / command, "--help"], capture_output=True, text=True, cwd="/", check=True
    )

    assert result.stdout.startswith(f"usage: {command} ") and result.stderr == ""


@pytest.mark.parametrize("runtime", ["runc", "crun"])
def test_runtime_wrappers_are_installed(host: Host, installed: Path, runtime: str) -> None:
    host.leaves(*LEAVES)
    version = host.run(str(installed / f"cni-{runtime}"), "--version").stdout

    assert version == host.run(runtime, "--version").stdout


def test_hook_does_not_need_the_virtual_environment(
    host: Host, runtime: Runtime, installed: Path, tmp_path: Path
) -> None:
    """The system's interpreter runs the hook and does not search for packages."""
    configure(host, MYNET)
    runtime.rootfs = make_rootfs(tmp_path / "rootfs")
    bundle = runtime.bundle("c1", hooks={})
    host.run(str(installed / "cnihook"), "inject", str(bundle))
    (entry,) = json.loads((bundle / "config.json").read_text())["hooks"]["poststop"]
    container = runtime.started("c1", runtime.start("c1"))

    assert entry["path"] == "/usr/bin/python3" and entry["args"][:2] == ["python3", "-IS"]
    assert entry["args"][2].startswith(str(installed.parent))
    assert container.addresses("eth0") == ["10.22.0.2/16"]


def test_plugins_are_installed(host: Host, installed: Path) -> None:
    """cnihook imports plugins by name, which a tool that collects modules cannot detect."""
    shown = host.run(str(installed / "priv-net-run"), "ip", "-4", "-o", "addr").stdout

    assert "eth0" in shown and "inet 10.88.64.2/20" in shown


@pytest.mark.parametrize("page", ["cookbook", "troubleshooting"])
def test_pages_are_installed(installed: Path, page: str) -> None:
    result = subprocess.run([installed / "cnihook", "man", page], capture_output=True, text=True, check=True)

    assert f'"CNIHOOK\\-{page.upper()}" 7' in result.stdout
