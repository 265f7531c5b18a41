"""RDRAND: the value goes where the operand says, CF says that it is good, and a seed repeats it."""

from __future__ import annotations

import random

import pytest
from guests import long64, protected32
from reference_cpu import run_here

FIRST = random.Random(0).getrandbits(64)


def report(source: str) -> list[str]:
    """What each probe emitted, without the state that follows."""
    return [words.split(" 600d600d")[0] for words in run_here(source).reports]


@pytest.mark.parametrize(
    ("instruction", "register", "value"),
    [
        ("rdrand rax", "rax", FIRST),
        ("rdrand r11", "r11", FIRST),
        ("rdrand eax", "rax", FIRST & 0xFFFFFFFF),
        ("rdrand r9d", "r9", FIRST & 0xFFFFFFFF),
        ("mov rbx, -1; rdrand bx", "rbx", 0xFFFFFFFFFFFF0000 | FIRST & 0xFFFF),
    ],
)
def test_the_operand_gets_as_many_bits_as_it_is_wide(instruction: str, register: str, value: int) -> None:
    found = report(long64(f"{instruction}; mov rax, {register}; call emit64"))
    expected = report(long64(f"mov rax, {value:#x}; call emit64"))
    assert found == expected


def test_in_32_bit_code_too() -> None:
    found = report(protected32("rdrand ecx; mov eax, ecx; call emit32"))
    assert found == report(protected32(f"mov eax, {FIRST & 0xFFFFFFFF:#x}; call emit32"))


def test_carry_is_set_and_the_other_arithmetic_flags_are_cleared() -> None:
    flags = "pushfq; pop rax; and eax, 0x8d5; call emit"
    found = report(long64(f"xor ecx, ecx; sub ecx, 1; rdrand rdx; {flags}"))
    assert found == report(long64("mov eax, 1; call emit"))


def test_a_memory_operand_is_no_rdrand() -> None:
    assert run_here(long64(".byte 0x0f, 0xc7, 0x30")).reports == run_here(long64(".byte 0x0f, 0x0b, 0x90")).reports


def test_the_values_of_a_run_are_those_of_the_run_before() -> None:
    source = long64("rdrand rax; call emit64", "rdrand rax; call emit64")
    assert report(source) == report(source)
    assert report(source)[0] != report(source)[1]


def test_the_time_stamps_of_a_loop_are_uneven_and_those_of_the_run_before() -> None:
    source = long64(
        """mov r8, 16; rdtsc; mov r9, rax
2: rdtsc; mov rbx, rax; sub rax, r9; mov r9, rbx; call emit64; dec r8; jnz 2b"""
    )
    (told,) = report(source)
    assert report(source) == [told]
    assert len(set(told.split()[::2])) > 8
