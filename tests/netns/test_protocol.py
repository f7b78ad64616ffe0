# SPDX-License-Identifier: Apache-2.0
"""The protocol around every plugin: environment, standard input and output, versions, errors."""

import json
import subprocess
from typing import Any

import pytest

from tests.netns.differences import SPEC_1_1
from tests.support.host.host import Container, Host
from tests.support.plugins.cni import VERSIONS, CniFailure

IPAM = {"type": "host-local", "ranges": [[{"subnet": "10.9.0.0/24"}]]}
CONF: dict[str, Any] = {"cniVersion": "1.0.0", "name": "net1", "ipam": IPAM}
PLUGINS = ["bridge", "host-local", "loopback"]
NO_CHECKS = pytest.mark.known_difference(
    "does not know GC and STATUS",
    here="refuses both with code 1 before 1.1.0",
    right="either",
    fixed_in="1.9.1",
)


@pytest.fixture(params=PLUGINS)
def conf(request: pytest.FixtureRequest) -> dict[str, Any]:
    return CONF | {"type": request.param}


def run(host: Host, conf: Any, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Call a plugin with exactly this environment."""
    assert host.implementation
    program = host.implementation.program(conf["type"])
    return host.run(program, input=json.dumps(conf), env=env, check=False)


def variables(host: Host, container: Container, command: str = "ADD") -> dict[str, str]:
    assert host.implementation
    return {
        "CNI_COMMAND": command,
        "CNI_CONTAINERID": "c1",
        "CNI_NETNS": container.path,
        "CNI_IFNAME": "eth0",
        "CNI_PATH": str(host.implementation.folder),
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
    }


def error(answer: subprocess.CompletedProcess[str]) -> Any:
    """Return the error, which is all that is on stdout."""
    assert answer.returncode == 1
    return json.loads(answer.stdout)


def test_plugin_that_is_started_by_hand_describes_itself(host: Host, conf: Any) -> None:
    """The description is on stderr: stdout is for a runtime, and there is none."""
    answer = run(host, conf, {})

    assert (answer.returncode, answer.stdout) == (0, "")
    assert conf["type"] in answer.stderr and "0.4.0" in answer.stderr


def test_version_lists_all_supported_versions(host: Host, conf: Any) -> None:
    answer = run(host, conf, {"CNI_COMMAND": "VERSION"})

    assert answer.returncode == 0
    assert set(VERSIONS) - {"1.1.0"} <= set(json.loads(answer.stdout)["supportedVersions"])


@SPEC_1_1
def test_version_is_1_1(host: Host, conf: Any) -> None:
    answer = json.loads(run(host, conf, {"CNI_COMMAND": "VERSION"}).stdout)

    assert answer == {"cniVersion": "1.1.0", "supportedVersions": VERSIONS}


@pytest.mark.parametrize("missing", ["CNI_NETNS", "CNI_IFNAME", "CNI_PATH"])
def test_error_of_add_names_the_missing_variable(
    host: Host, container: Container, conf: Any, missing: str
) -> None:
    env = variables(host, container)
    del env[missing]

    answer = error(run(host, conf, env))
    assert answer["code"] == 4 and missing in answer["msg"] + answer.get("details", "")


def test_error_names_all_missing_variables(host: Host, container: Container, conf: Any) -> None:
    env = variables(host, container) | {"CNI_NETNS": "", "CNI_IFNAME": ""}

    answer = error(run(host, conf, env))
    assert answer["code"] == 4
    assert "CNI_NETNS" in answer["msg"] and "CNI_IFNAME" in answer["msg"]


def test_error_names_an_unknown_command(host: Host, container: Container, conf: Any) -> None:
    answer = error(run(host, conf, variables(host, container, "EXPLODE")))

    assert answer["code"] == 4 and "EXPLODE" in answer["msg"]


BAD_IDS = ["../../etc/x", "a/b", ".hidden", "-a", "a b", "a\nb", "a\n", "é", "a;b", "$(id)"]


@pytest.mark.parametrize("command", ["ADD", "DEL", "CHECK"])
@pytest.mark.parametrize("container_id", BAD_IDS)
def test_invalid_container_id_is_refused(
    host: Host, container: Container, command: str, container_id: str
) -> None:
    """The ID becomes part of file names and of the names of rules."""
    env = variables(host, container, command) | {"CNI_CONTAINERID": container_id}

    answer = error(run(host, CONF | {"type": "bridge"}, env))
    assert answer["code"] == 4


@pytest.mark.parametrize(
    "name", ["a-name-of-16char", "a/b", "a:b", "a b", "a\tb", ".", "..", "eth0\n", "éééééééé"]
)
def test_invalid_interface_name_is_refused(host: Host, container: Container, name: str) -> None:
    env = variables(host, container) | {"CNI_IFNAME": name}

    assert error(run(host, CONF | {"type": "bridge"}, env))["code"] == 4


@pytest.mark.parametrize("name", ["../x", "a/b", ".a", "a b", "a\n", "", None])
def test_invalid_network_name_is_refused(
    host: Host, container: Container, conf: Any, name: str | None
) -> None:
    assert error(run(host, conf | {"name": name}, variables(host, container)))["code"] == 7


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "7", "null", '{"name":"x"} trailing', "\ufeff{}", '{"a":NaN}']
)
def test_input_that_is_not_a_json_object_is_refused(
    host: Host, container: Container, conf: Any, text: str
) -> None:
    assert host.implementation
    program = host.implementation.program(conf["type"])

    answer = error(host.run(program, input=text, env=variables(host, container), check=False))
    assert answer["code"] in (6, 7)


@pytest.mark.parametrize("version", ["0.5.0", "2.0.0", "1.0", "1"])
def test_unsupported_version_is_refused(host: Host, container: Container, conf: Any, version: str) -> None:
    """Versions are compared as text, because a 1.0 that is not 1.0.0 has no meaning."""
    answer = error(run(host, conf | {"cniVersion": version}, variables(host, container)))

    assert answer["code"] == 1
    assert version in answer["msg"] + answer["details"] and "1.0.0" in answer["msg"] + answer["details"]


def test_version_that_is_not_a_string_is_refused(host: Host, container: Container, conf: Any) -> None:
    assert error(run(host, conf | {"cniVersion": 1}, variables(host, container)))["code"] == 6


@pytest.mark.known_difference("an error has no cniVersion", here="it has one", right="SPEC.md, 5 Error")
def test_error_has_its_version(host: Host, container: Container, conf: Any) -> None:
    answer = error(run(host, conf | {"cniVersion": "0.3.1", "name": "a/b"}, variables(host, container)))

    assert answer["cniVersion"] in VERSIONS


@NO_CHECKS
@pytest.mark.parametrize("command", ["GC", "STATUS"])
def test_commands_of_1_1_are_refused_before_1_1(
    host: Host, container: Container, conf: Any, command: str
) -> None:
    assert error(run(host, conf, variables(host, container, command)))["code"] == 1


@SPEC_1_1
@pytest.mark.parametrize("command", ["GC", "STATUS"])
def test_commands_of_1_1_need_no_container(
    host: Host, container: Container, conf: Any, command: str
) -> None:
    env = variables(host, container, command)
    for name in ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"):
        env[name] = ""

    answer = run(host, conf | {"cniVersion": "1.1.0"}, env)
    assert (answer.returncode, answer.stdout) == (0, "")


def test_result_is_easy_to_read(host: Host, container: Container, conf: Any) -> None:
    """Each key is on its own line, with four spaces, and there is no line break at the end."""
    answer = run(host, conf, variables(host, container))

    assert answer.stdout == json.dumps(json.loads(answer.stdout), indent=4)
    run(host, conf, variables(host, container, "DEL"))


def test_del_prints_nothing(host: Host, container: Container, conf: Any) -> None:
    answer = run(host, conf, variables(host, container, "DEL"))

    assert (answer.returncode, answer.stdout) == (0, "")


def test_plugins_work_without_path_and_home(host: Host, container: Container, conf: Any) -> None:
    """Some runtimes start hooks, and so plugins, with an environment that is nearly empty."""
    env = variables(host, container)
    env.pop("PATH")

    assert run(host, conf, env).returncode == 0
    assert run(host, conf, env | {"CNI_COMMAND": "DEL"}).returncode == 0


@pytest.mark.parametrize("command", ["ADD", "DEL"])
def test_invalid_previous_result_is_an_error_of_add(host: Host, container: Container, command: str) -> None:
    """ADD needs the result; DEL goes on without it."""
    conf = CONF | {"type": "loopback", "prevResult": {"cniVersion": "1.0.0", "ips": [{"address": "x"}]}}
    answer = run(host, conf, variables(host, container, command))

    if command == "ADD":
        assert "x" in error(answer)["msg"]
    else:
        assert answer.returncode == 0


def test_other_descriptors_and_signals_do_not_matter(host: Host, container: Container, conf: Any) -> None:
    """A runtime may have every signal blocked and its working directory deleted."""
    assert host.implementation
    program = host.implementation.program(conf["type"])
    script = f"mkdir /run/gone; cd /run/gone; rmdir /run/gone; umask 0; exec {program}"
    env = variables(host, container)
    blocked = ["env", "--block-signal", "sh", "-c", script]

    assert host.run(*blocked, input=json.dumps(conf), env=env, check=False).returncode == 0
    assert host.run(*blocked, input=json.dumps(conf), env=env | {"CNI_COMMAND": "DEL"}).returncode == 0


def test_error_of_a_plugin_is_raised(host: Host, container: Container) -> None:
    """This tests the tests: an error of a plugin cannot pass for a result."""
    with pytest.raises(CniFailure) as failure:
        host.cni("ADD", CONF | {"type": "loopback", "name": "a/b"}, container)
    assert failure.value.code == 7
