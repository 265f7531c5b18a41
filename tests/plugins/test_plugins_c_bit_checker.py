"""Guests that use memory through the wrong view: they fail as on hardware, and the checker names the instruction."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import pytest
from long_guest import long_guest, remap, table_entry
from machines import machine_with

from sevplug.core import events, result
from sevplug.core.bus import Device
from sevplug.core.config import ObjectSpec
from sevplug.core.errors import ConfigError
from sevplug.core.hookspecs import hookimpl
from sevplug.core.machine import Machine
from sevplug.core.result import RunResult
from sevplug.plugins.c_bit_checker import CBitCheckerPlugin
from sevplug.plugins.sev import SevPlugin
from sevplug.plugins.symbols import read_symbols

PAGE, OTHER = 0x200000, 0x201000
SEV = ObjectSpec("sev-emulated", "sev0", {"cbitpos": "47", "reduced-phys-bits": "1"})
DMA_READ, DMA_WRITE = 0x90, 0x94
WORD = 0x1122334455667788
STORE = f"mov rbx, {WORD:#x}; mov [{PAGE:#x}], rbx;"
# What is at "here" is the instruction that is wrong.
SAY_WHERE = "lea rax, [rip+here]; out 0x80, eax;"
REPORT_RBX = "mov eax, ebx; out 0x80, eax; shr rbx, 32; mov eax, ebx; out 0x80, eax;"


class DmaPlugin:
    """A device that reads 8 bytes at the address written to its port, or stores `WORD` there."""

    name = "dma"

    def __init__(self) -> None:
        self.read: list[int] = []

    @hookimpl
    def add_devices(self, machine: Machine) -> None:
        def on_read(_port: int, _size: int, gpa: int) -> None:
            self.read.append(int.from_bytes(machine.memory.read(gpa, 8), "little"))

        def on_write(_port: int, _size: int, gpa: int) -> None:
            machine.memory.write(gpa, WORD.to_bytes(8, "little"))

        device = Device()
        machine.add_device(device)
        machine.bus.claim_ports(DMA_READ, 1, None, on_read, self.name)
        machine.bus.claim_ports(DMA_WRITE, 1, None, on_write, self.name)


@attrs.frozen
class Found:
    """What a guest came to."""

    run: RunResult
    reports: list[int]
    findings: list[str]
    dma: list[int]
    summary: dict[str, Any]

    @property
    def word(self) -> int:
        """What `REPORT_RBX` said, behind what `SAY_WHERE` did."""
        return self.reports[1] | self.reports[2] << 32

    def only(self, text: str) -> None:
        """The one finding is ``text``, at the instruction that the guest said."""
        assert self.findings == [f"C-bit: at rip {self.reports[0]:#x}: {text}"]


def live(code: str, **options: Any) -> Found:
    checker, dma = CBitCheckerPlugin(), DmaPlugin()
    with machine_with(
        long_guest(code), SevPlugin(), checker, dma, objects=(SEV,), options=options, machine_options={}
    ) as (machine, board):
        run = machine.run(timeout=10)
        told = [fields["text"] for name, fields in board.events if name == events.WARNING]
        assert [text for text in told if text.startswith("C-bit")] == checker.findings
        return Found(
            run,
            [value for _port, _size, value in board.board.written],
            checker.findings,
            dma.read,
            machine.summary(run),
        )


def test_a_page_that_is_converted_as_it_should_be_is_no_finding() -> None:
    found = live(
        f"{STORE} {remap(PAGE, PAGE, private=False)} {STORE} mov rbx, [{PAGE:#x}]; {SAY_WHERE} here: {REPORT_RBX}"
    )
    assert (found.run.result, found.word, found.findings) == (result.SHUTDOWN, WORD, [])
    assert found.summary["c_bit_checker"] == {"findings": [], "left_out": 0}


def test_a_page_that_nobody_wrote_is_no_finding_by_whichever_view_it_is_read() -> None:
    read = f"mov rbx, [{PAGE:#x}];"
    found = live(f"{read} {remap(PAGE, PAGE, private=False)} {read} {remap(PAGE, PAGE, private=True)} {read}")
    assert (found.run.result, found.findings) == (result.SHUTDOWN, [])


def test_a_page_that_was_read_before_it_was_written_is_told_of_all_the_same() -> None:
    found = live(
        f"mov rbx, [{PAGE:#x}]; {STORE} {remap(PAGE, PAGE, private=False)} {SAY_WHERE} here: mov rbx, [{PAGE:#x}];"
    )
    found.only("page 0x200000 is read as shared memory, and the CPU wrote it last as private memory: "
               "hardware reads ciphertext")  # fmt: skip


def test_a_forgotten_c_bit_reads_ciphertext() -> None:
    found = live(
        f"{STORE} {remap(PAGE, PAGE, private=False)} {SAY_WHERE} xor ecx, ecx; nop;"
        f"here: mov rbx, [{PAGE:#x}]; {REPORT_RBX}"
    )
    assert found.word != WORD
    found.only("page 0x200000 is read as shared memory, and the CPU wrote it last as private memory: "
               "hardware reads ciphertext")  # fmt: skip


def test_what_was_written_shared_reads_as_garbage_through_a_private_mapping() -> None:
    found = live(
        f"{remap(PAGE, PAGE, private=False)} {STORE} {remap(PAGE, PAGE, private=True)} {SAY_WHERE}"
        f"here: mov rbx, [{PAGE:#x}]; {REPORT_RBX}"
    )
    assert found.word != WORD
    found.only("page 0x200000 is read as private memory, and the CPU wrote it last as shared memory: "
               "hardware reads what its bytes decipher to")  # fmt: skip


def test_a_dma_buffer_that_was_left_private_is_ciphertext_to_the_device() -> None:
    found = live(f"{STORE} mov eax, {PAGE:#x}; mov ebx, eax; {SAY_WHERE} mov eax, ebx; here: out {DMA_READ:#x}, eax")
    assert found.dma != [WORD]
    found.only(
        "a device reads page 0x200000, and the CPU wrote it last as private memory: hardware hands it ciphertext"
    )


def test_what_a_device_wrote_to_private_memory_is_garbage() -> None:
    found = live(
        f"{STORE} mov eax, {PAGE:#x}; out {DMA_WRITE:#x}, eax; {SAY_WHERE} here: mov rbx, [{PAGE:#x}]; {REPORT_RBX}"
    )
    assert found.word != WORD
    found.only("page 0x200000 is read as private memory, and a device wrote it last as shared memory: "
               "hardware reads what its bytes decipher to")  # fmt: skip


def test_a_page_table_in_a_shared_page_is_garbage_to_the_walk() -> None:
    entries = f"mov rax, {0x202007 | 1 << 47:#x}; mov [{PAGE:#x}], rax; mov [{PAGE + 8:#x}], rax;"
    found = live(
        f"{remap(PAGE, PAGE, private=False)} {entries}"
        f"mov dword ptr [0x15010], {PAGE | 7:#x}; mov rax, cr3; mov cr3, rax;"
        f"{SAY_WHERE} nop; here: mov rbx, [0x400000]"
    )
    assert found.run.result == result.FAULT  # there is no handler for the page fault
    assert found.findings[0] == (
        f"C-bit: at rip {found.reports[0]:#x}: page 0x200000 is read as a page table, "
        "and the CPU wrote it last as shared memory: hardware takes what its bytes decipher to"
    )


CODE = "mov dword ptr [0x200000], 0xc3c3c3c3;"


def test_instructions_from_a_shared_page_are_private_all_the_same() -> None:
    found = live(f"{CODE} {remap(PAGE, PAGE, private=False)} mov eax, {PAGE:#x}; out 0x80, eax; call rax")
    assert found.run.result == result.SHUTDOWN
    found.only("instructions are fetched from page 0x200000 through a mapping without the C-bit, "
               "and the CPU wrote it last as private memory: hardware runs it deciphered")  # fmt: skip


def test_code_that_was_written_shared_is_garbage() -> None:
    found = live(
        f"{remap(PAGE, PAGE, private=False)} {CODE} {remap(PAGE, PAGE, private=True)}"
        f"mov eax, {PAGE:#x}; out 0x80, eax; call rax"
    )
    assert found.findings[0] == (
        "C-bit: at rip 0x200000: instructions are fetched from page 0x200000, "
        "and the CPU wrote it last as shared memory: hardware runs what its bytes decipher to"
    )


def test_a_page_that_is_mapped_both_ways_at_once() -> None:
    found = live(f"{STORE} {remap(OTHER, PAGE, private=False)} {SAY_WHERE} here: mov [{OTHER:#x}], rbx")
    (finding,) = found.findings
    assert finding.endswith(
        "page 0x200000 is mapped as shared memory at 0x201000 and as private at 0x200000: "
        "on hardware caches may hold both, and one store is lost"
    )


def test_a_c_bit_at_another_place_is_a_reserved_bit() -> None:
    wrong = f"mov dword ptr [{table_entry(PAGE) + 4:#x}], {1 << 46 - 32:#x}; mov rax, cr3; mov cr3, rax;"
    found = live(f"{wrong} {SAY_WHERE} nop; here: mov rbx, [{PAGE:#x}]")
    assert found.run.result == result.FAULT
    found.only(f"the entry at {table_entry(PAGE):#x} for 0x200000 has address bit 46 set, and the C-bit is bit 47: "
               "hardware takes a page fault for a reserved bit")  # fmt: skip


FORGOTTEN = (
    f"{STORE} {remap(PAGE, PAGE, private=False)} {SAY_WHERE} here: mov rbx, [{PAGE:#x}]; mov al, 9; out 0x80, al"
)


def test_it_stops_the_guest_where_that_is_asked_for() -> None:
    found = live(FORGOTTEN, c_bit_checker="stop")
    assert (found.run.result, found.run.detail, found.run.orderly) == (result.STOPPED, found.findings[0], False)


def test_it_is_silent_where_it_is_off() -> None:
    found = live(FORGOTTEN, c_bit_checker="off")
    assert (found.run.result, found.findings) == (result.SHUTDOWN, [])
    assert "c_bit_checker" not in found.summary


def test_each_instruction_is_told_of_once_and_no_more_than_twenty() -> None:
    loops = "".join(
        f"2: mov [{PAGE:#x}], rbx; {remap(OTHER, PAGE, private=False)} mov rcx, [{OTHER:#x}];" for _ in range(15)
    )
    found = live(f"mov r8d, 2; 1: {loops} dec r8d; jnz 1b")
    assert len(found.findings) == 20
    assert found.summary["c_bit_checker"]["left_out"] > 0


def test_symbols_name_the_instruction(tmp_path: Path) -> None:
    where = live(FORGOTTEN).reports[0]
    (tmp_path / "System.map").write_text(f"{where - 0x10:016x} T forgets_the_c_bit\n                 U elsewhere\n")
    found = live(FORGOTTEN, symbols=str(tmp_path / "System.map"))
    assert found.findings[0].startswith(f"C-bit: at rip {where:#x} (forgets_the_c_bit+0x10): page 0x200000 is read")


@pytest.mark.parametrize(
    ("text", "says"),
    [("nonsense\n", "line 1: expected ADDRESS TYPE NAME, as nm prints it"), (None, "No such file or directory")],
)
def test_a_symbol_file_that_is_none_is_refused(tmp_path: Path, text: str | None, says: str) -> None:
    path = tmp_path / "symbols"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigError) as refused:
        read_symbols(str(path))
    assert str(refused.value) == f"--symbols {path}: {says}"
