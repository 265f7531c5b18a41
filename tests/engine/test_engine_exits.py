"""Exits that compiled code answers: what it does is what Python's does, at the same virtual time."""

from __future__ import annotations

import random
from typing import Any

import compiled_walk
import pytest
from long_guest import PAGES, long_guest, remap
from machines import machine_with

from sevplug import native
from sevplug.core import result
from sevplug.core.clock import Timer
from sevplug.core.config import ObjectSpec
from sevplug.core.engine.intercepts import EXIT_CR3_WRITE, EXIT_PAUSE, EXIT_RDTSC, Intercepts
from sevplug.core.hookspecs import hookimpl
from sevplug.core.machine import Machine
from sevplug.plugins.sev import SevPlugin

SEV = ObjectSpec("sev-emulated", "sev0", {"cbitpos": "47", "reduced-phys-bits": "1"})
REPORT = "mov ecx, eax; out 0x80, eax; mov eax, edx; out 0x80, eax; mov eax, ecx"
RDTSC = f"rdtsc; {REPORT}"
WRITE_RDTSC = "mov word ptr [rdi], 0x310f; mov byte ptr [rdi + 2], 0xc3"
# Where code lies in RAM.
PLACE = 0x30000
FREQUENT = (EXIT_CR3_WRITE, EXIT_PAUSE, EXIT_RDTSC)
# Loads of CR3 whose register and prefixes differ; those of the global bit make some translations stay.
LOADS = [f"mov rax, cr3; mov {register}, rax; mov cr3, {register}" for register in ("rax", "rbx", "rsi", "r8", "r13")]
GLOBAL = "mov rax, cr4; {} rax, 7; mov cr4, rax"


def in_ram(code: str) -> bytes:
    """The image of a guest that runs ``code`` in 64-bit mode from RAM, then ends in order."""
    return long_guest(f"""
        lea rsi, [rip + 60f]; mov edi, {PLACE:#x}; mov ecx, offset 61f - 60f; rep movsb; mov eax, {PLACE:#x}; jmp rax
    60: {code}; mov al, 1; out 0xf4, al; hlt
    61:
    """)


class Ticking:
    """A plug-in with a timer that is always soon due, and says where it found the guest."""

    name = "ticking"

    def __init__(self) -> None:
        self.seen: list[tuple[int, int]] = []

    @hookimpl
    def machine_init(self, machine: Machine) -> None:
        def tick() -> None:
            self.seen.append((machine.clock.now, machine.cpu.rip))
            machine.clock.start(timer, machine.clock.now + 12_345)

        timer = Timer(tick)
        machine.clock.start(timer, 500)


@pytest.fixture(autouse=True)
def built() -> None:
    compiled_walk.library()


def live(code: str, monkeypatch: pytest.MonkeyPatch, *, pure: bool, plugins: tuple[Any, ...] = ()) -> dict[str, Any]:
    """Run a guest; what it said, what it left, when it ended, and the exits that came to Python."""
    monkeypatch.setenv(native.PURE_VARIABLE, "1" if pure else "0")
    ticking = Ticking()
    image = in_ram(code)
    with (
        pytest.MonkeyPatch.context() as patch,
        machine_with(image, SevPlugin(), ticking, *plugins, objects=(SEV,), machine_options={}) as (machine, board),
    ):
        exits: list[int] = []
        exit_ = Intercepts.exit
        patch.setattr(Intercepts, "exit", lambda own, code, info: exits.append(code) or exit_(own, code, info))
        assert machine.run(timeout=20).result == result.SHUTDOWN
        return {
            "reports": [value for _port, _size, value in board.board.written],
            "ram": machine.memory.ram_digest(),
            "now": machine.clock.now,
            "timer": ticking.seen,
            "counters": machine.engine.count(),
            "cpu": machine.engine.save()["registers"] if not machine.engine.inside else None,
            "exits": exits,
        }


def both(code: str, monkeypatch: pytest.MonkeyPatch) -> tuple[dict[str, Any], list[int]]:
    """What both come to, and the frequent exits that Python saw although compiled code was there."""
    compiled, python = (live(code, monkeypatch, pure=pure) for pure in (False, True))
    seen = [code for code in compiled.pop("exits") if code in FREQUENT]
    assert len(seen) <= len([code for code in python.pop("exits") if code in FREQUENT])
    assert compiled == python
    return compiled, seen


def test_the_counter_is_the_same_and_python_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    run, seen = both(f"{RDTSC}; mov r9d, 300; 1: {RDTSC}; dec r9d; jnz 1b", monkeypatch)
    assert len(run["reports"]) == 602
    # A tick in ten comes with a timer that is due.
    assert len(seen) < 100


def test_pauses_let_time_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    run, seen = both("mov ecx, 1000; 1: pause; loop 1b", monkeypatch)
    assert run["now"] > 11_000_000
    assert len(seen) < 1000


@pytest.mark.parametrize("load", LOADS)
@pytest.mark.parametrize("pages", [3, 300], ids=["few pages", "many pages"])
@pytest.mark.parametrize("kept", ["bts", "btr"], ids=["global pages", "no global pages"])
def test_a_load_of_cr3_ends_the_translations_that_it_ends(
    monkeypatch: pytest.MonkeyPatch, load: str, pages: int, kept: str
) -> None:
    touch = f"mov edi, {PAGES:#x}; mov ecx, {pages}; 1: mov [rdi], edi; add edi, 0x1000; loop 1b"
    entry = f"mov dword ptr [0x16000], {PAGES + 0x2007:#x}; {load}; mov eax, [{PAGES:#x}]; out 0x80, eax"
    run, _seen = both(f"{GLOBAL.format(kept)}; {touch}; {load}; {touch}; {entry}", monkeypatch)
    assert run["reports"] == [PAGES + 0x2000]


@pytest.mark.parametrize(
    "code",
    [
        # Prefixes that change nothing, a counter whose instruction the engine names by another exit.
        ".byte 0x66; rdtsc; out 0x80, eax", ".byte 0x2e; rdtsc; out 0x80, eax", ".byte 0x48; rdtsc; out 0x80, eax",
        "rdtscp; out 0x80, eax; mov eax, ecx; out 0x80, eax", ".byte 0x66; pause", ".byte 0xf2; pause",
        # An instruction that lies at the end of its page, or on two.
        f"mov edi, {PAGES + 0xFFD:#x}; {WRITE_RDTSC}; call rdi; out 0x80, eax",
        f"mov edi, {PAGES + 0xFFF:#x}; {WRITE_RDTSC}; call rdi; out 0x80, eax",
        # Behind STI and MOV SS, whose shadow it ends.
        "sti; rdtsc; cli; out 0x80, eax", "mov eax, ss; mov ss, eax; pause; rdtsc; out 0x80, eax",
        # Code that is written anew between two executions.
        f"mov edi, {PAGES:#x}; {WRITE_RDTSC}; call rdi; out 0x80, eax; mov word ptr [rdi], 0x90f3; call rdi",
    ],
)  # fmt: skip
def test_what_is_out_of_the_ordinary_is_the_same(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    both(f"{code}; {RDTSC}", monkeypatch)


def test_the_trap_flag_comes_behind_each(monkeypatch: pytest.MonkeyPatch) -> None:
    handler = """
        lea rdi, [rip + 7f]; mov rsi, 0x18000; mov word ptr [rsi + 16], di; mov word ptr [rsi + 18], 0x18
        mov word ptr [rsi + 20], 0x8e00; shr rdi, 16; mov word ptr [rsi + 22], di; shr rdi, 16; mov [rsi + 24], rdi
        mov word ptr [0x1a000], 31; mov qword ptr [0x1a002], 0x18000; lidt [0x1a000]; jmp 8f
    7:  push rax; mov eax, [rsp + 8]; out 0x80, eax; pop rax; iretq
    8:
    """
    traps_on, traps_off = (f"pushfq; {change} qword ptr [rsp], 8; popfq" for change in ("bts", "btr"))
    code = f"{traps_on}; rdtsc; pause; mov rax, cr3; mov cr3, rax; nop; {traps_off}"
    run, seen = both(handler + code, monkeypatch)
    assert len(run["reports"]) >= 6
    assert seen


def test_random_programs_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    dice = random.Random(20)
    for _ in range(6):
        words = []
        for number in range(60):
            words += dice.choices(
                [RDTSC, "pause", dice.choice(LOADS), GLOBAL.format(dice.choice(["bts", "btr"])),
                 f"mov edi, {PAGES + dice.randrange(16) * 0x1000:#x}; add [rdi], edi; mov eax, [rdi]; out 0x80, eax",
                 remap(PAGES + dice.randrange(16) * 0x1000, PAGES + dice.randrange(16) * 0x1000,
                       private=dice.random() < 0.8)]
            )  # fmt: skip
            words.append(f"mov ecx, {number}")
        both("; ".join(words), monkeypatch)


def test_a_plug_in_sees_each_exit(monkeypatch: pytest.MonkeyPatch) -> None:
    class Watching:
        name = "watching"

        def __init__(self) -> None:
            self.seen: list[int] = []

        @hookimpl
        def intercept(self, code: int) -> None:
            self.seen.append(code)

    watching = Watching()
    live(f"{RDTSC}; pause; mov rax, cr3; mov cr3, rax", monkeypatch, pure=False, plugins=(watching,))
    assert [code for code in watching.seen if code in FREQUENT][-3:] == [EXIT_RDTSC, EXIT_PAUSE, EXIT_CR3_WRITE]


def test_steps_stop_behind_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(native.PURE_VARIABLE, "0")
    image = in_ram("mov ebx, 5; 1: rdtsc; pause; dec ebx; jnz 1b")
    with machine_with(image, SevPlugin(), objects=(SEV,), machine_options={}, paused=True) as (machine, _board):
        machine.debug.breakpoints.insert(PLACE)
        machine.resume()
        assert machine.advance(10, until=lambda: machine.status == "debug")
        machine.debug.breakpoints.remove(PLACE)
        walked = []
        for _ in range(9):
            walked.append(machine.cpu.rip - PLACE)
            machine.debug.step()
            machine.advance(10, until=lambda: not machine.debug.stepping)
    assert walked == [0, 5, 7, 9, 11, 5, 7, 9, 11]
