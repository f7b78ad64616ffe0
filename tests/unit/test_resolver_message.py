# SPDX-License-Identifier: Apache-2.0
"""DNS messages of the resolver: what is written can be read, and no input does harm."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnihook.fast.address import Address
from cnihook.resolver import message
from cnihook.resolver.message import MessageError, Question, Record

labels = st.binary(min_size=1, max_size=63)
names = st.lists(labels, max_size=8).map(tuple).filter(lambda name: sum(len(one) + 1 for one in name) < 255)
ttls = st.integers(0, (1 << 31) - 1)
addresses = st.one_of(st.binary(min_size=4, max_size=4), st.binary(min_size=16, max_size=16)).map(Address)
records = st.one_of(st.builds(Record, names, ttls, addresses), st.builds(Record, names, ttls, target=names))
QUESTION = Question(7, message.RECURSION_DESIRED, (b"www", b"example", b"com"), message.A)
HEAD = b"\0\7\x81\x80\0\1"


def fields(record: Record) -> tuple[object, ...]:
    return message.lower(record.name), record.ttl, record.address, message.lower(record.target)


@given(names, st.lists(records, max_size=20))
def test_written_answer_is_read_back(name: tuple[bytes, ...], written: list[Record]) -> None:
    """Names are compressed, also those that share only their ends."""
    question = Question(1, message.RECURSION_DESIRED, name, message.AAAA)
    data = message.reply(question, message.NXDOMAIN, written, limit=0xFFFF, edns=True)

    answer = message.read_question(data)
    assert answer.is_same(question) and answer.ident == 1 and answer.rcode == message.NXDOMAIN
    assert list(map(fields, message.read_answers(data, answer))) == list(map(fields, written))


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_rejected(data: bytes) -> None:
    for begin in (b"", HEAD + b"\0\3\0\0\0\1"):
        try:
            question = message.read_question(begin + data)
            message.read_answers(begin + data, question)
            message.read_size(begin + data, question)
        except MessageError:
            pass


@pytest.mark.parametrize(
    "name",
    [
        b"\xc0\x0c",  # to itself
        b"\x01a\xc0\x0c",  # to its own begin
        b"\xc0\x10\0\0",  # forward
        b"\xc0\x02",  # into the head
        b"\xc0",
        b"\x05abc",
        b"\x40" + b"a" * 64 + b"\0",  # a label of another kind
        (b"\x3f" + b"a" * 63) * 4 + b"\0",
        b"\x01a" * 127 + b"\x01a\0",
    ],
)
def test_malformed_name_is_rejected(name: bytes) -> None:
    with pytest.raises(MessageError):
        message.read_question(HEAD + bytes(6) + name + b"\0\1\0\1")


def test_worst_names_take_bounded_time() -> None:
    """Each record refers to a chain of references as long as a message allows."""
    chain = b"".join((0xC000 | 0x0C + 5 + 2 * index).to_bytes(2, "big") for index in range(8000))
    data = HEAD + b"\4\0" + bytes(4) + b"\0\0\1\0\1" + chain + b"\xff\xff" + b"\xc0\x0c\0\1\0\1" * 5000
    began = time.process_time()
    with pytest.raises(MessageError):
        message.read_answers(data, message.read_question(data))
    assert time.process_time() - began < 1


def test_number_of_records_is_bounded() -> None:
    data = HEAD + b"\xff\xff" + bytes(4) + b"\0\0\1\0\1" + b"\0\0\1\0\1\0\0\0\0\0\4\1\2\3\4" * 4000
    with pytest.raises(MessageError, match="more than 1024 records"):
        message.read_answers(data, message.read_question(data))


@pytest.mark.parametrize(
    ("record", "text"),
    [
        (b"\0\0\1\0\1\0\0\0\0\0\5\1\2\3\4\5", "wrong length"),
        (b"\0\0\x1c\0\1\0\0\0\0\0\4\1\2\3\4", "wrong length"),
        (b"\0\0\5\0\1\0\0\0\0\0\4\1a\0\0", "longer or shorter"),
        (b"\0\0\1\0\1\0\0\0\0\0\4\1\2\3", "cut"),
        (b"\0\0\1\0\1\0", "cut"),
    ],
)
def test_malformed_record_is_rejected(record: bytes, text: str) -> None:
    data = HEAD + b"\0\1" + bytes(4) + b"\0\0\1\0\1" + record
    with pytest.raises(MessageError, match=text):
        message.read_answers(data, message.read_question(data))


def test_negative_ttl_is_zero_and_other_records_are_left_out() -> None:
    """RFC 2181, 8.  A record of another class or type can have any data."""
    text, chaos = b"\0\0\x10\0\1\0\0\0\0\0\2\1a", b"\0\0\1\0\3\0\0\0\0\0\1a"
    data = HEAD + b"\0\3" + bytes(4) + b"\0\0\1\0\1" + text + chaos + b"\0\0\1\0\1\x80\0\0\1\0\4\1\2\3\4"

    (record,) = message.read_answers(data, message.read_question(data))
    assert fields(record) == ((), 0, Address.parse("1.2.3.4"), ())


def test_long_answer_is_cut_to_its_question() -> None:
    many = [Record(QUESTION.name, 1, Address(bytes((10, 0, 0, number)))) for number in range(64)]
    data = message.reply(QUESTION, message.NOERROR, many, limit=512)

    question = message.read_question(data)
    assert question.flags & message.IS_CUT and question.counts == (0, 0, 0) and len(data) < 64


def test_size_of_edns_is_read_and_bounded() -> None:
    for size, expected in ((0, 512), (4096, 4096)):
        data = message.query(QUESTION, edns=False)[:10] + b"\0\1" + message.query(QUESTION, edns=False)[12:]
        data += b"\0\0\x29" + size.to_bytes(2, "big") + bytes(6)
        assert message.read_size(data, message.read_question(data)) == expected
        twice = data[:11] + b"\2" + data[12:] + data[-11:]
        with pytest.raises(MessageError, match="OPT"):
            message.read_size(twice, message.read_question(twice))
    plain = message.query(QUESTION, edns=False)
    assert message.read_size(plain, message.read_question(plain)) == 0


def test_query_with_many_records_is_rejected() -> None:
    """Each refers to a long name, so a datagram full of them would take 0.3 s."""
    plain = message.query(QUESTION, edns=False)
    record = b"\xc0\x0c\0\x10\0\1" + bytes(6)
    for count in (8, 9):
        data = plain[:10] + count.to_bytes(2, "big") + plain[12:] + record * count
        question = message.read_question(data)
        if count == 8:
            assert message.read_size(data, question) == 0
            continue
        with pytest.raises(MessageError, match="more than 8 records"):
            message.read_size(data, question)


def test_text_of_a_name_cannot_stand_for_another_name() -> None:
    """A label may have any bytes, also a dot."""
    assert message.text_of((b"PyPI.org",)) == "pypi\\046org"
    assert message.text_of((b"\xffa b", b"x")) == "\\255a\\032b.x"
