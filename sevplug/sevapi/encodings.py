"""Bytes that travel as they are or as a base64 text: tools write both, and so both are read."""

from __future__ import annotations

import base64
import binascii

from sevplug.sevapi.errors import FormatError


def decode_base64(text: bytes | str) -> bytes | None:
    """What a base64 text says, white space anywhere in it (ASCII's six kinds) left out; None for anything else."""
    try:
        raw = text.encode("ascii") if isinstance(text, str) else text
        return base64.b64decode(b"".join(raw.split()), validate=True)
    except (binascii.Error, ValueError):
        return None


def raw_or_base64(data: bytes, size: int, what: str) -> bytes:
    """`data` where it is `size` bytes long, else the `size` bytes that it says in base64.

    Raises FormatError, with `what` and the length and nothing of the content, for anything else.
    """
    if len(data) == size:
        return data
    decoded = decode_base64(data)
    if decoded is None or len(decoded) != size:
        found = f"{len(data)} bytes" if decoded is None else f"{len(decoded)} bytes in base64"
        raise FormatError(f"{what}: expected {size} bytes, raw or in base64, found {found}")
    return decoded
