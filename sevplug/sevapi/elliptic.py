"""Keys on the elliptic curve P-384: signatures (ECDSA) and key agreement (ECDH) in SEV's layout.

    public key: curve u32 (1 P-256, 2 P-384) || x[72] || y[72], zeros up to 1028 bytes in a certificate
    signature: r[72] || s[72], zeros up to 512 bytes in a certificate

All numbers are little-endian. AMD's firmware takes P-384 alone (`ecc_pubkey_is_valid` in AMD-ASPFW, `ecc.c`). Source:
SEV API, appendix C.3, "ECC key formats".
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

import attrs

from sevplug.sevapi.algorithms import Algorithm, hash_of
from sevplug.sevapi.errors import FormatError

if TYPE_CHECKING:
    from Crypto.PublicKey.ECC import EccKey

Random = Callable[[int], bytes]
"""Gives that many random bytes; `os.urandom` unless a test wants the same ones each time."""

P384 = 2
NUMBER_SIZE = 72
PUBLIC_KEY_SIZE = 4 + 2 * NUMBER_SIZE
SIGNATURE_SIZE = 2 * NUMBER_SIZE
SHARED_SIZE = 48
_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFC7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973


@attrs.frozen
class EcPublicKey:
    """A point on P-384. Making one checks nothing; using one that is not on the curve raises FormatError."""

    x: int
    y: int

    def to_bytes(self) -> bytes:
        """The 148 bytes of a public key."""
        return P384.to_bytes(4, "little") + _number(self.x) + _number(self.y)

    @classmethod
    def from_bytes(cls, data: bytes) -> EcPublicKey:
        """The key in `data`, 148 bytes and then zeros.

        Raises FormatError for another length or curve, for anything but zeros after the key, and for a point that is
        not on the curve.
        """
        if len(data) < PUBLIC_KEY_SIZE:
            raise FormatError(f"public key: expected {PUBLIC_KEY_SIZE} bytes, found {len(data)}")
        if (curve := int.from_bytes(data[:4], "little")) != P384:
            raise FormatError(f"public key: expected curve {P384} (P-384), found {curve:#x}")
        if any(data[PUBLIC_KEY_SIZE:]):
            raise FormatError("public key: expected zeros after the key")
        x, y = _numbers(data[4:PUBLIC_KEY_SIZE])
        key = cls(x, y)
        key.checked()
        return key

    def checked(self) -> EccKey:
        """The key as pycryptodome's; raises FormatError when the point is not on the curve."""
        from Crypto.PublicKey import ECC

        try:
            return ECC.construct(curve="P-384", point_x=self.x, point_y=self.y)
        except ValueError:
            raise FormatError("public key: the point is not on the curve P-384") from None

    def verify(self, message: bytes, signature: bytes, algorithm: Algorithm) -> bool:
        """Whether `signature` (144 bytes) is this key's for `message`; raises FormatError for another length."""
        from Crypto.Signature import DSS

        if len(signature) != SIGNATURE_SIZE:
            raise FormatError(f"signature: expected {SIGNATURE_SIZE} bytes, found {len(signature)}")
        r, s = _numbers(signature)
        if not (0 < r < _ORDER and 0 < s < _ORDER):
            return False
        raw = r.to_bytes(SHARED_SIZE, "big") + s.to_bytes(SHARED_SIZE, "big")
        try:
            # This mode is the one that lets SHA-256 go with P-384, as SEV has it.
            DSS.new(self.checked(), "deterministic-rfc6979").verify(hash_of(algorithm, message), raw)
        except ValueError as error:
            if isinstance(error, FormatError):
                raise
            return False
        return True


@attrs.frozen
class EcPrivateKey:
    """A private key of P-384: a number from 1 to below the curve's order, which is not in the repr."""

    scalar: int = attrs.field(repr=False)

    @scalar.validator
    def _check(self, _attribute: attrs.Attribute[int], value: int) -> None:
        if not 0 < value < _ORDER:
            raise FormatError("private key: expected a number from 1 to below the order of P-384")

    @classmethod
    def generate(cls, random: Random = os.urandom) -> EcPrivateKey:
        """A new key (FIPS 186-4, B.4.1: 64 more bits than the order has, so that no key is likelier)."""
        return cls(int.from_bytes(random(SHARED_SIZE + 8), "big") % (_ORDER - 1) + 1)

    def public_key(self) -> EcPublicKey:
        """The point that belongs to this key."""
        point = self._key().pointQ
        return EcPublicKey(int(point.x), int(point.y))

    def sign(self, message: bytes, algorithm: Algorithm) -> bytes:
        """The signature of `message`, 144 bytes. The same message gives the same one (RFC 6979)."""
        from Crypto.Signature import DSS

        raw = DSS.new(self._key(), "deterministic-rfc6979").sign(hash_of(algorithm, message))
        r, s = raw[:SHARED_SIZE], raw[SHARED_SIZE:]
        return _number(int.from_bytes(r, "big")) + _number(int.from_bytes(s, "big"))

    def shared_secret(self, other: EcPublicKey) -> bytes:
        """What this key and `other` agree on: the x coordinate of the common point, 48 bytes, big-endian.

        Raises FormatError when `other` is not on the curve.
        """
        from Crypto.Protocol.DH import key_agreement

        agreed: bytes = key_agreement(static_priv=self._key(), static_pub=other.checked(), kdf=lambda z: z)
        return agreed

    def _key(self) -> EccKey:
        from Crypto.PublicKey import ECC

        return ECC.construct(curve="P-384", d=self.scalar)


def _number(value: int) -> bytes:
    return value.to_bytes(NUMBER_SIZE, "little")


def _numbers(data: bytes) -> tuple[int, int]:
    return int.from_bytes(data[:NUMBER_SIZE], "little"), int.from_bytes(data[NUMBER_SIZE:], "little")
