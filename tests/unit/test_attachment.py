# SPDX-License-Identifier: Apache-2.0
"""runtime.attachment: what is on record agrees with what is attached, whichever way one attachment ends."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from cnihook.lean.signals import Interrupted
from cnihook.runtime import attachment, cache
from cnihook.runtime.cache import Record
from cnihook.runtime.identity import ProcessIdentity
from cnihook.runtime.networks import Network
from cnihook.spec.errors import AddFailed, CniError
from tests.unit.standins import Plugins, answer, network, refuse


@pytest.fixture
def plugins(state: Path) -> Plugins:
    made = Plugins(state)
    made.make("one")
    return made


def up(plugins: Plugins, wanted: Network) -> None:
    """As whoever attaches does it, on whose word the record stays or goes."""
    record = Record(
        wanted.name,
        "c1",
        "eth0",
        config=wanted.text,
        netns="/run/netns/c1",
        process=ProcessIdentity("boot", 1, 2, (3, 4)),
        plugin_path=[str(plugins.folder)],
    )
    record.write()
    attachment.up(wanted, record)


def notes(error: BaseException) -> list[str]:
    """What could not be undone: without such a note the record goes, and with it the only trace."""
    return list(getattr(error, "__notes__", ()))


def test_the_result_is_on_record(plugins: Plugins) -> None:
    up(plugins, network("one"))

    (record,) = cache.of_container("c1")
    assert record.result == {"cniVersion": "1.0.0", "dns": {"domain": "one"}}


def test_a_failed_add_that_was_undone_has_no_note(plugins: Plugins) -> None:
    plugins.make("one", ADD=refuse(7, "no"))

    with pytest.raises(AddFailed, match="no") as failed:
        up(plugins, network("one"))
    assert plugins.calls == ["one ADD", "one DEL"]
    assert failed.value.undone and attachment.is_undone(failed.value)
    assert notes(failed.value) == []


def test_what_could_not_be_undone_is_noted(plugins: Plugins) -> None:
    plugins.make("one", ADD=refuse(7, "no"), DEL=refuse(999, "stuck"))

    with pytest.raises(AddFailed, match="no") as failed:
        up(plugins, network("one"))
    assert not failed.value.undone and not attachment.is_undone(failed.value)
    (note,) = notes(failed.value)
    assert "stuck" in note


@pytest.mark.parametrize("version", ["", "0.1.0", "0.2.0"])
def test_a_result_that_has_no_shape_in_the_networks_version_is_undone(
    plugins: Plugins, version: str
) -> None:
    """An interface without an address, which nothing before 0.3.0 can say."""
    plugins.make("one", ADD=answer({"cniVersion": "1.0.0", "interfaces": [{"name": "eth0"}]}))

    with pytest.raises(CniError, match="no valid IP addresses"):
        up(plugins, network("one", version=version))
    assert plugins.calls == ["one ADD", "one DEL"]


def test_a_result_that_cannot_be_recorded_is_undone(plugins: Plugins, state: Path) -> None:
    """The folder of the records is gone: as good as a full disk."""
    plugins.make("one", ADD=f"rm -r {state}/results; touch {state}/results; echo {{}}")

    with pytest.raises(AddFailed) as failed:
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
def test_an_interrupted_add_that_was_undone_has_no_note(plugins: Plugins) -> None:
    plugins.make("one", ADD="sleep 0.1; kill -ALRM $PPID; sleep 60")

    with pytest.raises(Interrupted) as interrupted:
        up(plugins, network("one"))
    assert plugins.calls == ["one ADD", "one DEL"]
    assert notes(interrupted.value) == []
    assert attachment.is_undone(interrupted.value)


@pytest.mark.usefixtures("alarm")
def test_what_could_not_be_undone_is_noted_on_an_interrupt(plugins: Plugins) -> None:
    plugins.make("one", ADD="sleep 0.1; kill -ALRM $PPID; sleep 60", DEL=refuse(999, "stuck"))

    with pytest.raises(Interrupted) as interrupted:
        up(plugins, network("one"))
    assert not attachment.is_undone(interrupted.value)
    (note,) = notes(interrupted.value)
    assert "stuck" in note
