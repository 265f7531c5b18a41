"""What a certificate's key is for and what it is used with."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from Crypto.Hash.SHA256 import SHA256Hash
    from Crypto.Hash.SHA384 import SHA384Hash


class Usage(enum.IntEnum):
    """The purpose of a key, u32. Source: SEV API, appendix C.1, "USAGE Enumeration"."""

    ARK = 0x0
    ASK = 0x13
    INVALID = 0x1000
    OCA = 0x1001
    PEK = 0x1002
    PDH = 0x1003
    CEK = 0x1004


class Algorithm(enum.IntEnum):
    """What a key is used with, u32. Source: SEV API, appendix C.1, "ALGO Enumeration"."""

    INVALID = 0x0
    RSA_SHA256 = 0x1
    ECDSA_SHA256 = 0x2
    ECDH_SHA256 = 0x3
    RSA_SHA384 = 0x101
    ECDSA_SHA384 = 0x102
    ECDH_SHA384 = 0x103

    @property
    def is_rsa(self) -> bool:
        """Whether the key is an RSA key; the others are on an elliptic curve."""
        return self in (Algorithm.RSA_SHA256, Algorithm.RSA_SHA384)

    @property
    def signs(self) -> bool:
        """Whether a key with this algorithm makes signatures: not those for key agreement."""
        return self.is_rsa or self in (Algorithm.ECDSA_SHA256, Algorithm.ECDSA_SHA384)


def hash_of(algorithm: Algorithm, message: bytes) -> SHA256Hash | SHA384Hash:
    """The hash of `message` that a signature of `algorithm` is made over, as pycryptodome takes it."""
    from Crypto.Hash import SHA256, SHA384

    return SHA384.new(message) if algorithm & 0x100 else SHA256.new(message)


def usage_name(usage: int) -> str:
    """The name of a usage, or its number where there is none."""
    return Usage(usage).name if usage in set(Usage) else f"{usage:#x}"
