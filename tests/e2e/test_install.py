# SPDX-License-Identifier: Apache-2.0
"""The project as a distributor builds it, installed in an environment without other packages."""

import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Sequence
from email.parser import Parser
from pathlib import Path
from typing import NamedTuple

import pytest

import cnihook
from cnihook.cli import man
from tests.support.host.host import Host
from tests.support.runtimes.oci import CNIHOOK, LEAVES, MYNET, Runtime, configure, make_rootfs

pytestmark = pytest.mark.xdist_group("install")  # one build for all of them, 4 s

CHECKOUT = Path(__file__).parents[2]
BUILD_FILES = {"LICENSE", "README.md", "pyproject.toml"}


class Packages(NamedTuple):
    """The sdist and the wheel of a build."""

    sdist: Path
    wheel: Path

    def in_sdist(self) -> set[str]:
        """Return the files, without the folder that they are in."""
        with tarfile.open(self.sdist) as archive:
            return {member.name.partition("/")[2] for member in archive.getmembers() if member.isfile()}

    def in_wheel(self) -> set[str]:
        with zipfile.ZipFile(self.wheel) as archive:
            return {name for name in archive.namelist() if ".dist-info/" not in name}


def package_files() -> set[str]:
    files = {path.relative_to(CHECKOUT) for path in (CHECKOUT / "cnihook").rglob("*") if path.is_file()}
    return {str(path) for path in files if "__pycache__" not in path.parts}


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Packages:
    """Build the sdist, and the wheel from the sdist.  A build leaves files, so it uses a copy.

    It needs no network: setuptools is the one of the tests.
    """
    folder = tmp_path_factory.mktemp("build")
    source = folder / "source"
    source.mkdir()
    for name in BUILD_FILES:
        shutil.copy(CHECKOUT / name, source)
    for name in ("cnihook", "tests", "scripts"):
        shutil.copytree(CHECKOUT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    build = [sys.executable, "-m", "build", "--no-isolation", f"--outdir={folder}", str(source)]
    result = subprocess.run(build, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    (sdist,), (wheel,) = folder.glob("*.tar.gz"), folder.glob("*.whl")
    return Packages(sdist, wheel)


def pip(venv: Path, *arguments: str) -> None:
    """Run pip, which the environment does not have, for an environment."""
    subprocess.run([sys.executable, "-m", "pip", f"--python={venv}/bin/python", *arguments], check=True)


def install(packages: Packages, venv: Path) -> Path:
    """Install the wheel in a new environment; return the folder of the commands."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True)
    pip(venv, "install", "--quiet", "--no-deps", "--no-index", str(packages.wheel))
    return venv / "bin"


@pytest.fixture(scope="module")
def installed(packages: Packages, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return install(packages, tmp_path_factory.mktemp("venv"))


def run(argv: Sequence[str | Path], **variables: str) -> str:
    """Run an installed command outside the checkout; return its output."""
    environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", **variables}
    result = subprocess.run(argv, capture_output=True, text=True, cwd="/", env=environment)
    assert (result.returncode, result.stderr) == (0, ""), result
    return result.stdout


def test_wheel_has_every_file_of_the_package(packages: Packages) -> None:
    """pyproject.toml lists the folders of the files that are not modules, such as units and pages."""
    assert packages.in_wheel() == package_files()


def test_sdist_has_what_a_build_needs_and_no_tests(packages: Packages) -> None:
    by_build = {name for name in packages.in_sdist() if ".egg-info/" in name} | {"PKG-INFO", "setup.cfg"}

    assert packages.in_sdist() - by_build == package_files() | BUILD_FILES


def test_metadata_names_version_licence_and_dependencies(packages: Packages) -> None:
    with zipfile.ZipFile(packages.wheel) as archive:
        (path,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        metadata = Parser().parsestr(archive.read(path).decode())
        licences = [name for name in archive.namelist() if name.endswith("/LICENSE")]
    required = [text for text in metadata.get_all("Requires-Dist", []) if "extra ==" not in text]

    assert (metadata["Name"], metadata["Version"]) == ("cnihook", cnihook.__version__)
    assert "Apache-2.0" in (metadata["License"], metadata["License-Expression"]) and len(licences) == 1
    assert [text.partition(">")[0] for text in required] == ["psutil", "pyroute2"]


def test_installed_code_is_used_and_has_types(installed: Path) -> None:
    program = "import cnihook, os; print(os.path.dirname(cnihook.__file__))"
    package = Path(run([installed / "python", "-c", program]).strip())

    assert package.is_relative_to(installed.parent) and (package / "py.typed").exists()
    assert run([installed / "cnihook", "--version"]).split() == ["cnihook", cnihook.__version__]


def test_networks_are_listed(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "10-mynet.conf").write_text(MYNET)

    assert "bridge: built in" in run([installed / "cnihook", "list"], NETCONFPATH=str(tmp_path))


def test_all_manual_pages_are_installed(installed: Path, tmp_path: Path) -> None:
    run([installed / "cnihook", "man", "--install", str(tmp_path)])

    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == len(man.PAGES)


def test_template_of_a_plugin_is_installed(installed: Path, tmp_path: Path) -> None:
    run([installed / "cnihook", "new-plugin", "shaper", "--dir", str(tmp_path / "shaper")])

    assert (tmp_path / "shaper" / "shaper.py").exists()


@pytest.mark.parametrize("command", ["cnihook", "priv-net-run", "docker-run"])
def test_commands_are_installed_and_have_help(installed: Path, command: str) -> None:
    """The dependencies are missing, because none of these commands needs them to start."""
    assert run([installed / command, "--help"]).startswith(f"usage: {command} ")


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

    assert entry["path"] == "/usr/bin/python3" and entry["args"][:2] == [entry["path"], "-IS"]
    assert entry["args"][2].startswith(str(installed.parent))
    assert container.addresses("eth0") == ["10.22.0.2/16"]


def test_hook_starts_with_the_library_of_its_own_python(
    host: Host, runtime: Runtime, tmp_path: Path
) -> None:
    """A Python outside /usr must not load the modules of the one in PATH, which may be another version."""
    python = tmp_path / "python/bin/python3"
    library = Path(os.__file__).parent
    (tmp_path / "python/lib").mkdir(parents=True)
    (tmp_path / "python/lib" / library.name).symlink_to(library)
    python.parent.mkdir()
    shutil.copy("/usr/bin/python3", python)
    configure(host, MYNET)
    runtime.rootfs = make_rootfs(tmp_path / "rootfs")
    bundle = runtime.bundle("c1", hooks={})
    host.run(str(python), "-IS", CNIHOOK, "inject", str(bundle))
    (entry,) = json.loads((bundle / "config.json").read_text())["hooks"]["createRuntime"]

    argv = [*entry["args"][:2], "-c", "import sys; print(sys.prefix)"]
    environment = dict(variable.split("=", 1) for variable in entry["env"])
    prefix = subprocess.check_output(argv, executable=entry["path"], env=environment, text=True)
    assert prefix.strip() == str(tmp_path / "python")
    assert runtime.started("c1", runtime.start("c1")).addresses("eth0") == ["10.22.0.2/16"]


def test_installation_from_an_environment_is_removed(packages: Packages, tmp_path: Path) -> None:
    """The folder would stay if pip left a file in it, and `import cnihook` would be an empty namespace."""
    commands = install(packages, tmp_path / "venv")
    prefix = tmp_path / "usr"
    run([commands / "cnihook", "install", "--prefix", str(prefix), "--with", "man"])
    package = Path(run([commands / "python", "-c", "import cnihook; print(cnihook.__path__[0])"]).strip())
    assert list((package / "__pycache__").glob("modules.*"))
    assert run([prefix / "bin/cnihook", "--version"]) == f"cnihook {cnihook.__version__}\n"
    assert run([prefix / "bin/priv-net-run", "--version"]).startswith("priv-net-run ")

    run([prefix / "bin/cnihook", "uninstall", "--prefix", str(prefix)])
    assert not prefix.exists() and not list((package / "__pycache__").glob("modules.*"))
    run([commands / "cnihook", "compile"])
    pip(tmp_path / "venv", "uninstall", "--quiet", "--yes", "cnihook")
    assert [path.name for path in package.parent.glob("cnihook*")] == []
    assert not (commands / "cnihook").exists()


def test_plugins_are_installed(host: Host, installed: Path) -> None:
    """cnihook imports plugins by name, which a tool that collects modules cannot detect."""
    shown = host.run(str(installed / "priv-net-run"), "ip", "-4", "-o", "addr").stdout

    assert "eth0" in shown and "inet 10.88.64.2/20" in shown
