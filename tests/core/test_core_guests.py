"""Guests that end badly, and guests that reach for what is not there: the machine says how it ended and is closed."""

from __future__ import annotations

import hashlib

import pytest
from assembler import assemble
from machines import machine_with, run_guest

from sevplug.core import machine as machine_module
from sevplug.core import memory, result
from sevplug.core.hookspecs import hookimpl
from sevplug.core.machine import Machine
from sevplug.core.result import End
from sevplug.core.vcpu import VCpu


def test_a_guest_that_switches_itself_off_ended_in_order() -> None:
    run = run_guest("mov al, 7; out 0x80, al; out 0xf4, al; hlt")
    assert (run.result.result, run.result.detail, run.result.orderly) == (result.SHUTDOWN, "port 0xf4 got 7", True)
    assert run.ports_written == [7]


def test_a_triple_fault_ends_the_run_with_what_led_to_it() -> None:
    # An interrupt table of no size: neither the #UD nor what follows it can be delivered.
    run = run_guest("lidt cs:[empty - _start]; ud2; out 0xf4, al; empty: .word 0; .long 0")
    assert run.result.result == result.FAULT
    assert not run.result.orderly
    assert run.result.detail.startswith("triple fault")
    assert run.ports_written == []


def test_a_halt_that_nothing_can_end_is_told_from_a_sleep() -> None:
    run = run_guest("cli; hlt; out 0xf4, al")
    assert run.result.result == result.HALTED
    assert run.result.detail.startswith("halted with interrupts off at rip ")


@pytest.mark.parametrize(
    "loop",
    ["jmp .", "1: inc eax; jmp 1b", "1: in al, 0x80; jmp 1b", "1: cpuid; jmp 1b", "sti; 1: hlt; jmp 1b"],
    ids=["bare", "counting", "polling", "leaving", "sleeping"],
)
def test_a_guest_that_never_ends_is_stopped_at_the_time_limit(loop: str) -> None:
    run = run_guest(loop, timeout=0.2)
    assert run.result.result == result.TIMEOUT
    assert run.result.detail.startswith("no end within 0.2 s, at rip 0x")
    assert 0.2 <= run.result.seconds < 2


def test_memory_that_is_not_there_reads_as_ones_and_swallows() -> None:
    # FS begins 16 bytes below the end of RAM.
    run = run_guest(
        "mov ax, 0xffff; mov fs, ax; mov eax, 0x11223344; mov fs:[0x1000], eax; mov eax, fs:[0x1000]; "
        "out 0x80, eax; out 0xf4, al",
        ram=1 << 20,
    )
    assert run.result.result == result.SHUTDOWN
    assert run.ports_written == [0xFFFF_FFFF]
    assert run.counters["faults"] == 0


def test_ports_that_are_not_there_read_as_ones_and_swallow() -> None:
    run = run_guest(
        "mov dx, 0x5678; mov eax, 1; out dx, eax; in al, dx; out 0x80, al; in ax, dx; out 0x80, ax; "
        "in eax, dx; out 0x80, eax; out 0xf4, al"
    )
    assert run.ports_written == [0xFF, 0xFFFF, 0xFFFF_FFFF]


def test_code_that_is_not_there_ends_in_a_fault_and_not_in_a_hang() -> None:
    run = run_guest(".byte 0xea; .word 0x1000, 0xffff", ram=1 << 20, timeout=5)
    assert run.result.result == result.FAULT
    assert run.result.seconds < 4


def test_an_msr_that_is_not_there_is_a_general_protection_fault() -> None:
    handler = "mov word ptr [52], 0x300; mov word ptr [54], 0; mov dword ptr [0x300], 0xf4e6; "
    run = run_guest(handler + "mov ecx, 0x12345; rdmsr; mov al, 1; out 0x80, al; hlt")
    assert run.result.result == result.SHUTDOWN
    assert run.ports_written == []
    assert run.counters["faults"] == 1


def test_a_machine_without_firmware_runs_into_nothing_and_is_stopped() -> None:
    with machine_with(None) as (machine, _board):
        ended = machine.run(timeout=0.5)
    assert ended.result in (result.FAULT, result.TIMEOUT)


def test_a_plug_in_may_give_the_end_another_name() -> None:
    seen: list[str] = []

    class Renaming:
        @hookimpl
        def guest_exit(self, cpu: VCpu, end: End) -> End:
            seen.append(end.result)
            return End(result.PANIC, f"cr0 was {cpu.get('cr0'):#x}")

    ended = run_guest("out 0xf4, al", plugins=[Renaming()]).result
    assert (ended.result, ended.detail, ended.orderly) == (result.PANIC, "cr0 was 0x60000010", False)
    assert seen == [result.SHUTDOWN]


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that waits a fifth of a second for somebody to wake its guest."""
    monkeypatch.setattr(machine_module, "_SLEEP_LIMIT", 0.2)


def test_a_guest_that_nothing_can_wake_hangs(hasty: None) -> None:
    ended = run_guest("sti; 1: hlt; jmp 1b", timeout=30).result
    assert (ended.result, ended.orderly) == (result.HANG, False)
    assert ended.detail == "halted at rip 0x2, and no timer or device will wake it"


def test_a_guest_that_somebody_attends_to_is_left_asleep(hasty: None) -> None:
    with machine_with(assemble("sti; 1: hlt; jmp 1b")) as (machine, _board):
        machine.control.attended = True
        assert machine.run(timeout=0.4).result == result.TIMEOUT


def test_one_guest_run_twice_ends_with_the_same_state() -> None:
    source = "mov cx, 50; 1: rdtsc; out 0x80, eax; in al, 0x10; loop 1b; out 0xf4, al"
    first, second = run_guest(source), run_guest(source)
    assert first.ports_written == second.ports_written
    assert len(set(first.ports_written)) == 50
    assert (first.registers, first.memory) == (second.registers, second.memory)


def test_a_reset_by_the_guest_ends_the_run_unless_it_may_reboot() -> None:
    class ResetPort:
        @hookimpl
        def add_devices(self, machine: Machine) -> None:
            machine.bus.claim_ports(
                0xCF9, 1, None, lambda _port, _size, _value: machine.reset_request("port 0xcf9"), "reset"
            )

    # The word at 0x500 survives the reset: RAM keeps what it has.
    source = (
        "inc word ptr [0x500]; mov ax, [0x500]; out 0x80, ax; cmp ax, 3; je 1f; "
        "mov dx, 0xcf9; mov al, 6; out dx, al; 2: jmp 2b; 1: out 0xf4, al"
    )
    once = run_guest(source, plugins=[ResetPort()])
    assert (once.result.result, once.result.detail, once.ports_written) == (result.RESET, "port 0xcf9", [1])
    again = run_guest(source, plugins=[ResetPort()], reboot=True)
    assert (again.result.result, again.ports_written) == (result.SHUTDOWN, [1, 2, 3])
    assert [fields["reason"] for event, fields in again.events if event == "guest.reset"] == ["guest-reset"] * 2


def test_a_machine_is_closed_once_and_again() -> None:
    with machine_with(assemble("out 0xf4, al")) as (machine, _board):
        machine.run(timeout=5)
        machine.close()
    machine.close()


def test_a_machine_that_was_never_run_can_be_closed() -> None:
    with machine_with(assemble("out 0xf4, al")) as (machine, _board):
        assert machine.status == "prelaunch"


def test_the_digest_of_ram_is_that_of_its_bytes_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    # High memory in a machine of 3 MiB: the hole for devices begins at 1 MiB.
    monkeypatch.setattr(memory, "LOW_RAM_LIMIT", 1 << 20)
    with machine_with(b"\xf4" * 0x1000, ram=3 << 20) as (machine, _board):
        assert (machine.memory.low_ram_size, machine.memory.high_ram_size) == (1 << 20, 2 << 20)
        machine.memory.write(0x1234, b"low")
        machine.memory.write(memory.HIGH_RAM_BASE + (2 << 20) - 4, b"high")
        expected = bytearray(3 << 20)
        expected[0x1234:0x1237], expected[-4:] = b"low", b"high"
        assert machine.memory.ram_digest() == hashlib.sha256(expected).hexdigest()
