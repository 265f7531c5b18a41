"""What a base64 text may look like, and what is none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sevplug.sevapi.encodings import decode_base64

WHITE_SPACE = " \t\n\r\v\f"


@given(st.binary(max_size=64), st.lists(st.tuples(st.integers(0, 90), st.sampled_from(WHITE_SPACE)), max_size=6))
def test_white_space_of_any_kind_and_anywhere_is_left_out(data: bytes, spaces: list[tuple[int, str]]) -> None:
    from base64 import b64encode

    text = b64encode(data).decode()
    for place, space in spaces:
        text = text[:place] + space + text[place:]
    assert decode_base64(text) == decode_base64(text.encode()) == data


@pytest.mark.parametrize("text", ["!", "AAA", "AAAAA", "AA==AAAA", "é", "AAAA\xa0", "\ud800", "AAAA\0", b"\xff"])
def test_anything_else_says_nothing(text: str | bytes) -> None:
    assert decode_base64(text) is None
