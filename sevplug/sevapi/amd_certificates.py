"""AMD's own certificates: the root key (ARK) and the key that signs every chip's CEK (ASK).

    header, 64 bytes: version u32 || key id[16] || certifying id[16] || usage u32 || reserved[16] ||
                      exponent bits u32 || modulus bits u32
    exponent || modulus || signature, as long as the modulus each

Integers are little-endian, 832 bytes for a key of 2048 bits and 1600 for one of 4096. A signature (RSA-PSS) covers
everything before it. Sources: SEV API, appendix B.1, "AMD certificate format"; AMD's published firmware (AMD-ASPFW),
`amd_cert.c`; virtee/sev, `src/certs/sev/ca/cert/v1.rs`.
"""

from __future__ import annotations

import hashlib
import os

import attrs

from sevplug.sevapi.algorithms import Usage, usage_name
from sevplug.sevapi.certificates import Signer, Verifier
from sevplug.sevapi.checks import bytes_of_length, unsigned
from sevplug.sevapi.elliptic import Random
from sevplug.sevapi.errors import FirmwareError, FormatError
from sevplug.sevapi.rsa import RsaPrivateKey, RsaPublicKey, algorithm_of
from sevplug.sevapi.status import Status

HEADER_SIZE = 64
ID_SIZE = 16
VERSION = 1

AMD_ROOTS = {
    bytes.fromhex("8efddcaaf84990cf6354d93637be270220cf15797332b3d918c3b8cc77349f31"): "AMD Naples",
    bytes.fromhex("ae2456af6c6ad234badd6c75e58915be61568286766083853bf668e6e23977c3"): "AMD Rome",
    bytes.fromhex("263b13fd3170c6ffbb0b4f01f09848dc08a8dc1e9637d47e42cbe6c135e4af12"): "AMD Milan",
    bytes.fromhex("973df6265e1b40cf8883305c1f6a6cd254979446acb40bd396946b2f19e751e9"): "AMD Genoa",
    bytes.fromhex("89327696f8082b20f5a588565adc26d478e1c6d56153c1de656e63396b8f8e20"): "AMD Turin",
}
"""AMD's root keys: the SHA-256 of their certificates up to the signature."""


@attrs.frozen
class AmdCertificate:
    """An ARK or ASK certificate: `check_root` and `check_signing_key` judge it.

    `signature` is as long as the modulus, little-endian, or empty: AMD publishes the ARK of Naples without one. Raises
    FormatError for a field that does not fit its place.
    """

    key_id: bytes = attrs.field(validator=bytes_of_length(ID_SIZE), repr=bytes.hex)
    certifying_id: bytes = attrs.field(validator=bytes_of_length(ID_SIZE), repr=bytes.hex)
    usage: int = attrs.field(validator=unsigned(32), repr=usage_name)
    key: RsaPublicKey = attrs.field(repr=False)
    signature: bytes = attrs.field(default=b"", repr=False)
    version: int = attrs.field(default=VERSION, validator=unsigned(32))
    reserved: bytes = attrs.field(default=bytes(ID_SIZE), validator=bytes_of_length(ID_SIZE), repr=bytes.hex)

    def __attrs_post_init__(self) -> None:
        if len(self.signature) not in (0, self.key.size):
            raise FormatError(f"AMD certificate: expected a signature of {self.key.size} bytes or none")

    @property
    def name(self) -> str:
        """What the certificate is called: ARK, ASK, or its usage as a number."""
        return usage_name(self.usage)

    @property
    def body(self) -> bytes:
        """What the signature covers: everything before it."""
        bits = self.key.bits.to_bytes(4, "little")
        return b"".join(
            (
                self.version.to_bytes(4, "little"),
                self.key_id,
                self.certifying_id,
                self.usage.to_bytes(4, "little"),
                self.reserved,
                bits,
                bits,
                self.key.exponent.to_bytes(self.key.size, "little"),
                self.key.modulus.to_bytes(self.key.size, "little"),
            )
        )

    @property
    def fingerprint(self) -> bytes:
        """The SHA-256 of the body, 32 bytes: what a root is known by."""
        return hashlib.sha256(self.body).digest()

    def to_bytes(self) -> bytes:
        """The 832 or 1600 bytes of the certificate (less where it has no signature)."""
        return self.body + self.signature

    @classmethod
    def size_in(cls, data: bytes) -> int:
        """How many bytes the certificate at the start of `data` has, signature included; FormatError where none is."""
        if len(data) < HEADER_SIZE:
            raise FormatError(f"AMD certificate: expected at least {HEADER_SIZE} bytes, found {len(data)}")
        exponent_bits, bits = int.from_bytes(data[56:60], "little"), int.from_bytes(data[60:64], "little")
        if exponent_bits != bits or bits not in (2048, 4096):
            raise FormatError(
                f"AMD certificate: expected exponent and modulus of 2048 or 4096 bits, found {exponent_bits} and {bits}"
            )
        return HEADER_SIZE + 3 * bits // 8

    @classmethod
    def from_bytes(cls, data: bytes) -> AmdCertificate:
        """The certificate in `data`, with or without its signature; raises FormatError for another length."""
        size = cls.size_in(data)
        key_size = (size - HEADER_SIZE) // 3
        if len(data) not in (size, size - key_size):
            raise FormatError(f"AMD certificate: expected {size} bytes, found {len(data)}")
        numbers = [data[at : at + key_size] for at in range(HEADER_SIZE, len(data), key_size)]
        return cls(
            version=int.from_bytes(data[:4], "little"),
            key_id=data[4:20],
            certifying_id=data[20:36],
            usage=int.from_bytes(data[36:40], "little"),
            reserved=data[40:56],
            key=RsaPublicKey(8 * key_size, int.from_bytes(numbers[1], "little"), int.from_bytes(numbers[0], "little")),
            signature=numbers[2] if len(numbers) == 3 else b"",
        )

    def verifier(self) -> Verifier:
        """The key as what signed a CEK; raises FirmwareError (INVALID_CERTIFICATE) unless it is an ASK's."""
        if self.usage != Usage.ASK:
            raise _refused(self, Status.INVALID_CERTIFICATE, "expected usage ASK")
        return Verifier(Usage.ASK, algorithm_of(self.key.bits), self.key)


def sign_amd_certificate(
    certificate: AmdCertificate, key: RsaPrivateKey, random: Random = os.urandom
) -> AmdCertificate:
    """`certificate` with the signature of `key`, a root's private key; `random` salts it."""
    algorithm = algorithm_of(key.public_key().bits)
    return attrs.evolve(certificate, signature=key.sign(certificate.body, algorithm, random))


def ask_signer(key: RsaPrivateKey) -> Signer:
    """An ASK's private key as what signs a CEK."""
    return Signer(Usage.ASK, algorithm_of(key.public_key().bits), key)


def check_root(ark: AmdCertificate) -> None:
    """Raises FirmwareError unless `ark` is a root's certificate, signed by itself.

    Whose root it is, is another question: see `root_name`. One without a signature passes where it is a root of AMD's
    that is known here, since AMD publishes that of Naples so. Source: `amd_cert_validate_ark` (AMD-ASPFW,
    `amd_cert.c`).
    """
    _check_certified(ark, Usage.ARK, ark, trusted=not ark.signature and ark.fingerprint in AMD_ROOTS)


def check_signing_key(ask: AmdCertificate, ark: AmdCertificate) -> None:
    """Raises FirmwareError unless `ask` is an ASK's certificate, signed by `ark`.

    BAD_SIGNATURE for a wrong signature, else INVALID_CERTIFICATE. Source: `amd_cert_validate_ask` (AMD-ASPFW,
    `amd_cert.c`).
    """
    _check_certified(ask, Usage.ASK, ark)


def root_name(ark: AmdCertificate) -> str | None:
    """Which of AMD's roots `ark` is, such as "AMD Rome"; None for any other."""
    return AMD_ROOTS.get(ark.fingerprint)


def _check_certified(certificate: AmdCertificate, usage: Usage, parent: AmdCertificate, trusted: bool = False) -> None:
    signed = parent.key.verify(certificate.body, certificate.signature, algorithm_of(parent.key.bits))
    if not (signed or trusted):
        raise _refused(certificate, Status.BAD_SIGNATURE, f"the signature is not that of this {parent.name}")
    if certificate.version != VERSION:
        problem = f"expected version {VERSION}, found {certificate.version:#x}"
    elif certificate.usage != usage:
        problem = f"expected usage {usage.name}"
    elif certificate.certifying_id != parent.key_id:
        problem = f"certified by key {certificate.certifying_id.hex()}, expected {parent.key_id.hex()}"
    else:
        return
    raise _refused(certificate, Status.INVALID_CERTIFICATE, problem)


def _refused(certificate: AmdCertificate, status: Status, detail: str) -> FirmwareError:
    return FirmwareError(status, f"{certificate.name} certificate: {detail}")
