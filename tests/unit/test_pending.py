# SPDX-License-Identifier: Apache-2.0
"""The keys of a change in a record: any value of another program is read, and libcni's fields are kept."""

import json
from pathlib import Path
from typing import Any

import pytest

from cnihook.runtime import records, update
from cnihook.runtime.identity import ProcessIdentity
from cnihook.runtime.pending import Input, of_open_change
from cnihook.runtime.records import Record

CONFIG = b'{"cniVersion":"1.0.0","name":"mynet","plugins":[{"type":"bridge"},{"type":"portmap"}]}'
OTHER = CONFIG.replace(b"1.0.0", b"1.1.0")
MAPPED = {"portMappings": [{"hostPort": 8080, "containerPort": 80}]}


@pytest.fixture
def record(tmp_path: Path) -> Record:
    process = ProcessIdentity("boot", 1, 2, (3, 4))
    return Record(
        "mynet", "c1", "eth0", config=CONFIG, capability_args=MAPPED, process=process, folder=str(tmp_path)
    )


def test_record_keeps_keys_of_other_versions_and_its_own_identity(record: Record) -> None:
    """The value of such a key never replaces a key that is read in another way."""
    record.extra = {"revision": 3, "later": [1], "sequence": 99, "boot": "other"}
    record.sequence = 2
    record.write()

    raw = json.loads(Path(record.path).read_text())
    assert raw["capabilityArgs"] == MAPPED and raw["cnihook"]["revision"] == 3
    again = records.read(record.path)
    assert again and (again.extra, again.sequence) == ({"revision": 3, "later": [1]}, 2)
    assert again.process == record.process and not again.has_open_change


def test_input_survives_its_way_through_the_record(record: Record) -> None:
    new = Input(OTHER, {"bandwidth": {"ingressRate": 8}})

    assert Input.from_json(json.loads(json.dumps(new.to_json())), record) == new


def test_open_change_has_what_cnihook_sets_up_before_and_after_it(record: Record) -> None:
    """The record itself has the new value, because policies are made from the records."""
    old, new = {"names": {"aliases": ["a"]}}, {"names": {"aliases": ["b"]}, "policy": {"egress": "none"}}
    pending = {**Input(OTHER, {}, new).to_json(), "own": old, "from": 3}
    record.extra = {**new, "until": "x", "pending": json.loads(json.dumps(pending))}

    assert of_open_change(record) == (Input(CONFIG, MAPPED, old), Input(OTHER, {}, new))
    assert Input(CONFIG, MAPPED, old).extra(record.extra).keys() == {"names", "until", "pending"}


@pytest.mark.parametrize(
    "raw", [None, 1, [], "x", {}, {"config": 5}, {"config": "%"}, {"config": "eHg="}, {"capabilityArgs": []}]
)
def test_malformed_input_is_that_of_the_record(record: Record, raw: Any) -> None:
    """Otherwise it would prevent the DEL of everything else."""
    assert Input.from_json(raw, record) == Input.of(record)


@pytest.mark.parametrize("value", [None, 1, "", "tomorrow", [], {}, "2026-13-01T00:00:00Z"])
def test_malformed_end_is_one_that_is_over(record: Record, value: Any) -> None:
    record.extra = {"until": value}

    assert update.is_overdue(record, 5)
