"""The processors' state that SEV-ES measures."""

import hashlib

import pytest

from sevplug.sevapi.errors import FormatError
from sevplug.sevapi.vmsa import BSP_RESET, VmsaVariant, build_vmsa, cpu_signature, vmsa_pages

MILAN = 0xA00F11


def test_the_two_variants_differ_in_the_state_of_the_fpu() -> None:
    init, init2 = (build_vmsa(BSP_RESET, MILAN, variant) for variant in VmsaVariant)
    assert len(init) == len(init2) == 4096
    different = [offset for offset in range(4096) if init[offset] != init2[offset]]
    assert different == [0x408, 0x409, 0x410, 0x411]
    assert init2[0x408:0x412] == bytes.fromhex("801f0000000000007f03")


def test_the_page_of_kvm_sev_es_init_is_that_of_sevctl() -> None:
    # virtee/sevctl, tests/data/vmsa0.bin: "vmsa build --cpu 0 --userspace qemu --family 25 --model 1 --stepping 1".
    page = build_vmsa(BSP_RESET, cpu_signature(25, 1, 1), VmsaVariant.INIT)
    assert hashlib.sha256(page).hexdigest() == "f8b52f775502472e5797d2674d9de21f6abc05dc05e9bc49cbb7b6a13688d5e7"


def test_the_first_processor_starts_below_4_gib_and_the_others_where_firmware_says() -> None:
    first, second, third = vmsa_pages(3, 0x80B004, MILAN, VmsaVariant.INIT2)
    assert first[0x10:0x20] == bytes.fromhex("00f0 9b00 ffff0000 0000ffff00000000")
    assert first[0x178:0x180] == bytes.fromhex("f0ff000000000000")
    assert second[0x10:0x20] == bytes.fromhex("00f0 9b00 ffff0000 0000800000000000")
    assert second[0x178:0x180] == bytes.fromhex("04b0000000000000")
    assert second == third


def test_features_of_the_guest_are_in_the_page() -> None:
    assert build_vmsa(BSP_RESET, MILAN, VmsaVariant.INIT, sev_features=0x20)[0x3B0:0x3B8] == b"\x20" + bytes(7)


@pytest.mark.parametrize(
    ("numbers", "signature"),
    [
        ((23, 1, 2), 0x800F12),
        ((23, 49, 0), 0x830F10),
        ((25, 1, 1), 0xA00F11),
        ((25, 17, 0), 0xA10F10),
        ((6, 2, 3), 0x623),
    ],
)
def test_the_signature_of_a_processor(numbers: tuple[int, int, int], signature: int) -> None:
    assert cpu_signature(*numbers) == signature


@pytest.mark.parametrize("numbers", [(271, 0, 0), (0, 256, 0), (0, 0, 16), (-1, 0, 0)])
def test_numbers_that_have_no_place_are_refused(numbers: tuple[int, int, int]) -> None:
    with pytest.raises(FormatError, match=r"CPU (family|model|stepping): expected 0 to "):
        cpu_signature(*numbers)


@pytest.mark.parametrize("values", [(1 << 32, 0, 0), (0, 1 << 32, 0), (0, 0, 1 << 64), (-1, 0, 0)])
def test_values_out_of_range_are_refused(values: tuple[int, int, int]) -> None:
    with pytest.raises(FormatError, match=r"VMSA: .*: expected (32|64) bits"):
        build_vmsa(values[0], values[1], VmsaVariant.INIT, values[2])


def test_no_processor_and_many_without_a_reset_vector_are_refused() -> None:
    with pytest.raises(FormatError, match="number of vCPUs: expected at least 1, found 0"):
        list(vmsa_pages(0, 0x80B004, MILAN, VmsaVariant.INIT))
    with pytest.raises(FormatError, match="needs firmware with an SEV-ES reset vector"):
        list(vmsa_pages(2, None, MILAN, VmsaVariant.INIT))
    assert len(list(vmsa_pages(1, None, MILAN, VmsaVariant.INIT))) == 1
