"""JSON as QEMU writes it: members in the table's order, ASCII only, ``", "`` and ``": "`` between.

Source: QEMU's ``qobject/json-writer.c``.  Nothing here recurses, so that a deeply nested ``id`` can be echoed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sevplug.plugins.qmp.qdict import ordered
from sevplug.plugins.qmp.text import is_character

END_OF_LINE = b"\r\n"
_SPECIAL = re.compile(r'["\\\x00-\x1f\x7f-\U0010ffff]')
_SHORT = {'"': '\\"', "\\": "\\\\", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def encode_line(value: Any) -> bytes:
    """``value`` (None, bool, int, float, str, lists and mappings of them) as one line with its end."""
    return "".join(_pieces(value)).encode("ascii") + END_OF_LINE


def _pieces(value: Any) -> Iterator[str]:
    """The text of ``value``; containers that are open wait on a stack with what is left of them."""
    stack: list[tuple[Iterator[tuple[str, Any]], str]] = []
    first = True
    while True:
        if isinstance(value, Mapping):
            yield "{"
            stack.append((((_quoted(key) + ": ", member) for key, member in ordered(value)), "}"))
            first = True
        elif isinstance(value, Sequence) and not isinstance(value, str):
            yield "["
            stack.append(((("", element) for element in value), "]"))
            first = True
        else:
            yield _scalar(value)
            first = False
        while stack:
            following = next(stack[-1][0], None)
            if following is not None:
                break
            yield stack.pop()[1]
            first = False
        if not stack or following is None:
            return
        name, value = following
        yield name if first else ", " + name


def _scalar(value: Any) -> str:
    if value is None:
        return "null"
    if value is True:
        return "true"
    if value is False:
        return "false"
    if isinstance(value, str):
        return _quoted(value)
    if isinstance(value, float):
        return f"{value:.17g}"
    return str(int(value))


def _quoted(text: str) -> str:
    return f'"{_SPECIAL.sub(_escaped, text)}"'


def _escaped(match: re.Match[str]) -> str:
    character = match[0]
    if character in _SHORT:
        return _SHORT[character]
    codepoint = ord(character)
    if not is_character(codepoint):
        return "\\uFFFD"
    if codepoint > 0xFFFF:
        offset = codepoint - 0x10000
        return f"\\u{0xD800 + (offset >> 10):04X}\\u{0xDC00 + (offset & 0x3FF):04X}"
    return f"\\u{codepoint:04X}"
