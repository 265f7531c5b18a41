"""An emulated platform that is the same in every test, and the certificates above it."""

from __future__ import annotations

from sevplug.platform.root import emulated_root
from sevplug.testing.platform import seeded_record

RECORD = seeded_record(b"tests")
assert RECORD.identity is not None
API, CHIP, IDENTITY = RECORD.api, RECORD.chip, RECORD.identity
CHAIN = IDENTITY.chain(CHIP.cek)
AMD = emulated_root()


def changed(data: bytes, position: int, change: int) -> bytes:
    """`data` with one byte changed by XOR."""
    return data[:position] + bytes((data[position] ^ change,)) + data[position + 1 :]
