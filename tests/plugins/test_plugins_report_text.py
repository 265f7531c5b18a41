"""What a guest sent as lines of coloured text, and what is hidden in it."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sevplug.plugins.plain import HIDDEN, is_hidden_option
from sevplug.plugins.report.hiding import Hider, secrets_of
from sevplug.plugins.report.terminal_text import Span, lines_of
from sevplug.sevapi.secret_table import LUKS_KEY, build_secret_table


def text(output: bytes) -> str:
    return "\n".join("".join(span.text for span in line) for line in lines_of(output))


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (b"one\r\ntwo\r\r\n", "one\ntwo"),
        (b"\x1b[2J\x1b[001;001H\x1b[=3h\x1b[8;056;240tEFI stub: hello\r\n", "EFI stub: hello"),
        (b"\x1b[1;1HMenu\x1b[2;1H> Boot\x1b[3;1H  Setup", "Menu\n> Boot\n  Setup"),
        (b"10 %\r100 %\r\n", "100 %"),
        (b"abc\r12\r\n", "12c"),
        (b"abx\bc\b\b\b\b\bA\n", "Abc"),
        (b"\x1b]0;title\x07text\x1b]8;;https://example.org\x1b\\link\x1b]8;;\x1b\\", "textlink"),
        (b"a\0b\x07c\x7fd\x0be\x0cf", "abcdef"),
        (b"caf\xc3\xa9 \xff", "café \ufffd"),
        (b"a\tb", "a\tb"),
        (b"cut off \x1b[3", "cut off "),
        (b"\r\n\r\n \r\n", ""),
        (b"", ""),
    ],
)
def test_the_text_is_there_and_nothing_else(output: bytes, expected: str) -> None:
    assert text(output) == expected


def test_colours_become_classes_and_those_beyond_the_first_sixteen_styles() -> None:
    ((plain, red, many, exact, swapped),) = lines_of(
        b"a\x1b[1;31mred\x1b[0;38;5;200mx\x1b[0;48;2;1;2;3my\x1b[0;7;92mz\x1b[m"
    )
    assert plain == Span("a")
    assert red == Span("red", "bold f1")
    assert many == Span("x", "", "color:#ff00d7")
    assert exact == Span("y", "", "background-color:#010203")
    assert swapped == Span("z", "reverse b10")


def test_a_colour_lasts_over_the_end_of_a_line() -> None:
    assert lines_of(b"\x1b[32mone\r\ntwo\x1b[0m") == [(Span("one", "f2"),), (Span("two", "f2"),)]


@given(st.lists(st.one_of(st.binary(max_size=8), st.sampled_from([b"\x1b[", b"\x1b]", b"31;m", b"\r", b"\b", b"\n"]))))
def test_whatever_a_guest_sends_nothing_but_text_is_left(pieces: list[bytes]) -> None:
    for line in lines_of(b"".join(pieces)):
        for span in line:
            assert all(character == "\t" or character.isprintable() for character in span.text)
            assert all(name.isalnum() for name in span.classes.split())
            assert not set(span.style) - set("abcdefgorund-:;#0123456789kclu")


def test_a_secret_is_hidden_in_every_form() -> None:
    secret = b"MY-LUKS-PASSPHRASE\n"
    (found,) = secrets_of(build_secret_table({LUKS_KEY: secret}))
    assert found == secret
    hider = Hider([found])
    bare = secret.strip()
    said = b" ".join(
        [b"text:" + bare, secret, bare.hex().encode(), secret.hex().upper().encode(), base64.b64encode(bare)]
    )
    hidden = hider.bytes(said)
    for form in (bare, bare.hex().encode(), bare.hex().upper().encode(), base64.b64encode(bare)[:-2]):
        assert form not in hidden
    assert hidden.startswith(b"text:" + HIDDEN.encode())
    assert hider.value({"a": [bare.decode(), 1]}) == {"a": [HIDDEN, 1]}


def test_a_payload_that_is_no_table_is_one_secret_and_a_short_one_is_no_secret() -> None:
    assert secrets_of(b"a payload\0\0") == [b"a payload"]
    assert Hider([b"abc", b""]).text("abc") == "abc"


@pytest.mark.parametrize(
    ("name", "hidden"),
    [
        ("tik", True),
        ("api-key", True),
        ("luks_passphrase", True),
        ("secret", True),
        ("monkey", False),
        ("c-bit", False),
    ],
)
def test_options_are_hidden_by_a_word_of_their_names(name: str, hidden: bool) -> None:
    assert is_hidden_option(name) is hidden
