"""SYSCALL, SYSRET, SYSENTER and SYSEXIT in 32- and 64-bit code, compared with QEMU's interpreter."""

from __future__ import annotations

import pytest
from guests import long64, protected32
from reference_cpu import compare, run_here

# STAR, LSTAR (label 5), CSTAR (label 6), FMASK = TF, IF and DF.
MSRS = """mov ecx, 0xc0000081; xor eax, eax; mov edx, 0x280018; wrmsr
    mov ecx, 0xc0000082; lea rax, [rip+5f]; mov rdx, rax; shr rdx, 32; wrmsr
    mov ecx, 0xc0000083; lea rax, [rip+6f]; mov rdx, rax; shr rdx, 32; wrmsr
    mov ecx, 0xc0000084; mov eax, 0x700; xor edx, edx; wrmsr;"""
REPORT = """mov rax, rcx; call emit64; mov rax, r11; call emit64; pushfq; pop rax; and eax, 0x700; call emit
    mov eax, cs; call emit; mov eax, ss; call emit; mov rax, rsp; call emit64;"""
COMPATIBILITY = "push 0x33; push 0x30000; push 0x203; push 0x2b; lea rax, [rip+3f]; push rax; iretq; .code32; 3:"
SYSENTER = """mov ecx, 0x174; mov eax, {cs}; xor edx, edx; wrmsr; mov ecx, 0x175; mov eax, 0x1f000; wrmsr
    mov ecx, 0x176; mov eax, offset 5f; wrmsr;"""
REPORT32 = """pushfd; pop eax; call emit32; mov eax, ecx; call emit32; mov eax, esp; call emit32
    mov eax, cs; call emit32; mov eax, ss; call emit32;"""
STAR32 = """mov ecx, 0xc0000080; rdmsr; or eax, 1; wrmsr; mov ecx, 0xc0000081; mov edx, 0x280008; mov eax, offset 5f
    wrmsr;"""

PROBES64 = [
    MSRS + "syscall; 5: 6:" + REPORT,
    MSRS + "user64 0x3203; stc; syscall; ud2; 5: 6:" + REPORT,
    MSRS + "user64 0x202; std; syscall; mov rax, r11; ud2; 5: mov r10, rcx; mov r9, r11; mov rcx, r10; sysretq; 6:",
    MSRS + COMPATIBILITY + "mov eax, 0x1234567; syscall; ud2; .code64; 5: nop; 6:" + REPORT,
    MSRS + COMPATIBILITY + "mov eax, 0x1234567; syscall; ud2; .code64; 5: nop; 6: sysretd",
    MSRS + "user64 0x302; syscall; nop; nop; 5: nop; 6: sysretq",
    MSRS + "user64 0x102; syscall; nop; nop; 5: mov eax, 5; 6:" + REPORT,
    MSRS + "mov ecx, 0xc0000084; xor eax, eax; xor edx, edx; wrmsr; user64 0x102; syscall; nop; 5: nop; nop; 6:",
    "mov ecx, 0xc0000080; rdmsr; and eax, 0xfffffffe; wrmsr; user64; syscall",
    "mov ecx, 0xc0000080; rdmsr; or eax, 1; wrmsr; user64; sysretq",
    "sysenter", "sysexitd", "user64; sysexitd", COMPATIBILITY + "sysenter; ud2; .code64",
    """mov ecx, 0x174; mov eax, 0x18; xor edx, edx; wrmsr; mov ecx, 0x175; mov eax, 0x1f000; wrmsr; mov ecx, 0x176
    lea rax, [rip+5f]; mov rdx, rax; shr rdx, 32; wrmsr;""" + COMPATIBILITY + "sysenter; ud2; .code64; 5:" + REPORT,
    "swapgs; nop", "user64; swapgs",
    """mov ecx, 0xc0000101; mov eax, 0x1234; mov edx, 5; wrmsr; mov ecx, 0xc0000102; mov eax, 0x5678; wrmsr; swapgs
    mov ecx, 0xc0000101; rdmsr; call emit; mov ecx, 0xc0000102; rdmsr; call emit; mov eax, edx; call emit""",
]  # fmt: skip
PROBES32 = [
    "mov ecx, 0x174; xor eax, eax; xor edx, edx; wrmsr; user32; sysenter", "sysexit", "user32; sysexit",
    SYSENTER.format(cs=8) + "user32 0x3202; sysenter; ud2; 5:" + REPORT32,
    SYSENTER.format(cs=0x18) + "mov ecx, 0x1f000; mov edx, offset 5f; sysexit; 5: mov eax, cs; mov ebx, ss; ud2",
    STAR32 + "user32 0x3202; syscall; ud2; 5:" + REPORT32,
    STAR32 + "user32 0x3202; syscall; mov eax, cs; mov ebx, ss; ud2; 5: sysretd",
    "mov ecx, 0xc0000080; rdmsr; and eax, 0xfffffffe; wrmsr; user32; syscall",
]  # fmt: skip


@pytest.mark.real
def test_system_calls_from_64_bit_and_compatibility_code_match_qemu() -> None:
    compare(long64, *PROBES64)


@pytest.mark.real
def test_system_calls_from_32_bit_code_match_qemu() -> None:
    compare(protected32, *PROBES32)


def test_syscall_is_an_invalid_opcode_until_efer_enables_it() -> None:
    report = run_here(protected32("user32; syscall")).reports[0]
    assert report.split()[0] == "00000006"


def test_sysenter_without_a_code_segment_is_a_protection_fault() -> None:
    report = run_here(protected32("user32; sysenter")).reports[0]
    assert report.split()[:2] == ["0000000d", "00000000"]


def test_syscall_keeps_the_arithmetic_flags_that_fmask_does_not_clear() -> None:
    """QEMU's interpreter clears them all; APM 3, SYSCALL: RFLAGS AND NOT FMASK."""
    keep = MSRS + "stc; syscall; 5: 6: pushfq; pop rax; call emit"
    flags = int(run_here(long64(keep)).reports[0].split()[0], 16)
    assert flags & 1


def test_code_at_address_zero_runs_like_any_other() -> None:
    report = run_here(long64("mov word ptr [0], 0x0b0f; xor eax, eax; jmp rax")).reports[0]
    assert report.split()[:3] == ["00000006", "00000000", "00000000"]
