# SPDX-License-Identifier: Apache-2.0
"""The command `cnihook conformance`: its arguments, its output, and how it ends."""

import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.commands.listings import INSTALLED
from tests.support.host.host import Host
from tests.support.host.namespace import base_environment, end
from tests.support.plugins import cni
from tests.support.skip import need_open_checkout, need_root

CHECKOUT = Path(__file__).resolve().parents[2]

CNIHOOK = str(CHECKOUT / "scripts" / "cnihook")

MINUTES = 600.0  # seconds, on a busy machine

# Two long runs, both on the same worker.
pytestmark = pytest.mark.xdist_group("conformance")


def conformance(*argv: str, **options: Any) -> subprocess.CompletedProcess[str]:
    result = subprocess.run(
        [CNIHOOK, "conformance", *argv],
        capture_output=True,
        text=True,
        env=base_environment(),
        timeout=MINUTES,
        **options,
    )
    assert "Traceback" not in result.stderr, result.stderr
    return result


def refused(*argv: str, **options: Any) -> str:
    """Return the one line on stderr of a run that could not check anything."""
    result = conformance(*argv, **options)
    assert (result.returncode, result.stdout) == (2, ""), result
    assert result.stderr.startswith("cnihook: conformance: ") and result.stderr.count("\n") == 1
    return result.stderr


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """Create a plugin of a type that the suite does not know."""
    executable = tmp_path / "unheard-of"
    program = f"import sys; sys.path.append({str(CHECKOUT)!r}); import tests.support.plugins.small_plugin"
    executable.write_text(f"#!{sys.executable} -IS\n{program}\n")
    executable.chmod(0o755)
    return executable


def configuration(folder: Path, **keys: Any) -> str:
    path = folder / "net.conflist"
    plugin = {"type": "unheard-of", **keys}
    path.write_text(json.dumps({"cniVersion": "1.0.0", "name": "x", "plugins": [{"type": "a"}, plugin]}))
    return str(path)


def outcomes(done: subprocess.CompletedProcess[str]) -> dict[str, str]:
    return {one["check"]: one["outcome"] for one in json.loads(done.stdout)["results"]}


CHOSEN = (
    "--check",
    "add",
    "--check",
    "prev-result-passed-on",
    "--check",
    "ipam-abbreviated",
    "--check",
    "del",
)


@pytest.mark.root
@pytest.mark.parametrize(
    ("keys", "applies"),
    [
        (
            {"role": "interface", "ipam": {"type": "static", "addresses": [{"address": "10.9.0.2/24"}]}},
            "del",
        ),
        ({"role": "chained"}, "prev-result-passed-on"),
        ({"role": "ipam"}, "ipam-abbreviated"),
    ],
    ids=["interface", "chained", "ipam"],
)
def test_role_of_unknown_plugin_is_detected(
    tmp_path: Path, small: Path, keys: dict[str, Any], applies: str
) -> None:
    """The suite needs only its configuration: a first ADD shows which kind of plugin it is."""
    cni.write_launchers(tmp_path)  # for static, beside it

    result = conformance(str(small), "--config", configuration(tmp_path, **keys), *CHOSEN, "--json", "-")

    assert {name for name, outcome in outcomes(result).items() if outcome == "passed"} == {"add", applies}
    assert result.returncode == 0


@pytest.mark.root
def test_chained_option_sets_the_role(tmp_path: Path, small: Path) -> None:
    conf = configuration(tmp_path, role="chained")

    result = conformance(str(small), "--config", conf, "--chained", *CHOSEN, "--json", "-")

    assert outcomes(result)["prev-result-passed-on"] == "passed"


@pytest.mark.root
def test_unknown_plugin_without_configuration_gets_protocol_checks(small: Path) -> None:
    checks = ("--check", "container-id", "--check", "version-alone", "--check", "add")

    result = conformance(str(small), *checks, "--json", "-")

    assert outcomes(result) == {"container-id": "passed", "version-alone": "passed", "add": "skipped"}
    assert "--config" in result.stdout


@pytest.mark.root
def test_two_plugins_of_one_name_are_reported_by_path(tmp_path: Path, small: Path) -> None:
    """One can compare a plugin before and after a change."""
    other = tmp_path / "other" / small.name
    other.parent.mkdir()
    other.write_text("#!/bin/sh\n")
    other.chmod(0o755)

    result = conformance(str(small), str(other), str(small), "--check", "version-lists", "--json", "-")

    results = [(one["subject"], one["outcome"]) for one in json.loads(result.stdout)["results"]]
    assert results == [(str(small), "passed"), (str(other), "failed")]


@pytest.mark.root
def test_run_without_any_check_is_an_error(small: Path) -> None:
    result = conformance(str(small), "--check", "add")

    assert (result.returncode, result.stderr) == (2, "cnihook: conformance: nothing could be tried\n")
    assert "unheard-of: add: no configuration is known for it" in result.stdout


@pytest.mark.root
def test_configuration_that_fails_every_add_is_one_failure(tmp_path: Path, small: Path) -> None:
    """The checks that need an ADD are skipped."""
    conf = configuration(tmp_path, role="interface", ipam={"type": "there-is-none"})

    result = conformance(str(small), "--config", conf, *CHOSEN, "--json", "-")

    by_check = outcomes(result)
    assert by_check.pop("add") == "failed"
    assert set(by_check.values()) == {"skipped"}
    assert result.returncode == 1


@pytest.mark.root
def test_plugin_below_run_is_visible(host: Host) -> None:
    """/run is empty in the suite's throw-away hosts, but a plugin under test there must be visible."""
    (host.root / "run/plugins").mkdir()
    cni.write_launchers(host.root / "run/plugins")

    result = host.run(CNIHOOK, "conformance", "/run/plugins/loopback", "--check", "add", timeout=MINUTES)

    assert "add  ok" in result.stdout
    host.leaves("* /run/plugins*")


@pytest.mark.root
def test_user_without_root_can_run_it_in_a_user_namespace(tmp_path: Path) -> None:
    program = [CNIHOOK, "conformance", str(cni.REFERENCE / "loopback"), "--check", "add"]
    if not Path(program[2]).exists():
        pytest.skip("there is no reference")
    need_open_checkout()
    drop = "setpriv --reuid 65534 --regid 65534 --clear-groups".split()

    inside = subprocess.run([*drop, "unshare", "-Urmn", *program], capture_output=True, text=True)
    outside = subprocess.run([*drop, *program], capture_output=True, text=True)

    assert inside.returncode == 0 and "add  ok" in inside.stdout
    assert (outside.returncode, outside.stdout, outside.stderr.count("\n")) == (2, "", 1)
    assert "root, or a user namespace" in outside.stderr


def test_list_names_every_check_and_its_section() -> None:
    result = conformance("--list")

    assert result.returncode == 0
    assert "\ndel-twice  [2 DEL]\n    a second DEL succeeds\n" in result.stdout
    assert "\ndel-past-failure  [3 Deleting an attachment; note]\n" in result.stdout
    assert max(len(line) for line in result.stdout.splitlines()) <= 80


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ([], "EXECUTABLE, DIR or --runtime COMMAND is missing"),
        (["/nowhere/bridge"], "/nowhere/bridge: no such file"),
        (["/etc/passwd"], "not an executable"),
        (["/etc/cron.d/.."], "--check"),
        (["--runtime", "x", "y"], "--runtime cannot be combined with plugins"),
        (["--runtime", "there-is-no-such-runtime"], "no such program"),
        (["/bin/true", "--config", "/nowhere.conf"], "/nowhere.conf: No such file"),
        (["/bin/true", "--config", "/etc/passwd"], "/etc/passwd: "),
    ],
)
def test_wrong_arguments_are_one_line_and_exit_2(argv: list[str], words: str) -> None:
    need_root()
    if words == "--check":
        argv = ["/bin/true", "--check", "nonsense"]
        words = "no check 'nonsense'; --list prints"

    assert words in refused(*argv)


@pytest.mark.root
def test_terminal_shows_progress(small: Path) -> None:
    """Progress is one line, which is erased at the end.  The table stays, in colour."""
    controller, terminal = os.openpty()
    process = subprocess.Popen(
        [INSTALLED, "conformance", str(small), "--check", "about", "--check", "version-alone"],
        stdin=subprocess.DEVNULL,
        stdout=terminal,
        stderr=terminal,
        env=base_environment() | {"TERM": "xterm"},
    )
    os.close(terminal)
    text = ""
    deadline = time.monotonic() + 60
    try:
        while time.monotonic() < deadline and select.select([controller], [], [], 60)[0]:
            try:
                text += os.read(controller, 65536).decode()
            except OSError:
                break
    finally:
        end(process)
        os.close(controller)

    progress, _, table = text.rpartition("\r\033[K")
    assert "\r1/2 unheard-of: " in progress
    assert "\033[32mok\033[0m" in table


@pytest.mark.root
def test_sigint_ends_all_plugins(host: Host, small: Path) -> None:
    process = host.popen(CNIHOOK, "conformance", str(small), str(cni.REFERENCE))
    while not Path(f"/proc/{process.inside}/task/{process.inside}/children").read_text():
        assert process.poll() is None
    os.kill(process.inside, signal.SIGINT)

    assert process.wait(30) == 130
