"""A stream of bytes cut into JSON tokens, with QEMU's extensions and QEMU's way back after an error.

A table of states, as in QEMU's ``qobject/json-lexer.c``; bytes that leave a state as it is are taken in one step, so a
token costs the same whether it comes whole or byte by byte.
"""

from __future__ import annotations

import enum
import re
from typing import NamedTuple


class Kind(enum.IntEnum):
    """What a token is.  OVERSIZED: a token was cut off because it passed the limit."""

    ERROR = 0
    LEFT_BRACE = 32
    RIGHT_BRACE = 33
    LEFT_BRACKET = 34
    RIGHT_BRACKET = 35
    COLON = 36
    COMMA = 37
    INTEGER = 38
    FLOAT = 39
    KEYWORD = 40
    STRING = 41
    OVERSIZED = 42


class Token(NamedTuple):
    """``text`` as it stood in the stream; ``line`` and ``column`` count from 1 (QEMU's columns, see `Lexer`).

    A tuple, since millions of them may come: making one costs a third of what an attrs value does.
    """

    kind: Kind
    text: bytes
    line: int
    column: int

    def __repr__(self) -> str:
        return f"Token({self.kind.name}, <{len(self.text)} bytes>, {self.line}, {self.column})"


_RECOVERY, _DQ, _DQ_ESCAPE, _SQ, _SQ_ESCAPE, _ZERO, _EXP_DIGITS, _EXP_SIGN, _EXP_E = range(1, 10)
_MANTISSA, _MANTISSA_DIGITS, _DIGITS, _SIGN, _KEYWORD, _START = range(10, 16)
_FIRST_TOKEN = int(Kind.LEFT_BRACE)
_KINDS = {int(kind): kind for kind in Kind}
# Or-ed to a next state: the byte is looked at again in that state.
_AGAIN = 0x80

_TEXT = (0x20, 0xFD)
_NUMERALS = (0x30, 0x39)
_STRUCTURE = b"[]{}:,"


def _row(*cells: tuple[bytes | tuple[int, int], int], default: int = Kind.ERROR) -> list[int]:
    """A state's 256 next states; a cell's bytes are listed, or a range with both ends in it.  Later cells win."""
    row = [int(default)] * 256
    for where, following in cells:
        for byte in where if isinstance(where, bytes) else range(where[0], where[1] + 1):
            row[byte] = int(following)
    return row


_TABLE: dict[int, list[int]] = {
    # Structural characters, line ends and other control characters but tab, and the two bytes that no UTF-8 has, are
    # where a stream may make sense again.
    _RECOVERY: _row(
        ((0x00, 0x1F), _START | _AGAIN),
        (_TEXT, _RECOVERY),
        ((0xFE, 0xFF), _START | _AGAIN),
        (b"\t", _RECOVERY),
        (_STRUCTURE, _START | _AGAIN),
    ),
    _DQ_ESCAPE: _row((_TEXT, _DQ)),
    _DQ: _row((_TEXT, _DQ), (b"\\", _DQ_ESCAPE), (b'"', Kind.STRING)),
    _SQ_ESCAPE: _row((_TEXT, _SQ)),
    _SQ: _row((_TEXT, _SQ), (b"\\", _SQ_ESCAPE), (b"'", Kind.STRING)),
    _ZERO: _row((_NUMERALS, Kind.ERROR), (b".", _MANTISSA), default=Kind.INTEGER | _AGAIN),
    _EXP_DIGITS: _row((_NUMERALS, _EXP_DIGITS), default=Kind.FLOAT | _AGAIN),
    _EXP_SIGN: _row((_NUMERALS, _EXP_DIGITS)),
    _EXP_E: _row((b"+-", _EXP_SIGN), (_NUMERALS, _EXP_DIGITS)),
    _MANTISSA_DIGITS: _row((_NUMERALS, _MANTISSA_DIGITS), (b"eE", _EXP_E), default=Kind.FLOAT | _AGAIN),
    _MANTISSA: _row((_NUMERALS, _MANTISSA_DIGITS)),
    _DIGITS: _row((_NUMERALS, _DIGITS), (b"eE", _EXP_E), (b".", _MANTISSA), default=Kind.INTEGER | _AGAIN),
    _SIGN: _row((_NUMERALS, _DIGITS), (b"0", _ZERO)),
    _KEYWORD: _row(((0x61, 0x7A), _KEYWORD), default=Kind.KEYWORD | _AGAIN),
    _START: _row(
        (b'"', _DQ),
        (b"'", _SQ),
        (_NUMERALS, _DIGITS),
        (b"0", _ZERO),
        (b"-", _SIGN),
        (b"{", Kind.LEFT_BRACE),
        (b"}", Kind.RIGHT_BRACE),
        (b"[", Kind.LEFT_BRACKET),
        (b"]", Kind.RIGHT_BRACKET),
        (b",", Kind.COMMA),
        (b":", Kind.COLON),
        ((0x61, 0x7A), _KEYWORD),
        (b" \t\r\n", _START),
    ),
}


def _run(state: int) -> re.Pattern[bytes]:
    """What leaves ``state`` as it is."""
    same = b"".join(b"\\x%02x" % byte for byte, following in enumerate(_TABLE[state]) if following == state)
    return re.compile(b"[%s]*" % same) if same else re.compile(b"")


_RUNS = {state: _run(state) for state in _TABLE}


class Lexer:
    """Fed with any pieces of the stream; remembers what is unfinished.

    Positions are QEMU's: a token's column is that of its first byte, but one more after a byte that was looked at twice
    (behind a number or a keyword, or at the end of an error).
    """

    def __init__(self, longest: int) -> None:
        """``longest``: a token of more bytes is cut off and given as OVERSIZED."""
        self._longest = longest
        self._state = _START
        self._token = bytearray()
        self._line = self._column = 1
        self._token_line = self._token_column = 1

    def feed(self, data: bytes) -> list[Token]:
        """The tokens that end in ``data``."""
        tokens: list[Token] = []
        position, size = 0, len(data)
        while position < size:
            if self._state in (_START, _RECOVERY):
                end = _RUNS[self._state].match(data, position).end()  # type: ignore[union-attr]
                self._skip(data, position, end)
            else:
                room = self._longest + 1 - len(self._token)
                end = _RUNS[self._state].match(data, position, position + room).end()  # type: ignore[union-attr]
                self._token += data[position:end]
                self._column += end - position
            position = end
            if position < size and len(self._token) <= self._longest:
                self._byte(data[position], tokens)
                position += 1
            if len(self._token) > self._longest:
                self._emit(Kind.OVERSIZED, tokens)
                self._state = _START
        return tokens

    def _skip(self, data: bytes, start: int, end: int) -> None:
        newlines = data.count(b"\n", start, end)
        if newlines:
            self._line += newlines
            self._column = end - data.rindex(b"\n", start, end)
        else:
            self._column += end - start
        if self._state == _START and end > start:
            self._token_line, self._token_column = self._line, self._column

    def _byte(self, byte: int, tokens: list[Token]) -> None:
        """One byte that is not part of a run."""
        self._column += 1
        if byte == 0x0A:
            self._line += 1
            self._column = 1
        again = True
        while again:
            entry = _TABLE[self._state][byte]
            again = bool(entry & _AGAIN)
            following = entry & ~_AGAIN
            if not again:
                self._token.append(byte)
            if following >= _FIRST_TOKEN:
                self._emit(_KINDS[following], tokens)
                following = _START
            elif not following:
                self._emit(Kind.ERROR, tokens)
                following = _RECOVERY
            if following in (_START, _RECOVERY):
                self._token.clear()
            if following == _START:
                self._token_line, self._token_column = self._line, self._column
            self._state = following

    def _emit(self, kind: Kind, tokens: list[Token]) -> None:
        tokens.append(Token(kind, bytes(self._token), self._token_line, self._token_column))
        self._token.clear()
