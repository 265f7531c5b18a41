"""Breakpoints and single steps, of which the guest sees nothing."""

from __future__ import annotations

import time

import pytest
from assembler import BASE, assemble
from debugging import finish, mark, place, step, steps, to_breakpoint
from guests import long64, protected32, real16
from interrupting import TestInterruptsPlugin
from machines import machine_with, run_guest

from sevplug.core import events, result

MODES = {"real16": (real16, 0xF0000), "protected32": (protected32, BASE), "long64": (long64, BASE)}
OUT = "mov al, {}; out 0x80, al"


@pytest.mark.parametrize("mode", MODES)
def test_a_guest_stops_in_front_of_the_instruction_and_goes_on(mode: str) -> None:
    guest, base = MODES[mode]
    image = assemble(guest(f"{OUT.format(1)}; {mark(1)}; {OUT.format(2)}; {mark(2)}; {OUT.format(3)}"))
    with machine_with(image, paused=True) as (machine, board):
        first, second = place(image, 1, base), place(image, 2, base)
        machine.debug.breakpoints.insert(first)
        machine.debug.breakpoints.insert(second)
        assert to_breakpoint(machine) == first
        assert [value for _port, _size, value in board.board.written] == [1]
        assert to_breakpoint(machine) == second
        assert [value for _port, _size, value in board.board.written] == [1, 2]
        assert finish(machine) == result.SHUTDOWN
        assert [value for _port, _size, value in board.board.written] == [1, 2, 3]


def test_the_first_instruction_after_reset_can_have_one() -> None:
    with machine_with(assemble(real16("nop")), paused=True) as (machine, _board):
        machine.debug.breakpoints.insert(0xFFFFFFF0)
        assert to_breakpoint(machine) == 0xFFFFFFF0
        assert step(machine) == BASE
        assert finish(machine) == result.SHUTDOWN


def test_a_breakpoint_in_a_loop_is_hit_each_time_round_and_not_after_it_was_removed() -> None:
    image = assemble(long64(f"mov ecx, 5; 1: {mark(1)}; loop 1b"))
    with machine_with(image, paused=True) as (machine, _board):
        machine.debug.breakpoints.insert(place(image, 1))
        assert [(to_breakpoint(machine), machine.cpu.get("rcx"))[1] for _ in range(3)] == [5, 4, 3]
        machine.debug.breakpoints.remove(place(image, 1))
        assert finish(machine) == result.SHUTDOWN


def test_a_breakpoint_in_code_that_runs_already_is_hit() -> None:
    image = assemble(long64(f"1: {mark(1)}; cmp byte ptr [0x4000], 0; je 1b"))
    with machine_with(image, paused=True) as (machine, _board):
        machine.resume()
        machine.control.submit(machine.pause)
        assert machine.advance(5, until=lambda: machine.status == "paused")
        machine.debug.breakpoints.insert(place(image, 1))
        assert to_breakpoint(machine) == place(image, 1)
        machine.memory.write(0x4000, b"\1")
        machine.debug.breakpoints.remove(place(image, 1))
        assert finish(machine) == result.SHUTDOWN


def test_who_uses_a_breakpoint_does_not_take_it_from_another() -> None:
    with machine_with(assemble(real16("nop"))) as (machine, _board):
        breakpoints = machine.debug.breakpoints
        breakpoints.insert(0x1000)
        breakpoints.insert(0x1000)
        breakpoints.remove(0x1000)
        assert list(breakpoints) == [0x1000]
        breakpoints.remove(0x1000)
        assert not breakpoints
        with pytest.raises(KeyError):
            breakpoints.remove(0x1000)


def test_memory_and_flags_show_nothing_of_breakpoints_and_steps() -> None:
    """The guest adds up its own code, and pushes its flags, at each step of the way."""
    probe = f"""
    {mark(1)}
    xor eax, eax; mov esi, 0xffff0000; mov ecx, 0x2000
1:  add eax, [rsi]; add esi, 4; loop 1b
    mov [0x4000], eax
    pushfq; pop rax; mov [0x4008], rax; mov rax, dr6; mov [0x4010], rax; mov rax, dr7; mov [0x4018], rax
    {mark(2)}
"""
    image = assemble(long64(probe))
    alone = run_guest(image)
    with machine_with(image, paused=True) as (machine, _board):
        for number in (1, 2):
            machine.debug.breakpoints.insert(place(image, number))
        to_breakpoint(machine)
        steps(machine, 40)
        to_breakpoint(machine)
        assert finish(machine) == result.SHUTDOWN
        assert machine.memory.read(0x4000, 0x20) == alone.memory[0x4000:0x4020]


@pytest.mark.parametrize("mode", MODES)
def test_a_step_is_one_instruction(mode: str) -> None:
    guest, base = MODES[mode]
    image = assemble(guest(f"mov cx, 7; {mark(1)}; inc cx; inc cx; jmp 1f; nop; 1: {mark(2)}"))
    with machine_with(image, paused=True) as (machine, _board):
        machine.debug.breakpoints.insert(place(image, 1, base))
        to_breakpoint(machine)
        step(machine)
        seen = []
        for _ in range(3):
            step(machine)
            seen.append(machine.cpu.get("rcx") & 0xFFFF)
        assert seen == [8, 9, 9]
        assert machine.debug.linear_rip == place(image, 2, base)
        assert finish(machine) == result.SHUTDOWN


def test_a_rep_is_a_step_a_round() -> None:
    image = assemble(long64(f"mov edi, 0x4000; mov ecx, 3; mov al, 7; {mark(1)}; rep stosb; {mark(2)}"))
    with machine_with(image, paused=True) as (machine, _board):
        machine.debug.breakpoints.insert(place(image, 1))
        to_breakpoint(machine)
        rep = step(machine)
        assert rep == place(image, 1) + 4
        assert steps(machine, 3) in ([rep, rep, rep + 2], [rep, rep, rep])
        assert machine.cpu.get("rcx") == 0
        assert machine.memory.read(0x4000, 4) == b"\7\7\7\0"


@pytest.mark.parametrize(
    ("code", "vector"),
    [
        ("xor ecx, ecx; div ecx", 0),
        ("mov eax, [0x1234567000]", 14),
        ("ud2", 6),
        ("int 0x41", 0x41),
        ("mov ecx, 0x12345; rdmsr", 13),
        ("int3", 3),
    ],
)
def test_the_step_of_an_exception_ends_at_its_handler(code: str, vector: int) -> None:
    before, _semicolon, faulting = code.rpartition("; ")
    image = assemble(long64(f"{before}; {mark(1)}; {faulting}; nop"))
    with machine_with(image, paused=True) as (machine, _board):
        machine.debug.breakpoints.insert(place(image, 1))
        to_breakpoint(machine)
        at = step(machine)
        handler = step(machine)
        gate = machine.memory.read(0x10000 + 16 * vector, 16)
        low, high = int.from_bytes(gate[0:2], "little"), int.from_bytes(gate[6:8], "little")
        assert handler == low | high << 16 != at


@pytest.mark.parametrize("code", ["mov eax, 1; cpuid", "rdtsc", "pause", "mov rax, cr3; mov cr3, rax", "in al, 0x80"])
def test_an_instruction_that_is_emulated_is_one_step(code: str) -> None:
    before, _semicolon, last = code.rpartition("; ")
    image = assemble(long64(f"{before}; {mark(1)}; {last}; {mark(2)}; nop"))
    with machine_with(image, paused=True) as (machine, _board):
        machine.debug.breakpoints.insert(place(image, 1))
        to_breakpoint(machine)
        assert steps(machine, 2)[1] == place(image, 2)


def test_a_system_call_is_one_step() -> None:
    probe = f"""
    mov ecx, 0xc0000080; rdmsr; or eax, 1; wrmsr
    mov ecx, 0xc0000081; xor eax, eax; mov edx, 0x200018; wrmsr
    mov ecx, 0xc0000082; lea rax, [rip+1f]; mov edx, 0; wrmsr
    {mark(1)}
    syscall
    nop
1:  {mark(2)}
"""
    image = assemble(long64(probe))
    with machine_with(image, paused=True) as (machine, _board):
        machine.debug.breakpoints.insert(place(image, 1))
        to_breakpoint(machine)
        assert steps(machine, 2)[1] == place(image, 2)


def test_a_guest_that_steps_itself_gets_its_traps_all_the_same() -> None:
    """What its own trap handler reports is the same, whoever looks on."""
    probe = "pushfq; or qword ptr [rsp], 0x100; popfq; nop; nop"
    image = assemble(long64(f"{mark(1)}; {probe}"))
    alone = run_guest(image)
    with machine_with(image, paused=True) as (machine, board):
        machine.debug.breakpoints.insert(place(image, 1))
        to_breakpoint(machine)
        seen = steps(machine, 6)
        assert seen[-1] < place(image, 1)  # the handler
        assert finish(machine) == alone.result.result
        assert [value for _port, _size, value in board.board.written] == alone.ports_written


@pytest.mark.parametrize("mode", MODES)
def test_the_guests_own_breakpoints_are_its_own(mode: str) -> None:
    """One in its debug registers, at an instruction that is also ours, and one at which it is stepped to."""
    guest, base = MODES[mode]
    a = "rax" if guest is long64 else "eax"
    image = assemble(guest(f"mov eax, 0x12345678; mov dr0, {a}; mov eax, 0x1; mov dr7, {a}; nop; {mark(1)}; nop"))
    where = place(image, 1, base)
    image = image.replace((0x12345678).to_bytes(4, "little"), where.to_bytes(4, "little"))
    for ours in (False, True):
        with machine_with(image, paused=True) as (machine, _board):
            if ours:
                machine.debug.breakpoints.insert(where)
                assert to_breakpoint(machine) == where
                assert step(machine) != where + 4  # its handler
                machine.debug.breakpoints.remove(where)
            assert finish(machine) == result.SHUTDOWN
            assert machine.cpu.state.q[0x1550 // 8] & 1 == 1  # type: ignore[attr-defined]
            assert machine.engine.count()["faults"] == 1


def test_a_halted_cpu_steps_to_the_handler_that_wakes_it() -> None:
    image = assemble(protected32(f"{mark(1)}; sti; hlt; {mark(2)}; cli"))
    interrupts = TestInterruptsPlugin()
    with machine_with(image, interrupts, paused=True) as (machine, _board):
        machine.debug.breakpoints.insert(place(image, 1))
        to_breakpoint(machine)
        assert steps(machine, 3)[2] == place(image, 2)  # it sleeps, behind its HLT
        machine.control.submit(lambda: interrupts.device.raise_vector(0x42))
        assert step(machine) < place(image, 1)


def test_a_step_that_never_comes_is_taken_back() -> None:
    image = assemble(protected32(f"{mark(1)}; sti; hlt; nop"))
    with machine_with(image, paused=True) as (machine, _board):
        machine.control.attended = True
        machine.debug.breakpoints.insert(place(image, 1))
        to_breakpoint(machine)
        steps(machine, 3)
        taken: list[bool] = []
        machine.debug.step()
        machine.control.submit(lambda: taken.append(machine.debug.cancel_step()))
        assert machine.advance(5, until=lambda: bool(taken))
        assert taken == [True]
        assert not machine.debug.stepping
        assert not machine.debug.cancel_step()


def test_a_step_takes_no_interrupt_and_the_run_behind_it_does() -> None:
    image = assemble(protected32(f"{mark(1)}; sti; nop; nop; {mark(2)}; nop; nop"))
    interrupts = TestInterruptsPlugin()
    with machine_with(image, interrupts, paused=True) as (machine, _board):
        machine.debug.breakpoints.insert(place(image, 1))
        to_breakpoint(machine)
        interrupts.device.raise_vector(0x42)
        assert steps(machine, 4)[3] == place(image, 2)
        assert machine.engine.count()["interrupts"] == 0
        finish(machine)
        assert machine.engine.count()["interrupts"] == 1


def test_time_stands_still_before_the_start_and_at_a_breakpoint() -> None:
    image = assemble(long64(f"{mark(1)}; nop"))
    for clock in ("virtual", "host"):
        with machine_with(image, paused=True, clock=clock) as (machine, _board):
            machine.clock.catch_up()
            before = machine.clock.now
            time.sleep(0.02)
            machine.clock.catch_up()
            assert machine.clock.now == before
            machine.debug.breakpoints.insert(place(image, 1))
            to_breakpoint(machine)
            machine.clock.catch_up()
            before = machine.clock.now
            time.sleep(0.02)
            machine.clock.catch_up()
            assert machine.clock.now == before


def test_a_stop_and_what_follows_are_told_of_and_a_step_is_not() -> None:
    image = assemble(long64(f"{mark(1)}; nop"))
    with machine_with(image, paused=True) as (machine, board):
        machine.debug.breakpoints.insert(place(image, 1))
        to_breakpoint(machine)
        step(machine)
        finish(machine)
        told = [name for name, _fields in board.events if name in (events.RUN_RESUME, events.RUN_STOP)]
        assert told == [events.RUN_RESUME, events.RUN_STOP, events.RUN_RESUME]


def test_a_reset_keeps_breakpoints() -> None:
    image = assemble(real16(f"{mark(1)}; nop"))
    with machine_with(image, paused=True) as (machine, _board):
        machine.debug.breakpoints.insert(place(image, 1, 0xF0000))
        first = to_breakpoint(machine)
        machine.system_reset()
        assert to_breakpoint(machine) == first
