"""Replies as bytes: the order of members, what is escaped, and what cannot be written."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sevplug.plugins.qmp.json_stream import JsonStream
from sevplug.plugins.qmp.writer import encode_line

TRANSCRIPT = Path(__file__).with_name("qemu-11.1-transcript.txt")


def replies() -> list[bytes]:
    received = [line[2:] for line in TRANSCRIPT.read_text().splitlines() if line.startswith("<")]
    return [line + b"\r\n" for text in received for line in ast.literal_eval(text).split(b"\r\n") if line]


def schema_order(members: list[tuple[str, Any]]) -> dict[str, Any]:
    """Members turned round: QEMU prints the last inserted first where two fall into one bucket."""
    return dict(reversed(members))


@pytest.mark.parametrize("line", replies())
def test_every_recorded_line_is_written_again_byte_for_byte(line: bytes) -> None:
    assert encode_line(json.loads(line, object_pairs_hook=schema_order)) == line


def test_the_order_of_members_is_not_that_of_insertion() -> None:
    assert encode_line({"id": 1, "return": {}}) == b'{"return": {}, "id": 1}\r\n'
    assert encode_line({"error": {}, "id": 1}) == b'{"id": 1, "error": {}}\r\n'


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("", b'""'),
        ('"\\/\b\f\n\r\t', b'"\\"\\\\/\\b\\f\\n\\r\\t"'),
        ("\0\x1f\x7fé\u20ac😀", b'"\\u0000\\u001F\\u007F\\u00E9\\u20AC\\uD83D\\uDE00"'),
        ("\ufffe\udc80", b'"\\uFFFD\\uFFFD"'),
        (0.1, b"0.10000000000000001"),
        (2.0**64, b"1.8446744073709552e+19"),
        ([True, False, None, -5, 2**64 - 1], b"[true, false, null, -5, 18446744073709551615]"),
        ([], b"[]"),
        ([[], {}, [1]], b"[[], {}, [1]]"),
    ],
)
def test_a_value_is_written_as_qemu_writes_it(value: Any, text: bytes) -> None:
    assert encode_line(value) == text + b"\r\n"


def test_the_deepest_value_that_can_be_read_can_be_written() -> None:
    text = b"[" * 1024 + b"]" * 1024
    (value,) = JsonStream().feed(text)
    assert encode_line(value) == text + b"\r\n"


def test_what_is_no_json_is_refused() -> None:
    with pytest.raises(TypeError):
        encode_line({"a": object()})


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(2**63), 2**64 - 1)
        | st.text(st.characters(exclude_categories=["Cs", "Cn"])),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs", "Cn"])), inner),
    )
)
def test_what_is_written_is_ascii_and_reads_as_the_same_value(value: Any) -> None:
    line = encode_line(value)
    assert line.isascii()
    assert json.loads(line) == value
