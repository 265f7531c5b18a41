"""Stopping a guest from outside: always between two instructions, however long it loops."""

from __future__ import annotations

import threading
import time

import pytest
from assembler import assemble
from guests import protected32
from interrupting import TestInterruptsPlugin
from machines import machine_with, run_guest
from reference_cpu import DebugConsolePlugin

from sevplug.core.bus import Device
from sevplug.core.hookspecs import hookimpl
from sevplug.core.machine import Machine
from sevplug.core.result import QUIT, SHUTDOWN, TIMEOUT

ROUNDS = 12_000_000
# Every kind of read-modify-write that a repeated or lost half would show in: locked, plain, exchanged, pushed, copied.
COUNTING = f"""
    mov ecx, {ROUNDS}
    xor ebx, ebx
    xor edi, edi
    mov dword ptr [0x40000], 0
    mov dword ptr [0x40004], 0
    mov dword ptr [0x40008], 0
    mov dword ptr [0x4000c], 0
1:  lock inc dword ptr [0x40000]
    mov eax, 1
    lock xadd [0x40004], eax
    add dword ptr [0x40008], 1
    push ebx
    inc dword ptr [esp]
    pop ebx
    add [0x4000c], ecx
    dec ecx
    jnz 1b
    mov ecx, {ROUNDS // 60}
    mov dword ptr [0x40010], 0
2:  mov edx, ecx
    mov esi, 0x41000
    mov edi, 0x41001
    mov ecx, 60
    rep movsb
    add [0x40010], edi
    mov ecx, edx
    dec ecx
    jnz 2b
    mov eax, [0x40000]
    call emit32
    mov eax, [0x40004]
    call emit32
    mov eax, [0x40008]
    call emit32
    mov eax, ebx
    call emit32
    mov eax, [0x4000c]
    call emit32
    mov eax, [0x40010]
    call emit32
    mov eax, esp
    call emit32
"""
EXPECTED = [
    ROUNDS, ROUNDS, ROUNDS, ROUNDS, ROUNDS * (ROUNDS + 1) // 2 & 0xFFFFFFFF,
    ROUNDS // 60 * (0x41001 + 60) & 0xFFFFFFFF, 0x20000,
]  # fmt: skip


def test_no_instruction_runs_twice_or_not_at_all_under_a_storm_of_kicks() -> None:
    console, served, done = DebugConsolePlugin(), [0], threading.Event()

    def count() -> None:
        served[0] += 1

    with machine_with(assemble(protected32(COUNTING)), console) as (machine, _board):

        def storm() -> None:
            while not done.wait(0.0005):
                machine.control.submit(count)

        thread = threading.Thread(target=storm)
        thread.start()
        try:
            assert machine.run(timeout=30).result == SHUTDOWN
        finally:
            done.set()
            thread.join()
    data = bytes(console.console.data)
    words = [int.from_bytes(data[at : at + 4], "little") for at in range(4, 32, 4)]
    assert words == EXPECTED
    assert served[0] > 50


class Doorbell(Device):
    """One MMIO page whose every access raises an interrupt, and a port that does."""

    def __init__(self) -> None:
        self.writes: list[int] = []
        self.reads = 0

    def attach(self, machine: Machine) -> None:
        self.machine = machine
        machine.bus.claim_mmio(0xFEE00000, 0x1000, self._read, self._write, "doorbell")

    def _read(self, _gpa: int, _size: int) -> int:
        self.reads += 1
        self._ring()
        return self.reads

    def _write(self, _gpa: int, _size: int, value: int) -> None:
        self.writes.append(value)
        self._ring()

    def _ring(self) -> None:
        self.machine.cpu.set_interrupt_line(True)
        self.machine.engine.defer(lambda: None)


class DoorbellPlugin:
    """Brings the doorbell."""

    name = "doorbell"

    def __init__(self) -> None:
        self.device = Doorbell()

    @hookimpl
    def add_devices(self, machine: Machine) -> None:
        machine.add_device(self.device)


def test_an_access_that_makes_the_engine_stop_reaches_its_device_once() -> None:
    doorbell, interrupts = DoorbellPlugin(), TestInterruptsPlugin()
    code = """mov eax, 1; mov [0xfee00000], eax; inc eax; mov [0xfee00004], eax; mov al, 0x20; out 0x90, al
        mov eax, 3; mov [0xfee00008], eax; mov ebx, [0xfee00000]; mov ecx, [0xfee00000]; push dword ptr [0xfee00000]
        lock inc dword ptr [0x40000]; add dword ptr [0xfee00010], 10"""
    with machine_with(assemble(protected32(code)), doorbell, interrupts) as (machine, _board):
        assert machine.run(timeout=5).result == SHUTDOWN
    assert doorbell.device.writes == [1, 2, 3, 14]
    assert doorbell.device.reads == 4


def test_a_loop_without_events_ends_at_the_time_limit() -> None:
    run = run_guest("jmp .", timeout=0.2)
    assert run.result.result == TIMEOUT
    assert run.result.seconds < 2


def test_a_request_from_another_thread_is_served_while_the_guest_loops() -> None:
    with machine_with(assemble("1: jmp 1b")) as (machine, _board):
        runner = threading.Thread(target=machine.run, kwargs={"timeout": 20})
        runner.start()
        began = time.monotonic()
        rip = machine.control.submit(lambda: machine.cpu.rip).result(10)
        waited = time.monotonic() - began
        machine.control.submit(machine.quit).result(10)
        runner.join(10)
        assert not runner.is_alive()
    assert rip in (0, 3, 0xFFF0)
    assert waited < 2


def test_a_paused_guest_goes_on_where_it_was() -> None:
    console = DebugConsolePlugin()
    code = "mov ecx, 60000000; 1: dec ecx; jnz 1b; mov eax, 0x11223344; call emit32"
    with machine_with(assemble(protected32(code)), console) as (machine, _board):
        results = []
        runner = threading.Thread(target=lambda: results.append(machine.run(timeout=20)))
        runner.start()
        machine.control.submit(machine.pause).result(10)
        paused = machine.control.submit(lambda: (machine.status, machine.cpu.get("rcx"))).result(10)
        again = machine.control.submit(lambda: (machine.status, machine.cpu.get("rcx"))).result(10)
        machine.control.submit(machine.resume).result(10)
        runner.join(20)
    assert paused == again
    assert paused[0] == "paused"
    assert results[0].result == SHUTDOWN
    assert b"\x44\x33\x22\x11" in bytes(console.console.data)


@pytest.mark.parametrize("source", ["1: jmp 1b", "sti; 1: hlt; jmp 1b"])
def test_a_guest_can_be_ended_while_it_loops_or_sleeps(source: str) -> None:
    with machine_with(assemble(source)) as (machine, _board):
        timer = threading.Timer(0.05, lambda: machine.control.submit(machine.quit))
        timer.start()
        assert machine.run(timeout=10).result == QUIT
        timer.join()
