# SPDX-License-Identifier: Apache-2.0
"""cnihook new-plugin: its README leads from nothing to a working chained plugin."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.host.host import Host
from tests.support.host.namespace import base_environment
from tests.support.plugins.cni import CHECKOUT

CNIHOOK = str(CHECKOUT / "scripts" / "cnihook")
EXAMPLE = CHECKOUT / "oci-examples" / "own-plugin"


def make(*words: str, cwd: Path, status: int = 0) -> str:
    process = subprocess.run([CNIHOOK, "new-plugin", *words], cwd=cwd, capture_output=True, text=True)
    assert process.returncode == status, process.stderr
    return process.stdout + process.stderr


def environment() -> dict[str, str]:
    """Return the environment of a checkout: its programs on PATH, its package on PYTHONPATH."""
    path = f"{Path(sys.executable).parent}:{CHECKOUT / 'scripts'}:{base_environment()['PATH']}"
    return base_environment() | {"PYTHONPATH": str(CHECKOUT), "PATH": path}


def test_tests_of_the_new_plugin_pass(tmp_path: Path) -> None:
    make("mytype", cwd=tmp_path)
    project = tmp_path / "mytype"
    assert sorted(os.listdir(project)) == ["10-mytype.conflist", "README.md", "mytype.py", "test_mytype.py"]
    assert not any("myplugin" in (project / name).read_text() for name in os.listdir(project))

    argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    process = subprocess.run(argv, cwd=project, env=environment(), capture_output=True, text=True)
    assert process.returncode == 0 and " passed" in process.stdout, process.stdout


@pytest.mark.root
def test_commands_of_the_new_readme_work(host: Host, tmp_path: Path) -> None:
    """Each command is run exactly as it is written there."""
    make("mytype", cwd=tmp_path)
    text = (tmp_path / "mytype" / "README.md").read_text()
    commands = [line.partition("  #")[0].strip() for line in re.findall(r"^    (.+)$", text, re.MULTILINE)]
    assert [command.split()[0] for command in commands] == ["python3", "mkdir", "cnihook", "priv-net-run"]

    host.leaves("dir /run/mytype", "dir /run/mytype/*")
    outputs = [
        host.run("sh", "-c", command, cwd=str(tmp_path / "mytype"), env=environment()).stdout
        for command in commands
    ]

    assert outputs[2] == "1 file checked: no problem found\n"
    assert re.fullmatch(r"/run/mytype/mytype-net/priv-\w+-eth0:10\.213\.77\.2\n", outputs[3])


def test_invalid_name_is_refused(tmp_path: Path) -> None:
    for name, why in (
        ("bridge", "built-in"),
        ("My-Type", "lower-case"),
        ("../x", "lower-case"),
        ("", "lower"),
    ):
        assert why in make(name, cwd=tmp_path, status=2)
    assert os.listdir(tmp_path) == []


def test_existing_file_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "mytype").mkdir()
    (tmp_path / "mytype" / "precious").touch()

    assert "is not empty" in make("mytype", cwd=tmp_path, status=1)
    make("mytype", "--dir", "other", cwd=tmp_path)
    assert len(os.listdir(tmp_path / "other")) == 4 and os.listdir(tmp_path / "mytype") == ["precious"]


def test_example_equals_the_template(tmp_path: Path) -> None:
    """The plugin and its tests in the example are unchanged output of new-plugin."""
    make("announce", "--dir", "made", cwd=tmp_path)

    for name in ("announce.py", "test_announce.py"):
        assert (EXAMPLE / name).read_text() == (tmp_path / "made" / name).read_text()
