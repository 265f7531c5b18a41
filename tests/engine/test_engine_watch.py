"""Loops that end nowhere are told from those that compute, wait for a device, or rest."""

from __future__ import annotations

import pytest
from assembler import assemble
from guests import protected32
from interrupting import TestInterruptsPlugin
from machines import machine_with, run_guest

from sevplug.core import events, result
from sevplug.core.engine import watch
from sevplug.core.engine.watch import DeadLoop


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten looks, one a few milliseconds."""
    monkeypatch.setattr(watch, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(watch, "LOOKS", 10)
    monkeypatch.setattr(watch, "_WATCH_SECONDS", 0.01)


def verdicts(looks: list[tuple[bytes, int, bool]]) -> list[bool]:
    loop = DeadLoop()
    return [loop.look(registers, io, rested=rested) for registers, io, rested in looks]


def test_the_same_registers_long_enough_are_a_dead_loop() -> None:
    seen = verdicts([(b"here", 7, False)] * (watch.LOOKS + 1))
    assert seen == [False] * watch.LOOKS + [True]


def test_an_interrupt_handler_now_and_then_changes_nothing() -> None:
    looks = [(b"handler" if number % 6 == 0 else b"here", 7, False) for number in range(watch.LOOKS + 1)]
    assert verdicts(looks)[-1]


@pytest.mark.parametrize(
    "change",
    [
        lambda number: (number.to_bytes(2, "little"), 7, False),
        lambda number: (b"here", number // 8, False),
        lambda number: (b"here", 7, number % 8 == 0),
        lambda number: (b"ab"[number % 2 :][:1], 7, False),
    ],
    ids=["it computes", "it uses a device", "it rests", "it goes round in a circle"],
)
def test_what_changes_is_no_dead_loop(change) -> None:  # type: ignore[no-untyped-def]
    assert not any(verdicts([change(number) for number in range(5 * watch.LOOKS)]))


@pytest.mark.parametrize("loop", ["cli; 1: jmp 1b", "sti; 1: pause; jmp 1b", "1: cmp byte ptr [0x4000], 1; jne 1b"])
def test_a_dead_loop_ends_the_run_and_says_where(hasty: None, loop: str) -> None:
    ended = run_guest(protected32(loop), timeout=30).result
    assert ended.result == result.HANG
    assert ended.detail.startswith("a loop that nothing ends, at rip 0x")
    assert not ended.orderly


def test_a_loop_that_counts_is_left_alone(hasty: None) -> None:
    code = "mov ecx, 60000000; 1: dec ecx; jnz 1b; mov al, 1; out 0xf4, al; jmp ."
    assert run_guest(protected32(code), timeout=30).result.result == result.SHUTDOWN


def test_where_somebody_attends_a_dead_loop_is_a_warning_once(hasty: None) -> None:
    with machine_with(assemble("1: jmp 1b")) as (machine, board):
        machine.control.attended = True

        def told() -> list[str]:
            return [fields["text"] for name, fields in board.events if name == events.WARNING]

        assert machine.advance(timeout=30, until=lambda: bool(told()))
        assert machine.run(timeout=0.5).result == result.TIMEOUT
    assert len(told()) == 1
    assert told()[0].startswith("the guest seems to hang: a loop that nothing ends, at rip 0x")


def test_on_the_hosts_clock_a_timer_interrupts_a_loop_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "STALL_SECONDS", 1000.0)
    interrupts = TestInterruptsPlugin()
    code = "sti; mov al, 50; out 0x91, al; 3: jmp 3b"
    with machine_with(assemble(protected32(code)), interrupts, clock="host") as (machine, _board):
        machine.run(timeout=10)
    assert interrupts.device.taken
