"""The firmware of an emulated platform: its commands, with the states and statuses of AMD's.

A `Firmware` is one boot of the platform: it starts in UNINIT, and what outlives it is in the store. Sources: SEV API,
chapter 5, "Platform management commands"; AMD's published firmware (AMD-ASPFW), `sev_mcmd.c` and `sev_plat.c`.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import attrs

from sevplug.platform.identity import Chip, Identity, make_chip, make_identity, with_new_pdh, with_owner
from sevplug.platform.store import PlatformRecord, PlatformStore
from sevplug.sevapi.certificates import CERTIFICATE_SIZE, SevCertificate
from sevplug.sevapi.elliptic import Random
from sevplug.sevapi.errors import FirmwareError
from sevplug.sevapi.keys import TransportKeys
from sevplug.sevapi.policy import Policy, PolicyBit
from sevplug.sevapi.report import AttestationReport, make_report
from sevplug.sevapi.session import open_session
from sevplug.sevapi.state import PlatformState
from sevplug.sevapi.status import Status
from sevplug.sevapi.version import EMULATED_API, ApiVersion


@attrs.frozen
class PlatformStatus:
    """What PLATFORM_STATUS answers: `owned` and `guests` mean something from INIT on only. SEV-ES is never on."""

    api: ApiVersion
    state: PlatformState
    owned: bool
    guests: int
    es: bool = False


def new_platform(
    store: PlatformStore, api: ApiVersion = EMULATED_API, random: Random = os.urandom, seeded: bool = False
) -> PlatformRecord:
    """A new platform in `store`, started once so that it has its keys; raises PlatformError as `create` does."""
    chip = make_chip(api, random)
    record = PlatformRecord(api, chip, make_identity(chip, api, random), seeded)
    store.create(record)
    return record


class Firmware:
    """One boot of the platform in `store`.

    A method is a firmware command. Each raises FirmwareError with INVALID_PLATFORM_STATE in a state that the command
    is not for, and PlatformError when the store cannot be read or written; nothing has changed then.
    """

    def __init__(self, store: PlatformStore, random: Random = os.urandom) -> None:
        self._store = store
        self._random = random
        self._record = store.load()
        self._state = PlatformState.UNINIT
        self._guests = 0

    @property
    def chip(self) -> Chip:
        """The chip that the firmware runs on."""
        return self._record.chip

    @property
    def api(self) -> ApiVersion:
        """The version of the firmware."""
        return self._record.api

    def init(self) -> None:
        """INIT: from UNINIT to INIT; makes OCA, PEK and PDH where there are none."""
        self._expect("INIT", PlatformState.UNINIT)
        self._change(lambda record: record if record.identity is not None else self._renewed(record))
        self._state = PlatformState.INIT

    def shutdown(self) -> None:
        """SHUTDOWN: to UNINIT, from any state; guests are gone."""
        self._state = PlatformState.UNINIT
        self._guests = 0

    def platform_reset(self) -> None:
        """PLATFORM_RESET, in UNINIT: forgets OCA, PEK and PDH, and with them an owner."""
        self._expect("PLATFORM_RESET", PlatformState.UNINIT)
        self._change(lambda record: attrs.evolve(record, identity=None))

    def platform_status(self) -> PlatformStatus:
        """PLATFORM_STATUS, in any state."""
        identity = self._record.identity
        started = self._state != PlatformState.UNINIT
        owned = started and identity is not None and identity.owned
        return PlatformStatus(self.api, self._state, owned, self._guests)

    def pek_gen(self) -> None:
        """PEK_GEN, in INIT: new OCA, PEK and PDH; an owner has the platform no more."""
        self._expect("PEK_GEN", PlatformState.INIT)
        self._change(self._renewed)

    def pek_csr(self) -> SevCertificate:
        """PEK_CSR: the PEK's certificate without signatures, for an owner to sign."""
        self._expect("PEK_CSR", PlatformState.INIT, PlatformState.WORKING)
        return self._identity.pek.unsigned

    def pek_cert_import(self, pek: bytes, oca: bytes) -> None:
        """PEK_CERT_IMPORT, in INIT: makes the platform that of the OCA's owner, who signed the PEK.

        Raises FirmwareError with ALREADY_OWNED when there is an owner, INVALID_LENGTH for a certificate of another
        length, INVALID_CERTIFICATE or BAD_SIGNATURE for one that is not right.
        """
        self._expect("PEK_CERT_IMPORT", PlatformState.INIT)
        if self._identity.owned:
            raise FirmwareError(Status.ALREADY_OWNED, "PEK_CERT_IMPORT: the platform has an owner")
        for name, data in (("PEK", pek), ("OCA", oca)):
            if len(data) != CERTIFICATE_SIZE:
                raise FirmwareError(
                    Status.INVALID_LENGTH,
                    f"PEK_CERT_IMPORT: {name} certificate: expected {CERTIFICATE_SIZE} bytes, found {len(data)}",
                )
        signed, owner = SevCertificate.from_bytes(pek), SevCertificate.from_bytes(oca)
        self._change_identity(lambda identity: with_owner(identity, signed, owner, self.api, self._random))

    def pdh_gen(self) -> None:
        """PDH_GEN: a new PDH; sessions for the one before open no more."""
        self._expect("PDH_GEN", PlatformState.INIT, PlatformState.WORKING)
        self._change_identity(lambda identity: with_new_pdh(identity, self.api, self._random))

    def pdh_cert_export(self) -> tuple[bytes, bytes]:
        """PDH_CERT_EXPORT: the PDH's certificate, and PEK || OCA || CEK.

        The CEK has no signature, as from AMD's firmware: the signed certificate comes from AMD's key server, here from
        `chip.cek`.
        """
        self._expect("PDH_CERT_EXPORT", PlatformState.INIT, PlatformState.WORKING)
        chain = self._identity.chain(self.chip.cek.unsigned)
        return chain.pdh.to_bytes(), chain.cert_chain

    def get_id(self) -> bytes:
        """GET_ID, in any state: the chip's 64 bytes."""
        return self.chip.chip_id

    def launch_start(
        self, policy: Policy, certificate: bytes | None = None, session: bytes | None = None
    ) -> TransportKeys | None:
        """LAUNCH_START: the transport keys in an owner's session, None without one, and one guest more.

        Raises FirmwareError with INVALID_LENGTH for a certificate without a session or the other way round, as
        `open_session` does, and with UNSUPPORTED for a policy that asks for SEV-ES.
        """
        self._expect("LAUNCH_START", PlatformState.INIT, PlatformState.WORKING)
        keys = None
        if certificate is not None or session is not None:
            keys = open_session(self._identity.pdh_key, certificate or b"", session or b"", policy, self.api)
        if PolicyBit.ES in policy:
            raise FirmwareError(Status.UNSUPPORTED, "LAUNCH_START: the policy asks for SEV-ES, which is not emulated")
        self._state = PlatformState.WORKING
        self._guests += 1
        return keys

    def attestation(self, mnonce: bytes, digest: bytes, policy: Policy) -> AttestationReport:
        """ATTESTATION, in WORKING: the report on a guest of this launch digest (32 bytes) and policy."""
        self._expect("ATTESTATION", PlatformState.WORKING)
        return make_report(self._identity.pek_signer, mnonce, digest, policy)

    def decommission(self) -> None:
        """DECOMMISSION: one guest less, and back to INIT after the last."""
        self._expect("DECOMMISSION", PlatformState.WORKING)
        self._guests -= 1
        if not self._guests:
            self._state = PlatformState.INIT

    @property
    def _identity(self) -> Identity:
        assert self._record.identity is not None  # INIT made one
        return self._record.identity

    def _renewed(self, record: PlatformRecord) -> PlatformRecord:
        return attrs.evolve(record, identity=make_identity(record.chip, record.api, self._random))

    def _change_identity(self, change: Callable[[Identity], Identity]) -> None:
        def changed(record: PlatformRecord) -> PlatformRecord:
            if record.identity is None:
                raise FirmwareError(Status.SECURE_DATA_INVALID, "the platform was reset by another process")
            return attrs.evolve(record, identity=change(record.identity))

        self._change(changed)

    def _change(self, change: Callable[[PlatformRecord], PlatformRecord]) -> None:
        """Replace the record by what `change` makes of the one in the store."""
        with self._store.locked():
            before = self._store.load()
            after = change(before)
            if after != before:
                self._store.save(after)
        self._record = after

    def _expect(self, command: str, *states: PlatformState) -> None:
        if self._state not in states:
            wanted = " or ".join(state.name for state in states)
            raise FirmwareError(
                Status.INVALID_PLATFORM_STATE,
                f"{command}: the platform is in state {self._state.name}, the command needs {wanted}",
            )
