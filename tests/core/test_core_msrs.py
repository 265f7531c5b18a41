"""The machine's own MSRs and SVM's map of which of them are intercepted."""

from __future__ import annotations

import pytest

from sevplug.core import msrs

BITMAP = msrs.permission_bitmap()


def bits(index: int) -> int:
    """The two bits of ``index`` by the layout of APM 2, section 15.11: three vectors of 2 KiB."""
    base = {0: 0x0000, 0xC0000000: 0x0800, 0xC0010000: 0x1000}[index & ~0x1FFF]
    offset = (index & 0x1FFF) * 2
    return BITMAP[base + offset // 8] >> offset % 8 & 3


def test_the_map_is_two_pages() -> None:
    assert len(BITMAP) == 8192


def test_only_what_the_engine_keeps_goes_without_an_intercept() -> None:
    for base in (0, 0xC0000000, 0xC0010000):
        for index in range(base, base + 0x2000):
            assert bits(index) == (0 if index in msrs.NATIVE else 3), hex(index)


def test_the_rest_of_the_map_is_set() -> None:
    assert BITMAP[0x1800:] == b"\xff" * 0x800


@pytest.mark.parametrize("index", [msrs.TSC, msrs.APIC_BASE, msrs.TSC_ADJUST, 0xC0010131])
def test_time_the_apic_and_what_plug_ins_answer_are_intercepted(index: int) -> None:
    assert bits(index) == 3


def test_an_msr_has_one_home() -> None:
    assert not msrs.NATIVE & set(msrs.CONSTANT)


def test_every_native_msr_has_a_place_in_the_map() -> None:
    assert all(index & ~0x1FFF in (0, 0xC0000000, 0xC0010000) for index in msrs.NATIVE)
