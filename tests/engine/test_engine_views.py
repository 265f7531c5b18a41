"""The CPU and memory in two forms: code, tables, stacks and copies across the views, in each of its modes."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
from guests import protected32
from long_guest import long_guest, remap, table_entry
from machines import machine_with
from reference_cpu import DebugConsolePlugin

from sevplug.core import result
from sevplug.core.config import ObjectSpec
from sevplug.core.hookspecs import hookimpl
from sevplug.core.machine import Machine
from sevplug.plugins.sev import SevPlugin

PAGE, ALIAS = 0x200000, 0x201000
ROM = 0xD0000000
SEV = ObjectSpec("sev-emulated", "sev0", {"cbitpos": "47", "reduced-phys-bits": "1"})
SHARED_ALIAS = remap(ALIAS, PAGE, private=False)


@attrs.frozen
class Seen:
    """How a guest ended, what it reported, and its page by both views."""

    result: str
    reports: list[int]
    private: bytes
    shared: bytes


def live(code: str, **config: Any) -> Seen:
    settings: dict[str, Any] = {"objects": (SEV,), "machine_options": {}} | config
    with machine_with(long_guest(code), SevPlugin(), **settings) as (machine, board):
        run = machine.run(timeout=20)
        written = [value for _port, _size, value in board.board.written]
        memory = machine.memory
        return Seen(
            run.result,
            written,
            memory.read(PAGE, 4096, private=True),
            memory.read(PAGE, 4096, private=False, dma=False),
        )


def report(value: int) -> str:
    return f"mov eax, {value:#x}; out 0x80, eax;"


def function(address: int, value: int) -> str:
    """Code that writes, at ``address``, a function that returns ``value``: mov eax, value; ret."""
    ends = f"mov byte ptr [{address:#x}], 0xb8; mov byte ptr [{address + 5:#x}], 0xc3;"
    return f"{ends} mov dword ptr [{address + 1:#x}], {value};"


def call(address: int) -> str:
    return f"mov ebx, {address:#x}; call rbx; out 0x80, eax;"


def test_self_modifying_code_on_a_private_page_executes_what_was_written() -> None:
    seen = live("".join(f"{function(PAGE, value)} {call(PAGE)}" for value in (1, 2, 3)))
    assert (seen.result, seen.reports) == (result.SHUTDOWN, [1, 2, 3])


def test_a_code_page_that_was_converted_there_and_back_runs_nothing_stale() -> None:
    """Its bytes were replaced through the shared view meanwhile, by what deciphers to another function."""
    copy = f"mov esi, {0x300000:#x}; mov edi, {ALIAS:#x}; mov ecx, 512; rep movsq;"
    keep = f"mov esi, {ALIAS:#x}; mov edi, 0x300000; mov ecx, 512; rep movsq;"
    other = f"{function(PAGE, 7)} {call(PAGE)} {SHARED_ALIAS} {keep}"
    seen = live(
        # The ciphertext of a page whose function returns 7, kept aside; then one that returns 1, run.
        f"{other} {function(PAGE, 1)} {call(PAGE)} {call(PAGE)} {copy} {call(PAGE)}"
    )
    assert (seen.result, seen.reports) == (result.SHUTDOWN, [7, 1, 1, 7])


def test_code_that_reads_its_own_page_through_a_shared_alias_makes_progress() -> None:
    # mov eax, [ALIAS+0x800]; mov eax, 5; ret
    bytes_of = bytes([0x8B, 0x04, 0x25]) + (ALIAS + 0x800).to_bytes(4, "little") + bytes([0xB8, 5, 0, 0, 0, 0xC3])
    code = "".join(f"mov byte ptr [{PAGE + at:#x}], {byte:#x};" for at, byte in enumerate(bytes_of))
    seen = live(f"{SHARED_ALIAS} {code} {call(PAGE)} {call(PAGE)}")
    assert (seen.result, seen.reports) == (result.SHUTDOWN, [5, 5])


def test_a_store_through_the_shared_view_spoils_its_block_and_no_other() -> None:
    fill = f"mov rax, 0x4141414141414141; mov edi, {PAGE:#x}; mov ecx, 512; rep stosq;"
    seen = live(f"{fill} {SHARED_ALIAS} mov dword ptr [{ALIAS + 0x124:#x}], 0x12345678; mov al, [{PAGE:#x}]")
    assert seen.private[:0x120] == b"A" * 0x120
    assert seen.private[0x130:] == b"A" * (4096 - 0x130)
    assert seen.private[0x120:0x130] != b"A" * 16
    assert seen.shared[0x124:0x128] == bytes.fromhex("78563412")


def test_a_copy_between_the_views_of_two_pages_moves_plaintext() -> None:
    """As firmware fills a bounce buffer: read private, written shared."""
    fill = f"mov rax, 0x4242424242424242; mov edi, {PAGE + 0x2000:#x}; mov ecx, 512; rep stosq;"
    move = f"mov esi, {PAGE + 0x2000:#x}; mov edi, {PAGE:#x}; mov ecx, 4096; rep movsb;"
    seen = live(f"{fill} {remap(PAGE, PAGE, private=False)} {move} lock inc dword ptr [{PAGE:#x}]")
    assert seen.shared == b"CBBB" + b"B" * 4092
    assert seen.private != seen.shared


def test_memory_that_nobody_wrote_is_zeros_shared_and_something_else_private() -> None:
    read = "mov rbx, [rdi]; or rbx, [rdi+8]; test rbx, rbx; setnz al; movzx eax, al; out 0x80, eax;"
    seen = live(f"mov edi, {PAGE:#x}; {read} {remap(ALIAS, ALIAS, private=False)} mov edi, {ALIAS:#x}; {read}")
    assert seen.reports == [1, 0]


class RomPlugin:
    """A page of ROM, all ones."""

    name = "rom"

    @hookimpl
    def add_devices(self, machine: Machine) -> None:
        machine.memory.add_rom(ROM, b"\xff" * 4096, self.name)


def test_a_store_to_rom_through_the_other_view_goes_nowhere_and_converts_nothing() -> None:
    store = f"{remap(ALIAS, ROM, private=True)} mov dword ptr [{ALIAS:#x}], 0x12345678;"
    image = long_guest(f"{store} {remap(ALIAS, ROM, private=False)} mov eax, [{ALIAS:#x}]; out 0x80, eax")
    sev = {"objects": (SEV,), "machine_options": {}}
    with machine_with(image, SevPlugin(), RomPlugin(), **sev) as (machine, board):
        rom = machine.memory.find(ROM)
        assert rom is not None
        assert rom.forms is not None
        assert machine.run(timeout=20).result == result.SHUTDOWN
        assert [value for _port, _size, value in board.board.written] == [0xFFFFFFFF]
        assert not rom.forms.conversions


def test_a_translation_of_the_other_view_is_gone_when_its_page_was_converted() -> None:
    """Whether all translations went since it was cached (a load of CR3, for pages that are not global) or not."""
    read = f"mov eax, [{PAGE:#x}]; out 0x80, eax;"
    seen = live(
        f"mov dword ptr [{PAGE:#x}], 5; mov dword ptr [{ALIAS:#x}], 6; {SHARED_ALIAS} {read}"
        f"mov ebx, [{ALIAS:#x}]; {read} mov [{ALIAS:#x}], ebx; {read} mov rax, cr3; mov cr3, rax; {read}"
    )
    assert (seen.result, seen.reports) == (result.SHUTDOWN, [5, 5, 5, 5])


def test_a_table_that_was_spoilt_after_a_walk_remembered_it_is_not_walked_as_it_was() -> None:
    """The page table itself is overwritten, one block of it, through a shared alias."""
    spoil = (
        f"{remap(ALIAS, 0x16000, private=False)} mov qword ptr [{ALIAS + (table_entry(PAGE + 0x8000) & 0xFFF):#x}], 0;"
    )
    touch = f"mov rax, [{PAGE + 0x8000:#x}]; mov rax, cr3; mov cr3, rax;"
    seen = live(
        f"{touch} {touch} {report(1)} {spoil} mov rax, cr3; mov cr3, rax; mov rax, [{PAGE + 0x8000:#x}]; {report(2)}"
    )
    # What 16 bytes of zeros decipher to is no entry that could be used, and there is no handler.
    assert (seen.result, seen.reports) == (result.FAULT, [1])


def test_the_processor_writes_accessed_and_dirty_bits_into_private_tables() -> None:
    seen = live(f"mov dword ptr [{ALIAS:#x}], 1; mov eax, [{table_entry(ALIAS):#x}]; and eax, 0x60; out 0x80, eax")
    assert seen.reports == [0x60]


def test_a_stack_in_a_shared_page_serves_calls() -> None:
    seen = live(
        f"{remap(PAGE, PAGE, private=False)} mov rsp, {PAGE + 0x800:#x};"
        f"call 9f; {report(2)} jmp 8f; 9: {report(1)} ret; 8:"
    )
    assert (seen.result, seen.reports) == (result.SHUTDOWN, [1, 2])


@pytest.mark.parametrize("encrypt", ["on", "off"])
def test_before_paging_all_is_private_and_a_guest_sees_no_difference(encrypt: str) -> None:
    """The handlers, stacks and tables of a 32-bit guest, with and without a cipher."""
    console = DebugConsolePlugin()
    spec = attrs.evolve(SEV, properties={**SEV.properties, "encrypt-memory": encrypt})
    code = "mov eax, 0x11223344; mov [0x40000], eax; mov ebx, [0x40000]; mov eax, ebx; call emit32"
    from assembler import assemble

    with machine_with(
        assemble(protected32("ud2", code)), SevPlugin(), console, objects=(spec,), machine_options={}
    ) as (machine, _board):
        assert machine.run(timeout=10).result == result.SHUTDOWN
        assert (machine.memory.read(0x40000, 4) == bytes.fromhex("44332211")) is (encrypt == "off")
    assert b"\x44\x33\x22\x11" in bytes(console.console.data)
