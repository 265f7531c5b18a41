"""The key derivation of SEV's sessions: NIST SP 800-108 in counter mode, with HMAC-SHA256."""

from __future__ import annotations

import hashlib
import hmac

_HASH_SIZE = 32


def derive(key: bytes, label: str, context: bytes = b"", size: int = 16) -> bytes:
    """`size` bytes derived from `key`: HMAC-SHA256(key; i || label || 00 || context || bits) for i = 1, 2, ...

    The counter and the length in bits are u32, little-endian, other than in the example of SP 800-108, which lets
    both be chosen. `label` is ASCII. Sources: SEV API, 2.2, "Key derivation"; `nist_kdf.c` in AMD's published
    firmware (AMD-ASPFW).
    """
    fixed = label.encode("ascii") + b"\0" + context + (8 * size).to_bytes(4, "little")
    blocks = range(1, -(-size // _HASH_SIZE) + 1)
    derived = b"".join(hmac.digest(key, index.to_bytes(4, "little") + fixed, hashlib.sha256) for index in blocks)
    return derived[:size]
