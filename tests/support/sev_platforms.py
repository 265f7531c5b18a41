"""An emulated platform that is the same in every test, and the certificates above it."""

from __future__ import annotations

from sevplug.platform.identity import make_chip, make_identity
from sevplug.platform.randomness import SeededRandom
from sevplug.platform.root import emulated_root
from sevplug.sevapi.version import ApiVersion

API = ApiVersion(1, 55, 24)
_random = SeededRandom(b"tests")
CHIP = make_chip(API, _random)
IDENTITY = make_identity(CHIP, API, _random)
CHAIN = IDENTITY.chain(CHIP.cek)
AMD = emulated_root()


def changed(data: bytes, position: int, change: int) -> bytes:
    """`data` with one byte changed by XOR."""
    return data[:position] + bytes((data[position] ^ change,)) + data[position + 1 :]
