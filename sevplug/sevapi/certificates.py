"""SEV certificates, 0x824 bytes: the platform's and the guest owner's.

    body, 0x414 bytes: version u32 || API major || API minor || reserved u16 || usage u32 || algorithm u32 || key[0x404]
    two signatures, 0x208 bytes each: usage u32 || algorithm u32 || signature[512]

Integers are little-endian; a signature covers the body. Sources: SEV API, appendix C.1, "SEV certificate format";
AMD's published firmware (AMD-ASPFW), `sev_cert.h` and `sev_cert.c`, for the checks and their statuses.
"""

from __future__ import annotations

import os

import attrs

from sevplug.sevapi.algorithms import Algorithm, Usage, usage_name
from sevplug.sevapi.checks import bytes_of_length, unsigned
from sevplug.sevapi.elliptic import SIGNATURE_SIZE, EcPrivateKey, EcPublicKey, Random
from sevplug.sevapi.errors import FirmwareError, FormatError
from sevplug.sevapi.rsa import RsaPrivateKey, RsaPublicKey
from sevplug.sevapi.status import Status
from sevplug.sevapi.version import ApiVersion

CERTIFICATE_SIZE = 0x824
BODY_SIZE = 0x414
VERSION = 1
_KEY_SIZE = 0x404
_SIGNATURE_FIELD_SIZE = 512
_SIGNATURE_RECORD_SIZE = 8 + _SIGNATURE_FIELD_SIZE

# Who may sign a certificate of each usage.
_SIGNERS = {
    Usage.PDH: (Usage.PEK,),
    Usage.PEK: (Usage.OCA, Usage.CEK),
    Usage.OCA: (Usage.OCA,),
    Usage.CEK: (Usage.ASK,),
}


@attrs.frozen
class Verifier:
    """A public key with what it is for: what a signature is checked against."""

    usage: Usage
    algorithm: Algorithm
    key: EcPublicKey | RsaPublicKey


@attrs.frozen
class Signer:
    """A private key with what it is for."""

    usage: Usage
    algorithm: Algorithm
    key: EcPrivateKey | RsaPrivateKey = attrs.field(repr=False)


@attrs.frozen
class Signature:
    """One of a certificate's two signatures: whose it is, and its 512 bytes. By default none."""

    usage: int = attrs.field(default=int(Usage.INVALID), validator=unsigned(32), repr=usage_name)
    algorithm: int = attrs.field(default=int(Algorithm.INVALID), validator=unsigned(32))
    data: bytes = attrs.field(
        default=bytes(_SIGNATURE_FIELD_SIZE), validator=bytes_of_length(_SIGNATURE_FIELD_SIZE), repr=False
    )

    def to_bytes(self) -> bytes:
        """The 0x208 bytes of the signature."""
        return self.usage.to_bytes(4, "little") + self.algorithm.to_bytes(4, "little") + self.data

    @classmethod
    def from_bytes(cls, data: bytes) -> Signature:
        """The signature in 0x208 bytes; raises FormatError for another length."""
        return cls(int.from_bytes(data[:4], "little"), int.from_bytes(data[4:8], "little"), data[8:])


@attrs.frozen
class SevCertificate:
    """A certificate as it travels, of any content: `check_body` and `check_signed` judge it.

    `reserved` is a u16, `key` the 0x404 bytes of the public key. Raises FormatError for a field that does not fit its
    place.
    """

    usage: int = attrs.field(validator=unsigned(32), repr=usage_name)
    algorithm: int = attrs.field(validator=unsigned(32))
    key: bytes = attrs.field(validator=bytes_of_length(_KEY_SIZE), repr=False)
    api_major: int = attrs.field(default=0, validator=unsigned(8))
    api_minor: int = attrs.field(default=0, validator=unsigned(8))
    signatures: tuple[Signature, Signature] = (Signature(), Signature())
    version: int = attrs.field(default=VERSION, validator=unsigned(32))
    reserved: int = attrs.field(default=0, validator=unsigned(16))

    @property
    def name(self) -> str:
        """What the certificate is called: PDH, PEK, OCA, CEK, or its usage as a number."""
        return usage_name(self.usage)

    @property
    def body(self) -> bytes:
        """The 0x414 bytes that signatures cover."""
        return b"".join(
            (
                self.version.to_bytes(4, "little"),
                bytes((self.api_major, self.api_minor)),
                self.reserved.to_bytes(2, "little"),
                self.usage.to_bytes(4, "little"),
                self.algorithm.to_bytes(4, "little"),
                self.key,
            )
        )

    @property
    def unsigned(self) -> SevCertificate:
        """The certificate without its signatures: what is sent to whoever shall sign it."""
        return attrs.evolve(self, signatures=(Signature(), Signature()))

    def to_bytes(self) -> bytes:
        """The 0x824 bytes of the certificate."""
        return self.body + self.signatures[0].to_bytes() + self.signatures[1].to_bytes()

    @classmethod
    def from_bytes(cls, data: bytes) -> SevCertificate:
        """The certificate in `data`; raises FormatError unless that is 0x824 bytes long."""
        if len(data) != CERTIFICATE_SIZE:
            raise FormatError(f"SEV certificate: expected {CERTIFICATE_SIZE} bytes, found {len(data)}")
        second = BODY_SIZE + _SIGNATURE_RECORD_SIZE
        return cls(
            version=int.from_bytes(data[:4], "little"),
            api_major=data[4],
            api_minor=data[5],
            reserved=int.from_bytes(data[6:8], "little"),
            usage=int.from_bytes(data[8:12], "little"),
            algorithm=int.from_bytes(data[12:16], "little"),
            key=data[16:BODY_SIZE],
            signatures=(Signature.from_bytes(data[BODY_SIZE:second]), Signature.from_bytes(data[second:])),
        )

    def public_key(self) -> EcPublicKey | RsaPublicKey:
        """The key; raises FormatError for an unknown algorithm and for a key that can't be one."""
        if self.algorithm == Algorithm.INVALID or self.algorithm not in set(Algorithm):
            raise FormatError(f"public key: unknown algorithm {self.algorithm:#x}")
        return (RsaPublicKey if Algorithm(self.algorithm).is_rsa else EcPublicKey).from_bytes(self.key)

    def verifier(self) -> Verifier:
        """The key with what it is for; raises FirmwareError as `check_body` does."""
        check_body(self)
        return Verifier(Usage(self.usage), Algorithm(self.algorithm), self.public_key())


def make_certificate(usage: Usage, algorithm: Algorithm, key: EcPublicKey, api: ApiVersion) -> SevCertificate:
    """An unsigned certificate for `key`."""
    padded = key.to_bytes().ljust(_KEY_SIZE, b"\0")
    return SevCertificate(usage, algorithm, padded, api_major=api.major, api_minor=api.minor)


def sign_certificate(certificate: SevCertificate, signer: Signer, random: Random = os.urandom) -> SevCertificate:
    """`certificate` with the signature of `signer` in the first place that is free.

    `random` salts an RSA signature. Raises FirmwareError with UNSUPPORTED for a key that agrees on keys and does not
    sign, with INVALID_CERTIFICATE when both places are taken.
    """
    if not signer.algorithm.signs:
        raise _refused(certificate, Status.UNSUPPORTED, f"a key for {signer.algorithm.name} signs nothing")
    if isinstance(signer.key, EcPrivateKey):
        made = signer.key.sign(certificate.body, signer.algorithm)
    else:
        made = signer.key.sign(certificate.body, signer.algorithm, random)
    signature = Signature(signer.usage, signer.algorithm, made.ljust(_SIGNATURE_FIELD_SIZE, b"\0"))
    return attrs.evolve(certificate, signatures=add_signature(certificate, signature))


def add_signature(certificate: SevCertificate, signature: Signature) -> tuple[Signature, Signature]:
    """The signatures of `certificate` with one more; raises FirmwareError (INVALID_CERTIFICATE) when both are taken."""
    first, second = certificate.signatures
    if first.usage == Usage.INVALID:
        return signature, second
    if second.usage == Usage.INVALID:
        return first, signature
    raise _refused(certificate, Status.INVALID_CERTIFICATE, "both places for signatures are taken")


def check_body(certificate: SevCertificate) -> None:
    """Raises FirmwareError with INVALID_CERTIFICATE for another version, an unknown usage or a key that can't be one.

    Source: `sev_cert_validate_body` in AMD's published firmware (AMD-ASPFW, `sev_cert.c`).
    """
    if certificate.version != VERSION:
        problem = f"expected version {VERSION}, found {certificate.version:#x}"
    elif certificate.usage == Usage.INVALID or certificate.usage not in set(Usage):
        problem = f"unknown usage {certificate.usage:#x}"
    else:
        try:
            certificate.public_key()
        except FormatError as error:
            problem = str(error)
        else:
            return
    raise _refused(certificate, Status.INVALID_CERTIFICATE, problem)


def check_purpose(certificate: SevCertificate, usage: Usage, algorithm: Algorithm) -> None:
    """Raises FirmwareError with INVALID_CERTIFICATE unless the body is right and for `usage` with `algorithm`.

    Signatures are not looked at. Source: `sev_cert_sanity_check` (AMD-ASPFW, `sev_cert.c`).
    """
    check_body(certificate)
    if certificate.usage != usage or certificate.algorithm != algorithm:
        found = f"{certificate.name} with algorithm {certificate.algorithm:#x}"
        wanted = f"{usage.name} with algorithm {algorithm:#x}"
        raise _refused(certificate, Status.INVALID_CERTIFICATE, f"expected a key for {wanted}, found one for {found}")


def check_signed(certificate: SevCertificate, signer: Verifier) -> None:
    """Raises FirmwareError unless `certificate` is right, signed by `signer`, and `signer` the one to do so.

    BAD_SIGNATURE for a signature of the signer's kind that is wrong, and for a malformed one; INVALID_CERTIFICATE when
    no signature is of the signer's kind, and as `check_body`. Other than the firmware this turns down bytes after a
    signature that are not zero. Source: `sev_cert_validate` (AMD-ASPFW, `sev_cert.c`).
    """
    for signature in certificate.signatures:
        if (signature.usage == Usage.INVALID) != (signature.algorithm == Algorithm.INVALID):
            raise _refused(certificate, Status.BAD_SIGNATURE, "a signature has a usage or an algorithm but not both")
    candidates = [s for s in certificate.signatures if (s.usage, s.algorithm) == (signer.usage, signer.algorithm)]
    if not candidates:
        what = f"{signer.usage.name} with algorithm {signer.algorithm:#x}"
        raise _refused(certificate, Status.INVALID_CERTIFICATE, f"not signed by a key for {what}")
    if not any(_verifies(certificate.body, signature, signer) for signature in candidates):
        raise _refused(certificate, Status.BAD_SIGNATURE, f"the signature is not that of this {signer.usage.name}")
    check_body(certificate)
    if signer.usage not in _SIGNERS.get(Usage(certificate.usage), ()):
        raise _refused(certificate, Status.INVALID_CERTIFICATE, f"a key for {signer.usage.name} may not sign it")


def _verifies(body: bytes, signature: Signature, signer: Verifier) -> bool:
    size = signer.key.size if isinstance(signer.key, RsaPublicKey) else SIGNATURE_SIZE
    if not signer.algorithm.signs or any(signature.data[size:]):
        return False
    return signer.key.verify(body, signature.data[:size], signer.algorithm)


def _refused(certificate: SevCertificate, status: Status, detail: str) -> FirmwareError:
    return FirmwareError(status, f"{certificate.name} certificate: {detail}")
