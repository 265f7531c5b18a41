"""The commands and states of an emulated platform's firmware."""

from collections.abc import Callable
from pathlib import Path

import pytest
from sev_platforms import AMD, CHIP, IDENTITY

from sevplug.platform.firmware import EMULATED_API, Firmware, new_platform
from sevplug.platform.identity import CHIP_ID_MARK
from sevplug.platform.randomness import SeededRandom
from sevplug.platform.store import PlatformRecord, PlatformStore
from sevplug.sevapi.algorithms import Algorithm, Usage
from sevplug.sevapi.certificates import Signer, make_certificate, sign_certificate
from sevplug.sevapi.chain import PlatformChain, check_chain, check_platform_chain
from sevplug.sevapi.elliptic import EcPrivateKey
from sevplug.sevapi.errors import FirmwareError
from sevplug.sevapi.policy import Policy
from sevplug.sevapi.report import check_report
from sevplug.sevapi.session import make_session
from sevplug.sevapi.state import PlatformState
from sevplug.sevapi.status import Status

OWNER = Signer(Usage.OCA, Algorithm.ECDSA_SHA256, EcPrivateKey(77))
OWNER_OCA = sign_certificate(
    make_certificate(Usage.OCA, Algorithm.ECDSA_SHA256, EcPrivateKey(77).public_key(), EMULATED_API), OWNER
)
COMMANDS: dict[str, Callable[[Firmware], object]] = {
    "INIT": lambda firmware: firmware.init(),
    "PLATFORM_RESET": lambda firmware: firmware.platform_reset(),
    "PEK_GEN": lambda firmware: firmware.pek_gen(),
    "PEK_CSR": lambda firmware: firmware.pek_csr(),
    "PEK_CERT_IMPORT": lambda firmware: firmware.pek_cert_import(b"", b""),
    "PDH_GEN": lambda firmware: firmware.pdh_gen(),
    "PDH_CERT_EXPORT": lambda firmware: firmware.pdh_cert_export(),
    "LAUNCH_START": lambda firmware: firmware.launch_start(Policy(0)),
    "ATTESTATION": lambda firmware: firmware.attestation(bytes(16), bytes(32), Policy(0)),
    "DECOMMISSION": lambda firmware: firmware.decommission(),
}
NOT_IN = {
    PlatformState.UNINIT: set(COMMANDS) - {"INIT", "PLATFORM_RESET"},
    PlatformState.INIT: {"INIT", "PLATFORM_RESET", "ATTESTATION", "DECOMMISSION"},
    PlatformState.WORKING: {"INIT", "PLATFORM_RESET", "PEK_GEN", "PEK_CERT_IMPORT"},
}


@pytest.fixture
def store(tmp_path: Path) -> PlatformStore:
    store = PlatformStore(tmp_path / "platform")
    store.create(PlatformRecord(EMULATED_API, CHIP, IDENTITY))
    return store


@pytest.fixture
def firmware(store: PlatformStore) -> Firmware:
    firmware = Firmware(store)
    firmware.init()
    return firmware


def chain_of(firmware: Firmware) -> PlatformChain:
    return PlatformChain.from_export(*firmware.pdh_cert_export())


def status_of(command: Callable[[], object]) -> Status:
    with pytest.raises(FirmwareError) as refused:
        command()
    return refused.value.status


def give_to_owner(firmware: Firmware) -> None:
    pek = sign_certificate(firmware.pek_csr(), OWNER)
    firmware.pek_cert_import(pek.to_bytes(), OWNER_OCA.to_bytes())


@pytest.mark.parametrize(
    ("state", "command"), [(state, command) for state in NOT_IN for command in sorted(NOT_IN[state])]
)
def test_a_command_in_the_wrong_state_is_refused(store: PlatformStore, state: PlatformState, command: str) -> None:
    firmware = Firmware(store)
    if state != PlatformState.UNINIT:
        firmware.init()
    if state == PlatformState.WORKING:
        firmware.launch_start(Policy(0))
    before = store.path.read_bytes()
    with pytest.raises(
        FirmwareError, match=f"{command}: the platform is in state {state.name}, the command needs"
    ) as no:
        COMMANDS[command](firmware)
    assert no.value.status == Status.INVALID_PLATFORM_STATE
    assert firmware.platform_status().state == state
    assert store.path.read_bytes() == before


def test_what_is_exported_verifies_once_the_cek_is_the_signed_one(firmware: Firmware) -> None:
    chain = chain_of(firmware)
    check_platform_chain(chain)
    with pytest.raises(FirmwareError, match="CEK certificate: it has no signature"):
        check_chain(chain, AMD)
    assert chain.cek == firmware.chip.cek.unsigned
    check_chain(PlatformChain(chain.pdh, chain.pek, chain.oca, firmware.chip.cek), AMD)


def test_the_identity_outlives_a_restart(store: PlatformStore, firmware: Firmware) -> None:
    again = Firmware(store)
    again.init()
    assert chain_of(again) == chain_of(firmware)


def test_the_id_says_that_the_chip_is_emulated(firmware: Firmware) -> None:
    assert len(firmware.get_id()) == 64
    assert firmware.get_id().startswith(CHIP_ID_MARK)


def test_a_new_pdh_changes_the_pdh_alone(firmware: Firmware) -> None:
    before = chain_of(firmware)
    firmware.pdh_gen()
    after = chain_of(firmware)
    assert after.pdh != before.pdh
    assert after.cert_chain == before.cert_chain
    check_platform_chain(after)


def test_a_session_for_the_pdh_before_opens_no_more(firmware: Firmware) -> None:
    made = make_session(chain_of(firmware).pdh, Policy(1))
    sent = (made.certificate.to_bytes(), made.session.to_bytes())
    assert firmware.launch_start(Policy(1), *sent) == made.keys
    firmware.pdh_gen()
    assert status_of(lambda: firmware.launch_start(Policy(1), *sent)) == Status.BAD_MEASUREMENT


def test_a_launch_that_is_refused_leaves_no_guest(firmware: Firmware) -> None:
    for policy, arguments, status in (
        (Policy(1), (bytes(2084), bytes(128)), Status.INVALID_CERTIFICATE),
        (Policy(1), (None, bytes(128)), Status.INVALID_LENGTH),
        (Policy(1), (bytes(2084), None), Status.INVALID_LENGTH),
        (Policy(4), (None, None), Status.UNSUPPORTED),
    ):
        assert status_of(lambda p=policy, a=arguments: firmware.launch_start(p, *a)) == status  # type: ignore[misc]
    assert firmware.platform_status().state == PlatformState.INIT
    assert firmware.platform_status().guests == 0


def test_guests_come_and_go(firmware: Firmware) -> None:
    firmware.launch_start(Policy(0))
    firmware.launch_start(Policy(0))
    assert firmware.platform_status().guests == 2
    firmware.decommission()
    assert firmware.platform_status().state == PlatformState.WORKING
    firmware.decommission()
    assert firmware.platform_status().state == PlatformState.INIT


def test_a_report_verifies_with_the_exported_pek(firmware: Firmware) -> None:
    firmware.launch_start(Policy(1))
    report = firmware.attestation(bytes(range(16)), bytes(range(32)), Policy(1))
    check_report(report, chain_of(firmware).pek)


def test_an_owner_takes_the_platform(store: PlatformStore, firmware: Firmware) -> None:
    before = chain_of(firmware)
    give_to_owner(firmware)
    after = chain_of(firmware)
    assert firmware.platform_status().owned
    assert after.oca == OWNER_OCA
    assert after.pek.body == before.pek.body
    assert after.pdh != before.pdh
    check_chain(PlatformChain(after.pdh, after.pek, after.oca, firmware.chip.cek), AMD)
    assert store.load().identity.oca_key is None  # type: ignore[union-attr]
    assert status_of(lambda: firmware.pek_cert_import(b"", b"")) == Status.ALREADY_OWNED


def test_an_owner_is_only_seen_from_init_on(store: PlatformStore, firmware: Firmware) -> None:
    give_to_owner(firmware)
    firmware.shutdown()
    assert not firmware.platform_status().owned
    firmware.init()
    assert firmware.platform_status().owned


@pytest.mark.parametrize("how", ["pek_gen", "reset"])
def test_a_platform_is_its_own_again(firmware: Firmware, how: str) -> None:
    give_to_owner(firmware)
    if how == "pek_gen":
        firmware.pek_gen()
    else:
        firmware.shutdown()
        firmware.platform_reset()
        firmware.init()
    assert not firmware.platform_status().owned
    check_platform_chain(chain_of(firmware))
    assert chain_of(firmware).oca != OWNER_OCA


def test_certificates_that_cannot_be_imported(store: PlatformStore, firmware: Firmware) -> None:
    csr = firmware.pek_csr()
    assert csr == chain_of(firmware).pek.unsigned
    signed, oca = sign_certificate(csr, OWNER).to_bytes(), OWNER_OCA.to_bytes()
    other = make_certificate(Usage.PEK, Algorithm.ECDSA_SHA256, EcPrivateKey(9).public_key(), EMULATED_API)
    before = store.path.read_bytes()
    for pek, owner, status in (
        (signed[:-1], oca, Status.INVALID_LENGTH),
        (signed, oca + b"\0", Status.INVALID_LENGTH),
        (csr.to_bytes(), oca, Status.INVALID_CERTIFICATE),
        (signed, OWNER_OCA.unsigned.to_bytes(), Status.INVALID_CERTIFICATE),
        (signed, signed, Status.INVALID_CERTIFICATE),
        (signed[:0x420] + bytes(16) + signed[0x430:], oca, Status.BAD_SIGNATURE),
        (sign_certificate(other, OWNER).to_bytes(), oca, Status.INVALID_CERTIFICATE),
    ):
        assert status_of(lambda p=pek, o=owner: firmware.pek_cert_import(p, o)) == status  # type: ignore[misc]
    assert store.path.read_bytes() == before
    assert not firmware.platform_status().owned


def test_a_seed_determines_the_platform(tmp_path: Path) -> None:
    first, second, other = (PlatformStore(tmp_path / name) for name in ("a", "b", "c"))
    for store, seed in ((first, b"1"), (second, b"1"), (other, b"2")):
        new_platform(store, random=SeededRandom(seed), seeded=True)
    assert first.load() == second.load()
    assert first.load() != other.load()
