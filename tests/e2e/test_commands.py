# SPDX-License-Identifier: Apache-2.0
"""cnihook list, validate, plan, install-plugins, completion: what they tell a reader."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from cnihook.cli.main import COMMANDS
from tests.support.cni import CHECKOUT
from tests.support.skip import need

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
    made = tmp_path / "net.d"
    made.mkdir()
    return made


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
    done = subprocess.run([CNIHOOK, *words], capture_output=True, text=True, env=env)
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    return done


# Each command


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_helps(command: str) -> None:
    done = cnihook(command, "--help")

    usage = done.stdout.partition("\n")[0]
    assert usage.startswith("usage: cnihook ") and command in usage and done.stderr == ""
    assert max(map(len, done.stdout.splitlines())) <= 110


@pytest.mark.parametrize("command", [name for name in COMMANDS if name not in ("createRuntime", "poststop")])
def test_every_command_refuses_what_it_does_not_know(command: str) -> None:
    done = cnihook(command, "--no-such-option", status=2)

    assert done.stdout == "" and done.stderr.startswith(f"cnihook: {command}: ")
    assert done.stderr.count("\n") == 1


# list


def test_list_shows_what_serves_each_plugin(folder: Path) -> None:
    own = folder / "plugins"
    own.mkdir()
    (own / "mine").write_text("")
    path = write(folder, "10-mynet.conflist", NETWORK)
    write(folder, "20-mine.conf", {"cniVersion": "0.4.0", "name": "other", "type": "mine"})
    write(folder, "30-lost.conf", {"name": "lost", "type": "nowhere"})

    done = cnihook("list", "--cni-path", str(own), folder=folder)

    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        f"mynet  1.1.0  {path}",
        "    bridge: built in",
        "    host-local: built in",
        "    tuning: built in",
        f"other  0.4.0  {folder}/20-mine.conf",
        f"    mine: {own}/mine",
        f"lost  0.1.0  {folder}/30-lost.conf",
        "    nowhere: missing",
    ]


def test_list_names_files_that_are_no_networks(folder: Path) -> None:
    write(folder, "10-mynet.conflist", NETWORK)
    broken = write(folder, "20-broken.conf", "{")

    done = cnihook("list", folder=folder, status=1)
    assert done.stdout.startswith("mynet") and done.stderr.startswith(f"cnihook: {broken}: ")

    told = json.loads(cnihook("list", "--json", folder=folder, status=1).stdout)
    assert [network["name"] for network in told["networks"]] == ["mynet"]
    assert broken in told["problems"][0]


def test_list_of_nothing_is_the_built_in_default(folder: Path) -> None:
    done = cnihook("list", folder=folder)

    assert done.stdout.startswith("cnihook  1.0.0") and "no network configuration" in done.stderr


# validate


def test_every_problem_is_told_in_one_go(folder: Path) -> None:
    """With its file, its key and its reason, one line each."""
    bad = {
        "isGateway": "yes",
        "mtu": -1,
        "vlan": 5000,
        "ipam": {"type": "host-local", "subnet": "10.9.0.1/24"},
    }
    conf = NETWORK | {"plugins": [BRIDGE | bad, {"type": "tuning", "sysctl": {"kernel.x": "1"}, "mtu": "a"}]}
    path = write(folder, "10-mynet.conflist", conf)

    lines = cnihook("validate", path, status=1).stdout.splitlines()

    told = [line.removeprefix(f"{path}: ") for line in lines]
    for expected in (
        'plugins[0] (bridge): "isGateway" must be a boolean, not a string',
        'plugins[0] (bridge): "mtu" must be between 0 and 65535, not -1',
        "plugins[0] (bridge): invalid VLAN ID 5000",
        'plugins[0] (bridge): ipam: "subnet" is wrong: Network has host bits set',
        'plugins[1] (tuning): "mtu" must be an integer, not a string',
        'plugins[1] (tuning): invalid net sysctl key: "kernel.x"',
    ):
        assert any(line.startswith(expected) for line in told), (expected, told)


def test_problems_of_the_list_itself_are_told_together(folder: Path) -> None:
    path = write(
        folder, "a.conflist", {"cniVersion": "1.0.0", "name": "x", "disableCheck": "maybe", "disableGC": 1,
                               "plugins": [{"type": "bridge", "capabilities": {"mac": "yes"}}]},
    )  # fmt: skip

    told = json.loads(cnihook("validate", "--json", path, status=1).stdout)

    assert [each["key"] for each in told] == ["mac", "disableCheck", "disableGC"]
    assert {each["file"] for each in told} == {path}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "error parsing configuration"),
        ("[]", "is an object, not a list"),
        ('{"name": "x", "type": "nowhere"}', 'failed to find plugin "nowhere"'),
        ('{"name": "x", "type": "bridge", "cniVersion": "9.9.9"}', "incompatible CNI versions"),
        ('{"type": "bridge"}', "no name"),
    ],
)
def test_a_file_with_one_problem_is_told_once(folder: Path, content: str, told: str) -> None:
    path = write(folder, "10-x.conf", content)

    (line,) = cnihook("validate", path, status=1).stdout.splitlines()
    assert line.startswith(path) and told in line


def test_keys_that_are_misspelled_are_told(folder: Path) -> None:
    """Nobody reads them, and no plugin complains.  What looks like no key of ours may be somebody else's."""
    bridge = BRIDGE | {"isGatway": True, "comment": "x", "ipam": {
        "type": "host-local", "ranges": [[{"subnet": "10.9.0.0/24", "gatway": "10.9.0.9"}]], "x-ours": 1,
    }}  # fmt: skip
    portmap = {"type": "portmap", "capabilites": {"portMappings": True}}
    conf = NETWORK | {"plugins": [bridge, portmap], "disableChek": True}
    path = write(folder, "10-mynet.conflist", conf)

    told = {
        line.removeprefix(f"{path}: ") for line in cnihook("validate", path, status=1).stdout.splitlines()
    }

    assert told == {
        '"disableChek" is a key that is not read; write "disableCheck", if that is meant',
        'plugins[0] (bridge): "isGatway" is a key that is not read; write "isGateway", if that is meant',
        'plugins[0] (bridge): ipam: ranges[0][0]: "gatway" is a key that is not read; write'
        ' "gateway", if that is meant',
        'plugins[1] (portmap): "capabilites" is a key that is not read; write "capabilities", if that'
        " is meant",
    }


def test_good_files_are_a_line_and_exit_code_0(folder: Path) -> None:
    write(folder, "10-mynet.conflist", NETWORK)

    assert cnihook("validate", folder=folder).stdout == "1 file: nothing found\n"
    assert json.loads(cnihook("validate", "--json", folder=folder).stdout) == []
    assert "No such file" in cnihook("validate", str(folder / "none"), status=1).stdout


# plan


def test_plan_shows_what_each_plugin_would_be_given(folder: Path) -> None:
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


def test_plan_of_a_del_goes_backward(folder: Path) -> None:
    write(folder, "10-mynet.conflist", NETWORK)

    steps = json.loads(cnihook("plan", "mynet", "--command", "DEL", "--json", folder=folder).stdout)

    assert [step["type"] for step in steps] == ["tuning", "bridge"]
    assert {step["stdin"]["prevResult"] for step in steps} == {"the result of ADD"}


def test_plan_of_a_gc_has_the_keep_list(folder: Path) -> None:
    write(folder, "10-mynet.conflist", NETWORK)
    steps = json.loads(cnihook("plan", "mynet", "--command", "GC", "--json", folder=folder).stdout)
    assert steps[0]["stdin"]["cni.dev/valid-attachments"] == []
    assert steps[0]["environment"]["CNI_CONTAINERID"] == ""

    write(folder, "10-mynet.conflist", NETWORK | {"cniVersion": "1.0.0"})
    assert cnihook("plan", "mynet", "--command", "GC", folder=folder).stdout.startswith("nothing: ")


def test_plan_reads_well(folder: Path) -> None:
    write(folder, "10-mynet.conflist", NETWORK)

    text = cnihook("plan", "mynet", folder=folder).stdout
    assert text.startswith("1. bridge ADD, built in\n   CNI_COMMAND=ADD\n") and "\n2. tuning ADD" in text


# install-plugins


def test_installed_plugins_are_executables_of_the_protocol(tmp_path: Path) -> None:
    cnihook("install-plugins", str(tmp_path / "bin"))

    names = os.listdir(tmp_path / "bin")
    assert {"bridge", "host-local", "ptp", "tuning", "loopback", "static"} <= set(names)
    for name in names:
        done = subprocess.run(
            [tmp_path / "bin" / name], env={"CNI_COMMAND": "VERSION"}, capture_output=True, input=b"{}"
        )
        assert "1.0.0" in json.loads(done.stdout)["supportedVersions"], name
    cnihook("install-plugins", "--remove", str(tmp_path / "bin"))
    assert os.listdir(tmp_path / "bin") == []


def test_somebody_elses_plugin_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "bridge").write_text("theirs")

    done = cnihook("install-plugins", str(tmp_path), status=1)
    assert "bridge was not written by cnihook" in done.stderr and (tmp_path / "ptp").exists()
    assert (tmp_path / "bridge").read_text() == "theirs"
    cnihook("install-plugins", "--remove", str(tmp_path))
    assert os.listdir(tmp_path) == ["bridge"]
    cnihook("install-plugins", "--force", "--plugin", "bridge", str(tmp_path))
    assert os.listdir(tmp_path) == ["bridge"] and "cnihook" in (tmp_path / "bridge").read_text()


def test_a_plugin_that_is_not_built_in_cannot_be_installed(tmp_path: Path) -> None:
    done = cnihook("install-plugins", "--plugin", "calico", str(tmp_path), status=2)

    assert "no built-in plugin 'calico'; there are: " in done.stderr


# completion


def complete(line: str) -> list[str]:
    """What bash offers behind this line."""
    words = line.split(" ")
    script = f"""\
eval "$({CNIHOOK} completion bash)"
COMP_WORDS=({" ".join(f"'{word}'" for word in words)}); COMP_CWORD={len(words) - 1}
_cnihook; printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return done.stdout.split()


def test_bash_completes_commands_and_options() -> None:
    assert complete("cnihook va") == ["validate"]
    assert set(complete("cnihook ")) == set(COMMANDS)
    assert "--network-config" in complete("cnihook add --")
    assert complete("cnihook gc --dr") == ["--dry-run"]
    assert complete("cnihook poststop --netw") == ["--network"]


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_take_the_script(shell: str) -> None:
    need(shell)
    script = cnihook("completion", shell).stdout

    done = subprocess.run([shell, "-n"], input=script, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert all(command in script for command in COMMANDS)


def test_fish_completes_commands_and_options() -> None:
    need("fish")
    script = (
        cnihook("completion", "fish").stdout
        + "\ncomplete -C 'cnihook valid'\ncomplete -C 'cnihook gc --dr'\n"
    )

    done = subprocess.run(["fish", "-N"], input=script, capture_output=True, text=True)
    assert done.stdout.split()[0] == "validate" and "--dry-run" in done.stdout
