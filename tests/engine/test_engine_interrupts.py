"""External interrupts: when the CPU takes them, and where it says it was."""

from __future__ import annotations

import pytest
from guests import long64, protected32, real16
from interrupting import TIMER_VECTOR, TestInterruptsPlugin
from reference_cpu import run_here

from sevplug.core.engine import watch

RAISE = "cli; mov al, 0x20; out 0x90, al;"


def take_one(code: str) -> tuple[str, list[int]]:
    """Run real-mode ``code``; label 3 is where the interrupt has to come.  (report, vectors that were taken)."""
    interrupts = TestInterruptsPlugin()
    transcript = run_here(real16(f"mov eax, offset 3f - _start; call emit16; {code}"), interrupts)
    return transcript.reports[0], interrupts.device.taken


@pytest.mark.parametrize(
    "code",
    [
        RAISE + "mov cx, 1000; 1: loop 1b; sti; nop; 3: nop; nop",
        RAISE + "sti; mov ax, 0x1000; 3: nop; nop",
        RAISE + "sti; cli; nop; nop; push 0x202; popf; 3: nop",
        RAISE + "push 0x202; popf; 3: nop; nop",
        RAISE + "push 0x202; push 0xf000; push offset 3f - _start; iret; nop; 3: nop; nop",
        RAISE + "sti; hlt; 3: nop; nop",
        RAISE + "sti; cpuid; 3: nop; nop",
        RAISE + "sti; pause; 3: nop; nop",
        RAISE + "sti; rdtsc; 3: nop; nop",
        "sti; mov al, 0x20; out 0x90, al; 3: jmp 3b",
        "sti; xor bx, bx; mov al, 0x20; jmp 1f; 1: out 0x90, al; mov ss, bx; mov sp, 0x2000; 3: nop; nop",
    ],
    ids=lambda code: code.removeprefix(RAISE),
)
def test_an_interrupt_comes_at_the_first_instruction_that_may_be_interrupted(code: str) -> None:
    report, taken = take_one(code)
    expected, vector, rip = report.split()[:3]
    assert (vector, rip, taken) == ("00000020", expected, [0x20])


@pytest.mark.parametrize("instruction", ["ud2", "int 0x40"])
def test_an_exception_in_the_shadow_of_sti_comes_before_the_interrupt(instruction: str) -> None:
    interrupts = TestInterruptsPlugin()
    first, second = run_here(real16(f"{RAISE} sti; {instruction}", "sti; nop; nop"), interrupts).reports
    assert first.split()[0] in ("00000006", "00000040")
    assert second.split()[0] == "00000020"


def test_a_page_fault_that_meets_an_interrupt_comes_first() -> None:
    interrupts = TestInterruptsPlugin()
    probes = ("sti; mov al, 0x20; out 0x90, al; mov eax, [0x40000000]", "sti; nop; nop")
    first, second = run_here(long64(*probes), interrupts).reports
    assert [first.split()[0], second.split()[0]] == ["0000000e", "00000020"]
    assert interrupts.device.taken == [0x20]


def test_an_interrupt_waits_as_long_as_interrupts_are_off() -> None:
    interrupts = TestInterruptsPlugin()
    report = run_here(real16(f"{RAISE} mov ecx, 100000; 1: dec ecx; jnz 1b"), interrupts).reports[0]
    assert report.startswith("600d600d")
    assert interrupts.device.taken == []


def test_interrupts_that_wait_together_come_one_after_the_other() -> None:
    interrupts = TestInterruptsPlugin()
    reports = run_here(
        real16("mov al, 0x30; out 0x90, al; mov al, 0x31; out 0x90, al; sti; nop; nop", "sti; nop; nop"), interrupts
    ).reports
    assert [report.split()[0] for report in reports] == ["00000030", "00000031"]
    assert interrupts.device.taken == [0x30, 0x31]


def test_a_timer_wakes_a_halted_cpu() -> None:
    report, taken = take_one("sti; mov al, 50; out 0x91, al; hlt; 3: nop")
    expected, vector, rip = report.split()[:3]
    assert (int(vector, 16), rip, taken) == (TIMER_VECTOR, expected, [TIMER_VECTOR])


@pytest.mark.parametrize("wait", ["in al, 0x80; jmp 3b", "pause; jmp 3b", "rdtsc; jmp 3b"])
def test_a_timer_interrupts_a_loop_in_which_events_let_time_pass(wait: str) -> None:
    _report, taken = take_one(f"sti; mov al, 50; out 0x91, al; 3: {wait}")
    assert taken == [TIMER_VECTOR]


def test_a_timer_interrupts_a_long_loop_without_any_event(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "STALL_SECONDS", 0.01)
    _report, taken = take_one("sti; mov al, 50; out 0x91, al; 3: jmp 3b")
    assert taken == [TIMER_VECTOR]


def test_an_interrupt_of_a_user_program_changes_to_the_inner_stack() -> None:
    interrupts = TestInterruptsPlugin()
    probe = "user32 0x3202; mov al, 0x20; out 0x90, al; 1: jmp 1b"
    vector, _eip, cs, _eflags, esp, ss, *now = run_here(protected32(probe), interrupts).reports[0].split()
    assert (vector, cs, esp, ss) == ("00000020", "0000002b", "00030000", "00000033")
    assert now[1:3] == ["00000010", "00000008"]


def test_an_interrupt_in_64_bit_code_returns_to_where_it_was() -> None:
    interrupts = TestInterruptsPlugin()
    probe = """mov dword ptr [0x504], 1; mov ebx, 0; mov ecx, 0x1234567; stc; sti; mov al, 0x20; out 0x90, al
        1: cmp dword ptr [0x504], 0; jne 1b; cli; mov eax, ecx; call emit"""
    report = run_here(long64(probe), interrupts).reports[0].split()
    assert report[0] == "00000020"
    assert report[report.index("01234567") + 1] == "600d600d"


def test_a_source_that_withdraws_its_interrupt_lets_the_guest_go_on() -> None:
    class Withdrawing(TestInterruptsPlugin):
        def __init__(self) -> None:
            super().__init__()
            self.device.acknowledge = lambda: None  # type: ignore[method-assign]

    report = run_here(real16(f"{RAISE} sti; nop; nop"), Withdrawing()).reports[0]
    assert report.startswith("600d600d")
