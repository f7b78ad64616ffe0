# SPDX-License-Identifier: Apache-2.0
"""cnihook conformance: our own plugins keep every promise, the reference's known faults are found, and what
comes out can be read by people and by programs.
"""

import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from tests.support import cni
from tests.support.difference import numbers
from tests.support.host import Host
from tests.support.namespace import base_environment, end
from tests.support.seeing import INSTALLED
from tests.support.skip import need_open_checkout, need_root

CHECKOUT = Path(__file__).resolve().parents[2]
CNIHOOK = str(CHECKOUT / "scripts" / "cnihook")
SMALL = CHECKOUT / "tests" / "support" / "small_plugin.py"
MINUTES = 600.0  # on a machine that has much else to do

# Two long runs; the worker that has one of them has both.
pytestmark = pytest.mark.xdist_group("conformance")


class Run:
    """One run in a throw-away host, in which it has left nothing."""

    def __init__(self, folder: Path, *argv: str) -> None:
        with Host() as host:
            files = ("--json", str(folder / "found.json"), "--junit", str(folder / "found.xml"))
            self.done = host.run(CNIHOOK, "conformance", *argv, *files, check=False, timeout=MINUTES)
            host.check_leaks()
        self.results: list[dict[str, Any]] = json.loads((folder / "found.json").read_text())["results"]
        self.junit = ElementTree.parse(folder / "found.xml").getroot()

    def having(self, outcome: str) -> dict[str, list[str]]:
        """The plugins of each check with this outcome."""
        found: dict[str, list[str]] = {}
        for one in self.results:
            if one["outcome"] == outcome:
                found.setdefault(one["check"], []).append(one["subject"])
        return found


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Run:
    plugins = tmp_path_factory.mktemp("plugins")
    cni.write_launchers(plugins)
    return Run(tmp_path_factory.mktemp("ours"), str(plugins))


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Only with the checks that it is known to fail, and a few that it passes."""
    if not cni.REFERENCE.is_dir():
        pytest.skip(f"there is no {cni.REFERENCE}")
    names = [*REFERENCE_FAILS, *REFERENCE_NOTES, "add", "container-id", "prev-result-passed-on", "parallel"]
    checks = [argument for name in names for argument in ("--check", name)]
    return Run(tmp_path_factory.mktemp("reference"), str(cni.REFERENCE), *checks)


LOOPBACK = {  # the shape of 1.0.0, whatever the version
    "result-0.1.0": {"loopback"},
    "result-0.4.0": {"loopback"},
}
# What containernetworking-plugins 1.1.1 do, as Debian 12 and 13 have them, and 1.9.1.
FAILS: dict[str, dict[str, set[str]]] = {
    "1.1.1": {
        **LOOPBACK,
        "check": {"portmap"},  # looks for the rules of IPv4 in the table of IPv6
        "check-later-plugins": {"portmap"},
        "check-route": {"bridge", "host-device", "ipvlan", "macvlan", "ptp", "vlan"},
        "del-link-gone": {"host-device", "sbr", "vrf"},
        "del-others": {"portmap"},
        "del-twice": {"host-device"},
        "delegate-del-no-netns": {"host-device"},
    },
    "1.9.1": {
        **LOOPBACK,
        "add-existing": {"tap"},
        "del-link-gone": {"host-device", "vrf"},
        "del-twice": {"host-device"},
        "delegate-del-no-netns": {"host-device"},
        "delegate-gc": {"bridge", "host-device", "ipvlan", "macvlan", "ptp", "tap", "vlan"},
    },
}
# What they do not do although they should.
NOTES: dict[str, dict[str, set[str]]] = {
    "1.1.1": {
        "add-other-ifname": {"ptp"},  # one route to the gateway, and the second attachment makes it again
        "del-empty-netns": {"sbr"},
        "del-failed-add": {"host-device", "sbr"},
        "del-host-links-gone": {"host-device", "macvlan", "sbr", "vlan", "vrf"},
        "del-netns-gone": {"host-device", "sbr"},
        "del-never-added": {"dhcp", "host-device", "sbr"},
        "delegate-refuses-clean": {"bridge", "host-device", "ipvlan", "macvlan", "vlan"},
        "result-dns": {"bridge", "host-device", "ipvlan", "macvlan", "vlan"},
    },
    "1.9.1": {
        "add-other-ifname": {"ptp"},
        "del-empty-netns": {"sbr"},
        "gc-removes": {"bandwidth", "bridge", "firewall", "host-local", "portmap", "ptp", "tuning"},
        "gc-ifname": {"bandwidth", "bridge", "firewall", "host-local", "portmap", "ptp", "tuning"},
    },
}
_VERSION = "1.1.1" if numbers(cni.reference_version()) < (1, 9) else "1.9.1"
REFERENCE_FAILS, REFERENCE_NOTES = FAILS[_VERSION], NOTES[_VERSION]


# What sbr moves out of the main table it does not move back: the interface goes in the chain's same DEL.
OUR_NOTES = {("sbr", "del-undoes")}


def test_our_own_plugins_keep_every_promise(ours: Run) -> None:
    wrong = [one for one in ours.results if one["outcome"] in ("failed", "note")]

    assert [one for one in wrong if (one["subject"], one["check"]) not in OUR_NOTES] == []
    assert (ours.done.returncode, ours.done.stderr) == (0, "")


def test_our_own_plugins_are_tried(ours: Run) -> None:
    """What is skipped is kept by nobody."""
    passed = ours.having("passed")

    assert {"bridge", "host-local", "loopback", "ptp", "static", "tuning"} <= set(passed["del-twice"])
    assert {"bridge", "ptp", "host-local"} <= set(passed["gc-removes"]) and "tuning" in passed["gc-removes"]
    assert {"bridge", "ptp"} <= set(passed["delegate-gc"])


@pytest.mark.parametrize("check", REFERENCE_FAILS)
def test_fault_of_the_reference_is_found(reference: Run, check: str) -> None:
    """Of the plugins that this kernel lets work; a fault that is gone with a newer version shows here."""
    failed, skipped = set(reference.having("failed").get(check, [])), reference.having("skipped")

    assert failed == REFERENCE_FAILS[check] - set(skipped.get(check, []))
    assert failed and reference.done.returncode == 1


@pytest.mark.parametrize("check", REFERENCE_NOTES)
def test_what_the_reference_should_do_is_a_note(reference: Run, check: str) -> None:
    noted, skipped = set(reference.having("note").get(check, [])), reference.having("skipped")

    assert noted and noted == REFERENCE_NOTES[check] - set(skipped.get(check, []))


def test_the_reference_is_no_fault_altogether(reference: Run) -> None:
    passed = reference.having("passed")

    assert {"bridge", "portmap", "dhcp", "vrf"} <= set(passed["container-id"])
    assert {"bandwidth", "firewall", "portmap", "sbr", "tuning"} <= set(passed["prev-result-passed-on"])
    assert {"bridge", "host-local", "ptp"} <= set(passed["parallel"])


def test_what_cannot_be_tried_has_its_reason(reference: Run) -> None:
    reasons = {
        one["subject"]: one["why"] for one in reference.results if one["check"] == "add" and "why" in one
    }

    assert "DHCP server" in reasons["dhcp"]
    assert "dhcp: " in reference.done.stdout and "DHCP server" in reference.done.stdout


def test_table_can_be_read_on_80_columns_without_colour(reference: Run) -> None:
    text = reference.done.stdout
    table, _, rest = text.partition("ok: the promise is kept")

    assert "\033" not in text
    assert max(len(line) for line in table.splitlines()) <= 80
    row = next(line for line in table.splitlines() if line.startswith("del-twice"))
    assert set(row.split()[1:]) == {"ok", "FAIL", "-"}
    assert "FAIL host-device: del-twice" in rest and "(specification: 2 DEL)" in rest
    assert "sent:" in rest and "came:    exit 1" in rest


def test_json_and_junit_tell_the_same(reference: Run) -> None:
    suites = reference.junit.findall("testsuite")
    cases = reference.junit.findall("testsuite/testcase")

    assert reference.junit.tag == "testsuites"
    assert int(reference.junit.get("tests", "")) == len(cases) == len(reference.results)
    failures = {
        (suite.get("name"), case.get("name"))
        for suite in suites
        for case in suite
        if case.find("failure") is not None
    }
    assert failures == {
        (one["subject"], one["check"]) for one in reference.results if one["outcome"] == "failed"
    }
    assert int(reference.junit.get("failures", "")) == len(failures)
    skipped = [case for case in cases if case.find("skipped") is not None]
    assert len(skipped) == int(reference.junit.get("skipped", ""))


# The command itself


def conformance(*argv: str, **options: Any) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [CNIHOOK, "conformance", *argv],
        capture_output=True,
        text=True,
        env=base_environment(),
        timeout=MINUTES,
        **options,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


def refused(*argv: str, **options: Any) -> str:
    """The one line that says why, of what could not be checked."""
    done = conformance(*argv, **options)
    assert (done.returncode, done.stdout) == (2, ""), done
    assert done.stderr.startswith("cnihook: conformance: ") and done.stderr.count("\n") == 1
    return done.stderr


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A plugin of a type that the suite does not know."""
    executable = tmp_path / "unheard-of"
    executable.write_text(f"#!/bin/sh\nexec {sys.executable} -IS {SMALL}\n")
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
def test_unknown_plugin_is_known_by_what_it_does(
    tmp_path: Path, small: Path, keys: dict[str, Any], applies: str
) -> None:
    """Its configuration is enough: of which kind it is shows in a first ADD."""
    cni.write_launchers(tmp_path)  # for static, beside it

    done = conformance(str(small), "--config", configuration(tmp_path, **keys), *CHOSEN, "--json", "-")

    assert {name for name, outcome in outcomes(done).items() if outcome == "passed"} == {"add", applies}
    assert done.returncode == 0


@pytest.mark.root
def test_chained_can_be_said(tmp_path: Path, small: Path) -> None:
    conf = configuration(tmp_path, role="chained")

    done = conformance(str(small), "--config", conf, "--chained", *CHOSEN, "--json", "-")

    assert outcomes(done)["prev-result-passed-on"] == "passed"


@pytest.mark.root
def test_unknown_plugin_without_configuration_is_held_to_the_protocol(small: Path) -> None:
    checks = ("--check", "container-id", "--check", "version-alone", "--check", "add")

    done = conformance(str(small), *checks, "--json", "-")

    assert outcomes(done) == {"container-id": "passed", "version-alone": "passed", "add": "skipped"}
    assert "--config" in done.stdout


@pytest.mark.root
def test_two_of_one_name_are_told_apart(tmp_path: Path, small: Path) -> None:
    """Such as a plugin and the same one before a change."""
    other = tmp_path / "other" / small.name
    other.parent.mkdir()
    other.write_text("#!/bin/sh\n")
    other.chmod(0o755)

    done = conformance(str(small), str(other), str(small), "--check", "version-lists", "--json", "-")

    found = [(one["subject"], one["outcome"]) for one in json.loads(done.stdout)["results"]]
    assert found == [(str(small), "passed"), (str(other), "failed")]


@pytest.mark.root
def test_nothing_tried_is_no_success(small: Path) -> None:
    done = conformance(str(small), "--check", "add")

    assert (done.returncode, done.stderr) == (2, "cnihook: conformance: nothing could be tried\n")
    assert "unheard-of: add: no configuration is known for it" in done.stdout


@pytest.mark.root
def test_configuration_with_which_nothing_works_is_one_failure(tmp_path: Path, small: Path) -> None:
    """Not one in each of the checks that need an ADD."""
    conf = configuration(tmp_path, role="interface", ipam={"type": "there-is-none"})

    done = conformance(str(small), "--config", conf, *CHOSEN, "--json", "-")

    found = outcomes(done)
    assert found.pop("add") == "failed"
    assert set(found.values()) == {"skipped"}
    assert done.returncode == 1


@pytest.mark.root
def test_plugin_where_a_host_is_empty_is_found(host: Host) -> None:
    """/run is empty in the suite's own hosts; what is under test there has to be seen all the same."""
    (host.root / "run/plugins").mkdir()
    cni.write_launchers(host.root / "run/plugins")

    done = host.run(CNIHOOK, "conformance", "/run/plugins/loopback", "--check", "add", timeout=MINUTES)

    assert "add  ok" in done.stdout
    host.leaves("* /run/plugins*")


@pytest.mark.root
def test_ordinary_user_can_run_it_in_a_user_namespace(tmp_path: Path) -> None:
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
    done = conformance("--list")

    assert done.returncode == 0
    assert "\ndel-twice  [2 DEL]\n    a second DEL succeeds\n" in done.stdout
    assert "\ndel-past-failure  [3 Deleting an attachment; note]\n" in done.stdout
    assert max(len(line) for line in done.stdout.splitlines()) <= 80


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
def test_what_cannot_be_checked_is_one_line_and_exit_2(argv: list[str], words: str) -> None:
    need_root()
    if words == "--check":
        argv = ["/bin/true", "--check", "nonsense"]
        words = "no check 'nonsense'; --list prints"

    assert words in refused(*argv)


@pytest.mark.root
def test_terminal_shows_how_far_it_is(small: Path) -> None:
    """On one line that goes when it is done; what is left is the table, in colour."""
    ours, theirs = os.openpty()
    process = subprocess.Popen(
        [INSTALLED, "conformance", str(small), "--check", "about", "--check", "version-alone"],
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
        env=base_environment() | {"TERM": "xterm"},
    )
    os.close(theirs)
    text = ""
    deadline = time.monotonic() + 60
    try:
        while time.monotonic() < deadline and select.select([ours], [], [], 60)[0]:
            try:
                text += os.read(ours, 65536).decode()
            except OSError:
                break
    finally:
        end(process)
        os.close(ours)

    progress, _, table = text.rpartition("\r\033[K")
    assert "\r1/2 unheard-of: " in progress
    assert "\033[32mok\033[0m" in table


@pytest.mark.root
def test_interrupted_it_ends_all_that_it_started(host: Host, small: Path) -> None:
    process = host.popen(CNIHOOK, "conformance", str(small), str(cni.REFERENCE))
    while not Path(f"/proc/{process.inside}/task/{process.inside}/children").read_text():
        assert process.poll() is None
    os.kill(process.inside, signal.SIGINT)

    assert process.wait(30) == 130
