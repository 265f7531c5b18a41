"""A platform's keys and certificates, as values, and how firmware makes them.

CEK, OCA, PEK and PDH are keys on P-384. Source: AMD's published firmware (AMD-ASPFW), `sev_plat.c`.
"""

from __future__ import annotations

import os

import attrs

from sevplug.platform.root import emulated_ask_key, emulated_root
from sevplug.sevapi.algorithms import Algorithm, Usage
from sevplug.sevapi.amd_certificates import ask_signer
from sevplug.sevapi.certificates import (
    SevCertificate,
    Signer,
    add_signature,
    check_signed,
    make_certificate,
    sign_certificate,
)
from sevplug.sevapi.chain import PlatformChain
from sevplug.sevapi.checks import bytes_of_length
from sevplug.sevapi.elliptic import EcPrivateKey, Random
from sevplug.sevapi.errors import FirmwareError
from sevplug.sevapi.status import Status
from sevplug.sevapi.version import ApiVersion

CHIP_ID_SIZE = 64
CHIP_ID_MARK = b"sevplug emulated"
_SIGNING = Algorithm.ECDSA_SHA256


@attrs.frozen
class Chip:
    """What no command changes: the chip's id (64 bytes), its CEK, and the CEK's certificate, signed by the ASK."""

    chip_id: bytes = attrs.field(validator=bytes_of_length(CHIP_ID_SIZE), repr=bytes.hex)
    cek_key: EcPrivateKey
    cek: SevCertificate

    @property
    def cek_signer(self) -> Signer:
        """The CEK as what signs a PEK."""
        return Signer(Usage.CEK, _SIGNING, self.cek_key)


@attrs.frozen
class Identity:
    """What firmware keeps from one start to the next, and PLATFORM_RESET forgets.

    `oca_key` is None where the platform has an owner, who keeps that key.
    """

    oca_key: EcPrivateKey | None
    oca: SevCertificate
    pek_key: EcPrivateKey
    pek: SevCertificate
    pdh_key: EcPrivateKey
    pdh: SevCertificate

    @property
    def owned(self) -> bool:
        """Whether an owner has signed the PEK; otherwise the platform is its own."""
        return self.oca_key is None

    @property
    def pek_signer(self) -> Signer:
        """The PEK as what signs a PDH and reports."""
        return Signer(Usage.PEK, _SIGNING, self.pek_key)

    def chain(self, cek: SevCertificate) -> PlatformChain:
        """The platform's chain, with `cek` on top."""
        return PlatformChain(self.pdh, self.pek, self.oca, cek)


def make_chip(api: ApiVersion, random: Random = os.urandom) -> Chip:
    """A new chip: its id says that it is emulated, the published ASK signs its CEK."""
    chip_id = CHIP_ID_MARK + random(CHIP_ID_SIZE - len(CHIP_ID_MARK))
    key = EcPrivateKey.generate(random)
    cek = make_certificate(Usage.CEK, _SIGNING, key.public_key(), api)
    return Chip(chip_id, key, sign_certificate(cek, ask_signer(emulated_ask_key()), random))


def make_identity(chip: Chip, api: ApiVersion, random: Random = os.urandom) -> Identity:
    """A new OCA, signed by itself, a PEK signed by it and by the CEK, and a PDH signed by the PEK."""
    oca_key, pek_key = EcPrivateKey.generate(random), EcPrivateKey.generate(random)
    oca_signer = Signer(Usage.OCA, _SIGNING, oca_key)
    oca = sign_certificate(make_certificate(Usage.OCA, _SIGNING, oca_key.public_key(), api), oca_signer)
    pek = make_certificate(Usage.PEK, _SIGNING, pek_key.public_key(), api)
    pek = sign_certificate(sign_certificate(pek, oca_signer), chip.cek_signer)
    pdh_key, pdh = _make_pdh(Signer(Usage.PEK, _SIGNING, pek_key), api, random)
    return Identity(oca_key, oca, pek_key, pek, pdh_key, pdh)


def with_new_pdh(identity: Identity, api: ApiVersion, random: Random = os.urandom) -> Identity:
    """`identity` with a new PDH."""
    key, certificate = _make_pdh(identity.pek_signer, api, random)
    return attrs.evolve(identity, pdh_key=key, pdh=certificate)


def with_owner(
    identity: Identity, pek: SevCertificate, oca: SevCertificate, api: ApiVersion, random: Random = os.urandom
) -> Identity:
    """`identity` as an owner's: with the PEK that the owner signed, the owner's OCA, and a new PDH.

    Raises FirmwareError with ALREADY_OWNED when there is an owner, INVALID_CERTIFICATE when `pek` is not this
    platform's, and as `check_signed` does. Source: `sev_mcmd_pek_cert_import` (AMD-ASPFW, `sev_mcmd.c`).
    """
    if identity.owned:
        raise FirmwareError(Status.ALREADY_OWNED, "PEK_CERT_IMPORT: the platform has an owner")
    oca_key = oca.verifier()
    check_signed(oca, oca_key)
    check_signed(pek, oca_key)
    if pek.body != identity.pek.body:
        raise FirmwareError(Status.INVALID_CERTIFICATE, "PEK_CERT_IMPORT: the PEK is not this platform's")
    by_cek = next(signature for signature in identity.pek.signatures if signature.usage == Usage.CEK)
    pek = attrs.evolve(pek, signatures=add_signature(pek, by_cek))
    return with_new_pdh(attrs.evolve(identity, oca_key=None, oca=oca, pek=pek), api, random)


def _make_pdh(pek: Signer, api: ApiVersion, random: Random) -> tuple[EcPrivateKey, SevCertificate]:
    key = EcPrivateKey.generate(random)
    certificate = make_certificate(Usage.PDH, Algorithm.ECDH_SHA256, key.public_key(), api)
    return key, sign_certificate(certificate, pek)


def emulated_chain(chip: Chip, identity: Identity) -> bytes:
    """PDH || PEK || OCA || CEK || ASK || ARK, as `sevctl export --full` writes it."""
    return identity.chain(chip.cek).to_bytes() + emulated_root().to_bytes()
