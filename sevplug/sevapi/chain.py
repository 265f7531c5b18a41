"""Chains of certificates: from a platform's PDH up to AMD's root.

    ARK -> ARK, ASK;  ASK -> CEK;  CEK, OCA -> PEK;  OCA -> OCA;  PEK -> PDH

Source: SEV API, 2.1, "Certificate chain"; the order in files is that of PDH_CERT_EXPORT and of sevctl's `export`.
"""

from __future__ import annotations

import attrs

from sevplug.sevapi.algorithms import Algorithm, Usage
from sevplug.sevapi.amd_certificates import AmdCertificate, check_root, check_signing_key
from sevplug.sevapi.certificates import (
    CERTIFICATE_SIZE,
    SevCertificate,
    check_purpose,
    check_signed,
)
from sevplug.sevapi.errors import FirmwareError, FormatError
from sevplug.sevapi.status import Status

CERT_CHAIN_SIZE = 3 * CERTIFICATE_SIZE


@attrs.frozen
class PlatformChain:
    """The certificates of one platform, which its firmware exports."""

    pdh: SevCertificate
    pek: SevCertificate
    oca: SevCertificate
    cek: SevCertificate

    @property
    def cert_chain(self) -> bytes:
        """PEK || OCA || CEK: what PDH_CERT_EXPORT writes besides the PDH, and QMP's `cert-chain` holds."""
        return self.pek.to_bytes() + self.oca.to_bytes() + self.cek.to_bytes()

    def to_bytes(self) -> bytes:
        """PDH || PEK || OCA || CEK, the file that `sevctl export` writes."""
        return self.pdh.to_bytes() + self.cert_chain

    @classmethod
    def from_export(cls, pdh: bytes, cert_chain: bytes) -> PlatformChain:
        """The chain in what PDH_CERT_EXPORT wrote; raises FormatError for other lengths."""
        if len(cert_chain) != CERT_CHAIN_SIZE:
            raise FormatError(f"certificate chain: expected {CERT_CHAIN_SIZE} bytes, found {len(cert_chain)}")
        pek, oca, cek = (
            SevCertificate.from_bytes(cert_chain[at : at + CERTIFICATE_SIZE])
            for at in range(0, CERT_CHAIN_SIZE, CERTIFICATE_SIZE)
        )
        return cls(SevCertificate.from_bytes(pdh), pek, oca, cek)


@attrs.frozen
class AmdChain:
    """AMD's two certificates."""

    ask: AmdCertificate
    ark: AmdCertificate

    def to_bytes(self) -> bytes:
        """ASK || ARK, as in AMD's downloads (`ask_ark_rome.cert`) and at the end of `sevctl export --full`."""
        return self.ask.to_bytes() + self.ark.to_bytes()


def check_amd_chain(amd: AmdChain) -> None:
    """Raises FirmwareError, naming the certificate, unless the root signs itself and the ASK."""
    check_root(amd.ark)
    check_signing_key(amd.ask, amd.ark)


def check_platform_chain(platform: PlatformChain) -> None:
    """Raises FirmwareError, naming the certificate, unless each of OCA, PEK and PDH is signed by those above it.

    It says nothing of the CEK, for which AMD's chain is needed.
    """
    signing = Algorithm.ECDSA_SHA256
    check_purpose(platform.cek, Usage.CEK, signing)
    check_purpose(platform.oca, Usage.OCA, signing)
    check_purpose(platform.pek, Usage.PEK, signing)
    check_purpose(platform.pdh, Usage.PDH, Algorithm.ECDH_SHA256)
    check_signed(platform.oca, platform.oca.verifier())
    check_signed(platform.pek, platform.oca.verifier())
    check_signed(platform.pek, platform.cek.verifier())
    check_signed(platform.pdh, platform.pek.verifier())


def check_chain(platform: PlatformChain, amd: AmdChain) -> None:
    """Raises FirmwareError, naming the certificate, unless every link from root to PDH holds.

    Whether the root is one to trust is for the caller: see `root_name` in `amd_certificates`.
    """
    check_amd_chain(amd)
    if all(signature.usage == Usage.INVALID for signature in platform.cek.signatures):
        raise FirmwareError(
            Status.INVALID_CERTIFICATE,
            "CEK certificate: it has no signature; firmware exports it so, AMD's key server has the signed one",
        )
    check_signed(platform.cek, amd.ask.verifier())
    check_platform_chain(platform)
