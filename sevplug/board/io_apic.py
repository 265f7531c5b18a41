"""The I/O APIC at 0xFEC00000: 24 pins, edge or level (Intel 82093AA; behaviour as QEMU's hw/intc/ioapic.c)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sevplug.board.local_apic import LocalApic
from sevplug.board.pic import Pic
from sevplug.core.bus import Device
from sevplug.core.snapshot.fields import load_fields, save_fields

if TYPE_CHECKING:
    from sevplug.core.machine import Machine

BASE = 0xFEC00000
PINS = 24
_VERSION = 0x20
_LOGICAL, _PENDING, _ACTIVE_LOW, _REMOTE_IRR, _LEVEL, _MASKED = 1 << 11, 1 << 12, 1 << 13, 1 << 14, 1 << 15, 1 << 16
_READ_ONLY = _PENDING | _REMOTE_IRR
_WRITABLE = 0xFF00_0000_0001_FFFF & ~_READ_ONLY
_FIXED, _LOWEST, _EXTINT = 0, 1, 7
_SELECT, _WINDOW, _EOI = 0x00, 0x10, 0x40
_SAVED = ("_entries", "_inputs", "_waiting", "_select", "_id")
_ID_REGISTER, _VERSION_REGISTER, _ARBITRATION, _FIRST_ENTRY = 0, 1, 2, 0x10


class IoApic(Device):
    """Turns the level of a pin into a message to ``local_apic``, as its redirection entry says."""

    name = "io_apic"

    def __init__(self, local_apic: LocalApic, pic: Pic) -> None:
        self._local_apic = local_apic
        self._pic = pic
        local_apic.on_eoi = self.end_of_interrupt
        self._registers()

    def attach(self, machine: Machine) -> None:
        machine.bus.claim_mmio(BASE, 0x1000, self._read, self._write, self.name)

    def reset(self) -> None:
        self._registers()

    def _registers(self) -> None:
        self._entries = [_MASKED] * PINS
        self._inputs = 0  # pins that are high
        self._waiting = 0  # pins with an interrupt that was not sent yet
        self._select = 0
        self._id = 0

    def save(self) -> dict[str, Any]:
        return save_fields(self, _SAVED)

    def load(self, state: Mapping[str, Any]) -> None:
        if len(state["entries"]) != PINS:
            raise ValueError(f"{len(state['entries'])} pins, expected {PINS}")
        load_fields(self, _SAVED, state)

    def set_pin(self, pin: int, level: bool) -> None:
        """Drive ``pin`` (0..23); polarity is not looked at, high is active."""
        bit = 1 << pin
        entry = self._entries[pin]
        if level:
            rising = not self._inputs & bit
            self._inputs |= bit
            if entry & _LEVEL:
                self._waiting |= bit
                self._service(pin)
            elif rising and not entry & _MASKED:
                # An edge at a masked pin is lost (82093AA, section 3.2.4).
                self._waiting |= bit
                self._service(pin)
        else:
            self._inputs &= ~bit
            if entry & _LEVEL:
                self._waiting &= ~bit

    def end_of_interrupt(self, vector: int) -> None:
        """The CPU has ended a level-triggered ``vector``: what is still high is sent again."""
        for pin, entry in enumerate(self._entries):
            if entry & 0xFF == vector and entry & _LEVEL and entry & _REMOTE_IRR:
                self._entries[pin] = entry & ~_REMOTE_IRR
                self._service(pin)

    def _service(self, pin: int) -> None:
        entry = self._entries[pin]
        bit = 1 << pin
        if not self._waiting & bit or entry & (_MASKED | _REMOTE_IRR):
            return
        level = bool(entry & _LEVEL)
        if not level:
            self._waiting &= ~bit
        mode, vector = entry >> 8 & 7, entry & 0xFF
        if not self._local_apic.matches(entry >> 56, logical=bool(entry & _LOGICAL)):
            return
        if mode == _EXTINT:
            if self._pic.output:
                self._local_apic.deliver(self._pic.acknowledge(), level=False)
        elif mode in (_FIXED, _LOWEST):
            if level:
                self._entries[pin] = entry | _REMOTE_IRR
            self._local_apic.deliver(vector, level=level)

    # -- registers ---------------------------------------------------------------------------------------------------

    def _read(self, gpa: int, size: int) -> int:
        offset = gpa & 0xFFF
        if offset == _SELECT:
            return self._select
        if offset == _WINDOW and size == 4:
            return self._read_register()
        return 0

    def _read_register(self) -> int:
        select = self._select
        if select in (_ID_REGISTER, _ARBITRATION):
            return self._id << 24
        if select == _VERSION_REGISTER:
            return _VERSION | PINS - 1 << 16
        pin = (select - _FIRST_ENTRY) >> 1
        if 0 <= pin < PINS:
            return self._entries[pin] >> (32 if select & 1 else 0) & 0xFFFF_FFFF
        return 0

    def _write(self, gpa: int, size: int, value: int) -> None:
        offset = gpa & 0xFFF
        if offset == _SELECT:
            self._select = value & 0xFF
        elif offset == _WINDOW and size == 4:
            self._write_register(value)
        elif offset == _EOI and size == 4:
            self.end_of_interrupt(value & 0xFF)

    def _write_register(self, value: int) -> None:
        select = self._select
        if select == _ID_REGISTER:
            self._id = value >> 24 & 0x0F
            return
        pin = (select - _FIRST_ENTRY) >> 1
        if not 0 <= pin < PINS:
            return
        old = self._entries[pin]
        new = old & 0xFFFF_FFFF | value << 32 if select & 1 else old & ~0xFFFF_FFFF | value
        new = new & _WRITABLE | old & _READ_ONLY
        bit = 1 << pin
        if not new & _LEVEL:
            new &= ~_REMOTE_IRR
            if old & _LEVEL:
                self._waiting &= ~bit
        elif self._inputs & bit:
            self._waiting |= bit
        self._entries[pin] = new
        self._service(pin)
