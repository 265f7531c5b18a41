"""A stream of JSON values, cut anywhere: many in one read, or one over many reads; no line ends needed.

Limits and recovery are those of QEMU's ``qobject/json-streamer.c``: after a syntax error, tokens are dropped until
braces and brackets balance; after a byte that begins no token, all that is open is forgotten at once.
"""

from __future__ import annotations

from typing import Any

import attrs

from sevplug.plugins.qmp.lexer import Kind, Lexer, Token
from sevplug.plugins.qmp.parser import NOTHING, JsonError, Parser

__all__ = ["JsonError", "JsonStream", "Limits"]


@attrs.frozen
class Limits:
    """What one value may cost: bytes of its tokens, number of its tokens, depth of nesting."""

    token_size: int = 64 << 20
    token_count: int = 2 << 20
    nesting: int = 1 << 10


class JsonStream:
    """Fed with bytes; gives the values and the errors in the order of the stream."""

    def __init__(self, limits: Limits = Limits()) -> None:
        self._limits = limits
        self._lexer = Lexer(limits.token_size)
        self._parser = Parser()
        self._begin()

    def _begin(self) -> None:
        """Between two values."""
        self._braces = self._brackets = self._count = self._size = 0
        self._dropping = False
        self._parser.reset()

    def feed(self, data: bytes) -> list[Any]:
        """What ``data`` completes: values (a JSON object is a dict), and a `JsonError` for each error."""
        found: list[Any] = []
        for token in self._lexer.feed(data):
            self._measure(token)
            if not self._dropping:
                try:
                    self._check_limits()
                    value = self._parser.feed(token)
                    if value is not NOTHING:
                        found.append(value)
                except JsonError as error:
                    found.append(error)
                    self._dropping = True
            if token.kind is Kind.ERROR or not (self._braces or self._brackets):
                self._begin()
        return found

    def _measure(self, token: Token) -> None:
        kind = token.kind
        self._count += 1
        self._size += len(token.text)
        if kind is Kind.LEFT_BRACE:
            self._braces += 1
        elif kind is Kind.LEFT_BRACKET:
            self._brackets += 1
        elif kind is Kind.RIGHT_BRACE and self._braces:
            self._braces -= 1
        elif kind is Kind.RIGHT_BRACKET and self._brackets:
            self._brackets -= 1

    def _check_limits(self) -> None:
        if self._size > self._limits.token_size:
            raise JsonError("JSON token size limit exceeded")
        if self._count > self._limits.token_count:
            raise JsonError("JSON token count limit exceeded")
        if self._braces + self._brackets > self._limits.nesting:
            raise JsonError("JSON nesting depth limit exceeded")
