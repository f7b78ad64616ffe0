# SPDX-License-Identifier: Apache-2.0
"""protocol.invoke: how a plugin is found and run as an executable, and how its output is read."""

import json
import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from cnihook.process import child
from cnihook.protocol import call, invoke
from cnihook.protocol.call import Invocation
from cnihook.types.config import NetConf
from cnihook.types.errors import INCOMPATIBLE_VERSION, INTERNAL, CniError
from cnihook.types.result import Result
from tests.unit.standins import Plugins, answer, refuse


@pytest.fixture
def plugins(state: Path, monkeypatch: pytest.MonkeyPatch) -> Plugins:
    """Replace the default folders, so that installed plugins have no effect."""
    for module in (invoke, call):
        monkeypatch.setattr(module, "DEFAULT_PATH", (str(state / "opt"), str(state / "lib")))
    return Plugins(state)


def conf(**keys: Any) -> NetConf:
    return NetConf({"cniVersion": "1.0.0", "name": "mynet", "type": "one", **keys}, "10-mynet.conf")


def run(plugins: Plugins, command: str = "ADD", **keys: Any) -> Result | None:
    return invoke.run(command, "one", conf(**keys), plugins.request())


def failure(plugins: Plugins, script: str, command: str = "ADD", timeout: float = 20) -> CniError:
    """Return the error of a plugin that is this shell code."""
    plugins.write("one", f"#!/bin/sh\n{script}\n")
    with pytest.raises(CniError) as failed:
        invoke.run(command, "one", conf(), plugins.request(timeout))
    return failed.value


# Search


def test_explicit_path_is_preferred_to_the_built_in_plugin(plugins: Plugins) -> None:
    assert invoke.find("bridge", [str(plugins.folder)]) is None
    path = plugins.make("bridge")

    assert invoke.find("bridge", [str(plugins.folder)]) == str(path)
    assert invoke.find("bridge", None) is None


def test_built_in_plugin_is_preferred_to_the_default_folders(plugins: Plugins, state: Path) -> None:
    for folder in ("lib", "opt"):
        (state / folder).mkdir()
        for name in ("bridge", "one"):
            (state / folder / name).touch()

    assert invoke.find("bridge", None) is None
    assert invoke.find("host-local", None) is None
    assert invoke.find("one", [str(plugins.folder)]) == str(state / "opt" / "one")
    (state / "opt" / "one").unlink()
    assert invoke.find("one", None) == str(state / "lib" / "one")


def test_first_file_of_the_path_is_used(plugins: Plugins, state: Path) -> None:
    """A folder with that name is skipped, a link to a file is used; the permission is not checked."""
    first, second, third = (state / name for name in ("a", "b", "c"))
    for folder in (first, second, third):
        folder.mkdir()
    (first / "one").mkdir()
    (second / "one").symlink_to(plugins.make("other"))
    (third / "one").touch()

    path = ["", str(state / "none"), str(first), str(second), str(third)]
    assert invoke.find("one", path) == str(second / "one")


def test_missing_plugin_is_reported_with_all_folders(plugins: Plugins, state: Path) -> None:
    with pytest.raises(CniError) as failed:
        invoke.find("none", ["/a", "/b"])

    assert failed.value.msg == f'failed to find plugin "none" in path [/a /b {state}/opt {state}/lib]'
    assert "CNI_PATH" in failed.value.details


@pytest.mark.parametrize("plugin_type", ["", "../plugins/one", "/bin/sh", ".", "..", "a\0b"])
def test_path_is_not_accepted_as_a_type(plugins: Plugins, plugin_type: str) -> None:
    plugins.make("one")

    with pytest.raises(CniError):
        invoke.find(plugin_type, [str(plugins.folder)])


@pytest.mark.parametrize(
    "plugin_type", ["host_local", "__init__", "Bridge", "bridge.py", "bridge.", "-", "x\ny"]
)
def test_only_the_exact_types_are_built_in(plugin_type: str) -> None:
    assert not invoke.is_built_in(plugin_type)


def test_built_in_plugin_is_loaded_by_its_type() -> None:
    for plugin_type in ("bridge", "host-local", "loopback"):
        assert invoke.is_built_in(plugin_type)
        module = invoke.load(plugin_type)
        assert callable(module.add) and callable(module.delete) and callable(module.check)


def test_built_in_plugin_may_support_some_versions_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """ADD is refused in this process as by the plugin's executable; the DEL that follows succeeds."""
    loopback = invoke.load("loopback")
    monkeypatch.setattr(loopback, "VERSIONS", ("1.1.0",), raising=False)
    request = Invocation("c1", "", "lo")

    with pytest.raises(CniError, match="incompatible CNI versions") as refused:
        invoke.run_module(invoke.load("loopback"), "ADD", conf(), request)
    assert refused.value.code == INCOMPATIBLE_VERSION
    assert '"1.0.0", plugin supports ["1.1.0"]' in refused.value.details

    assert invoke.run_module(invoke.load("loopback"), "DEL", conf(), request) is None


# Input


def test_plugin_gets_its_configuration_and_all_six_variables(
    plugins: Plugins, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CNI_IFNAME", "stale")
    monkeypatch.setenv("CNI_NETNS_OVERRIDE", "1")
    plugins.make("one")
    request = plugins.request(args="K=V;IP=10.1.2.3")
    before = dict(os.environ)

    invoke.run("ADD", "one", conf(x={"a": [1, "\u00fc"]}), request)

    assert plugins.stdin(0) == conf(x={"a": [1, "\u00fc"]}).raw
    assert plugins.environment(0) == {
        "CNI_COMMAND": "ADD",
        "CNI_CONTAINERID": "c1",
        "CNI_NETNS": "/run/netns/c1",
        "CNI_IFNAME": "eth0",
        "CNI_ARGS": "K=V;IP=10.1.2.3",
        "CNI_PATH": ":".join([str(plugins.folder), *call.DEFAULT_PATH]),
        "CNI_NETNS_OVERRIDE": "1",  # the rest of the environment is passed on: PATH, proxies, tracing
    }
    assert dict(os.environ) == before


def test_variables_without_a_value_are_set_to_empty(
    plugins: Plugins, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the plugin would see the inherited values."""
    for name in ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_ARGS"):
        monkeypatch.setenv(name, "stale")
    plugins.make("one")

    invoke.run("GC", "one", conf(), Invocation("", "", "", plugin_dirs=[str(plugins.folder)]))

    environment = plugins.environment(0)
    assert [environment[name] for name in ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_ARGS")] == [
        ""
    ] * 4


# Output


def test_result_of_any_version_is_read(plugins: Plugins) -> None:
    plugins.make("one", ADD=answer({"cniVersion": "0.2.0", "ip4": {"ip": "10.1.2.3/24"}}))
    result = run(plugins)
    assert result and str(result.ips[0].net) == "10.1.2.3/24"


@pytest.mark.parametrize(
    "version",
    [
        "",
        '"cniVersion":"",',
        '"cniVersion":null,',
        '"cniVersion":7,',
    ],
)
def test_result_without_a_version_has_that_of_the_configuration(plugins: Plugins, version: str) -> None:
    text = '{%s"ip4":{"ip":"10.1.2.3/24"}}' % version  # noqa: UP031
    plugins.make("one", ADD=f"printf %s '{text}'")

    result = run(plugins, cniVersion="0.2.0")

    assert result and len(result.ips) == 1


def test_null_is_an_empty_result(plugins: Plugins) -> None:
    plugins.make("one", ADD="echo null")
    result = run(plugins)
    assert result and not (result.ips or result.interfaces)


@pytest.mark.parametrize(
    "output",
    ["", "{", "log line\n{}", "{}{}", "[]", "7", '"x"', '{"ips":[{"address":"x"}]}', '{"ips":{}}', "\\377"],
)
def test_other_output_is_an_error_that_names_the_plugin(plugins: Plugins, output: str) -> None:
    error = failure(plugins, f"printf '{output}'")

    assert f"{plugins.folder}/one" in error.msg
    assert len(str(error).splitlines()) == 1


@pytest.mark.parametrize("command", ["DEL", "CHECK", "GC", "STATUS"])
def test_output_of_other_operations_is_ignored(plugins: Plugins, command: str) -> None:
    plugins.make("one", **{command: "echo done, no JSON"})

    assert run(plugins, command) is None


def test_stderr_of_a_success_is_passed_on(plugins: Plugins, capfd: pytest.CaptureFixture[str]) -> None:
    plugins.make("one", DEL="echo a warning >&2")
    run(plugins, "DEL")
    assert capfd.readouterr().err == "a warning\n"


@pytest.mark.parametrize("command", ["ADD", "DEL", "STATUS"])
def test_error_of_the_plugin_keeps_code_message_and_details(plugins: Plugins, command: str) -> None:
    error = failure(plugins, refuse(11, "try again", details="later"), command)

    assert (error.code, error.msg, error.details) == (11, "try again", "later")


def test_stderr_of_a_failed_plugin_is_not_lost(plugins: Plugins, capfd: pytest.CaptureFixture[str]) -> None:
    """The reference drops it, and it may be the only hint."""
    error = failure(plugins, "echo the hint >&2; " + refuse(7, "no"))

    assert error.code == 7
    assert "the hint" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("echo 'no such device' >&2; exit 3", ["no such device", "exit status 3"]),
        ("printf 'a\\nb\\n' >&2; exit 1", ["a b", "exit status 1"]),
        ("exit 1", ["no error message", "exit status 1"]),
        ("kill -9 $$", ["killed by signal 9"]),
        ("kill -TERM $$", ["killed by signal 15"]),
        ("echo panic; exit 2", ["panic", "exit status 2", "not JSON"]),
        ("printf 'a\\nb'; exit 2", ["a b"]),
        ("echo '[1]'; exit 1", ["not an object"]),
        ("echo '{}'; exit 1", ["exit status 1"]),
        ("echo '{\"code\": 7}'; exit 1", ["exit status 1"]),
        ("echo '{\"msg\": 7}'; exit 1", ["exit status 1"]),
        ("printf '\\377'; exit 1", ["exit status 1"]),
        ("yes x | head -c 300000; exit 1", ["exit status 1"]),
        ("yes x | head -c 300000 >&2; exit 1", ["exit status 1"]),
    ],
)
def test_other_failure_reports_how_the_plugin_ended(plugins: Plugins, script: str, words: list[str]) -> None:
    error = failure(plugins, script)

    assert error.msg.startswith(f"{plugins.folder}/one: ")
    assert [word for word in words if word not in error.msg] == []
    assert len(error.msg.splitlines()) == 1 and len(error.msg) < 1500


def test_error_without_a_code_has_code_0(plugins: Plugins) -> None:
    error = failure(plugins, answer({"msg": "no", "code": "7"}) + "; exit 1")

    assert (error.code, error.msg) == (0, "no")


# Files that cannot be run


def test_file_that_cannot_be_run_is_named(plugins: Plugins) -> None:
    (plugins.folder / "one").write_text("#!/bin/sh\n")
    (plugins.folder / "two").write_text("no program")
    (plugins.folder / "two").chmod(0o755)
    plugins.write("three", "#!/no/such/shell\n")

    for name, reason in [
        ("one", "Permission denied"),
        ("two", "Exec format error"),
        ("three", "No such file or directory"),
    ]:
        with pytest.raises(CniError) as failed:
            invoke.run("ADD", name, conf(), plugins.request())
        assert failed.value.msg == f"{plugins.folder}/{name}: cannot be executed: {reason}"
        assert failed.value.code == INTERNAL


def test_file_that_is_being_written_is_tried_again(plugins: Plugins) -> None:
    """The kernel does not run a file that is open for writing (ETXTBSY)."""
    path = plugins.make("one")
    installer = os.open(path, os.O_WRONLY)
    with pytest.raises(OSError, match="Text file busy"):
        child.run(str(path), ["one"], {}, b"", 5)
    timer = threading.Timer(0.3, os.close, [installer])
    timer.start()

    assert run(plugins)
    timer.join()


def test_number_of_attempts_is_limited(plugins: Plugins, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error is raised then; the reference continues as if the plugin had run."""
    path = plugins.make("one")
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    installer = os.open(path, os.O_WRONLY)
    try:
        with pytest.raises(CniError, match="Text file busy"):
            run(plugins)
    finally:
        os.close(installer)
    assert 1 <= len(pauses) <= 10 and sum(pauses) <= 6


def test_plugin_that_takes_too_long_is_reported_with_its_operation(plugins: Plugins) -> None:
    error = failure(plugins, "sleep 60", timeout=0.2)

    assert error.msg == f"{plugins.folder}/one: ADD took more than 0.2 s and was killed"


def test_large_configuration_with_all_characters_is_passed(plugins: Plugins) -> None:
    """The text is long and has characters that are not ASCII."""
    plugins.make("one")
    large = {"a": ["\U0001f600" * 1000] * 100}

    run(plugins, large=large)

    assert plugins.stdin(0)["large"] == large
    assert json.dumps(large)
