"""RSA keys of 2048 and 4096 bits and their PSS signatures, numbers little-endian.

AMD signs with SHA-256 under the shorter keys and with SHA-384 under the longer ones, MGF1 with the same hash, the salt
as long as the hash. Sources: SEV API, appendix B, "CA certificates"; virtee/sev, `src/certs/sev/ca/cert/v1.rs`.
"""

from __future__ import annotations

import os

import attrs

from sevplug.sevapi.algorithms import Algorithm, hash_of
from sevplug.sevapi.elliptic import Random
from sevplug.sevapi.errors import FormatError

MAX_SIZE = 512
_FIELD_SIZE = MAX_SIZE
_ALGORITHMS = {2048: Algorithm.RSA_SHA256, 4096: Algorithm.RSA_SHA384}


def algorithm_of(bits: int) -> Algorithm:
    """The algorithm that goes with a key of `bits` bits; raises FormatError for other than 2048 and 4096."""
    if bits not in _ALGORITHMS:
        raise FormatError(f"RSA key: expected 2048 or 4096 bits, found {bits}")
    return _ALGORITHMS[bits]


@attrs.frozen
class RsaPublicKey:
    """A public key: its length in bits (2048 or 4096), modulus and exponent. Raises FormatError for another length."""

    bits: int
    modulus: int
    exponent: int

    def __attrs_post_init__(self) -> None:
        algorithm_of(self.bits)

    @property
    def size(self) -> int:
        """The length in bytes of the modulus and of a signature."""
        return self.bits // 8

    @classmethod
    def from_bytes(cls, data: bytes) -> RsaPublicKey:
        """The key in a SEV certificate: bits u32 || exponent[512] || modulus[512]; raises FormatError for others."""
        if len(data) != 4 + 2 * _FIELD_SIZE:
            raise FormatError(f"RSA key: expected {4 + 2 * _FIELD_SIZE} bytes, found {len(data)}")
        exponent, modulus = data[4 : 4 + _FIELD_SIZE], data[4 + _FIELD_SIZE :]
        return cls(
            int.from_bytes(data[:4], "little"), int.from_bytes(modulus, "little"), int.from_bytes(exponent, "little")
        )

    def verify(self, message: bytes, signature: bytes, algorithm: Algorithm) -> bool:
        """Whether `signature` (as long as the modulus, little-endian) is this key's for `message`.

        A key that can't be one verifies nothing.
        """
        from Crypto.PublicKey import RSA
        from Crypto.Signature import pss

        if len(signature) != self.size or self.modulus.bit_length() != self.bits:
            return False
        try:
            key = RSA.construct((self.modulus, self.exponent))
            pss.new(key).verify(hash_of(algorithm, message), signature[::-1])
        except ValueError:
            return False
        return True


@attrs.frozen
class RsaPrivateKey:
    """A private key in PKCS #1 DER form, which is not in the repr."""

    der: bytes = attrs.field(repr=False)

    @classmethod
    def from_pem(cls, pem: str | bytes) -> RsaPrivateKey:
        """The key in a PEM or DER text; raises FormatError, without any of it, for anything else."""
        from Crypto.PublicKey import RSA

        try:
            key = RSA.import_key(pem)
        except (ValueError, IndexError, TypeError):
            raise FormatError("RSA key: expected a private key in PEM") from None
        if not key.has_private():
            raise FormatError("RSA key: expected a private key in PEM, found a public one")
        return cls(key.export_key("DER"))

    @classmethod
    def generate(cls, bits: int, random: Random = os.urandom) -> RsaPrivateKey:
        """A new key of 2048 or 4096 bits; the longer one takes seconds. Raises FormatError for another length."""
        from Crypto.PublicKey import RSA

        algorithm_of(bits)
        return cls(RSA.generate(bits, randfunc=random).export_key("DER"))

    def public_key(self) -> RsaPublicKey:
        """The public half."""
        from Crypto.PublicKey import RSA

        key = RSA.import_key(self.der)
        return RsaPublicKey(key.size_in_bits(), key.n, key.e)

    def sign(self, message: bytes, algorithm: Algorithm, random: Random = os.urandom) -> bytes:
        """The signature of `message`, as long as the modulus, little-endian; its salt comes from `random`."""
        from Crypto.PublicKey import RSA
        from Crypto.Signature import pss

        signature = pss.new(RSA.import_key(self.der), rand_func=random).sign(hash_of(algorithm, message))
        return signature[::-1]
