"""Where a terminal's cursor surely stands on an empty line, after what a guest has sent."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sevplug.plugins.cursor import Cursor

# What OVMF sends before its first text: it clears the screen, goes home, sets a mode and asks for a size.
OVMF = b"\x1b[2J\x1b[001;001H\x1b[=3h\x1b[2J\x1b[001;001H\x1b[8;056;240t\x1b[2J\x1b[001;001H"


def free(*pieces: bytes) -> bool:
    cursor = Cursor()
    for piece in pieces:
        cursor.feed(piece)
    return cursor.free


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (b"", True),
        (b"a line\r\n", True),
        (b"half a line", False),
        (b"a line\n\x1b[0m", True),
        (b"a line\n\x1b[0m> ", False),
        (b"a line\r", False),
        (b"a line\r\n\r", True),
        (OVMF, True),
        (OVMF + b"BdsDxe: loading", False),
        (OVMF + b"BdsDxe: loading\r\n", True),
        (b"\x1b[2J", False),
        (b"\x1b[2Jtext\x1b[H", False),
        (b"\x1b[5;1H", False),
        (b"\x1b[5;1Hmenu\r\n", False),
        (b"\x1b[Aup\n", False),
        (b"\x1b[5;1Hmenu\r\n" + OVMF, True),
        (b"\x1b]0;title\x07\n", False),
    ],
)
def test_a_line_is_free_where_it_is_surely_empty(output: bytes, expected: bool) -> None:
    assert free(output) is expected


def test_a_sequence_in_two_pieces_is_one() -> None:
    assert not free(b"a line\n\x1b[0")
    assert free(b"a line\n\x1b[0", b"m")
    assert free(b"\x1b", b"[2J\x1b[1;", b"1H")


@given(st.lists(st.sampled_from([b"\x1b", b"[", b"2J", b"H", b"1;1H", b"m", b"x", b"\r\n", b"5A", b"\x1b[2J\x1b[H"])))
def test_how_the_output_is_cut_does_not_matter(parts: list[bytes]) -> None:
    assert free(*parts) is free(b"".join(parts))
