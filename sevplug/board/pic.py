"""The pair of 8259A interrupt controllers (Intel 231468; behaviour as QEMU's hw/intc/i8259.c).

Master at 0x20/0x21, slave at 0xA0/0xA1 on input 2, edge/level control at 0x4D0/0x4D1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from sevplug.board.ports import read_bytes, write_bytes
from sevplug.core.bus import Device
from sevplug.core.snapshot.fields import load_fields, save_fields

if TYPE_CHECKING:
    from sevplug.core.machine import Machine

_NONE = 8  # a priority below all others
_SPURIOUS = 7
_SAVED = (
    "elcr", "irr", "imr", "isr", "base", "_inputs", "_top", "_read_isr", "_poll", "_special_mask", "_auto_eoi",
    "_rotate_on_auto_eoi", "_fully_nested", "_needs_icw4", "_single", "_init_step",
)  # fmt: skip


class _Chip:
    """One 8259A without its wiring."""

    def __init__(self, elcr_mask: int, cascade: int) -> None:
        self._elcr_mask = elcr_mask
        self._cascade = cascade  # the input a slave hangs on, as a mask; 0 for a slave
        self.reset()

    def reset(self) -> None:
        """Power-on."""
        self.elcr = 0
        self.irr = 0
        self._initialise(0)
        self._init_step = 0

    def _initialise(self, icw1: int) -> None:
        self.irr &= self.elcr
        self._inputs = 0
        self.imr = 0
        self.isr = 0
        self._top = 0  # the input that has the highest priority
        self.base = 0
        self._read_isr = False
        self._poll = False
        self._special_mask = False
        self._auto_eoi = False
        self._rotate_on_auto_eoi = False
        self._fully_nested = False
        self._needs_icw4 = bool(icw1 & 1)
        self._single = bool(icw1 & 2)
        self._init_step = 1

    def set_input(self, number: int, level: bool) -> None:
        mask = 1 << number
        if not level:
            self._inputs &= ~mask
            if self.elcr & mask:
                self.irr &= ~mask
            return
        if self.elcr & mask or not self._inputs & mask:
            self.irr |= mask
        self._inputs |= mask

    def _priority(self, mask: int) -> int:
        """The highest priority in ``mask``: 0 is the first, `_NONE` when there is none."""
        if not mask:
            return _NONE
        rotated = ((mask << 8 | mask) >> self._top) & 0xFF
        return (rotated & -rotated).bit_length() - 1

    def pending(self) -> int:
        """The input to interrupt the CPU for, or -1."""
        request = self._priority(self.irr & ~self.imr)
        if request == _NONE:
            return -1
        served = self.isr
        if self._special_mask:
            served &= ~self.imr
        if self._fully_nested:
            served &= ~self._cascade
        if request >= self._priority(served):
            return -1
        return (request + self._top) & 7

    def acknowledge(self, number: int) -> None:
        """INTA for input ``number``."""
        if not self._auto_eoi:
            self.isr |= 1 << number
        elif self._rotate_on_auto_eoi:
            self._top = (number + 1) & 7
        if not self.elcr >> number & 1:
            self.irr &= ~(1 << number)

    def read(self, register: int) -> int:
        if self._poll:
            self._poll = False
            number = self.pending()
            if number < 0:
                return 0
            self.acknowledge(number)
            return number | 0x80
        if register:
            return self.imr
        return self.isr if self._read_isr else self.irr

    def write(self, register: int, value: int) -> None:
        if register == 0:
            if value & 0x10:
                self._initialise(value)
            elif value & 0x08:
                self._operation_3(value)
            else:
                self._operation_2(value)
        elif self._init_step == 0:
            self.imr = value
        elif self._init_step == 1:
            self.base = value & 0xF8
            self._init_step = 2 if not self._single else 3 if self._needs_icw4 else 0
        elif self._init_step == 2:
            self._init_step = 3 if self._needs_icw4 else 0
        else:
            self._fully_nested = bool(value & 0x10)
            self._auto_eoi = bool(value & 0x02)
            self._init_step = 0

    def _operation_3(self, value: int) -> None:
        if value & 0x04:
            self._poll = True
        if value & 0x02:
            self._read_isr = bool(value & 1)
        if value & 0x40:
            self._special_mask = bool(value & 0x20)

    def _operation_2(self, value: int) -> None:
        command, number = value >> 5, value & 7
        if command in (0, 4):
            self._rotate_on_auto_eoi = command == 4
        elif command in (1, 5):
            priority = self._priority(self.isr)
            if priority != _NONE:
                number = (priority + self._top) & 7
                self.isr &= ~(1 << number)
                if command == 5:
                    self._top = (number + 1) & 7
        elif command == 3:
            self.isr &= ~(1 << number)
        elif command == 6:
            self._top = (number + 1) & 7
        elif command == 7:
            self.isr &= ~(1 << number)
            self._top = (number + 1) & 7

    def write_elcr(self, value: int) -> None:
        self.elcr = value & self._elcr_mask


class Pic(Device):
    """Both chips; ``on_output`` is called with the level of INTR whenever it changes."""

    name = "pic"

    def __init__(self) -> None:
        self._master = _Chip(0xF8, 1 << 2)
        self._slave = _Chip(0xDE, 0)
        self.output = False
        self.on_output: Callable[[bool], None] = lambda _level: None

    def attach(self, machine: Machine) -> None:
        for first, count in ((0x20, 2), (0xA0, 2), (0x4D0, 2)):
            machine.bus.claim_ports(first, count, self._read, self._write, self.name)

    def reset(self) -> None:
        self._master.reset()
        self._slave.reset()
        self._update()

    def save(self) -> dict[str, Any]:
        chips = {"master": save_fields(self._master, _SAVED), "slave": save_fields(self._slave, _SAVED)}
        return {**chips, "output": self.output}

    def load(self, state: Mapping[str, Any]) -> None:
        load_fields(self._master, _SAVED, state["master"])
        load_fields(self._slave, _SAVED, state["slave"])
        load_fields(self, ("output",), state)

    def set_irq(self, irq: int, level: bool) -> None:
        """Drive ISA interrupt ``irq`` (0..15; 2 is the cascade and has no wire)."""
        if irq >= 8:
            self._slave.set_input(irq - 8, level)
        elif irq != 2:
            self._master.set_input(irq, level)
        self._update()

    def acknowledge(self) -> int:
        """INTA: the vector 0..255; the spurious one (input 7) when the request has gone."""
        number = self._master.pending()
        if number == 2:
            self._master.acknowledge(2)
            number = self._slave.pending()
            if number >= 0:
                self._slave.acknowledge(number)
            vector = self._slave.base + (number if number >= 0 else _SPURIOUS)
        elif number >= 0:
            self._master.acknowledge(number)
            vector = self._master.base + number
        else:
            vector = self._master.base + _SPURIOUS
        self._update()
        return vector

    def _update(self) -> None:
        # The cascade follows the slave's INT as it stands; an edge would be lost while the master serves input 2.
        self._master.irr = (self._master.irr & ~4) | (4 if self._slave.pending() >= 0 else 0)
        level = self._master.pending() >= 0
        if level != self.output:
            self.output = level
            self.on_output(level)

    def _read(self, port: int, size: int) -> int:
        if size != 1:
            return read_bytes(self._read_byte, port, size, (port | 1) + 1)
        return self._read_byte(port)

    def _read_byte(self, port: int) -> int:
        chip = self._slave if port in (0xA0, 0xA1, 0x4D1) else self._master
        if port >= 0x4D0:
            return chip.elcr
        value = chip.read(port & 1)
        self._update()
        return value

    def _write(self, port: int, size: int, value: int) -> None:
        if size != 1:
            write_bytes(self._write_byte, port, size, value, (port | 1) + 1)
        else:
            self._write_byte(port, value)

    def _write_byte(self, port: int, value: int) -> None:
        chip = self._slave if port in (0xA0, 0xA1, 0x4D1) else self._master
        if port >= 0x4D0:
            chip.write_elcr(value)
        else:
            chip.write(port & 1, value)
        self._update()
