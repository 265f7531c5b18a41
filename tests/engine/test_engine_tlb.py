"""The size of the engine's translation cache: what a guest does neither shrinks nor doubles it for long."""

from __future__ import annotations

import pytest
from assembler import assemble
from guests import long64
from machines import machine_with
from reference_cpu import DebugConsolePlugin

from sevplug.core.engine.tlb import ENTRIES

KERNEL_WITH_SMAP, KERNEL = 0, 2
TOUCH = "mov rdi, 0x400000; 2: mov al, [rdi]; add rdi, 0x1000; cmp rdi, 0x1000000; jb 2b;"
# A translation that made room for another one, and is forgotten then, is counted twice.
FORGET = "mov rdi, 0x400000; 2: mov al, [rdi]; invlpg [rdi]; add rdi, 0x1000; cmp rdi, 0x1000000; jb 2b;"
# CR4.PGE on and off: the engine forgets everything.
ENGINES_FLUSH = "mov rax, cr4; btc rax, 7; mov cr4, rax;"
# A load of CR3 while CR4.PGE is clear.
OUR_FLUSH = "mov rax, cr4; btr rax, 7; mov cr4, rax; mov rax, cr3; mov cr3, rax;"


def sizes(work: str, end: str = "") -> list[int]:
    """The entries of both supervisor modes behind ``work`` and a flush, eight times, and ``end``."""
    source = long64(f"mov ebp, 8; 1: {work} {ENGINES_FLUSH} dec ebp; jnz 1b; {end}")
    with machine_with(assemble(source), DebugConsolePlugin()) as (machine, _board):
        assert machine.run(timeout=20).result == "shutdown"
        return [machine.engine.cpu.translations.entries(mode) for mode in (KERNEL_WITH_SMAP, KERNEL)]


@pytest.mark.parametrize("work", ["", TOUCH])
def test_the_supervisors_cache_keeps_its_size(work: str) -> None:
    assert sizes(work) == [ENTRIES, ENTRIES]


def test_where_the_engine_counted_wrongly_the_next_flush_puts_it_right() -> None:
    # Mostly it doubles, and on a slow host, by whose clock the engine goes then, it shrinks.
    assert any(sizes(TOUCH + FORGET)[1] != ENTRIES for _ in range(5))
    assert sizes(TOUCH + FORGET, OUR_FLUSH) == [ENTRIES, ENTRIES]
