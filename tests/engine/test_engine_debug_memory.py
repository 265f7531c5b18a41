"""Memory as a debugger sees and changes it: by the guest's tables, without a trace in them."""

from __future__ import annotations

from collections.abc import Iterator

from assembler import assemble
from debugging import finish, mark, place, steps, to_breakpoint
from guests import long64
from long_guest import C_BIT, PAGES, long_guest, remap, table_entry
from machines import TestBoardPlugin, machine_with
from sev_guests import sev_guest, sev_object

from sevplug.core import result
from sevplug.core.machine import Machine


def sev_stop(code: str, *marks: int) -> Iterator[tuple[Machine, bytes]]:
    """A paused SEV guest that runs ``code`` in 64-bit mode, with breakpoints at its ``marks``."""
    image = long_guest(code)
    with sev_guest(sev_object(cbitpos=str(C_BIT)), firmware=image, paused=True, plugins=(TestBoardPlugin(),)) as guest:
        for number in marks:
            guest.machine.debug.breakpoints.insert(place(image, number))
        yield guest.machine, image


def test_steps_cross_pages_and_views() -> None:
    """An instruction across two pages, of which one is converted under it, and a load through the other view."""
    code = f"""
    mov rdi, {PAGES + 0x1FFD:#x}
    mov dword ptr [rdi], 0x12345678
    {remap(PAGES + 0x2000, PAGES + 0x2000, private=False)}
    {mark(1)}
    mov eax, [rdi]
    mov ebx, [rdi+8]
    {mark(2)}
"""
    for machine, image in sev_stop(code, 1):
        to_breakpoint(machine)
        assert steps(machine, 3)[2] == place(image, 2)
        assert machine.cpu.get("rax") & 0xFFFFFF == 0x345678
        assert finish(machine) == result.SHUTDOWN


def test_a_debuggers_look_leaves_no_trace() -> None:
    page = PAGES + 0x5000
    for machine, _image in sev_stop(f"{mark(1)}; nop", 1):
        to_breakpoint(machine)
        entry = table_entry(page)
        machine.memory.patch(entry, (page | 7 | 1 << C_BIT).to_bytes(8, "little"), private=True)
        before = machine.memory.page_map(), machine.memory.page_counts()
        seen = machine.engine.peek(page + 0xFF0, 32)
        assert len(seen) == 32
        assert seen[:16] == machine.memory.read(page + 0xFF0, 16, private=True, dma=False)
        assert (machine.memory.page_map(), machine.memory.page_counts()) == before
        assert int.from_bytes(machine.engine.peek(entry, 8), "little") & 0x60 == 0  # neither accessed nor dirty


def test_a_debuggers_store_is_what_the_guest_reads_through_the_same_view() -> None:
    private, shared = PAGES + 0x6000, PAGES + 0x7000
    code = f"""
    {remap(shared, shared, private=False)}
    mov dword ptr [{private:#x}], 1; mov dword ptr [{shared:#x}], 2
    {mark(1)}
    mov eax, [{private:#x}]; mov ebx, [{shared:#x}]
    {mark(2)}
"""
    for machine, image in sev_stop(code, 1, 2):
        to_breakpoint(machine)
        assert machine.engine.poke(private, b"abcd")
        assert machine.engine.poke(shared, b"efgh")
        assert machine.memory.read(private, 4, dma=False) != b"abcd"
        assert machine.memory.read(shared, 4, dma=False) == b"efgh"
        assert to_breakpoint(machine) == place(image, 2)
        assert machine.cpu.get("rax").to_bytes(8, "little")[:4] == b"abcd"
        assert machine.cpu.get("rbx").to_bytes(8, "little")[:4] == b"efgh"


def test_code_that_a_debugger_changes_is_executed_changed_in_rom_too() -> None:
    image = assemble(long64(f"mov ecx, 2; 1: {mark(1)}; mov al, 1; out 0x80, al; loop 1b"))
    with machine_with(image, paused=True) as (machine, board):
        machine.debug.breakpoints.insert(place(image, 1))
        to_breakpoint(machine)
        to_breakpoint(machine)
        assert machine.engine.poke(place(image, 1) + 5, b"\x07")
        assert finish(machine) == result.SHUTDOWN
        assert [value for _port, _size, value in board.board.written] == [1, 7]


def test_what_is_not_mapped_or_no_memory_is_not_read_and_not_half_written() -> None:
    image = assemble(long64(f"{mark(1)}; nop"))
    with machine_with(image, paused=True) as (machine, _board):
        machine.debug.breakpoints.insert(place(image, 1))
        to_breakpoint(machine)
        engine = machine.engine
        assert engine.peek(0x7FFF_0000_0000, 4) == b""
        assert engine.peek(0x8000_0000_0000, 4) == b""  # not canonical
        end = 16 << 20
        assert len(engine.peek(end - 8, 16)) == 8
        before = engine.peek(end - 8, 8)
        assert not engine.poke(end - 8, b"x" * 16)
        assert engine.peek(end - 8, 8) == before
