# SPDX-License-Identifier: Apache-2.0
"""Tests without privilege, without a network and without a kernel's state: seconds for all of them."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from cnihook import log
from cnihook.linux import flock
from cnihook.names import entries
from cnihook.runtime import records
from cnihook.runtime.cni import CNI
from tests.unit.standins import RESULT, Plugins, answer

# No deadline: the machine is shared.  A fixture that provides a folder is not run again for each example.
settings.register_profile(
    "unit",
    deadline=None,
    max_examples=100,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.load_profile("unit")


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Set folders of the test for records, locks and logs, so that the machine's own are never used."""
    monkeypatch.setattr(records, "FOLDER", str(tmp_path / "results"))
    monkeypatch.setattr(flock, "FOLDER", str(tmp_path / "run"))
    monkeypatch.setattr(log, "FOLDER", str(tmp_path / "run" / "log"))
    monkeypatch.setattr(log, "FINISHED", str(tmp_path / "finished"))
    monkeypatch.setattr(entries, "FOLDER", str(tmp_path / "run" / "names"))
    yield tmp_path


@pytest.fixture
def plugins(state: Path) -> Plugins:
    """Return the plugins `one` and `two`, which answer ADD with RESULT."""
    plugins = Plugins(state)
    for name in ("one", "two"):
        plugins.make(name, ADD=answer(RESULT))
    return plugins


@pytest.fixture
def cni(plugins: Plugins, state: Path) -> CNI:
    """Return a runtime with these plugins and the folder net.d, which does not exist."""
    return CNI(str(state / "net.d"), [str(plugins.folder)], lock_timeout=0.2)
