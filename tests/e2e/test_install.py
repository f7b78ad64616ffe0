# SPDX-License-Identifier: Apache-2.0
"""What pip makes of the project, in an environment that has nothing else."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.host import Host
from tests.support.oci import LEAVES, MYNET, Runtime, configure, make_rootfs

pytestmark = pytest.mark.xdist_group("install")  # pip takes 10 s for it, once

CHECKOUT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the commands.  Built from a copy, since building leaves its traces beside the source."""
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
def test_commands_are_there_and_say_what_they_are_for(installed: Path, command: str) -> None:
    """Without the dependencies even: none of these commands needs them to start."""
    done = subprocess.run(
        [installed / command, "--help"], capture_output=True, text=True, cwd="/", check=True
    )

    assert done.stdout.startswith(f"usage: {command} ") and done.stderr == ""


@pytest.mark.parametrize("runtime", ["runc", "crun"])
def test_runtimes_with_networks_are_there(host: Host, installed: Path, runtime: str) -> None:
    host.leaves(*LEAVES)
    said = host.run(str(installed / f"cni-{runtime}"), "--version").stdout

    assert said == host.run(runtime, "--version").stdout


def test_its_hook_needs_nothing_of_the_environment_that_it_was_installed_in(
    host: Host, runtime: Runtime, installed: Path, tmp_path: Path
) -> None:
    """A bare interpreter runs it, and does not look for packages."""
    configure(host, MYNET)
    runtime.rootfs = make_rootfs(tmp_path / "rootfs")
    bundle = runtime.bundle("c1", hooks={})
    host.run(str(installed / "cnihook"), "inject", str(bundle))
    (entry,) = json.loads((bundle / "config.json").read_text())["hooks"]["poststop"]
    container = runtime.started("c1", runtime.start("c1"))

    assert entry["path"] == "/usr/bin/python3" and entry["args"][:2] == ["python3", "-IS"]
    assert entry["args"][2].startswith(str(installed.parent))
    assert container.addresses("eth0") == ["10.22.0.2/16"]


def test_plugins_come_along(host: Host, installed: Path) -> None:
    """They are imported by name, which no tool that gathers modules could see."""
    shown = host.run(str(installed / "priv-net-run"), "ip", "-4", "-o", "addr").stdout

    assert "eth0" in shown and "inet 10.88.64.2/20" in shown


@pytest.mark.parametrize("page", ["cookbook", "troubleshooting"])
def test_pages_to_read_come_along(installed: Path, page: str) -> None:
    done = subprocess.run([installed / "cnihook", "man", page], capture_output=True, text=True, check=True)

    assert f'"CNIHOOK\\-{page.upper()}" 7' in done.stdout
