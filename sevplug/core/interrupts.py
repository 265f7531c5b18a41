"""What the core asks of an interrupt controller; the controllers themselves are devices of a board."""

from __future__ import annotations

from typing import Protocol


class InterruptSource(Protocol):
    """The device behind the CPU's INTR pin."""

    def acknowledge(self) -> int | None:
        """The CPU takes the interrupt: the vector 0..255 to deliver, or None when it was withdrawn meanwhile."""


class NoInterrupts:
    """A machine without an interrupt controller."""

    def acknowledge(self) -> int | None:
        return None
