"""The attestation report: the platform's signed word, at any time of a guest's life, on what was launched.

    mnonce[16] || launch digest[32] || policy u32 || usage u32 || algorithm u32 || reserved u32 || signature[144]

0xd0 bytes, integers little-endian; the PEK signs the first 0x34 bytes, up to and with the policy. Sources: SEV API,
6.8, ATTESTATION; `sev_mcmd_attestation` in AMD's published firmware (AMD-ASPFW, `sev_mcmd.c`).
"""

from __future__ import annotations

import base64

import attrs

from sevplug.sevapi.algorithms import Algorithm, Usage, usage_name
from sevplug.sevapi.certificates import SevCertificate, Signer
from sevplug.sevapi.checks import bytes_of_length, unsigned
from sevplug.sevapi.digest import DIGEST_SIZE
from sevplug.sevapi.elliptic import SIGNATURE_SIZE, EcPrivateKey, EcPublicKey
from sevplug.sevapi.errors import FirmwareError, FormatError
from sevplug.sevapi.measurement import MNONCE_SIZE
from sevplug.sevapi.policy import Policy
from sevplug.sevapi.status import Status

REPORT_SIZE = 0xD0
_BODY_SIZE = 0x34


@attrs.frozen
class AttestationReport:
    """A report as it travels, of any content: `check_report` judges it.

    `mnonce` (16 bytes) is the asker's, `digest` the launch digest. Raises FormatError for a field of another length.
    """

    mnonce: bytes = attrs.field(validator=bytes_of_length(MNONCE_SIZE), repr=bytes.hex)
    digest: bytes = attrs.field(validator=bytes_of_length(DIGEST_SIZE), repr=bytes.hex)
    policy: Policy
    usage: int = attrs.field(validator=unsigned(32), repr=usage_name)
    algorithm: int = attrs.field(validator=unsigned(32))
    signature: bytes = attrs.field(validator=bytes_of_length(SIGNATURE_SIZE), repr=False)
    reserved: int = attrs.field(default=0, validator=unsigned(32))

    @property
    def body(self) -> bytes:
        """The 0x34 bytes that the signature covers."""
        return self.mnonce + self.digest + self.policy.to_bytes()

    def to_bytes(self) -> bytes:
        """The 0xd0 bytes of the report."""
        words = (self.usage, self.algorithm, self.reserved)
        return self.body + b"".join(word.to_bytes(4, "little") for word in words) + self.signature

    def to_base64(self) -> str:
        """The report as QMP's `query-sev-attestation-report` gives it."""
        return base64.b64encode(self.to_bytes()).decode("ascii")

    @classmethod
    def from_bytes(cls, data: bytes) -> AttestationReport:
        """The report in `data`; raises FormatError unless that is 0xd0 bytes long."""
        if len(data) != REPORT_SIZE:
            raise FormatError(f"attestation report: expected {REPORT_SIZE} bytes, found {len(data)}")
        policy, usage, algorithm, reserved = (
            int.from_bytes(data[at : at + 4], "little") for at in range(0x30, 0x40, 4)
        )
        return cls(data[:16], data[16:48], Policy(policy), usage, algorithm, data[0x40:], reserved)


def make_report(pek: Signer, mnonce: bytes, digest: bytes, policy: Policy) -> AttestationReport:
    """The report of a platform whose PEK is `pek`, a key on the curve. Raises FormatError for a wrong length."""
    assert isinstance(pek.key, EcPrivateKey)
    unsigned_report = AttestationReport(mnonce, digest, policy, pek.usage, pek.algorithm, bytes(SIGNATURE_SIZE))
    return attrs.evolve(unsigned_report, signature=pek.key.sign(unsigned_report.body, pek.algorithm))


def check_report(report: AttestationReport, pek: SevCertificate) -> None:
    """Raises FirmwareError unless `report` is signed by the PEK of this certificate, whose chain was verified.

    INVALID_CERTIFICATE when the certificate is none of a PEK or the report names another kind of key, INVALID_PARAM for
    reserved bytes that are not zero (no signature covers them), BAD_SIGNATURE for a wrong signature.
    """
    verifier = pek.verifier()
    if verifier.usage != Usage.PEK or not isinstance(verifier.key, EcPublicKey):
        raise _refused(Status.INVALID_CERTIFICATE, f"expected a PEK to verify it with, found {pek.name}")
    if (report.usage, report.algorithm) != (verifier.usage, verifier.algorithm):
        found = f"{usage_name(report.usage)} with algorithm {report.algorithm:#x}"
        raise _refused(
            Status.INVALID_CERTIFICATE,
            f"expected a signature by PEK with algorithm {verifier.algorithm:#x}, not {found}",
        )
    if report.reserved:
        raise _refused(Status.INVALID_PARAM, f"expected zeros in the reserved bytes, found {report.reserved:#x}")
    if not verifier.key.verify(report.body, report.signature, Algorithm(report.algorithm)):
        raise _refused(Status.BAD_SIGNATURE, "the signature is not that of this PEK")


def _refused(status: Status, detail: str) -> FirmwareError:
    return FirmwareError(status, f"attestation report: {detail}")
