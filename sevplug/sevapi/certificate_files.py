"""Files of certificates: what they hold, whatever wrote them.

Firmware's `pdh.cert` and `cert_chain.cert`, AMD's downloads (`ask_ark_rome.cert`, a chip's `cek.cert`), `sevctl export`
with and without `--full`, the base64 text that QEMU takes and gives: each is some certificates, one after the other.
"""

from __future__ import annotations

import attrs

from sevplug.sevapi.algorithms import Usage
from sevplug.sevapi.amd_certificates import AmdCertificate
from sevplug.sevapi.certificates import BODY_SIZE, CERTIFICATE_SIZE, VERSION, SevCertificate
from sevplug.sevapi.chain import AmdChain, PlatformChain
from sevplug.sevapi.encodings import decode_base64
from sevplug.sevapi.errors import FormatError

_PLATFORM_USAGES = (Usage.OCA, Usage.PEK, Usage.PDH, Usage.CEK)
_AMD_USAGES = (Usage.ARK, Usage.ASK)


@attrs.frozen
class CertificateSet:
    """Certificates of one platform and of AMD, at most one of each kind."""

    certificates: dict[Usage, SevCertificate | AmdCertificate]

    def platform_chain(self) -> PlatformChain | None:
        """The platform's chain; None without any certificate of it, FormatError where one of the four is missing."""
        if not self.certificates.keys() & set(_PLATFORM_USAGES):
            return None
        found = [self._sev(usage) for usage in (Usage.PDH, Usage.PEK, Usage.OCA, Usage.CEK)]
        return PlatformChain(*found)

    def amd_chain(self) -> AmdChain | None:
        """AMD's chain; None without any certificate of it, FormatError where one of the two is missing."""
        if not self.certificates.keys() & set(_AMD_USAGES):
            return None
        return AmdChain(self._amd(Usage.ASK), self._amd(Usage.ARK))

    def _sev(self, usage: Usage) -> SevCertificate:
        found = self.certificates.get(usage)
        if not isinstance(found, SevCertificate):
            raise FormatError(f"certificates: the {usage.name} is missing")
        return found

    def _amd(self, usage: Usage) -> AmdCertificate:
        found = self.certificates.get(usage)
        if not isinstance(found, AmdCertificate):
            raise FormatError(f"certificates: the {usage.name} is missing")
        return found


def split_certificates(data: bytes) -> list[SevCertificate | AmdCertificate]:
    """The certificates in `data`, raw or as a base64 text, in their order.

    Raises FormatError, with the offset, for bytes that are none, and when there is none at all.
    """
    if not _looks_like_certificate(data):
        data = decode_base64(data) or data
    found: list[SevCertificate | AmdCertificate] = []
    offset = 0
    while offset < len(data):
        rest = data[offset:]
        try:
            certificate = _first(rest)
        except FormatError as error:
            raise FormatError(f"certificates: at offset {offset:#x}: {error}") from None
        found.append(certificate)
        offset += len(certificate.to_bytes())
    if not found:
        raise FormatError("certificates: expected at least one")
    return found


def collect_certificates(found: list[SevCertificate | AmdCertificate]) -> CertificateSet:
    """`found` by usage; raises FormatError for two different ones of one kind."""
    by_usage: dict[Usage, SevCertificate | AmdCertificate] = {}
    for certificate in found:
        usage = Usage(certificate.usage)
        if by_usage.setdefault(usage, certificate) != certificate:
            raise FormatError(f"certificates: two different ones for the {usage.name}")
    return CertificateSet(by_usage)


def _looks_like_certificate(data: bytes) -> bool:
    return data[:4] == VERSION.to_bytes(4, "little")


def _first(data: bytes) -> SevCertificate | AmdCertificate:
    """The certificate at the start of `data`."""
    if not _looks_like_certificate(data):
        raise FormatError(f"expected a certificate of version {VERSION}")
    if len(data) >= BODY_SIZE and int.from_bytes(data[8:12], "little") in _PLATFORM_USAGES:
        return SevCertificate.from_bytes(data[:CERTIFICATE_SIZE])
    size = AmdCertificate.size_in(data)
    if int.from_bytes(data[36:40], "little") not in _AMD_USAGES:
        raise FormatError("expected a certificate of a platform (PDH, PEK, OCA, CEK) or of AMD (ARK, ASK)")
    return AmdCertificate.from_bytes(data[:size])
