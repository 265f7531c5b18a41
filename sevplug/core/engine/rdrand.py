"""RDRAND and the jitter of time from a seed, so that the same machine run twice ends with the same memory.

The engine's own comes from a generator that nobody can seed.  Its feature bit is cleared, the instruction is unknown to
the engine, and emulated here (APM 3, RDRAND: CF says that the value is good, the other arithmetic flags are cleared).
"""

from __future__ import annotations

import random
from array import array
from collections.abc import Mapping
from typing import Any

from sevplug.core.engine.opcodes import OPERAND_SIZE, REX, prefix_length
from sevplug.core.engine.vcpu import CC_MASK, GENERAL, EngineCpu

_CARRY = 1
_WORD = (1 << 64) - 1
_MEMBER = 6  # 0F C7 /6


class Jitter:
    """How much longer than said the next thing takes: Steele, Lea and Flood's SplitMix64 (2014), its highest byte.

    So simple because compiled code goes on with it, in ``state``, an array of one.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed & _WORD
        self.state = array("Q", [self._seed])

    def reset(self) -> None:
        """Start over."""
        self.state[0] = self._seed

    def next(self) -> int:
        """Nanoseconds, 0..255."""
        self.state[0] = word = self.state[0] + 0x9E37_79B9_7F4A_7C15 & _WORD
        word = (word ^ word >> 30) * 0xBF58_476D_1CE4_E5B9 & _WORD
        word = (word ^ word >> 27) * 0x94D0_49BB_1331_11EB & _WORD
        return (word ^ word >> 31) >> 56


class SeededRandom:
    """The generator of one machine; no source of secrets."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self.jitter = Jitter(seed)
        self.reset()

    def reset(self) -> None:
        """Start over, as the machine does."""
        self._generator = random.Random(self._seed)
        self.jitter.reset()

    def save(self) -> dict[str, Any]:
        """Where both generators are, as plain data."""
        return {"random": _save(self._generator), "jitter": self.jitter.state[0]}

    def load(self, state: Mapping[str, Any]) -> None:
        """Put back what `save` gave; TypeError or ValueError for what cannot have come from there."""
        jitter = int(state["jitter"])
        if not 0 <= jitter <= _WORD:
            raise ValueError("a generator that is not of 64 bits")
        _load(self._generator, state["random"])
        self.jitter.state[0] = jitter

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
