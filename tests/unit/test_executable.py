# SPDX-License-Identifier: Apache-2.0
"""protocol.executable: a plugin's module as an executable, used through the protocol in a real process.

loopback and host-local are the modules, because their code here needs no privilege.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.plugins.cni import CHECKOUT, LAUNCHER, VERSIONS

GOOD = {
    "CNI_CONTAINERID": "c1",
    "CNI_NETNS": "/no/such/netns",
    "CNI_IFNAME": "lo",
    "CNI_PATH": "/opt/cni/bin",
}
CONF = {"cniVersion": "1.0.0", "name": "mynet", "type": "loopback"}


class Answer:
    def __init__(self, done: "subprocess.CompletedProcess[bytes]") -> None:
        self.status = done.returncode
        self.stdout = done.stdout.decode()
        self.stderr = done.stderr.decode()
        assert "Traceback" not in self.stderr, self.stderr

    def error(self) -> dict[str, Any]:
        """Return the error, which is the only output on stdout; the exit status is 1."""
        assert self.status == 1, (self.status, self.stdout, self.stderr)
        error: dict[str, Any] = json.loads(self.stdout)
        assert error.keys() - {"details"} == {"cniVersion", "code", "msg"}
        assert "\n" not in error["msg"] and error["msg"]
        return error


def call(
    env: dict[str, str], conf: Any = CONF, plugin: str = "loopback", stdin: int | None = None
) -> Answer:
    """Run one call: `env` is the whole environment; `conf` is the input, unless there is a `stdin`."""
    text = conf if isinstance(conf, bytes) else json.dumps(conf).encode()
    code = LAUNCHER.format(checkout=str(CHECKOUT), plugin=plugin)
    return Answer(
        subprocess.run(
            [sys.executable, "-IS", "-c", code],
            env=env,
            stdin=stdin,
            input=text if stdin is None else None,
            capture_output=True,
            timeout=20,
        )
    )


def request(command: str, conf: Any = CONF, without: str = "", **env: str) -> Answer:
    variables = {"CNI_COMMAND": command, **GOOD, **env}
    for name in without.split():
        del variables[name]
    return call(variables, conf)


def ipam(state: Path, command: str, **conf: Any) -> Answer:
    """Run host-local with its leases in a folder of the test."""
    data = {"type": "host-local", "subnet": "10.9.0.0/24", "dataDir": str(state / "leases")}
    return call({"CNI_COMMAND": command, **GOOD}, {**CONF, "ipam": data, **conf}, "host-local")


# Without an operation


@pytest.mark.parametrize("env", [{}, {"CNI_COMMAND": ""}])
def test_call_without_an_operation_describes_the_plugin(env: dict[str, str]) -> None:
    """The text is on stderr, for the user; stdout has nothing that a runtime could read as a result."""
    answer = call(env)

    assert (answer.status, answer.stdout) == (0, "")
    assert "loopback" in answer.stderr and all(version in answer.stderr for version in VERSIONS)


def test_version_is_answered_without_reading_stdin() -> None:
    """A pipe that stays open must not delay the answer."""
    read, write = os.pipe()
    try:
        answer = call({"CNI_COMMAND": "VERSION"}, stdin=read)
    finally:
        os.close(read)
        os.close(write)

    assert (answer.status, answer.stderr) == (0, "")
    assert answer.stdout.endswith("\n") and answer.stdout.count("\n") == 1
    assert json.loads(answer.stdout) == {"cniVersion": "1.1.0", "supportedVersions": VERSIONS}


@pytest.mark.parametrize("conf", [b"", b"{", {"cniVersion": "9.9.9"}, {"cniVersion": "0.1.0"}])
def test_version_is_answered_for_any_configuration(conf: Any) -> None:
    assert json.loads(call({"CNI_COMMAND": "VERSION"}, conf).stdout)["supportedVersions"] == VERSIONS


# Environment

REQUIRED = [
    ("ADD", "CNI_CONTAINERID CNI_NETNS CNI_IFNAME CNI_PATH"),
    ("DEL", "CNI_CONTAINERID CNI_IFNAME CNI_PATH"),
    ("CHECK", "CNI_CONTAINERID CNI_NETNS CNI_IFNAME CNI_PATH"),
    ("GC", "CNI_PATH"),
]


@pytest.mark.parametrize(
    ("command", "name"), [(command, name) for command, names in REQUIRED for name in names.split()]
)
def test_missing_variable_is_named(command: str, name: str) -> None:
    """An empty variable counts as missing."""
    error = request(command, **{name: ""}).error()

    assert (error["code"], error["msg"]) == (4, f"required env variables [{name}] missing")


@pytest.mark.parametrize(("command", "names"), REQUIRED)
def test_missing_variables_are_named_all_at_once(command: str, names: str) -> None:
    error = call({"CNI_COMMAND": command}).error()

    assert error["code"] == 4
    assert error["msg"] == f"required env variables [{','.join(names.split())}] missing"


@pytest.mark.parametrize(
    ("command", "without"),
    [("DEL", "CNI_NETNS"), ("STATUS", " ".join(GOOD)), ("GC", "CNI_CONTAINERID CNI_NETNS CNI_IFNAME")],
)
def test_variables_that_are_not_required_may_be_missing(command: str, without: str) -> None:
    answer = request(command, {**CONF, "cniVersion": "1.1.0"}, without)

    assert (answer.status, answer.stdout, answer.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CNI_CONTAINERID", "../../etc/x"),
        ("CNI_CONTAINERID", "c1\n"),
        ("CNI_CONTAINERID", "-c1"),
        ("CNI_CONTAINERID", "c 1"),
        ("CNI_CONTAINERID", "\u00fc"),
        ("CNI_CONTAINERID", os.fsdecode(b"\xff")),
        ("CNI_IFNAME", "a" * 16),
        ("CNI_IFNAME", "a/b"),
        ("CNI_IFNAME", "a:b"),
        ("CNI_IFNAME", "a b"),
        ("CNI_IFNAME", "."),
        ("CNI_IFNAME", ".."),
        ("CNI_IFNAME", "lo\n"),
        ("CNI_IFNAME", os.fsdecode(b"eth\xff")),
    ],
)
def test_malformed_variable_is_refused(name: str, value: str) -> None:
    assert request("ADD", **{name: value}).error()["code"] == 4


@pytest.mark.parametrize("command", ["DEL", "CHECK", "GC", "STATUS"])
def test_every_operation_validates_its_input(command: str) -> None:
    conf = {**CONF, "cniVersion": "1.1.0"}

    assert request(command, b"{").error()["code"] == 6
    assert request(command, {**conf, "name": "../x"}).error()["code"] == 7
    if command in ("DEL", "CHECK"):
        assert request(command, conf, CNI_CONTAINERID="../x").error()["code"] == 4
        assert request(command, conf, CNI_IFNAME="a/b").error()["code"] == 4


def test_malformed_variable_is_reported_before_a_missing_one() -> None:
    error = request("ADD", without="CNI_NETNS CNI_PATH", CNI_CONTAINERID="a/b").error()

    assert error["code"] == 4 and "container ID" in error["msg"]


@pytest.mark.parametrize("command", ["add", "Add", "UPDATE", "ADD ", "VERSION2", "\u00fc"])
def test_unknown_command_is_refused(command: str) -> None:
    error = request(command).error()

    assert error["code"] == 4 and error["msg"].startswith("unknown CNI_COMMAND: ")


# Configuration


@pytest.mark.parametrize(
    "conf",
    [b"", b" ", b"{", b"null", b"[]", b'"x"', b"{}{}", b"\xff", b"\xef\xbb\xbf{}", b"[" * 100_000, b"\0"],
)
def test_input_that_is_not_a_configuration_is_refused(conf: bytes) -> None:
    assert request("ADD", conf).error()["code"] == 6


@pytest.mark.parametrize("name", [None, "", "../x", "a b", "x\n", "-x", "x" * 256])
def test_name_of_the_network_is_validated(name: str | None) -> None:
    error = request("ADD", {**CONF, "cniVersion": "1.1.0", "name": name}).error()

    assert error["code"] == 7 and "network name" in error["msg"]


def test_name_of_the_network_has_to_be_text() -> None:
    assert request("ADD", {**CONF, "name": 7}).error()["code"] in (6, 7)


@pytest.mark.parametrize(
    ("version", "code"),
    [("1.0", 1), ("2.0.0", 1), ("0.5.0", 1), ("1.2.0", 1), (1, 6), ([], 6), (True, 6)],
)
def test_wrong_version_is_refused(version: Any, code: int) -> None:
    error = request("ADD", {**CONF, "cniVersion": version}).error()

    assert error["code"] == code
    if code == 1:
        assert error["msg"] == "incompatible CNI versions"
        assert f'config is "{version}"' in error["details"] and '"1.1.0"' in error["details"]


@pytest.mark.parametrize("command", ["CHECK", "GC", "STATUS"])
def test_malformed_version_is_a_decoding_error(command: str) -> None:
    assert request(command, {**CONF, "cniVersion": "latest"}).error()["code"] == 6


@pytest.mark.parametrize(
    ("command", "allowed"), [("CHECK", VERSIONS[4:]), ("GC", VERSIONS[6:]), ("STATUS", VERSIONS[6:])]
)
def test_operations_begin_with_a_version(command: str, allowed: list[str]) -> None:
    for version in ["", *VERSIONS]:
        answer = request(command, {**CONF, "cniVersion": version})
        if version in allowed:
            assert "does not allow" not in answer.stdout
        else:
            error = answer.error()
            assert (error["code"], error["msg"]) == (1, f"config version does not allow {command}")


def test_error_has_the_version_of_the_configuration() -> None:
    """The error has the newest supported version if the configuration has none."""
    assert request("ADD", {**CONF, "cniVersion": "0.4.0"}).error()["cniVersion"] == "0.4.0"
    assert request("ADD", b"{").error()["cniVersion"] == "1.1.0"


# Operation


def test_result_has_the_version_of_the_configuration(state: Path) -> None:
    shapes: dict[str, Any] = {}
    for version in ["", *VERSIONS]:
        answer = ipam(state, "ADD", cniVersion=version)
        assert (answer.status, answer.stderr) == (0, "")
        assert answer.stdout.startswith('{\n    "cniVersion": "') and not answer.stdout.endswith("\n")
        shapes[version] = json.loads(answer.stdout)
        deleted = ipam(state, "DEL", cniVersion=version)
        assert (deleted.status, deleted.stdout, deleted.stderr) == (0, "", "")

    assert {version: shape["cniVersion"] for version, shape in shapes.items()} == {
        "": "0.1.0", **{version: version for version in VERSIONS}
    }  # fmt: skip
    assert shapes[""].keys() == shapes["0.2.0"].keys() == {"cniVersion", "ip4", "dns"}
    assert shapes["0.4.0"]["ips"][0]["version"] == "4"
    assert "version" not in shapes["1.0.0"]["ips"][0]


def test_error_of_a_plugin_keeps_its_code(state: Path) -> None:
    error = ipam(state, "ADD", ipam={"type": "host-local"}).error()

    assert error["code"] == 7 and "range" in error["msg"]


def test_system_error_is_an_internal_error(state: Path) -> None:
    (state / "leases").write_text("no folder")

    error = ipam(state, "ADD").error()
    assert error["code"] == 999 and str(state / "leases") in error["msg"]


def test_path_that_is_not_a_namespace_is_named() -> None:
    for path in ("/no/such/netns", "/etc/passwd", "/dev/null", "/"):
        error = request("ADD", CNI_NETNS=path).error()
        assert path in error["msg"] and "Errno" not in error["msg"]


def test_namespace_of_the_host_is_never_configured() -> None:
    """The check comes before any change; the reference's skeleton checks after the plugin has acted."""
    for path in ("/proc/self/ns/net", f"/proc/{os.getpid()}/ns/net"):
        error = request("ADD", CNI_NETNS=path).error()
        assert error["code"] == 8 and path in error["msg"]


def test_delete_without_a_namespace_succeeds() -> None:
    for env in ({"CNI_NETNS": ""}, {"CNI_NETNS": "/no/such/netns"}, {"CNI_NETNS": "/proc/self/ns/net"}):
        answer = request("DEL", **env)
        assert (answer.status, answer.stdout, answer.stderr) == (0, "", "")


def test_closed_stdout_causes_no_traceback() -> None:
    """The runtime was killed in between."""
    read, write = os.pipe()
    os.close(read)
    code = LAUNCHER.format(checkout=str(CHECKOUT), plugin="loopback")
    process = subprocess.run(
        [sys.executable, "-IS", "-c", code],
        env={"CNI_COMMAND": "VERSION"},
        stdin=subprocess.DEVNULL,
        stdout=write,
        stderr=subprocess.PIPE,
        timeout=20,
    )
    os.close(write)

    assert (process.returncode, process.stderr) == (0, b"")
