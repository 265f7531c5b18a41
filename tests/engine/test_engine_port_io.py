"""Who may use IN and OUT: the I/O privilege level and the task-state segment's bitmap."""

from __future__ import annotations

import pytest
from guests import long64, protected32
from reference_cpu import compare, run_here

NO_BITMAP = "mov word ptr [0x12066], 0x68;"
DENY_80 = "mov word ptr [0x12066], 0x40; mov dword ptr [0x12050], 0xffffffff; mov dword ptr [0x12054], 0;"
PROBES32 = [
    NO_BITMAP + "user32; in al, 0x80", "user32; out 0x80, al", "user32 0x3002; in al, 0x80; ud2", "in al, 0x80; ud2",
    "user32; mov edx, 0x80; in eax, dx", "user32; mov edx, 0x80; mov eax, 0x1234; out dx, ax",
    "user32; mov edi, 0x40000; mov edx, 0x80; mov ecx, 2; rep insb",
    "user32; mov esi, 0x40000; mov edx, 0x80; mov ecx, 2; rep outsb",
    "virtual86 0x20002; in al, 0x80", "virtual86 0x23002; in al, 0x80",
    "user32 0x1002; in al, 0x80", "user32 0x2002; in al, 0x80",
    DENY_80 + "user32; in al, 0x80", "user32; in al, 0x9f", "user32; in al, 0xa0; ud2", "user32; in ax, 0x9f",
    "user32; in eax, 0x7d", "user32; in eax, 0x7c; ud2",
    "mov eax, 0x12345678; mov ecx, 0x1111; mov ebx, 0x2222; user32; stc; in al, 0x80",
    "mov eax, 0x40000; mov dr0, eax; mov eax, dr6; call emit32; user32; in al, 0x80",
    "mov eax, dr0; call emit32; mov eax, dr7; call emit32; mov eax, dr6; call emit32; ud2",
]  # fmt: skip


@pytest.mark.real
def test_port_io_is_allowed_and_refused_as_in_qemu() -> None:
    compare(protected32, *PROBES32)


@pytest.mark.real
def test_port_io_of_64_bit_programs_is_allowed_and_refused_as_in_qemu() -> None:
    compare(long64, NO_BITMAP + "user64; in al, 0x80", "user64; out 0x80, al", "user64 0x3002; in al, 0x80; ud2")


def test_a_refused_access_reaches_no_device_and_changes_no_register() -> None:
    probe = NO_BITMAP + "user32; mov eax, 0x41; out 0xe9, al"
    refused, after = run_here(protected32(probe, "ud2")).reports
    assert refused.split()[0] == "0000000d"
    assert after.split()[0] == "00000006"
