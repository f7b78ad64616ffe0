# SPDX-License-Identifier: Apache-2.0
"""runtime.attachment: the records agree with what is attached, however an attachment ends."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from cnihook.process.signals import Interrupted
from cnihook.runtime import attachment, records
from cnihook.runtime.identity import ProcessIdentity
from cnihook.runtime.networks import Network
from cnihook.runtime.records import Record
from cnihook.types.errors import AddFailedError, CniError
from tests.unit.standins import Plugins, answer, network, refuse


@pytest.fixture
def plugins(state: Path) -> Plugins:
    plugins = Plugins(state)
    plugins.make("one")
    return plugins


def up(plugins: Plugins, wanted: Network) -> None:
    """Attach as a caller does; the error decides if the caller keeps the record."""
    record = Record(
        wanted.name,
        "c1",
        "eth0",
        config=wanted.text,
        netns="/run/netns/c1",
        process=ProcessIdentity("boot", 1, 2, (3, 4)),
        plugin_dirs=[str(plugins.folder)],
    )
    record.write()
    attachment.up(wanted, record)


def notes(error: BaseException) -> list[str]:
    """Return what could not be undone; if there is no note, the record, the only trace, is removed."""
    return list(getattr(error, "__notes__", ()))


def test_result_is_on_record(plugins: Plugins) -> None:
    up(plugins, network("one"))

    (record,) = records.of_container("c1")
    assert record.result == {"cniVersion": "1.0.0", "dns": {"domain": "one"}}


def test_failed_add_that_was_undone_has_no_note(plugins: Plugins) -> None:
    plugins.make("one", ADD=refuse(7, "no"))

    with pytest.raises(AddFailedError, match="no") as failed:
        up(plugins, network("one"))
    assert plugins.calls == ["one ADD", "one DEL"]
    assert failed.value.undone and attachment.is_undone(failed.value)
    assert notes(failed.value) == []


def test_failed_undo_is_noted(plugins: Plugins) -> None:
    plugins.make("one", ADD=refuse(7, "no"), DEL=refuse(999, "stuck"))

    with pytest.raises(AddFailedError, match="no") as failed:
        up(plugins, network("one"))
    assert not failed.value.undone and not attachment.is_undone(failed.value)
    (note,) = notes(failed.value)
    assert "stuck" in note


@pytest.mark.parametrize("version", ["", "0.1.0", "0.2.0"])
def test_add_is_undone_if_the_networks_version_cannot_express_its_result(
    plugins: Plugins, version: str
) -> None:
    """An interface without an address, which no version before 0.3.0 can express."""
    plugins.make("one", ADD=answer({"cniVersion": "1.0.0", "interfaces": [{"name": "eth0"}]}))

    with pytest.raises(CniError, match="no valid IP addresses"):
        up(plugins, network("one", version=version))
    assert plugins.calls == ["one ADD", "one DEL"]


def test_add_is_undone_if_its_result_cannot_be_recorded(plugins: Plugins, state: Path) -> None:
    """The folder of the records does not exist; a full disk has the same effect."""
    plugins.make("one", ADD=f"rm -r {state}/results; touch {state}/results; echo {{}}")

    with pytest.raises(AddFailedError) as failed:
        up(plugins, network("one"))
    assert plugins.calls == ["one ADD", "one DEL"]
    assert failed.value.undone and attachment.is_undone(failed.value)


@pytest.fixture
def alarm() -> Iterator[None]:
    def interrupt(signum: int, _frame: object) -> None:
        raise Interrupted(signum)

    before = signal.signal(signal.SIGALRM, interrupt)
    yield
    signal.signal(signal.SIGALRM, before)


@pytest.mark.usefixtures("alarm")
def test_interrupted_add_that_was_undone_has_no_note(plugins: Plugins) -> None:
    plugins.make("one", ADD="sleep 0.1; kill -ALRM $PPID; sleep 60")

    with pytest.raises(Interrupted) as interrupted:
        up(plugins, network("one"))
    assert plugins.calls == ["one ADD", "one DEL"]
    assert notes(interrupted.value) == []
    assert attachment.is_undone(interrupted.value)


@pytest.mark.usefixtures("alarm")
def test_failed_undo_is_noted_on_an_interrupt(plugins: Plugins) -> None:
    plugins.make("one", ADD="sleep 0.1; kill -ALRM $PPID; sleep 60", DEL=refuse(999, "stuck"))

    with pytest.raises(Interrupted) as interrupted:
        up(plugins, network("one"))
    assert not attachment.is_undone(interrupted.value)
    (note,) = notes(interrupted.value)
    assert "stuck" in note
