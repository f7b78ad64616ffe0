# SPDX-License-Identifier: Apache-2.0
"""announce, called as a container runtime calls it: environment, stdin, stdout.  Needs no privilege."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PLUGIN = Path(__file__).with_name("announce.py")
RESULT = {"cniVersion": "1.1.0", "ips": [{"address": "10.1.2.3/24"}, {"address": "2001:db8::3/64"}]}


class PluginError(Exception):
    """The error that the plugin printed."""


def call(command: str, folder: Any, container_id: str = "c1", **keys: Any) -> Any:
    """Run the plugin once.  Return its output, parsed; raise PluginError with the message it reports."""
    conf = {"cniVersion": "1.1.0", "name": "mynet", "type": "announce", "folder": folder, **keys}
    protocol = {
        "CNI_COMMAND": command,
        "CNI_CONTAINERID": container_id,
        "CNI_NETNS": "/run/netns/c1",
        "CNI_IFNAME": "eth0",
        "CNI_PATH": "/opt/cni/bin",
    }
    process = subprocess.run(
        [sys.executable, str(PLUGIN)],
        input=json.dumps(conf, default=str),
        env=os.environ | protocol,
        capture_output=True,
        text=True,
    )
    assert "Traceback" not in process.stderr, process.stderr
    if process.returncode:
        raise PluginError(json.loads(process.stdout)["msg"])
    return json.loads(process.stdout) if process.stdout else None


def test_add_returns_the_result_and_writes_the_addresses(tmp_path: Path) -> None:
    assert call("ADD", tmp_path, prevResult=RESULT) == RESULT

    assert (tmp_path / "mynet" / "c1-eth0").read_text() == "10.1.2.3\n2001:db8::3\n"


def test_add_requires_a_previous_result(tmp_path: Path) -> None:
    with pytest.raises(PluginError, match="prevResult"):
        call("ADD", tmp_path)
    assert os.listdir(tmp_path) == []


def test_del_removes_the_file_and_can_be_repeated(tmp_path: Path) -> None:
    call("ADD", tmp_path, prevResult=RESULT)

    for _ in range(2):
        assert call("DEL", tmp_path) is None
    assert os.listdir(tmp_path / "mynet") == []


def test_check_reports_a_changed_or_missing_file(tmp_path: Path) -> None:
    call("ADD", tmp_path, prevResult=RESULT)
    assert call("CHECK", tmp_path, prevResult=RESULT) is None

    (tmp_path / "mynet" / "c1-eth0").write_text("10.9.9.9\n")
    with pytest.raises(PluginError, match="other addresses"):
        call("CHECK", tmp_path, prevResult=RESULT)
    (tmp_path / "mynet" / "c1-eth0").unlink()
    with pytest.raises(PluginError, match="is missing"):
        call("CHECK", tmp_path, prevResult=RESULT)


def test_gc_keeps_files_of_valid_attachments(tmp_path: Path) -> None:
    for container_id in ("c1", "c2"):
        call("ADD", tmp_path, container_id, prevResult=RESULT)

    alive: dict[str, Any] = {"cni.dev/valid-attachments": [{"containerID": "c2", "ifname": "eth0"}]}
    call("GC", tmp_path, **alive)
    assert os.listdir(tmp_path / "mynet") == ["c2-eth0"]


def test_status_succeeds(tmp_path: Path) -> None:
    assert call("STATUS", tmp_path) is None


def test_error_names_the_wrong_key() -> None:
    for wrong in (7, "relative"):
        with pytest.raises(PluginError, match="folder"):
            call("ADD", wrong, prevResult=RESULT)
