"""MSI-X: a function's interrupts as messages to the local APIC (PCI Local Bus Specification 3.0, section 6.8.2)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sevplug.board.local_apic import BASE, LocalApic
from sevplug.core.snapshot.fields import load_fields, save_fields

ENTRY_SIZE = 16
PENDING_OFFSET = 0x800
BAR_SIZE = 0x1000
_CONTROL, _MASKED = 12, 1
_LOGICAL, _FIXED, _LOWEST = 1 << 2, 0, 1

_SAVED = ("enabled", "_masked", "_pending", "_table")

SendMessage = Callable[[int, int], None]
"""(address, data): the memory write that is an interrupt."""


def to_local_apic(apic: LocalApic) -> SendMessage:
    """Messages as the CPU's bus decodes them (APM volume 2, section 16.12); what is for nobody is lost."""

    def send(address: int, data: int) -> None:
        mode, vector = data >> 8 & 7, data & 0xFF
        if address & ~0xF_FFFF != BASE & ~0xF_FFFF or mode not in (_FIXED, _LOWEST):
            return
        if apic.matches(address >> 12 & 0xFF, logical=bool(address & _LOGICAL)):
            apic.deliver(vector, level=False)

    return send


class MsixTable:
    """The vector table and the pending bits behind a BAR; ``send`` carries what is triggered."""

    def __init__(self, vectors: int, send: SendMessage) -> None:
        """``vectors``: 1..64."""
        self.vectors = vectors
        self._send = send
        self.reset()

    def reset(self) -> None:
        """Power-on: MSI-X off, every vector masked."""
        self.enabled = False
        self._masked = False
        self._pending = 0
        self._table = bytearray(ENTRY_SIZE * self.vectors)
        for vector in range(self.vectors):
            self._table[ENTRY_SIZE * vector + _CONTROL] = _MASKED

    def save(self) -> dict[str, Any]:
        """The table, the pending bits and the control bits, as plain data."""
        return save_fields(self, _SAVED)

    def load(self, state: Mapping[str, Any]) -> None:
        """Put back what `save` gave."""
        load_fields(self, _SAVED, state)

    def set_control(self, *, enabled: bool, masked: bool) -> None:
        """The enable bit and the function mask of the capability's message control."""
        self.enabled, self._masked = enabled, masked
        self._flush()

    def trigger(self, vector: int) -> None:
        """Send the message of ``vector``, or keep it pending while it is masked; nothing for a vector there is not."""
        if vector < self.vectors and self.enabled:
            self._pending |= 1 << vector
            self._flush()

    def read(self, offset: int, size: int) -> int:
        """The guest reads the BAR; little-endian."""
        if offset >= PENDING_OFFSET:
            return self._pending >> 8 * (offset - PENDING_OFFSET) & (1 << 8 * size) - 1
        return int.from_bytes(self._table[offset : offset + size], "little")

    def write(self, offset: int, size: int, value: int) -> None:
        """The guest writes the BAR: whole words of the table only."""
        if size not in (4, 8) or offset % 4 or offset + size > len(self._table):
            return
        self._table[offset : offset + size] = value.to_bytes(size, "little")
        self._flush()

    def _flush(self) -> None:
        if not self.enabled or self._masked:
            return
        for vector in range(self.vectors):
            entry = ENTRY_SIZE * vector
            if self._pending >> vector & 1 and not self._table[entry + _CONTROL] & _MASKED:
                self._pending &= ~(1 << vector)
                address = int.from_bytes(self._table[entry : entry + 8], "little")
                self._send(address, int.from_bytes(self._table[entry + 8 : entry + 12], "little"))
