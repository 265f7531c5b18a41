"""Running a guest from breakpoint to breakpoint, and by steps."""

from __future__ import annotations

from assembler import BASE

from sevplug.core.machine import Machine


def mark(number: int) -> str:
    """A NOP that `place` finds again."""
    return f".byte 0x0f, 0x1f, 0x40, {number}"


def place(image: bytes, number: int, base: int = BASE) -> int:
    """The linear address of `mark`, where the image lies at ``base``."""
    found = image.index(bytes([0x0F, 0x1F, 0x40, number]))
    assert image.rindex(bytes([0x0F, 0x1F, 0x40, number])) == found
    return base + found


def to_breakpoint(machine: Machine) -> int:
    """Run the guest to its next breakpoint, which is where the linear address says."""
    machine.resume()
    assert machine.advance(5, until=lambda: machine.status == "debug")
    assert machine.status == "debug", "the guest ended first"
    return machine.debug.linear_rip


def step(machine: Machine) -> int:
    """One step; the linear address of the next instruction."""
    done: list[bool] = []
    machine.debug.step(lambda: done.append(True))
    assert machine.advance(5, until=lambda: bool(done))
    assert done, "the guest ended first"
    return machine.debug.linear_rip


def finish(machine: Machine) -> str:
    machine.resume()
    return machine.run(timeout=5).result


def steps(machine: Machine, count: int) -> list[int]:
    return [step(machine) for _ in range(count)]
