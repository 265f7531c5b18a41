"""Points to make snapshots at, and what two runs have to have in common."""

from __future__ import annotations

import ctypes
import hashlib
from typing import Any

import attrs
from machines import REGISTERS, TestBoardPlugin

from sevplug.core.engine import internals as at
from sevplug.core.machine import Machine

# Of the engine's state, up to where a reset clears it: what is derived, put off, or left over between instructions.
DERIVED = {
    "arithmetic flags, put off": range(at.CC_SRC - 8, at.CC_OP + 4),
    "how the x87 unit and SSE round": range(at.FPDP + 8, at.MXCSR),
    # No instruction reads them; the engine copies what happens to lie on its stack there.
    **{
        f"the upper halves of xmm{number}": range(
            at.XMM + at.XMM_SIZE * number + 16, at.XMM + at.XMM_SIZE * (number + 1)
        )
        for number in range(32)
    },
    "temporary registers": range(at.XMM + 32 * at.XMM_SIZE, at.XMM + 33 * at.XMM_SIZE + 8),
    "an exception's error code and kind, and where it returns to": range(at.ERROR_CODE, at.DR0),
    "pointers to breakpoints": range(at.DR7 + 8, at.OLD_EXCEPTION),
}


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
        machine.memory.ram_digest(),
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


def raw_state(machine: Machine) -> bytes:
    """The engine's structure, without what is derived."""
    state = bytearray(ctypes.string_at(machine.engine.cpu.state.env_address, at.END_OF_RESET))
    for places in DERIVED.values():
        state[places.start : places.stop] = bytes(len(places))
    return bytes(state)


def differences(first: bytes, second: bytes) -> list[str]:
    return [
        f"{offset:#x}"
        for offset in range(0, len(first), 8)
        if first[offset : offset + 8] != second[offset : offset + 8]
    ]
