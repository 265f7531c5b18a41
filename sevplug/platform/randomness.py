"""Random bytes that are the same each time."""

from __future__ import annotations

import hashlib

import attrs


@attrs.define
class SeededRandom:
    """A source of bytes that a seed determines: SHAKE-256 of the seed and a counter. Never for keys that shall hold."""

    seed: bytes = attrs.field(repr=False)
    _calls: int = 0

    def __call__(self, size: int) -> bytes:
        """The next `size` bytes."""
        self._calls += 1
        return hashlib.shake_256(self._calls.to_bytes(8, "little") + self.seed).digest(size)
