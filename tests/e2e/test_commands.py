# SPDX-License-Identifier: Apache-2.0
"""cnihook list, validate, plan and install-plugins: their output."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from cnihook.cli.main import COMMANDS
from tests.support.plugins.cni import CHECKOUT

CNIHOOK = str(CHECKOUT / "scripts" / "cnihook")
BRIDGE: dict[str, Any] = {
    "type": "bridge",
    "capabilities": {"mac": True},
    "ipam": {"type": "host-local", "subnet": "10.9.0.0/24"},
}
NETWORK: dict[str, Any] = {
    "cniVersion": "1.1.0",
    "name": "mynet",
    "plugins": [BRIDGE, {"type": "tuning", "mtu": 1400}],
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    conf_dir = tmp_path / "net.d"
    conf_dir.mkdir()
    return conf_dir


def write(folder: Path, name: str, content: Any) -> str:
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(path)


def cnihook(*words: str, folder: Path | None = None, status: int = 0) -> subprocess.CompletedProcess[str]:
    env = {
        key: value for key, value in os.environ.items() if not key.startswith(("CNI_", "NETCONF", "CAP_"))
    }
    if folder:
        env["NETCONFPATH"] = str(folder)
    result = subprocess.run([CNIHOOK, *words], capture_output=True, text=True, env=env)
    assert result.returncode == status, result.stderr
    assert "Traceback" not in result.stderr
    return result


# Each command


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str) -> None:
    result = cnihook(command, "--help")

    usage = result.stdout.partition("\n")[0]
    assert usage.startswith("usage: cnihook ") and command in usage and result.stderr == ""
    assert max(map(len, result.stdout.splitlines())) <= 80


@pytest.mark.parametrize("command", [name for name in COMMANDS if name not in ("createRuntime", "poststop")])
def test_every_command_refuses_an_unknown_option(command: str) -> None:
    result = cnihook(command, "--no-such-option", status=2)

    assert result.stdout == "" and result.stderr.startswith(f"cnihook: {command}: ")
    assert result.stderr.count("\n") == 1


# list


def test_list_shows_where_each_plugin_comes_from(folder: Path) -> None:
    own = folder / "plugins"
    own.mkdir()
    (own / "mine").write_text("")
    path = write(folder, "10-mynet.conflist", NETWORK)
    write(folder, "20-mine.conf", {"cniVersion": "0.4.0", "name": "other", "type": "mine"})
    write(folder, "30-lost.conf", {"name": "lost", "type": "nowhere"})

    result = cnihook("list", "--cni-path", str(own), folder=folder)

    assert result.stderr == ""
    assert result.stdout.splitlines() == [
        f"mynet  1.1.0  {path}",
        "    bridge: built in",
        "    host-local: built in",
        "    tuning: built in",
        f"other  0.4.0  {folder}/20-mine.conf",
        f"    mine: {own}/mine",
        f"lost  0.1.0  {folder}/30-lost.conf",
        "    nowhere: missing",
    ]


def test_list_reports_malformed_files(folder: Path) -> None:
    write(folder, "10-mynet.conflist", NETWORK)
    broken = write(folder, "20-broken.conf", "{")

    result = cnihook("list", folder=folder, status=1)
    assert result.stdout.startswith("mynet") and result.stderr.startswith(f"cnihook: {broken}: ")

    report = json.loads(cnihook("list", "--json", folder=folder, status=1).stdout)
    assert [network["name"] for network in report["networks"]] == ["mynet"]
    assert broken in report["problems"][0]


def test_list_without_networks_shows_the_built_in_one(folder: Path) -> None:
    result = cnihook("list", folder=folder)

    assert result.stdout.startswith("cnihook  1.0.0") and "no network configuration" in result.stderr


# validate


def test_validate_reports_all_problems_at_once(folder: Path) -> None:
    """Each problem is a line with its file, key and reason."""
    bad = {
        "isGateway": "yes",
        "mtu": -1,
        "vlan": 5000,
        "ipam": {"type": "host-local", "subnet": "10.9.0.1/24"},
    }
    conf = NETWORK | {"plugins": [BRIDGE | bad, {"type": "tuning", "sysctl": {"kernel.x": "1"}, "mtu": "a"}]}
    path = write(folder, "10-mynet.conflist", conf)

    lines = cnihook("validate", path, status=1).stdout.splitlines()

    problems = [line.removeprefix(f"{path}: ") for line in lines]
    for expected in (
        'plugins[0] (bridge): "isGateway" must be a boolean, not a string',
        'plugins[0] (bridge): "mtu" must be between 0 and 65535, not -1',
        "plugins[0] (bridge): invalid VLAN ID 5000",
        'plugins[0] (bridge): ipam: "subnet" is wrong: Network has host bits set',
        'plugins[1] (tuning): "mtu" must be an integer, not a string',
        'plugins[1] (tuning): invalid net sysctl key: "kernel.x"',
    ):
        assert any(line.startswith(expected) for line in problems), (expected, problems)


def test_validate_reports_all_problems_of_the_list_itself(folder: Path) -> None:
    path = write(
        folder, "a.conflist", {"cniVersion": "1.0.0", "name": "x", "disableCheck": "maybe", "disableGC": 1,
                               "plugins": [{"type": "bridge", "capabilities": {"mac": "yes"}}]},
    )  # fmt: skip

    report = json.loads(cnihook("validate", "--json", path, status=1).stdout)

    assert [each["key"] for each in report] == ["mac", "disableCheck", "disableGC"]
    assert {each["file"] for each in report} == {path}


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("", "error parsing configuration"),
        ("[]", "is an object, not a list"),
        ('{"name": "x", "type": "nowhere"}', 'failed to find plugin "nowhere"'),
        ('{"name": "x", "type": "bridge", "cniVersion": "9.9.9"}', "incompatible CNI versions"),
        ('{"type": "bridge"}', "no name"),
    ],
)
def test_file_with_one_problem_is_reported_once(folder: Path, content: str, problem: str) -> None:
    path = write(folder, "10-x.conf", content)

    (line,) = cnihook("validate", path, status=1).stdout.splitlines()
    assert line.startswith(path) and problem in line


def test_misspelled_keys_are_reported(folder: Path) -> None:
    """No plugin reports them.  A key unlike any of cnihook's is ignored: another program may read it."""
    bridge = BRIDGE | {"isGatway": True, "comment": "x", "ipam": {
        "type": "host-local", "ranges": [[{"subnet": "10.9.0.0/24", "gatway": "10.9.0.9"}]], "x-own": 1,
    }}  # fmt: skip
    portmap = {"type": "portmap", "capabilites": {"portMappings": True}}
    conf = NETWORK | {"plugins": [bridge, portmap], "disableChek": True}
    path = write(folder, "10-mynet.conflist", conf)

    suggestions = {
        line.removeprefix(f"{path}: ") for line in cnihook("validate", path, status=1).stdout.splitlines()
    }

    assert suggestions == {
        '"disableChek" is a key that is not read; write "disableCheck", if that is meant',
        'plugins[0] (bridge): "isGatway" is a key that is not read; write "isGateway", if that is meant',
        'plugins[0] (bridge): ipam: ranges[0][0]: "gatway" is a key that is not read; write'
        ' "gateway", if that is meant',
        'plugins[1] (portmap): "capabilites" is a key that is not read; write "capabilities", if that'
        " is meant",
    }


def test_valid_files_print_one_line_and_exit_0(folder: Path) -> None:
    write(folder, "10-mynet.conflist", NETWORK)

    assert cnihook("validate", folder=folder).stdout == "1 file checked: no problem found\n"
    assert json.loads(cnihook("validate", "--json", folder=folder).stdout) == []
    assert "No such file" in cnihook("validate", str(folder / "none"), status=1).stdout


@pytest.mark.parametrize("is_there", [True, False])
def test_validate_says_that_a_folder_has_no_network(folder: Path, is_there: bool) -> None:
    empty = folder / "empty"
    if is_there:
        empty.mkdir()

    expected = f"{empty} has no network (*.conflist, *.conf, *.json), so nothing was checked\n"
    assert cnihook("validate", folder=empty).stdout == expected
    assert json.loads(cnihook("validate", "--json", folder=empty).stdout) == []


# plan


def test_plan_shows_what_each_plugin_would_receive(folder: Path) -> None:
    write(folder, "10-mynet.conflist", NETWORK)
    words = ("plan", "mynet", "testing", "--json", "--capability-args", '{"mac": "02:00:00:00:00:01"}')

    first, second = json.loads(cnihook(*words, folder=folder).stdout)

    assert first["stdin"] == {
        "type": "bridge",
        "ipam": BRIDGE["ipam"],
        "name": "mynet",
        "cniVersion": "1.1.0",
        "runtimeConfig": {"mac": "02:00:00:00:00:01"},
    }
    assert first["environment"]["CNI_COMMAND"] == "ADD"
    assert first["environment"]["CNI_NETNS"] == "/var/run/netns/testing"
    assert second["stdin"]["prevResult"] == "the result of bridge"
    assert first["served_by"] == "built in"


def test_plan_of_del_is_in_reverse_order(folder: Path) -> None:
    write(folder, "10-mynet.conflist", NETWORK)

    steps = json.loads(cnihook("plan", "mynet", "--command", "DEL", "--json", folder=folder).stdout)

    assert [step["type"] for step in steps] == ["tuning", "bridge"]
    assert {step["stdin"]["prevResult"] for step in steps} == {"the result of ADD"}


def test_plan_of_gc_has_valid_attachments(folder: Path) -> None:
    write(folder, "10-mynet.conflist", NETWORK)
    steps = json.loads(cnihook("plan", "mynet", "--command", "GC", "--json", folder=folder).stdout)
    assert steps[0]["stdin"]["cni.dev/valid-attachments"] == []
    assert steps[0]["environment"]["CNI_CONTAINERID"] == ""

    write(folder, "10-mynet.conflist", NETWORK | {"cniVersion": "1.0.0"})
    assert cnihook("plan", "mynet", "--command", "GC", folder=folder).stdout.startswith("nothing: ")


def test_plan_as_text(folder: Path) -> None:
    write(folder, "10-mynet.conflist", NETWORK)

    text = cnihook("plan", "mynet", folder=folder).stdout
    assert text.startswith("1. bridge ADD, built in\n   CNI_COMMAND=ADD\n") and "\n2. tuning ADD" in text


# install-plugins


def test_installed_plugins_answer_version(tmp_path: Path) -> None:
    cnihook("install-plugins", str(tmp_path / "bin"))

    names = os.listdir(tmp_path / "bin")
    assert {"bridge", "host-local", "ptp", "tuning", "loopback", "static"} <= set(names)
    for name in names:
        result = subprocess.run(
            [tmp_path / "bin" / name], env={"CNI_COMMAND": "VERSION"}, capture_output=True, input=b"{}"
        )
        assert "1.0.0" in json.loads(result.stdout)["supportedVersions"], name
    cnihook("install-plugins", "--remove", str(tmp_path / "bin"))
    assert os.listdir(tmp_path / "bin") == []


def test_plugin_of_another_installation_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "bridge").write_text("foreign")

    result = cnihook("install-plugins", str(tmp_path), status=1)
    assert "bridge was not written by cnihook" in result.stderr and (tmp_path / "ptp").exists()
    assert (tmp_path / "bridge").read_text() == "foreign"
    cnihook("install-plugins", "--remove", str(tmp_path))
    assert os.listdir(tmp_path) == ["bridge"]
    cnihook("install-plugins", "--force", "--plugin", "bridge", str(tmp_path))
    assert os.listdir(tmp_path) == ["bridge"] and "cnihook" in (tmp_path / "bridge").read_text()


def test_unknown_plugin_cannot_be_installed(tmp_path: Path) -> None:
    result = cnihook("install-plugins", "--plugin", "calico", str(tmp_path), status=2)

    assert "no built-in plugin 'calico'; there are: " in result.stderr
