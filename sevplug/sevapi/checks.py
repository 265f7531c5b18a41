"""Validators for the fields of this library's values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs

from sevplug.sevapi.errors import FormatError


def bytes_of_length(length: int) -> Callable[[Any, attrs.Attribute[bytes], bytes], None]:
    """An attrs validator for a field that is exactly `length` bytes long.

    It raises TypeError for what is not `bytes`, and FormatError for a wrong length. Neither text holds the
    value, which may be a key.
    """

    def validate(_instance: Any, attribute: attrs.Attribute[bytes], value: bytes) -> None:
        if not isinstance(value, bytes):
            raise TypeError(f"{attribute.name}: expected bytes, found {type(value).__name__}")
        if len(value) != length:
            raise FormatError(f"{attribute.name}: expected {length} bytes, found {len(value)}")

    return validate


def unsigned(bits: int) -> Callable[[Any, attrs.Attribute[int], int], None]:
    """An attrs validator for an integer of `bits` bits without a sign.

    It raises TypeError for what is not an integer, and FormatError for one out of range.
    """

    def validate(_instance: Any, attribute: attrs.Attribute[int], value: int) -> None:
        if not isinstance(value, int):
            raise TypeError(f"{attribute.name}: expected an integer, found {type(value).__name__}")
        if not 0 <= value < 1 << bits:
            raise FormatError(f"{attribute.name}: expected 0 to {(1 << bits) - 1:#x}, found {value:#x}")

    return validate
