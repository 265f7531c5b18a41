"""RDRAND from a seed, so that the same machine run twice ends with the same memory.

The engine's own comes from a generator that nobody can seed.  Its feature bit is cleared, the instruction is unknown to
the engine, and emulated here (APM 3, RDRAND: CF says that the value is good, the other arithmetic flags are cleared).
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from sevplug.core.engine.opcodes import OPERAND_SIZE, REX, prefix_length
from sevplug.core.engine.vcpu import CC_MASK, GENERAL, EngineCpu

_CARRY = 1
_MEMBER = 6  # 0F C7 /6


class SeededRandom:
    """The generator of one machine; no source of secrets."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self.reset()

    def reset(self) -> None:
        """Start over, as the machine does."""
        self._generator = random.Random(self._seed)
        self._jitter = random.Random(~self._seed)

    def save(self) -> dict[str, Any]:
        """Where both generators are, as plain data."""
        return {"random": _save(self._generator), "jitter": _save(self._jitter)}

    def load(self, state: Mapping[str, Any]) -> None:
        """Put back what `save` gave; TypeError or ValueError for what cannot have come from there."""
        _load(self._generator, state["random"])
        _load(self._jitter, state["jitter"])

    def jitter(self) -> int:
        """Nanoseconds, 0..255, by which the next thing takes longer."""
        return self._jitter.getrandbits(8)

    def emulate(self, cpu: EngineCpu, code: bytes) -> int | None:
        """Execute the instruction at the start of ``code`` if it is RDRAND; returns its length in bytes, else None."""
        in_64bit = cpu.in_64bit_code
        start = prefix_length(code, rex=in_64bit)
        if code[start : start + 2] != b"\x0f\xc7" or code[start + 2] >> 3 & 7 != _MEMBER or code[start + 2] < 0xC0:
            return None
        rex = code[start - 1] if in_64bit and start and code[start - 1] in REX else 0
        number = code[start + 2] & 7 | (rex & 1) << 3
        name = GENERAL[number]
        value = self._generator.getrandbits(64)
        narrow = (OPERAND_SIZE in code[:start]) == cpu.in_wide_code
        if rex & 8:
            cpu.set(name, value)
        elif narrow:
            cpu.set(name, cpu.get(name) & ~0xFFFF | value & 0xFFFF)
        else:
            cpu.set(name, value & 0xFFFFFFFF)
        cpu.set("rflags", cpu.get("rflags") & ~CC_MASK | _CARRY)
        return start + 3


def _save(generator: random.Random) -> list[int]:
    # The words of the Mersenne Twister; the rest of the state is for `gauss`, which nobody calls.
    return list(generator.getstate()[1])


def _load(generator: random.Random, words: list[int]) -> None:
    version, _words, gauss = generator.getstate()
    generator.setstate((version, tuple(words), gauss))
