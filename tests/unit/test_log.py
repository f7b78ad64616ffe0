# SPDX-License-Identifier: Apache-2.0
"""log: one line per event of each container; an error of the log stops nothing."""

import os
import re
from pathlib import Path

import pytest

from cnihook import log
from cnihook.fast.errors_text import message_with_notes, one_line
from cnihook.log import Log, warn
from cnihook.types.errors import CniError

LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3} +\d+\.\d ms  (.*)")


def events(container_id: str) -> list[str]:
    texts = []
    for line in Log(container_id).read().splitlines():
        match = LINE.fullmatch(line.partition("\t{")[0])
        assert match, line
        texts.append(match[1])
    return texts


def test_events_are_lines_in_order() -> None:
    own = Log("c1")
    own.event("attached to mynet")
    own.event("attached to other")
    Log("c1").event("detached")
    Log("c2").event("attached to mynet")

    assert events("c1") == ["attached to mynet", "attached to other", "detached"]
    assert events("c2") == ["attached to mynet"]
    assert log.names() == ["c1", "c2"]


def test_event_is_one_line_with_any_text() -> None:
    Log("c1").event("a\nb\r\n c\x0b\x85\u2028d \udcff")

    assert events("c1") == [r"a b\r c\x0b\x85\u2028d \udcff"]


def test_failure_includes_the_notes() -> None:
    error = CniError(7, "no such\nnetwork", "there are: a, b")
    error.add_note("while undoing: stuck")
    Log("c1").failure("createRuntime", error)

    assert events("c1") == ["createRuntime failed: no such network; there are: a, b; while undoing: stuck"]


def test_error_without_a_message_is_described_by_its_class() -> None:
    assert message_with_notes(KeyError()) == "KeyError"
    assert message_with_notes(ValueError(" a \n b ")) == "a b"
    assert one_line("\ta\n\n b ") == "a b"


HOSTILE = 'a=b", "c": "\x1b[31m\n\t{"event": "failed"} \u2028\udcff'


def test_fields_of_an_event_are_read_as_they_were_written(state: Path) -> None:
    """People read a text, programs the fields.  No value of a field can end a line or add a field."""
    Log("c1").event(log.ATTACHED, network="mynet", interface="eth0", addresses="10.0.0.2/8")
    Log("c1").event(log.ATTACHED, network=HOSTILE, interface="eth0", addresses="")
    Log("c1").event(HOSTILE)
    Log("c1").failure("detach", ValueError(HOSTILE), f"from {HOSTILE}")

    texts = events("c1")
    assert texts[0] == "attached to mynet as eth0 10.0.0.2/8"
    assert [text.split()[0] for text in texts] == ["attached", "attached", 'a=b",', "detach"]
    first, second, failure = Log("c1").events()
    assert 0 <= first.pop("seconds") < 60
    assert first == {
        "event": "attached", "network": "mynet", "interface": "eth0", "addresses": "10.0.0.2/8"
    }  # fmt: skip
    assert (second["network"], second["interface"]) == (HOSTILE, "eth0")
    assert (failure["operation"], failure["subject"]) == ("detach", f"from {HOSTILE}")
    data = (state / "run" / "log" / "c1").read_bytes()
    assert data.count(b"\n") == 4 and not any(byte < 32 and byte not in b"\n\t" for byte in data)


def test_log_of_an_older_version_has_texts_only(state: Path) -> None:
    (state / "run" / "log").mkdir(parents=True)
    (state / "run" / "log" / "c1").write_text(
        "2026-11-30T00:00:00.000     1.0 ms  attached to mynet as eth0\n"
        '2026-11-30T00:00:00.000     1.0 ms  cut short\t{"event": "attached", "netw'
    )

    assert events("c1") == ["attached to mynet as eth0", "cut short"]
    assert list(Log("c1").events()) == []


def test_long_field_is_cut() -> None:
    Log("c1").failure("attach", ValueError("x" * 100_000))

    (failure,) = Log("c1").events()
    assert failure["error"] == "x" * 1024


def test_text_about_a_failure_is_not_a_failure() -> None:
    own = Log("c1")
    own.event("myplugin printed: attach failed: why")
    own.close()

    assert (log.names(), log.finished()) == ([], ["c1"])


def test_only_root_and_its_group_can_read_a_log(state: Path) -> None:
    umask = os.umask(0)
    try:
        Log("c1").event("x")
    finally:
        os.umask(umask)

    assert (state / "run" / "log" / "c1").stat().st_mode & 0o777 == 0o640
    assert (state / "run" / "log").stat().st_mode & 0o777 == 0o755


def test_log_of_a_container_without_errors_is_moved_at_its_end(state: Path) -> None:
    for name in ("c1", "c2"):
        Log(name).event("attached to mynet")
    Log("c1").close()
    assert (log.names(), log.finished()) == (["c2"], ["c1"])
    assert events("c1") == ["attached to mynet"]

    Log("c2").close()
    assert not (state / "run" / "log").exists(), "the last one removes the folder"
    assert log.finished() == ["c1", "c2"]


def test_new_start_continues_the_history(state: Path) -> None:
    """The history is bounded: the oldest lines are removed."""
    expected = []
    for text in ("first", "second", "third"):
        own = Log("c1")
        own.event(text)
        expected.append(text)
        assert events("c1") == expected
        own.close()
        assert events("c1") == expected
    path = state / "finished" / "c1"
    path.write_text("x" * 99 + "\n" + path.read_text() * (1 << 14))
    Log("c1").event("last")
    Log("c1").close()

    assert 400_000 < path.stat().st_size < 1 << 20
    assert events("c1")[-2:] == ["third", "last"] and set(events("c1")) == {*expected, "last"}


def test_discarded_log_without_errors_is_removed(state: Path) -> None:
    Log("c1").event("attached to mynet")
    Log("c1").discard()
    Log("c2").failure("attach", ValueError("why"))
    Log("c2").discard()

    assert (log.names(), log.finished()) == (["c2"], [])


def test_newest_100_logs_of_ended_containers_are_kept(state: Path) -> None:
    for number in range(100):
        Log(f"c{number}").event("x")
        Log(f"c{number}").close()
        os.utime(state / "finished" / f"c{number}", (number, number))
    Log("last").event("x")
    Log("last").close()

    kept = log.finished()
    assert len(kept) == 100 and "last" in kept and "c0" not in kept


def test_log_that_cannot_be_moved_is_removed(state: Path) -> None:
    (state / "finished").write_text("no folder")
    Log("c1").event("x")
    Log("c1").close()

    assert (log.names(), log.finished()) == ([], [])


def test_failed_container_leaves_its_log() -> None:
    own = Log("c1")
    own.failure("createRuntime", ValueError("why"))
    own.close()

    assert events("c1") == ["createRuntime failed: why"]


def test_closing_a_missing_log_succeeds() -> None:
    Log("c1").close()
    assert log.names() == []
    with pytest.raises(FileNotFoundError):
        Log("c1").read()


def test_newest_100_logs_with_errors_are_kept(state: Path) -> None:
    for number in range(105):
        Log(f"c{number}").event("x")
        os.utime(state / "run" / "log" / f"c{number}", (number, number))
    Log("last").failure("createRuntime", ValueError("why"))

    kept = log.names()
    assert len(kept) == 100
    assert {"last", "c104", "c6"} <= set(kept) and not {"c0", "c5"} & set(kept)


def test_log_that_cannot_be_written_stops_nothing(state: Path) -> None:
    (state / "run").write_text("no folder")

    own = Log("c1")
    own.event("x")
    own.failure("createRuntime", ValueError("why"))
    own.close()
    assert log.names() == []


def test_link_at_the_path_of_a_log_is_not_followed(state: Path) -> None:
    (state / "run" / "log").mkdir(parents=True)
    (state / "precious").write_text("content")
    (state / "run" / "log" / "c1").symlink_to(state / "precious")

    Log("c1").event("x")

    assert (state / "precious").read_text() == "content"


def test_complaint_is_one_line_on_stderr(capfd: pytest.CaptureFixture[str]) -> None:
    warn("no network\nof that name \udcff")

    assert capfd.readouterr() == ("", "cnihook: no network of that name \\udcff\n")


def test_complaint_with_closed_stderr_is_not_an_error() -> None:
    """crun may close the hook's stderr."""
    saved = os.dup(2)
    os.close(2)
    try:
        warn("a complaint")
    finally:
        os.dup2(saved, 2)
        os.close(saved)


def test_long_event_is_cut() -> None:
    Log("c1").event("x" * 15_000_000)

    (event,) = events("c1")
    assert len(event) < 10_000
    assert event.endswith("x ... (14991808 characters more)")


def test_long_complaint_is_cut(capfd: pytest.CaptureFixture[str]) -> None:
    warn("x" * 1_000_000)

    assert len(capfd.readouterr().err) < 10_000


def test_log_stops_growing() -> None:
    for _ in range(200):
        Log("c1").event("x" * 8000)

    assert len(Log("c1").read()) < 1_100_000
