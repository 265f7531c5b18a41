"""Points to make snapshots at, and what two runs have to have in common."""

from __future__ import annotations

import hashlib
from typing import Any

import attrs
from machines import REGISTERS, TestBoardPlugin

from sevplug.core.machine import Machine


@attrs.frozen
class Outcome:
    """What a run leaves that another that went the same way has to leave too."""

    result: str
    written: list[int]
    registers: dict[str, int]
    now: int
    ram: str
    rom: str


def run_to(machine: Machine, board: TestBoardPlugin, value: int, timeout: float = 20) -> None:
    """Run until the guest writes ``value`` to the report port, and stand still behind it."""
    written = board.board.written
    seen = len(written)

    def reached() -> bool:
        return any(found == value for _port, _size, found in written[seen:])

    listening = board.board.on_write
    board.board.on_write = lambda: machine.engine.leave() if reached() else None
    try:
        assert machine.advance(timeout, reached)
        assert reached()
    finally:
        board.board.on_write = listening


def finish(machine: Machine, board: TestBoardPlugin, timeout: float = 20) -> Outcome:
    """Run to the end."""
    run = machine.run(timeout)
    return outcome(machine, board, run.result)


def outcome(machine: Machine, board: TestBoardPlugin, result: str = "") -> Outcome:
    """What is left now."""
    flash = hashlib.sha256(b"".join(machine.memory.read(entry.gpa, entry.size) for entry in machine.memory.ranges[1:]))
    return Outcome(
        result,
        [value for _port, _size, value in board.board.written],
        {name: machine.cpu.get(name) for name in REGISTERS},
        machine.clock.now,
        machine.ram_digest(),
        flash.hexdigest(),
    )


def plain_attributes(thing: object) -> dict[str, Any]:
    """The attributes of ``thing`` that hold a state, not a wire or another part."""
    kinds = (bool, int, bytes, bytearray, str, type(None))

    def plain(value: object) -> bool:
        if isinstance(value, list | tuple | set) or type(value).__name__ == "deque":
            return all(plain(element) for element in value)  # type: ignore[attr-defined]
        if isinstance(value, dict):
            return all(plain(element) for element in [*value, *value.values()])
        return isinstance(value, kinds)

    slots = {name: getattr(thing, name) for name in getattr(type(thing), "__slots__", ()) if hasattr(thing, name)}
    held = {**slots, **getattr(thing, "__dict__", {})}
    return {name: value for name, value in held.items() if plain(value)}
