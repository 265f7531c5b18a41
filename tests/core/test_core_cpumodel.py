"""CPU models: names, and what CPUID says on top of the engine's own features."""

from __future__ import annotations

import pytest

from sevplug.core.cpumodel import MODELS, answer, find_model
from sevplug.core.errors import ConfigError
from sevplug.core.vcpu import CpuidRegisters

ONES = CpuidRegisters(0xFFFF_FFFF, 0xFFFF_FFFF, 0xFFFF_FFFF, 0xFFFF_FFFF)
NONE = CpuidRegisters(0, 0, 0, 0)
MILAN = find_model("EPYC-Milan")


@pytest.mark.parametrize(
    ("name", "family", "model"),
    [("EPYC", 0x17, 0x01), ("EPYC-Rome", 0x17, 0x31), ("EPYC-Milan", 0x19, 0x01), ("EPYC-Genoa", 0x19, 0x11)],
)
def test_a_signature_names_the_family_and_model_of_the_processor(name: str, family: int, model: int) -> None:
    signature = find_model(name).signature
    assert (signature >> 8 & 0xF) + (signature >> 20 & 0xFF) == family
    assert (signature >> 16 & 0xF) << 4 | signature >> 4 & 0xF == model


def test_a_versioned_name_means_the_model() -> None:
    assert find_model("EPYC-Milan-v2") is MODELS["EPYC-Milan"]
    assert find_model("EPYC-v4") is MODELS["EPYC"]


@pytest.mark.parametrize("name", ["", "-v1", "EPYC-Milan-vx", "EPYC-Milan-v", "epyc", "qemu64"])
def test_an_unknown_model_is_refused_with_the_known_ones(name: str) -> None:
    with pytest.raises(ConfigError, match=r"expected one of EPYC, EPYC-Rome, EPYC-Milan, EPYC-Genoa") as refused:
        find_model(name)
    assert str(refused.value).startswith(f"cpu model {name!r} is not known: ")


def test_a_slip_of_the_pen_gets_a_hint() -> None:
    with pytest.raises(ConfigError, match=r", did you mean EPYC-Milan\?$"):
        find_model("EPYC-Millan")


def test_the_brand_string_spans_three_leaves() -> None:
    text = b""
    for leaf in (0x80000002, 0x80000003, 0x80000004):
        registers = answer(MILAN, leaf, 0, ONES)
        for word in (registers.eax, registers.ebx, registers.ecx, registers.edx):
            text += word.to_bytes(4, "little")
    assert text.rstrip(b"\0") == b"AMD EPYC-Milan Processor"
    assert len(text) == 48


RDRAND, HYPERVISOR = 1 << 30, 1 << 31


def test_leaf_1_carries_signature_apic_id_the_hypervisor_bit_and_the_emulated_rdrand() -> None:
    registers = answer(MILAN, 1, 0, NONE, apic_id=3)
    assert registers == CpuidRegisters(0x00A00F11, 3 << 24, RDRAND | HYPERVISOR, 0)


@pytest.mark.parametrize(
    ("bit", "what"), [(3, "MONITOR"), (21, "x2APIC"), (24, "TSC deadline"), (26, "XSAVE"), (27, "OSXSAVE")]
)
def test_leaf_1_hides_what_the_machine_does_not_have(bit: int, what: str) -> None:
    assert not answer(MILAN, 1, 0, ONES).ecx >> bit & 1, what


def test_a_model_never_adds_a_feature_that_engine_and_machine_lack() -> None:
    for model in MODELS.values():
        assert answer(model, 1, 0, NONE).edx == 0
        assert answer(model, 1, 0, NONE).ecx == RDRAND | HYPERVISOR
        assert answer(model, 7, 0, NONE) == NONE
        extended = answer(model, 0x80000001, 0, NONE)
        assert (extended.ecx, extended.edx) == (0, 0)


def test_svm_is_hidden() -> None:
    assert answer(MILAN, 0x80000001, 0, ONES).ecx == 0xFFFF_FFFB


@pytest.mark.parametrize("leaf", [0xB, 0xD, 0x40000000, 0x4FFFFFFF, 0x8000000A, 0x8000001F])
def test_leaves_of_absent_facilities_are_zero(leaf: int) -> None:
    assert answer(MILAN, leaf, 0, ONES) == NONE


def test_the_highest_extended_leaf_is_0x8000001f() -> None:
    assert answer(MILAN, 0x80000000, 0, ONES).eax == 0x8000001F


def test_addresses_are_40_bits_physical_and_48_linear() -> None:
    assert answer(MILAN, 0x80000008, 0, ONES).eax == 48 << 8 | 40


def test_other_leaves_are_the_engines_own() -> None:
    native = CpuidRegisters(1, 2, 3, 4)
    assert answer(MILAN, 7, 0, native) is native
    assert answer(MILAN, 0, 0, native) is native
