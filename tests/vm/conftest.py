# SPDX-License-Identifier: Apache-2.0
"""Tests below guest/ are run by a second pytest, under a kernel with modules that this machine's may lack.

They are collected, selected and reported here like any others.  When the first of them is due, one pytest in
one guest runs all selected ones.  Its reports are printed here one test at a time.
"""

import json
import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

from tests.conftest import GUEST
from tests.netns.conftest import container, implementation, implementations
from tests.support.skip import skip_or_fail

__all__ = ["container", "implementation", "implementations"]  # the same fixtures as on any kernel

BOOT = ["setpriv", "--pdeathsig", "TERM", str(Path(__file__).with_name("boot.py"))]
IN_GUEST = "IN_TEST_GUEST" in os.environ
MARK = "\x1e"  # a line that begins with it is a report; the others are pytest's usual output

NODE = pytest.StashKey[str]()  # the name of a test in the guest: here xdist may add to it
RUN = pytest.StashKey["GuestRun"]()


def is_for_guest(item: pytest.Item) -> bool:
    """Return True if the test runs in the guest.

    A test with `run=False` does not, because its report would take a second there.
    """
    return NODE in item.stash and all(mark.kwargs.get("run", True) for mark in item.iter_markers("xfail"))


class GuestRun:
    """One run of pytest in the guest."""

    def __init__(self, config: pytest.Config, tests: list[str]) -> None:
        environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")}
        # Plugins that no test there uses would take two seconds to import on an emulated processor.
        environment |= {"IN_TEST_GUEST": "1", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
        self._config = config
        self._reports: defaultdict[str, list[pytest.TestReport]] = defaultdict(list)
        self._log: list[str] = []
        self._process = subprocess.Popen(
            [*BOOT, sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *tests],
            cwd=config.rootpath,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        config.add_cleanup(self.end)

    def reports(self, test: str) -> list[pytest.TestReport]:
        """Wait for the reports of one test.  Returns none if the guest ends before."""
        assert self._process.stdout
        reports = self._reports[test]
        while not reports or reports[-1].when != "teardown":
            line = self._process.stdout.readline()
            if not line:
                return []
            if line.startswith(MARK):
                data = json.loads(line.removeprefix(MARK))
                report = self._config.hook.pytest_report_from_serializable(config=self._config, data=data)
                self._reports[report.nodeid].append(report)
            else:
                self._log.append(line)
        return reports

    def explain(self) -> None:
        """Fail or skip a test without a report, with the guest's output."""
        log = "".join(self._log[-100:]).strip()
        if self._process.wait() == 125:
            skip_or_fail(log)
        pytest.fail(f"the guest did not report this test; its output:\n{log}", pytrace=False)

    def end(self) -> None:
        self._process.terminate()
        self._process.communicate()


@pytest.hookimpl(tryfirst=True)  # before xdist, which names the group in the name of the test
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if not IN_GUEST and item.path.is_relative_to(GUEST):
            item.stash[NODE] = item.nodeid
            item.add_marker(pytest.mark.xdist_group("guest"))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    if not is_for_guest(item):
        return None
    session = item.session
    if RUN not in session.stash:
        tests = [other.stash[NODE] for other in session.items if is_for_guest(other)]
        session.stash[RUN] = GuestRun(item.config, tests)
    reports = session.stash[RUN].reports(item.stash[NODE])
    if not reports:
        return None  # run as usual, up to pytest_runtest_setup
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    for report in reports:
        report.nodeid = item.nodeid
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    # Tear down the fixtures of earlier tests, as pytest's own protocol does.
    session._setupstate.teardown_exact(nextitem)
    return True


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    if is_for_guest(item):
        item.session.stash[RUN].explain()


class Reporter:
    """A plugin of the guest's pytest, which prints every report on a line of its own."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        data = self._config.hook.pytest_report_to_serializable(config=self._config, report=report)
        print(f"\n{MARK}{json.dumps(data)}", flush=True)


def pytest_configure(config: pytest.Config) -> None:
    if IN_GUEST:
        config.pluginmanager.register(Reporter(config))
