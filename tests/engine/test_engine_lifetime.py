"""Machines come and go: one after the other, two at once, and after a failure of somebody's handler."""

from __future__ import annotations

import gc
import threading
from pathlib import Path

import pytest
from assembler import assemble
from guests import long64
from machines import machine_with, run_guest
from reference_cpu import run_here

from sevplug.core.bus import Device
from sevplug.core.errors import PluginError
from sevplug.core.hookspecs import hookimpl
from sevplug.core.machine import Machine
from sevplug.core.vcpu import VCpu

MIB = 1 << 20
TOUCH = "mov ax, 0x1000; mov es, ax; xor di, di; mov cx, 0x8000; rep stosw; out 0xf4, al; hlt"


def resident() -> int:
    """Bytes of memory this process really has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def test_thirty_machines_leave_no_memory_behind() -> None:
    def life() -> None:
        with machine_with(assemble(TOUCH), ram=64 * MIB) as (machine, _board):
            machine.memory.write(0x100000, b"\x5a" * (8 * MIB))
            assert machine.run(timeout=5).result == "shutdown"

    for _ in range(3):
        life()
    gc.collect()
    before = resident()
    for _ in range(30):
        life()
    gc.collect()
    assert resident() - before < 32 * MIB


def test_two_machines_run_at_once_in_two_threads() -> None:
    code = "mov rcx, {0}; xor rax, rax; 1: add rax, rcx; dec rcx; jnz 1b; call emit64; cpuid; mov eax, [0x40000000]"
    results: dict[int, str] = {}

    def life(count: int) -> None:
        results[count] = run_here(long64(code.format(count))).reports[0]

    counts = [3_000_000, 3_100_000]
    for _ in range(5):
        threads = [threading.Thread(target=life, args=(count,)) for count in counts]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for count in counts:
            total = count * (count + 1) // 2
            assert results[count].split()[:3] == [f"{total & 0xFFFFFFFF:08x}", f"{total >> 32:08x}", "0000000e"]


class Boom(Exception):
    """What a handler raises."""


class Failing(Device):
    def attach(self, machine: Machine) -> None:
        def fail(*_access: int) -> int:
            raise Boom("the device broke")

        machine.bus.claim_ports(0x72, 1, fail, fail, "failing")
        machine.bus.claim_mmio(0xD0000000, 0x1000, fail, fail, "failing")


class FailingPlugin:
    """A device, CPUID leaf, MSR and interrupt controller that fail."""

    name = "failing"

    @hookimpl
    def add_devices(self, machine: Machine) -> None:
        machine.add_device(Failing())
        machine.bus.claim_ports(0x73, 1, None, lambda *_access: machine.cpu.set_interrupt_line(True), "failing line")
        machine.interrupt_source = self

    def acknowledge(self) -> int | None:
        raise Boom("the controller broke")

    @hookimpl
    def cpuid(self, leaf: int) -> None:
        if leaf == 0x80000123:
            raise Boom("the leaf broke")

    @hookimpl
    def wrmsr(self, index: int) -> None:
        if index == 0x12345:
            raise Boom("the MSR broke")

    @hookimpl
    def unknown_opcode(self, cpu: VCpu, code: bytes) -> None:
        raise Boom("the opcode broke")


@pytest.mark.parametrize(
    "probe",
    [
        "in al, 0x72", "out 0x72, al", "mov eax, [0xffffffffd0000000]", "mov [0xffffffffd0000000], al",
        "mov eax, 0x80000123; cpuid", "mov ecx, 0x12345; wrmsr", "sti; out 0x73, al; 1: jmp 1b", "ud2",
        "sti; mov al, 1; out 0x73, al; hlt",
    ],
)  # fmt: skip
def test_a_failure_of_a_handler_ends_the_run_with_the_plugins_name(probe: str) -> None:
    if "0xffffffffd0000000" in probe:
        probe = "mov ebx, 0xd0000000; " + probe.replace("[0xffffffffd0000000]", "[rbx]")
    with machine_with(assemble(long64(probe)), FailingPlugin()) as (machine, _board):
        with pytest.raises(PluginError, match="plug-in 'failing' failed") as caught:
            machine.run(timeout=5)
        assert isinstance(caught.value.__cause__, Boom)
    assert machine.memory.ranges == []


@pytest.mark.parametrize("probe", ["in al, 0x74", "mov ebx, 0xd2000000; mov [rbx], al"])
def test_what_is_no_plain_error_leaves_a_handler_as_itself(probe: str) -> None:
    def stop(*_access: int) -> int:
        raise KeyboardInterrupt

    class Stopping:
        @hookimpl
        def add_devices(self, machine: Machine) -> None:
            machine.bus.claim_ports(0x74, 1, stop, stop, "stopping")
            machine.bus.claim_mmio(0xD2000000, 0x1000, stop, stop, "stopping")

    with machine_with(assemble(long64(probe)), Stopping()) as (machine, _board), pytest.raises(KeyboardInterrupt):
        machine.run(timeout=5)


def test_a_machine_can_be_closed_twice_and_without_having_run() -> None:
    with machine_with(assemble("hlt")) as (machine, _board):
        machine.close()
        machine.close()


def test_what_the_engine_cannot_go_on_with_is_a_result_and_no_exception() -> None:
    """A guest that takes every table away below its feet."""
    run = run_guest(long64("mov qword ptr [0x13000], 0; mov rax, cr3; mov cr3, rax; mov al, [0]"))
    assert run.result.result == "fault"
    assert "rip" in run.result.detail


def test_an_error_of_the_engine_is_a_result_that_names_the_place(monkeypatch: pytest.MonkeyPatch) -> None:
    with machine_with(assemble("hlt")) as (machine, _board):

        class Refusing:
            def __init__(self, real: object) -> None:
                self._real = real

            def __getattr__(self, name: str) -> object:
                return getattr(self._real, name)

            def uc_emu_start(self, *_arguments: object) -> int:
                return 6

        monkeypatch.setattr(machine.engine, "_lib", Refusing(machine.engine._lib))
        run = machine.run(timeout=5)
    assert run.result == "fault"
    assert "rip 0xfff0" in run.detail
    assert "UC_ERR_READ_UNMAPPED" in run.detail
