# SPDX-License-Identifier: Apache-2.0
"""The pcapng files of linux.pcap, compared with their specification."""

import io
import struct
from collections.abc import Iterator

from cnihook.linux.pcap import Writer, _read_ancillary

SECTION, INTERFACE, PACKET, STATISTICS = 0x0A0D0D0A, 1, 6, 5
INCOMING, BROADCAST, OUTGOING = 0, 1, 4  # as the kernel numbers them


def blocks(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield type and body of each block; a block has its length at both ends."""
    while data:
        kind, length = struct.unpack("=II", data[:8])
        assert length % 4 == 0 and data[length - 4 : length] == struct.pack("=I", length)
        yield kind, data[8 : length - 4]
        data = data[length:]


def options(data: bytes) -> dict[int, bytes]:
    values: dict[int, bytes] = {}
    while data:
        code, length = struct.unpack("=HH", data[:4])
        if not code:
            return values
        values[code] = data[4 : 4 + length]
        data = data[4 + (length + 3) // 4 * 4 :]
    raise AssertionError("the list of options has no end")


def test_packets_of_two_interfaces() -> None:
    file = io.BytesIO()
    writer = Writer(file)
    writer.packet("eth0", 5 << 32 | 7, INCOMING, b"", b"12345", 5)
    writer.packet("data0", 9, OUTGOING, b"ab", memoryview(b"cdef"), 600)
    writer.packet("eth0", 10, BROADCAST, b"", b"", 0)
    writer.statistics(3)

    (section, head), *rest = blocks(file.getvalue())
    assert section == SECTION and struct.unpack("=IHHq", head) == (0x1A2B3C4D, 1, 0, -1)
    assert [kind for kind, _ in rest] == [INTERFACE, PACKET, INTERFACE, PACKET, PACKET, STATISTICS]
    names = [options(body[8:]) for kind, body in rest if kind == INTERFACE]
    assert names == [{2: b"eth0", 9: b"\x09"}, {2: b"data0", 9: b"\x09"}]

    first, second, third = [body for kind, body in rest if kind == PACKET]
    assert struct.unpack("=IIIII", first[:20]) == (0, 5, 7, 5, 5)
    assert first[20:25] == b"12345" and options(first[28:]) == {2: struct.pack("=I", 1 | 1 << 2)}
    assert struct.unpack("=IIIII", second[:20]) == (1, 0, 9, 6, 600)
    assert second[20:26] == b"abcdef" and options(second[28:]) == {2: struct.pack("=I", 2)}
    assert options(third[20:]) == {2: struct.pack("=I", 1 | 3 << 2)}
    assert options(rest[-1][1][12:]) == {5: struct.pack("=Q", 3)}


def test_vlan_tag_that_the_kernel_removed_is_read() -> None:
    def tag(status: int, tci: int, tpid: int) -> bytes:
        data = struct.pack("=IIIHHHH", status, 60, 60, 0, 14, tci, tpid)
        return _read_ancillary([(263, 8, data)])[1]

    assert tag(0, 0, 0) == b""
    assert tag(1 << 4, 100, 0) == bytes.fromhex("81000064")
    assert tag(1 << 4 | 1 << 6, 100, 0x88A8) == bytes.fromhex("88a80064")


def test_time_is_that_of_the_kernel() -> None:
    assert _read_ancillary([(1, 35, struct.pack("ll", 2, 3))]) == (2 * 10**9 + 3, b"")
