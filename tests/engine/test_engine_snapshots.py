"""A CPU that goes back to a snapshot, or another one that loads it, goes on as if nothing had been."""

from __future__ import annotations

from typing import Any

import pytest
from assembler import assemble
from guests import long64
from interrupting import TestInterruptsPlugin
from long_guest import PAGES, long_guest, remap
from machines import machine_with
from snapshots import Outcome, differences, finish, outcome, raw_state, run_to

from sevplug.core.clock import Timer
from sevplug.core.config import ObjectSpec
from sevplug.core.errors import SnapshotError
from sevplug.plugins.sev import SevPlugin

SEV = ObjectSpec("sev-emulated", "sev0", {"cbitpos": "47", "reduced-phys-bits": "1"})
MARK, AGAIN = 0x51, 0x52
# The block of code runs to its end behind the OUT, so a jump ends it.
MARKED = f"mov al, {MARK:#x}; out 0x80, al; .byte 0xeb, 0;"

# A guest that sets whatever a CPU holds.
EVERYTHING = f"""
    mov rax, cr0; and eax, ~0xc; mov cr0, rax
    mov rax, cr4; or eax, 0x600; mov cr4, rax
    fninit; fldz; fldpi; fld1; fldl2e
    mov dword ptr [0x700], 0x0c7f; fldcw [0x700]
    fstp qword ptr [0x708]; fld1; fld1; fcompp
    mov dword ptr [0x704], 0x7f80; ldmxcsr [0x704]
    mov rax, 0x1122334455667788
    movq xmm0, rax; movq xmm1, rax; pshufd xmm2, xmm1, 0x4e; movq xmm7, rax; movq xmm8, rax; pshufd xmm15, xmm1, 0x44
    mov rax, 0x123000; mov dr0, rax; mov rax, 0x124000; mov dr1, rax; mov rax, 0x125000; mov dr2, rax
    mov rax, 0x126000; mov dr3, rax; mov rax, 0x4aa; mov dr7, rax
    xor edx, edx
    mov ecx, 0x174; mov eax, 0x1230; wrmsr; inc ecx; inc eax; wrmsr; inc ecx; inc eax; wrmsr
    mov ecx, 0xc0000081; mov edx, 0x230010; wrmsr; inc ecx; wrmsr; inc ecx; wrmsr; inc ecx; wrmsr
    mov ecx, 0xc0000102; wrmsr; inc ecx; wrmsr; mov ecx, 0xc0000100; wrmsr; inc ecx; inc eax; wrmsr
    mov ecx, 0x277; mov eax, 0x01040506; wrmsr
    mov ecx, 0x200; mov eax, 6; xor edx, edx; wrmsr; inc ecx; mov eax, 0xfff00800; wrmsr
    mov ecx, 0x250; mov eax, 0x06060606; wrmsr; mov ecx, 0x268; wrmsr; mov ecx, 0x2ff; mov eax, 0xc06; wrmsr
    mov ecx, 0x10; mov eax, 0x12345; wrmsr
    mov ecx, 0xc0000080; rdmsr; or eax, 1; wrmsr
    mov ecx, 0; mov edx, 0; mov eax, 3
    mov rbx, 0x1111; mov rcx, 0x2222; mov rsi, 0x3333; mov rdi, 0x4444; mov rbp, 0x5555
    mov r8, 0x8888; mov r9, 0x9999; mov r10, -10; mov r11, -11; mov r12, -12; mov r13, -13; mov r14, -14; mov r15, -15
    std
    add r10, r11
    {MARKED}
"""
# And one that destroys it all and says what it had.
DESTROYED = f"""
    cld
    movq rax, xmm0; out 0x80, eax; movq rax, xmm15; shr rax, 32; out 0x80, eax
    fstp qword ptr [0x710]; mov eax, [0x714]; out 0x80, eax; fnstcw [0x718]; mov ax, [0x718]; out 0x80, ax
    stmxcsr [0x71c]; mov eax, [0x71c]; out 0x80, eax
    mov rax, dr2; out 0x80, eax; mov rax, dr7; out 0x80, eax
    mov ecx, 0x277; rdmsr; out 0x80, eax; mov ecx, 0x201; rdmsr; out 0x80, eax; mov ecx, 0x10; rdmsr; out 0x80, eax
    rdrand eax; out 0x80, eax
    fninit; xor eax, eax; mov dr7, rax; mov dr2, rax; pxor xmm0, xmm0; pxor xmm15, xmm15
    mov dword ptr [0x704], 0x1f80; ldmxcsr [0x704]
    xor edx, edx; mov ecx, 0x277; wrmsr; mov ecx, 0x201; wrmsr; mov ecx, 0x10; wrmsr
    mov al, {AGAIN:#x}; out 0x80, al; .byte 0xeb, 0
"""


def test_the_whole_state_of_the_cpu_comes_back() -> None:
    source = assemble(long64(EVERYTHING + DESTROYED))
    with machine_with(source) as (machine, board):
        run_to(machine, board, MARK)
        snapshot = machine.snapshot()
        before = raw_state(machine)
        run_to(machine, board, AGAIN)
        said = outcome(machine, board).written
        assert len(differences(before, raw_state(machine))) > 8
        machine.restore(snapshot)
        assert differences(before, raw_state(machine)) == []
        run_to(machine, board, AGAIN)
        assert outcome(machine, board).written == said
    with machine_with(source) as (other, board):
        other.restore(snapshot)
        assert differences(before, raw_state(other)) == []
        run_to(other, board, AGAIN)
        assert outcome(other, board).written == said


def check_repeats(source: bytes, plugins: Any = (), **config: Any) -> Outcome:
    """Snapshot at the mark; the run that goes on, two that go back, and one in another machine end the same."""
    with machine_with(source, *(make() for make in plugins), **config) as (machine, board):
        run_to(machine, board, MARK)
        snapshot = machine.snapshot()
        expected = finish(machine, board)
        for _ in range(2):
            machine.restore(snapshot)
            assert finish(machine, board) == expected
    with machine_with(source, *(make() for make in plugins), **config) as (other, board):
        other.restore(snapshot)
        assert finish(other, board) == expected
    return expected


def test_time_and_randomness_go_on_where_they_were() -> None:
    loop = "mov cx, 20; 1: rdtsc; out 0x80, eax; rdrand eax; out 0x80, eax; in al, 0x10; pause; loop 1b;"
    ended = check_repeats(assemble(f"{loop} {MARKED} {loop} out 0xf4, al"))
    assert len(set(ended.written)) > 78


def test_timers_and_interrupts_come_in_the_same_order_at_the_same_instruction() -> None:
    # Two that are due at once, a periodic one, and one that waits for IF, while registers count.
    ended = check_repeats(
        interrupted(
            "push eax; mov al, 0x21; out 0x80, al; mov eax, ecx; out 0x80, eax; pop eax; iret",
            f"""
            mov al, 200; out 0x91, al; mov al, 199; out 0x91, al; mov al, 37; out 0x92, al
            mov ecx, 0
            mov al, 0x20; out 0x90, al
            {MARKED}
            sti
        1:  inc ecx; in al, 0x10; cmp ecx, 600; jne 1b
            hlt; hlt
            out 0xf4, al
            """,
        ),
        [TestInterruptsPlugin],
    )
    assert ended.written.count(0x21) > 15


def test_a_snapshot_at_a_breakpoint_goes_on_past_it() -> None:
    source = interrupted(
        "push eax; mov al, 0x21; out 0x80, al; mov eax, ecx; out 0x80, eax; pop eax; iret",
        "mov al, 37; out 0x92, al; sti; mov ecx, 0; 1: inc ecx; in al, 0x10; cmp ecx, 300; jne 1b; out 0xf4, al",
    )
    loop = 0x8000 + source.index(bytes([0x66, 0x41, 0xE4, 0x10]))  # inc ecx; in al, 0x10
    with machine_with(source, TestInterruptsPlugin()) as (machine, board):
        for _ in range(5):
            assert machine.advance_to(loop, 20)
        assert machine.cpu.get("rcx") == 4
        snapshot = machine.snapshot()
        expected = finish(machine, board)
        assert expected.written.count(0x21) > 5
        machine.restore(snapshot)
        assert finish(machine, board) == expected
        assert not machine.advance_to(loop, 1)
    with machine_with(source, TestInterruptsPlugin()) as (other, board):
        other.restore(snapshot)
        assert finish(other, board) == expected


def test_a_cpu_that_sleeps_goes_on_sleeping() -> None:
    code = "mov al, 200; out 0x91, al; mov al, 250; out 0x91, al; sti; hlt; hlt; rdtsc; out 0x80, eax; out 0xf4, al"
    source = interrupted("out 0x80, al; iret", code)
    with machine_with(source, TestInterruptsPlugin()) as (machine, board):
        asleep: list[int] = []

        def look() -> None:
            asleep.append(machine.clock.now)
            machine.engine.leave()

        machine.clock.start(Timer(look), 150_000)
        assert machine.advance(20, lambda: bool(asleep))
        snapshot = machine.snapshot()
        expected = finish(machine, board)
        assert asleep == [150_000]
        machine.restore(snapshot)
        assert finish(machine, board) == expected
    with machine_with(source, TestInterruptsPlugin()) as (other, board):
        other.restore(snapshot)
        assert finish(other, board) == expected
    assert expected.written[:2] == [250, 250]


def interrupted(handler: str, code: str) -> bytes:
    """Real-mode code in RAM, with a handler for the vectors of the test controller."""
    return assemble(
        f"""
        xor ax, ax; mov ds, ax; mov es, ax; mov ss, ax; mov sp, 0x7000
        xor si, si; mov di, 0x8000; mov cx, 0x1000; cld; .byte 0xf3, 0x2e, 0xa4
        .byte 0xea; .word in_ram - _start + 0x8000, 0
    in_ram:
        mov word ptr [0x84], offset 9f - _start + 0x8000; mov word ptr [0x86], 0
        mov word ptr [0x80], offset 9f - _start + 0x8000; mov word ptr [0x82], 0
        {code}
        jmp .
    9:  {handler}
        """
    )


def test_forms_of_pages_and_code_that_changes_come_back() -> None:
    page, alias = PAGES, PAGES + 0x1000
    call = f"mov eax, {page:#x}; call rax; out 0x80, eax;"
    code = f"""
        mov byte ptr [{page:#x}], 0xb8; mov byte ptr [{page + 5:#x}], 0xc3; mov dword ptr [{page + 1:#x}], 1; {call}
        {remap(alias, page + 0x2000, private=False)}
        mov dword ptr [{alias:#x}], 0x1234; mov eax, [{page + 0x2000:#x}]; out 0x80, eax
        {MARKED}
        mov dword ptr [{page + 1:#x}], 2; {call}
        mov eax, [{alias:#x}]; out 0x80, eax; mov dword ptr [{page + 0x2000:#x}], 7
        mov eax, [{alias:#x}]; out 0x80, eax; mov eax, [{page + 0x5000:#x}]; out 0x80, eax
    """
    ended = check_repeats(long_guest(code), [SevPlugin], objects=(SEV,))
    assert ended.written[0] == 1
    assert ended.written[ended.written.index(MARK) + 1] == 2


def test_counts_of_pages_and_conversions_come_back() -> None:
    page = PAGES
    code = (
        f"{remap(page, page, private=False)} mov dword ptr [{page:#x}], 1; {MARKED} {remap(page, page, private=True)}"
    )
    code += f"mov eax, [{page:#x}]; mov al, {AGAIN}; out 0x80, al; .byte 0xeb, 0;"
    with machine_with(long_guest(code), SevPlugin(), objects=(SEV,)) as (machine, board):
        run_to(machine, board, MARK)
        snapshot = machine.snapshot()
        before = machine.memory.page_map()
        run_to(machine, board, AGAIN)
        assert machine.memory.page_map() != before
        machine.restore(snapshot)
        assert machine.memory.page_map() == before


def test_in_the_middle_of_an_instruction_none_is_made() -> None:
    with machine_with(assemble(f"{MARKED} out 0xf4, al")) as (machine, board):
        refused: list[str] = []

        def attempt() -> None:
            with pytest.raises(SnapshotError) as caught:
                machine.snapshot()
            refused.append(str(caught.value))

        board.board.on_write = attempt
        assert machine.run(5).result == "shutdown"
    assert refused == ["the guest is in the middle of an instruction, expected one that stands still"]


@pytest.mark.parametrize(
    ("name", "value"),
    [("mode", 0), ("mode", 1 << 19 | 1 << 21), ("fpu_top", 8), ("xmm", b""), ("msrs", [[0x10, 0]]), ("rax", -1),
     ("segments", {}), ("fpu_tags", b"1"), ("rip", "0"), ("rflags", None)],
)  # fmt: skip
def test_registers_that_no_cpu_has_are_refused_and_end_the_machine(name: str, value: Any) -> None:
    with machine_with(assemble(f"{MARKED} out 0xf4, al")) as (machine, board):
        run_to(machine, board, MARK)
        snapshot = machine.snapshot()
        snapshot.state["engine"]["registers"][name] = value
        with pytest.raises(SnapshotError, match=r"^snapshot: the state of the CPU does not fit"):
            machine.restore(snapshot)
        assert machine.run(1).result == "stopped"
