"""Packets taken apart and put together, in any pieces."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sevplug.plugins.gdb.packets import Mark, Packet, PacketStream, escape, frame, unescape

DATA = st.binary(max_size=40).map(escape)


def taken(pieces: Iterable[bytes], limit: int = 100) -> list[Packet | Mark]:
    stream = PacketStream(limit)
    return [item for piece in pieces for item in stream.feed(piece)]


def in_pieces(text: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(cut % (len(text) + 1) for cut in cuts), len(text)]
    return [text[begin:end] for begin, end in itertools.pairwise(edges)]


@given(
    st.lists(st.one_of(DATA.map(Packet), st.sampled_from([Mark.ACK, Mark.NACK, Mark.INTERRUPT]))),
    st.lists(st.integers(0)),
)
def test_what_was_sent_comes_out_however_it_is_cut(items: list[Packet | Mark], cuts: list[int]) -> None:
    bytes_of = {Mark.ACK: b"+", Mark.NACK: b"-", Mark.INTERRUPT: b"\x03"}
    text = b"".join(frame(item.data) if isinstance(item, Packet) else bytes_of[item] for item in items)
    assert taken(in_pieces(text, cuts), limit=1000) == items


@given(st.binary())
def test_data_survives_its_escapes_and_needs_no_framing_byte(data: bytes) -> None:
    assert unescape(escape(data)) == data
    assert not set(escape(data)) & set(b"$#")


@given(st.lists(st.binary()))
def test_any_bytes_are_taken(pieces: list[bytes]) -> None:
    assert all(isinstance(item, Packet | Mark) for item in taken(pieces))


@given(DATA, st.integers(1, 255))
def test_a_wrong_checksum_is_noticed(data: bytes, wrong: int) -> None:
    text = frame(data)[:-2] + b"%02x" % ((sum(data) + wrong) & 0xFF)
    assert taken([text, frame(b"g")]) == [Mark.BAD_CHECKSUM, Packet(b"g")]


@pytest.mark.parametrize("checksum", [b"zz", b"+7", b"0x", b" 7"])
def test_a_checksum_that_is_no_number_is_a_wrong_one(checksum: bytes) -> None:
    assert taken([b"$\x07#" + checksum]) == [Mark.BAD_CHECKSUM]


def test_the_longest_packet_and_one_byte_more() -> None:
    assert taken([frame(b"x" * 8), frame(b"x" * 9), frame(b"g")], limit=8) == [
        Packet(b"x" * 8), Mark.TOO_LONG, Packet(b"g"),
    ]  # fmt: skip


def test_a_packet_that_was_cut_off_is_followed_by_the_next() -> None:
    assert taken([b"$m1000,", frame(b"g")]) == [Packet(b"g")]


def test_bytes_between_packets_are_left_out() -> None:
    assert taken([b"hello\r\n", frame(b"g")]) == [Packet(b"g")]


def test_an_interrupt_within_binary_data_is_data() -> None:
    assert taken([frame(b"X0,1:\x03")]) == [Packet(b"X0,1:\x03")]


def test_a_frame_is_what_the_manual_says() -> None:
    assert frame(b"OK") == b"$OK#9a"
    assert escape(b"a$b#c}d*") == b"a}\x04b}\x03c}]d}\x0a"
