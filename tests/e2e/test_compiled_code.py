# SPDX-License-Identifier: Apache-2.0
"""Compiled code: root must not run code that another user could have written."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.host.host import Host
from tests.support.host.namespace import base_environment
from tests.support.plugins.cni import CHECKOUT
from tests.support.skip import need_open_checkout

PYTHON = "/usr/bin/python3"
PLANTED = "raise SystemExit('planted code runs')\n"

STATE = json.dumps({"ociVersion": "1.0.2", "id": "unknown-c1", "pid": 0, "status": "stopped", "bundle": "/"})
# None of them attaches anything.
PROGRAMS = {
    "cnihook": ["scripts/cnihook", "--version"],
    "hook": ["scripts/cnihook", "poststop"],
    "command": ["scripts/cnihook", "list", "--conf-dir", "/nonexistent"],
    "priv-net-run": ["scripts/priv-net-run", "--help"],
    "docker-run": ["scripts/docker-run", "--help"],
    "cni-runc": ["scripts/cni-runc", "--version"],
    "cni-crun": ["scripts/cni-crun", "--version"],
    "main": ["cnihook/__main__.py", "--version"],
    "plugin": ["plugins/bridge"],
}


def copy(folder: Path) -> Path:
    """Copy the checkout without compiled code, as if no program had run yet."""
    tree = folder / "checkout"
    tree.mkdir(mode=0o755)
    for name in ("cnihook", "scripts"):
        shutil.copytree(CHECKOUT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    return tree


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy(tmp_path_factory.mktemp("compiled"))


@pytest.fixture
def checkout(tree: Path) -> Path:
    """Return a copy of the checkout without compiled code.  Tests that do not change sources share it."""
    remove_caches(tree)
    return tree


@pytest.fixture
def compiled(tree: Path) -> Iterator[Path]:
    """Yield a copy of the checkout in which programs may have run, and remove what is planted there.

    To compile all modules for each test would take half a second.
    """
    for path in tree.glob("cnihook/__pycache__/modules.*"):
        path.unlink()
    yield tree
    for folder in caches(tree):
        if any(b"planted code runs" in path.read_bytes() for path in folder.iterdir()):
            shutil.rmtree(folder)


def run(host: Host, checkout: Path, *argv: str) -> subprocess.CompletedProcess[str]:
    """Start a program with umask 0, as crun starts a hook."""
    start = ("sh", "-c", 'umask 0; exec "$@"', "sh", PYTHON, "-IS", str(checkout / argv[0]), *argv[1:])
    env = base_environment() | {"CNI_COMMAND": "VERSION"}
    return host.run(*start, input=STATE, env=env, check=False)


def install_plugins(host: Host, checkout: Path) -> None:
    run(
        host, checkout, "scripts/cnihook", "install-plugins", str(checkout / "plugins"), "--plugin", "bridge"
    )


def remove_caches(checkout: Path) -> None:
    for folder in caches(checkout):
        shutil.rmtree(folder)


def caches(checkout: Path) -> list[Path]:
    return sorted(checkout.rglob("__pycache__"))


def writable_by_others(checkout: Path) -> list[Path]:
    return [
        path
        for folder in caches(checkout)
        for path in (folder, *folder.iterdir())
        if path.stat().st_mode & 0o022
    ]


@pytest.mark.parametrize("program", PROGRAMS)
def test_first_start_writes_nothing_that_others_can_write(host: Host, checkout: Path, program: str) -> None:
    if program == "plugin":
        install_plugins(host, checkout)
        remove_caches(checkout)

    host.leaves("dir /run/crun", "dir /run/runc")
    for _ in range(2):
        outcome = run(host, checkout, *PROGRAMS[program])
        assert "Traceback" not in outcome.stderr, outcome.stderr
        assert writable_by_others(checkout) == []
    assert caches(checkout), "Python keeps compiled code"


def test_start_by_module_name_writes_nothing_that_others_can_write(checkout: Path) -> None:
    """Python imports the package with the caller's umask, before any of the package's code runs."""
    for _ in range(2):
        outcome = subprocess.run(
            [PYTHON, "-m", "cnihook", "--version"], cwd=checkout, umask=0, capture_output=True, text=True
        )
        assert outcome.returncode == 0, outcome.stderr
        assert writable_by_others(checkout) == []


def plant(checkout: Path, *modules: str) -> None:
    """Write compiled code with the source's size and time, so that Python uses it for the source."""
    script = (
        "import importlib._bootstrap_external as b, importlib.util as u, os, sys\n"
        "harmful, *sources = sys.argv[1:]\n"
        "for source in sources:\n"
        "    code = compile(harmful, source, 'exec')\n"
        "    status = os.stat(source)\n"
        "    path = u.cache_from_source(source)\n"
        "    os.makedirs(os.path.dirname(path), exist_ok=True)\n"
        "    data = b._code_to_timestamp_pyc(code, int(status.st_mtime), status.st_size)\n"
        "    open(path, 'wb').write(data)\n"
    )
    sources = [checkout / "cnihook" / module for module in modules]
    subprocess.run([PYTHON, "-IS", "-c", script, PLANTED, *sources], check=True)


MODULES = ["__init__.py", "cli/__init__.py", "cli/main.py", "codecache.py", "log.py", "hook.py"]


@pytest.mark.parametrize("module", MODULES)
def test_planted_code_runs_in_a_safe_folder(host: Host, compiled: Path, module: str) -> None:
    """Prove that plant() works, so that the next test means something."""
    plant(compiled, module)
    outcome = run(host, compiled, "scripts/cnihook", "poststop")
    assert "planted" in outcome.stderr


@pytest.mark.parametrize("how", ["every user", "another group", "another owner"])
@pytest.mark.parametrize("module", MODULES)
def test_planted_code_does_not_run(host: Host, compiled: Path, module: str, how: str) -> None:
    plant(compiled, module)
    folder = (compiled / "cnihook" / module).with_name("__pycache__")
    if how == "every user":
        folder.chmod(0o777)
    elif how == "another group":
        os.chown(folder, 0, 12345)
        folder.chmod(0o775)
    else:
        os.chown(folder, 12345, 0)

    outcome = run(host, compiled, "scripts/cnihook", "poststop")

    assert (outcome.returncode, outcome.stderr) == (0, "")
    assert not folder.exists(), "it is removed"
    assert run(host, compiled, "scripts/cnihook", "poststop").returncode == 0


@pytest.mark.parametrize("program", PROGRAMS)
def test_no_program_runs_planted_code(host: Host, compiled: Path, program: str) -> None:
    if program == "plugin":
        install_plugins(host, compiled)
    modules = (
        "__init__.py",
        "cli/__init__.py",
        "fast/__init__.py",
        "process/command.py",
        "sdk/__init__.py",
    )
    plant(compiled, *modules)
    for module in modules:
        (compiled / "cnihook" / module).with_name("__pycache__").chmod(0o777)

    host.leaves("dir /run/crun", "dir /run/runc")
    outcome = run(host, compiled, *PROGRAMS[program])

    assert "planted" not in outcome.stderr
    assert outcome.returncode == 0, outcome.stderr


def write_code_cache(host: Host, checkout: Path) -> Path:
    assert run(host, checkout, "scripts/cnihook", "compile").returncode == 0
    (path,) = (checkout / "cnihook/__pycache__").glob("modules.*")
    return path


def test_code_cache_that_others_can_write_is_not_used(host: Host, checkout: Path) -> None:
    """The planted code has the size and time of the source, and runs while only root can write the file."""
    hook = checkout / "cnihook/hook.py"
    source, status = hook.read_bytes(), hook.stat()
    hook.write_bytes(PLANTED.encode().ljust(len(source), b"#"))
    os.utime(hook, ns=(status.st_atime_ns, status.st_mtime_ns))
    path = write_code_cache(host, checkout)
    hook.write_bytes(source)
    os.utime(hook, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert path.stat().st_mode & 0o777 == 0o644
    assert "planted" in run(host, checkout, "scripts/cnihook", "poststop").stderr

    path.chmod(0o666)
    assert run(host, checkout, "scripts/cnihook", "poststop").returncode == 0
    path.chmod(0o644)
    os.chown(path, 12345, 12345)
    assert run(host, checkout, "scripts/cnihook", "poststop").returncode == 0


def test_only_compile_writes_the_code_cache(host: Host, checkout: Path) -> None:
    for _ in range(2):
        run(host, checkout, "scripts/cnihook", "poststop")
        run(host, checkout, "scripts/priv-net-run", "--help")
    assert not list((checkout / "cnihook/__pycache__").glob("modules.*"))

    path = write_code_cache(host, checkout)
    before = path.stat().st_ino
    assert run(host, checkout, "scripts/cnihook", "poststop").returncode == 0
    assert path.stat().st_ino == before

    old = path.with_name("onefile.cpython-39")  # of an earlier version
    old.touch()
    assert run(host, checkout, "scripts/cnihook", "compile", "--remove").returncode == 0
    assert not path.exists() and not old.exists()


def test_user_without_rights_cannot_compile(host: Host) -> None:
    need_open_checkout()
    command = (PYTHON, "-IS", str(CHECKOUT / "scripts/cnihook"), "compile")
    outcome = host.run("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *command, check=False)

    assert outcome.returncode == 1
    assert "belongs to user" in outcome.stderr and "run the command as root" in outcome.stderr


def test_checkout_that_a_group_shares_keeps_its_compiled_code(host: Host, tmp_path: Path) -> None:
    checkout = copy(tmp_path)
    for path in [checkout, *checkout.rglob("*")]:
        os.chown(path, 12345, 12345)
        path.chmod(path.stat().st_mode | 0o020)
    folder = checkout / "cnihook/__pycache__"
    folder.mkdir()
    folder.chmod(0o775)
    os.chown(folder, 12345, 12345)

    run(host, checkout, "scripts/cnihook", "poststop")

    assert list(folder.iterdir())
