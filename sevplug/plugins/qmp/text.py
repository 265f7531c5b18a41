"""Modified UTF-8, the form strings have on the wire: UTF-8 without noncharacters, with U+0000 as C0 80.

Source: QEMU's ``util/unicode.c`` (``mod_utf8_codepoint``).
"""

from __future__ import annotations

import re

_NONCHARACTERS = "\ufdd0-\ufdef" + "".join(chr(plane << 16 | low) for plane in range(17) for low in (0xFFFE, 0xFFFF))
_NONCHARACTER = re.compile(f"[{_NONCHARACTERS}]")
_REPLACEMENT = 0xFFFD
# The smallest code point that needs 2, 3, … bytes; anything below it in that many bytes is overlong.
_SMALLEST = (0x80, 0x800, 0x10000, 0x200000, 0x4000000)


def is_character(codepoint: int) -> bool:
    """Whether ``codepoint`` may be in a string: in Unicode's range, no surrogate, no noncharacter."""
    return (
        0 <= codepoint <= 0x10FFFF
        and not 0xD800 <= codepoint <= 0xDFFF
        and not 0xFDD0 <= codepoint <= 0xFDEF
        and codepoint & 0xFFFE != 0xFFFE
    )


def decode(data: bytes) -> str:
    """``data`` as text.  ValueError when it is not modified UTF-8 or holds a noncharacter."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        # C0 never is a continuation byte, so these two bytes are a sequence of their own wherever they stand.
        text = data.replace(b"\xc0\x80", b"\0").decode()
    if not text.isascii() and _NONCHARACTER.search(text):
        raise ValueError("noncharacter")
    return text


def decode_for_display(data: bytes) -> str:
    """``data`` up to its first NUL, as text; each sequence that is not valid becomes U+FFFD."""
    characters = []
    position = 0
    end = data.find(b"\0")
    end = len(data) if end < 0 else end
    while position < end:
        codepoint, position = _codepoint(data, position, end)
        characters.append(chr(_REPLACEMENT if codepoint < 0 else codepoint))
    return "".join(characters)


def _codepoint(data: bytes, position: int, end: int) -> tuple[int, int]:
    """The code point at ``position`` (-1 when the sequence is invalid) and where the next sequence begins."""
    lead = data[position]
    position += 1
    if lead < 0x80:
        return lead, position
    if lead < 0xC0 or lead >= 0xFE:
        return -1, position
    length = 8 - (lead ^ 0xFF).bit_length()
    codepoint = lead & ((1 << (7 - length)) - 1)
    for _ in range(length - 1):
        if position >= end or data[position] & 0xC0 != 0x80:
            return -1, position
        codepoint = codepoint << 6 | data[position] & 0x3F
        position += 1
    overlong = codepoint < _SMALLEST[length - 2] and not (codepoint == 0 and length == 2)
    return (codepoint if is_character(codepoint) and not overlong else -1), position
