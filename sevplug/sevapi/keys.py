"""The two transport keys that the guest owner shares with the platform for one launch."""

from __future__ import annotations

import os

import attrs

from sevplug.sevapi.checks import bytes_of_length
from sevplug.sevapi.errors import FormatError
from sevplug.sevapi.files import read_at_most

KEY_SIZE = 16


@attrs.frozen
class TransportKeys:
    """TEK, which encrypts what the owner sends, and TIK, which authenticates it: 16 bytes each.

    Source: SEV API, chapter 2, "Summary of Keys". Raises FormatError for a key of another length. Neither key
    is in the repr.
    """

    tek: bytes = attrs.field(validator=bytes_of_length(KEY_SIZE), repr=False)
    tik: bytes = attrs.field(validator=bytes_of_length(KEY_SIZE), repr=False)


def read_key(path: str | os.PathLike[str], field: str) -> bytes:
    """The 16-byte key in the file at `path`; `field`, such as "tik", names the setting in an error.

    Raises SevApiError when the file can't be read, FormatError when it does not hold exactly 16 bytes: one
    line that names the field, the file and what was expected.
    """
    key = read_at_most(path, field, KEY_SIZE)
    if len(key) != KEY_SIZE:
        found = f"{len(key)} bytes" if len(key) < KEY_SIZE else "more"
        raise FormatError(f"{field}: {os.fspath(path)}: expected {KEY_SIZE} bytes, found {found}")
    return key
