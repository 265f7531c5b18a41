"""Plain data as bytes: JSON, with what is binary behind it.  Reading them executes nothing."""

from __future__ import annotations

import json
from typing import Any

_BINARY = "$"


def encode(data: Any) -> tuple[bytes, bytes]:
    """``data`` as (JSON in UTF-8, the binary values one after the other).

    A bytes value stands in the JSON as ``{"$": [offset, size]}``.  TypeError for what is no plain data, ValueError for
    a key ``$``.
    """
    blob = bytearray()

    def plain(value: Any) -> Any:
        if isinstance(value, bytes):
            blob.extend(value)
            return {_BINARY: [len(blob) - len(value), len(value)]}
        if isinstance(value, dict):
            for key in value:
                if type(key) is not str:
                    raise TypeError(f"a key that is a {type(key).__name__}, expected str")
                if key == _BINARY:
                    raise ValueError(f"a key {_BINARY!r}, which stands for binary values")
            return {key: plain(element) for key, element in value.items()}
        if isinstance(value, list | tuple):
            return [plain(element) for element in value]
        if value is None or type(value) in (bool, int, float, str):
            return value
        raise TypeError(f"a {type(value).__name__} is no plain data")

    text = json.dumps(plain(data), ensure_ascii=True, separators=(",", ":"))
    return text.encode(), bytes(blob)


def decode(text: bytes, blob: bytes) -> Any:
    """What `encode` was given, with lists for tuples.  ValueError for what does not come from there."""

    def whole(value: dict[str, Any]) -> Any:
        if _BINARY not in value:
            return value
        place = value[_BINARY]
        if len(value) != 1 or not isinstance(place, list) or [type(number) for number in place] != [int, int]:
            raise ValueError("a binary value without its place")
        offset, size = place
        if not 0 <= offset <= offset + size <= len(blob):
            raise ValueError("a binary value outside the binary part")
        return blob[offset : offset + size]

    try:
        return json.loads(text.decode(), object_hook=whole)
    except RecursionError:
        raise ValueError("nested too deep") from None
