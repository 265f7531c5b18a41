"""The parser of requests: what it takes, what it refuses in which words, and how it finds its way back."""

from __future__ import annotations

import json
import time
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sevplug.plugins.qmp.json_stream import JsonError, JsonStream, Limits


def results(*chunks: bytes, limits: Limits | None = None) -> list[Any]:
    stream = JsonStream(limits or Limits())
    found = [value for chunk in chunks for value in stream.feed(chunk)]
    return [str(value) if isinstance(value, JsonError) else value for value in found]


def error(text: bytes) -> str:
    """The one error in ``text``."""
    (found,) = results(text)
    assert isinstance(found, str)
    return found


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b"{}", {}),
        (b"[]", []),
        (b'{"a":{"b":[1,[2],{}]},"c":null}', {"a": {"b": [1, [2], {}]}, "c": None}),
        (b"{'execute':'query-sev','id':'it\\'s \"so\"'}", {"execute": "query-sev", "id": 'it\'s "so"'}),
        (b'"\\"\\\'\\\\\\/\\b\\f\\n\\r\\t\\u00e9\\ud83d\\ude00"', "\"'\\/\b\f\n\r\té😀"),
        (b'"\xc3\xa9 \xf0\x9f\x98\x80 \x7f"', "é 😀 \x7f"),
        (b'"\\u0000\xc0\x80"', "\0\0"),
        (b"[true,false,null]", [True, False, None]),
        (b"[0,-0,7,-12,1.5,-0.25,2e3,1E-2,10]", [0, 0, 7, -12, 1.5, -0.25, 2000.0, 0.01, 10]),
        (b"[18446744073709551615,-9223372036854775808]", [2**64 - 1, -(2**63)]),
        (b"[18446744073709551616,-9223372036854775809]", [2.0**64, -(2.0**63)]),
    ],
)
def test_a_value_is_read_as_qemu_reads_it(text: bytes, value: Any) -> None:
    (found,) = results(text)
    assert found == value
    assert json.dumps(found) == json.dumps(value)  # tells 1 from 1.0 and from true


def test_many_values_in_one_read_need_no_line_ends() -> None:
    assert results(b'{"a":1}{"b":2}\n[3]"four"  5 ') == [{"a": 1}, {"b": 2}, [3], "four", 5]


def test_a_number_is_complete_when_something_else_follows() -> None:
    assert results(b"1", b"2", b"3") == []
    assert results(b"1", b"2", b"3", b"\n") == [123]


def test_one_value_may_come_byte_by_byte() -> None:
    text = b'{"execute": "query-status", "id": {"a": [1, \'x\']}}'
    assert results(*(text[i : i + 1] for i in range(len(text)))) == [json.loads(text.replace(b"'", b'"'))]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"\xff", "1:1: JSON parse error, stray '\ufffd'"),
        (b"}", "1:1: JSON parse error, expecting value"),
        (b"[1,]", "1:4: JSON parse error, expecting value"),
        (b"[1}", "1:4: JSON parse error, expected ',' or ']'"),  # QEMU counts the byte behind a number twice
        (b"{1:2}", "1:2: JSON parse error, expecting key"),
        (b'{"a" 1}', "1:6: JSON parse error, expecting ':'"),
        (b'{"a":"b" "c"}', "1:10: JSON parse error, expected ',' or '}'"),
        (b'["a" "c"]', "1:6: JSON parse error, expected ',' or ']'"),
        (b'{"a":nothing}', "1:6: JSON parse error, invalid keyword 'nothing'"),
        (b'{"a":"b","a":"c"}', "1:14: JSON parse error, duplicate key"),
        (b'"\\x"', "1:1: JSON parse error, invalid escape sequence in string"),
        (b'"\\u12"', '1:1: JSON parse error, \\u12" is not a valid Unicode character'),
        (b'"\\ud800"', "1:1: JSON parse error, \\ud800 is not a valid Unicode character"),
        (b'"\\ud800\\u0041"', "1:1: JSON parse error, \\ud800 is not a valid Unicode character"),
        (b'"\\udbff\\udfff"', "1:1: JSON parse error, \\udbff\\udfff is not a valid Unicode character"),
        (b'"\xc3("', "1:1: JSON parse error, invalid UTF-8 sequence in string"),
        (b'"\xef\xbf\xbf"', "1:1: JSON parse error, invalid UTF-8 sequence in string"),
        (b'"abc\n', "1:1: JSON parse error, stray '\"abc\n'"),
        (b"\n\n  @", "3:3: JSON parse error, stray '@'"),
        (b"01 ", "1:1: JSON parse error, stray '01'"),
        (b"-x", "1:1: JSON parse error, stray '-x'"),
        (b"\0", "1:1: JSON parse error, stray ''"),
    ],
)
def test_an_error_has_qemus_words_and_place(text: bytes, message: str) -> None:
    assert error(text) == message


def test_a_syntax_error_is_told_at_once_and_drops_the_rest_of_the_value() -> None:
    stream = JsonStream()
    assert [str(found) for found in stream.feed(b'{"execute":foo\n')] == [
        "1:12: JSON parse error, invalid keyword 'foo'"
    ]
    assert stream.feed(b',"x":[nonsense,{}]}') == []
    assert stream.feed(b'{"execute":"stop"}') == [{"execute": "stop"}]


def test_a_stray_byte_forgets_what_was_open() -> None:
    assert results(b'{"a":[1,{"b":\xff{"execute":"stop"}') == [
        "1:14: JSON parse error, stray '\ufffd'",
        {"execute": "stop"},
    ]


def test_text_behind_a_stray_byte_is_skipped_up_to_a_structural_one() -> None:
    assert results(b'@ what is this "quoted" {"execute":"stop"}') == [
        "1:1: JSON parse error, stray '@'",
        {"execute": "stop"},
    ]
    assert results(b'@ skipped\n"kept"') == ["1:1: JSON parse error, stray '@'", "kept"]


def test_a_message_ends_where_qemus_buffer_does() -> None:
    assert error(b'"' + b"a" * 5000 + b"\n") == "1:1: JSON parse error, stray '\"" + "a" * 1015


@pytest.mark.parametrize(
    ("text", "limits", "message"),
    [
        (b"[" * 5 + b"]" * 5, Limits(nesting=4), "JSON nesting depth limit exceeded"),
        (b"[1,2,3]", Limits(token_count=5), "JSON token count limit exceeded"),
        (b'["xxxxxxxxx","yyyyyyyyyyy"]', Limits(token_size=20), "JSON token size limit exceeded"),
    ],
)
def test_a_limit_is_told_once_and_the_next_value_is_read(text: bytes, limits: Limits, message: str) -> None:
    assert results(text, b"[true]", limits=limits) == [message, [True]]


def test_a_string_that_never_ends_costs_no_more_than_the_limit() -> None:
    stream = JsonStream(Limits(token_size=1000))
    assert stream.feed(b'{"a":"') == []
    assert [str(found) for found in stream.feed(b"x" * 1000)] == ["JSON token size limit exceeded"]
    for _ in range(50):
        assert stream.feed(b"x" * 1000) == []
    assert len(stream._lexer._token) <= 1000


def test_the_deepest_nesting_that_qemu_takes_is_taken() -> None:
    (found,) = results(b"[" * 1024 + b"]" * 1024)
    for _ in range(1023):
        (found,) = found
    assert found == []
    assert results(b"[" * 1025 + b"]" * 1025) == ["JSON nesting depth limit exceeded"]
    assert results(b"[" * 100_000)[0] == "JSON nesting depth limit exceeded"


def test_cutting_a_request_into_bytes_does_not_make_it_quadratic() -> None:
    def seconds(size: int) -> float:
        stream = JsonStream()
        text = b'{"a":"' + b"x" * size + b'"}'
        started = time.process_time()
        found = [value for i in range(len(text)) for value in stream.feed(text[i : i + 1])]
        assert found == [{"a": "x" * size}]
        return time.process_time() - started

    assert seconds(160_000) < 20 * max(seconds(20_000), 0.01)


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(blacklist_categories=("Cs", "Cn"))),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(blacklist_categories=("Cs", "Cn"))), inner),
)


@given(VALUES, st.booleans())
def test_what_pythons_encoder_writes_is_read_back(value: Any, ascii_only: bool) -> None:
    assert results(json.dumps(value, ensure_ascii=ascii_only).encode() + b"\n") == [value]


REQUESTS = b"""{"execute":"qmp_capabilities"} {'execute': 'stop', 'id': [1, -2.5e3, "\xc3\xa9\\u00e9"]}
[1,,2] nonsense {"a":tru} \xff}} {"execute":"query-status"{"x":01 "unended
{"execute":"cont"}"""


@given(st.lists(st.integers(0, len(REQUESTS)), max_size=30))
def test_any_cutting_of_a_stream_gives_the_same(cuts: list[int]) -> None:
    places = [0, *sorted(cuts), len(REQUESTS)]
    chunks = [REQUESTS[start:end] for start, end in pairwise(places)]
    assert results(*chunks) == results(REQUESTS)


@settings(max_examples=100)
@given(st.binary() | st.lists(st.sampled_from(list(b"{}[]:,\"'\\ \n\xffutrue01.-e")), max_size=200).map(bytes))
def test_no_bytes_stop_the_parser(data: bytes) -> None:
    stream = JsonStream(Limits(token_size=100, token_count=50, nesting=10))
    stream.feed(data)
    stream.feed(b'\xff\n"')  # QMP's way to a known state, twice over: an open string ends, then it begins anew
    stream.feed(b"\xff\n")
    assert stream.feed(b'{"execute":"stop"}') == [{"execute": "stop"}]
