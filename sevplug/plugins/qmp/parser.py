"""Tokens put together to a value, one token at a time.

A state machine with a stack of its own, as in QEMU's ``qobject/json-parser.c`` since 11.1, so that an error is told at
the token that makes it and nesting costs no Python stack.
"""

from __future__ import annotations

import enum
import re
from typing import Any, Final

import attrs

from sevplug.plugins.qmp.lexer import Kind, Token
from sevplug.plugins.qmp.text import decode, decode_for_display, is_character


class JsonError(Exception):
    """The stream is not JSON, or passes a limit; the text is QEMU's."""


class _Nothing(enum.Enum):
    NOTHING = enum.auto()


NOTHING: Final = _Nothing.NOTHING

_CONSTANTS = {b"true": True, b"false": False, b"null": None}
_ESCAPES = {0x62: "\b", 0x66: "\f", 0x6E: "\n", 0x72: "\r", 0x74: "\t"} | {byte: chr(byte) for byte in b"\"'\\/"}
_PLAIN = re.compile(rb"[^\\]+")
_HEX = re.compile(rb"[0-9a-fA-F]{4}")
# QEMU formats its message into a buffer of 1024 bytes.
_MESSAGE_LIMIT = 1023
# More digits than any 64-bit integer has: such a number is a float, as in QEMU.
_INTEGER_DIGITS = 20


class _State(enum.Enum):
    AFTER_BRACE = enum.auto()
    AFTER_BRACKET = enum.auto()
    BEFORE_KEY = enum.auto()
    AFTER_KEY = enum.auto()
    BEFORE_VALUE = enum.auto()
    AFTER_VALUE = enum.auto()


@attrs.define
class _Open:
    """A container that is not complete, and the key whose value is awaited."""

    container: dict[str, Any] | list[Any]
    state: _State
    key: str = ""


class Parser:
    """Fed with tokens; gives a value when one is complete."""

    def __init__(self) -> None:
        self._stack: list[_Open] = []

    def reset(self) -> None:
        """Forget what is incomplete."""
        self._stack.clear()

    def feed(self, token: Token) -> Any:
        """The value that ``token`` completes, or `NOTHING`.  `JsonError` where the grammar has no such token."""
        if token.kind is Kind.ERROR:
            raise _error(token, b"stray '%s'" % _until_nul(token.text))
        if not self._stack:
            return self._value(token)
        entry = self._stack[-1]
        match entry.state:
            case _State.AFTER_BRACE if token.kind is Kind.RIGHT_BRACE:
                return self._close(token)
            case _State.AFTER_BRACE | _State.BEFORE_KEY:
                if token.kind is not Kind.STRING:
                    raise _error(token, b"expecting key")
                entry.key = _string(token)
                entry.state = _State.AFTER_KEY
            case _State.AFTER_KEY:
                if token.kind is not Kind.COLON:
                    raise _error(token, b"expecting ':'")
                entry.state = _State.BEFORE_VALUE
            case _State.AFTER_BRACKET if token.kind is Kind.RIGHT_BRACKET:
                return self._close(token)
            case _State.AFTER_BRACKET | _State.BEFORE_VALUE:
                return self._value(token)
            case _State.AFTER_VALUE:
                return self._after_value(entry, token)
        return NOTHING

    def _after_value(self, entry: _Open, token: Token) -> Any:
        is_list = isinstance(entry.container, list)
        if token.kind is (Kind.RIGHT_BRACKET if is_list else Kind.RIGHT_BRACE):
            return self._close(token)
        if token.kind is not Kind.COMMA:
            raise _error(token, b"expected ',' or ']'" if is_list else b"expected ',' or '}'")
        entry.state = _State.BEFORE_VALUE if is_list else _State.BEFORE_KEY
        return NOTHING

    def _value(self, token: Token) -> Any:
        match token.kind:
            case Kind.LEFT_BRACE:
                self._stack.append(_Open({}, _State.AFTER_BRACE))
                return NOTHING
            case Kind.LEFT_BRACKET:
                self._stack.append(_Open([], _State.AFTER_BRACKET))
                return NOTHING
            case Kind.STRING:
                return self._complete(_string(token), token)
            case Kind.INTEGER | Kind.FLOAT:
                return self._complete(_number(token), token)
            case Kind.KEYWORD:
                if token.text not in _CONSTANTS:
                    raise _error(token, b"invalid keyword '%s'" % token.text)
                return self._complete(_CONSTANTS[token.text], token)
        raise _error(token, b"expecting value")

    def _close(self, token: Token) -> Any:
        return self._complete(self._stack.pop().container, token)

    def _complete(self, value: Any, token: Token) -> Any:
        """Put a value, complete with ``token``, into the container that waits for it."""
        if not self._stack:
            return value
        entry = self._stack[-1]
        if isinstance(entry.container, list):
            entry.container.append(value)
        elif entry.key in entry.container:
            raise _error(token, b"duplicate key")
        else:
            entry.container[entry.key] = value
        entry.state = _State.AFTER_VALUE
        return NOTHING


def _error(token: Token, message: bytes) -> JsonError:
    text = decode_for_display(message[:_MESSAGE_LIMIT])
    return JsonError(f"{token.line}:{token.column}: JSON parse error, {text}")


def _until_nul(text: bytes) -> bytes:
    return text.split(b"\0", 1)[0]


def _number(token: Token) -> int | float:
    if token.kind is Kind.INTEGER and len(token.text) <= _INTEGER_DIGITS:
        value = int(token.text)
        if -(1 << 63) <= value < 1 << 64:
            return value
    return float(token.text)


def _string(token: Token) -> str:
    """A string token's text with its escapes resolved."""
    body = token.text[1:-1]
    pieces = []
    position = 0
    while position < len(body):
        plain = _PLAIN.match(body, position)
        if plain is not None:
            try:
                pieces.append(decode(plain[0]))
            except ValueError:
                raise _error(token, b"invalid UTF-8 sequence in string") from None
            position = plain.end()
        elif body[position + 1] == 0x75:  # u
            character, position = _unicode_escape(token, position + 1)
            pieces.append(character)
            position -= 1
        elif body[position + 1] in _ESCAPES:
            pieces.append(_ESCAPES[body[position + 1]])
            position += 2
        else:
            raise _error(token, b"invalid escape sequence in string")
    return "".join(pieces)


def _unicode_escape(token: Token, start: int) -> tuple[str, int]:
    r"""The character of the ``\uXXXX`` (or pair of them) at ``start`` of the token's text, and where it ends."""
    text = token.text
    first = _HEX.match(text, start + 2)
    codepoint, end = int(first[0], 16) if first else -1, start + 6
    if 0xD800 <= codepoint <= 0xDBFF and text[end : end + 2] == b"\\u":
        second = _HEX.match(text, end + 2)
        low = int(second[0], 16) if second else -1
        if 0xDC00 <= low <= 0xDFFF:
            codepoint = 0x10000 + ((codepoint & 0x3FF) << 10 | low & 0x3FF)
            end += 6
    if not is_character(codepoint):
        raise _error(token, b"%s is not a valid Unicode character" % text[start:end])
    return chr(codepoint), end
