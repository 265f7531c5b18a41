"""The 8254 timer and port 0x61 (Intel 231164; behaviour as QEMU's hw/timer/i8254.c and hw/audio/pcspk.c).

Counters at 0x40..0x42, control word at 0x43, 1.193182 MHz.  Counter 0 drives IRQ 0; counter 2 is gated by port 0x61,
which shows its output in bit 5 and toggles the refresh bit at each read.  Counting is binary; BCD counting, which no
system software uses, counts in binary too, as in QEMU.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import attrs

from sevplug.board.irq import IrqLine
from sevplug.board.ports import read_bytes, write_bytes
from sevplug.core.bus import Device
from sevplug.core.clock import Clock, Timer
from sevplug.core.snapshot.fields import load_fields, save_fields

if TYPE_CHECKING:
    from sevplug.core.machine import Machine

FREQUENCY = 1_193_182
_SECOND = 10**9
_SAVED = ("_speaker", "_refresh")
_SAVED_OF_COUNTER = (
    "gate", "mode", "access", "bcd", "count", "loaded_at", "running", "_latched", "_status?", "_read_high",
    "_write_low?",
)  # fmt: skip
_LOW, _HIGH, _BOTH = 1, 2, 3


@attrs.define(eq=False)
class _Counter:
    """One of the three counters; times in virtual nanoseconds."""

    clock: Clock
    gate: bool
    mode: int = 3
    access: int = 0  # no control word yet: counts as the low byte
    bcd: bool = False
    count: int = 0x10000
    loaded_at: int = 0
    running: bool = False
    _latched: list[int] = attrs.field(factory=list)
    _status: int | None = None
    _read_high: bool = False
    _write_low: int | None = None

    def ticks(self) -> int:
        """Input clocks since the count was loaded."""
        return (self.clock.now - self.loaded_at) * FREQUENCY // _SECOND

    def value(self) -> int:
        """The count as the guest reads it, 16 bits."""
        ticks = self.ticks()
        if self.mode in (0, 1, 4, 5):
            return (self.count - ticks) & 0xFFFF
        if self.mode == 3:
            return (self.count - 2 * ticks % self.count) & 0xFFFF
        return (self.count - ticks % self.count) & 0xFFFF

    def output(self) -> bool:
        """The level of OUT."""
        ticks = self.ticks()
        if self.mode == 0:
            return self.running and ticks >= self.count
        if self.mode == 1:
            return not self.running or ticks >= self.count
        if self.mode == 2:
            return ticks % self.count != self.count - 1
        if self.mode == 3:
            return ticks % self.count < (self.count + 1) // 2
        return ticks != self.count

    def next_rise(self) -> int | None:
        """When OUT rises next, or None."""
        if not self.running:
            return None
        ticks = self.ticks()
        if self.mode in (2, 3):
            target = (ticks // self.count + 1) * self.count
        elif self.mode in (0, 4) and ticks < self.count:
            target = self.count
        else:
            return None
        return self.loaded_at - (-target * _SECOND // FREQUENCY)

    def control(self, word: int) -> None:
        """A control word other than a latch command: stops until a count is written."""
        self.access = word >> 4 & 3
        mode = word >> 1 & 7
        self.mode = mode - 4 if mode > 5 else mode
        self.bcd = bool(word & 1)
        self.running = False
        self._latched.clear()
        self._status = None
        self._read_high = False
        self._write_low = None

    def latch_count(self) -> None:
        if not self._latched:
            self._latched = self._bytes()
            self._read_high = False

    def latch_status(self) -> None:
        if self._status is None:
            self._status = self.output() << 7 | self.access << 4 | self.mode << 1 | self.bcd

    def _bytes(self) -> list[int]:
        value = self.value()
        return [byte for bit, byte in ((_LOW, value & 0xFF), (_HIGH, value >> 8)) if (self.access or _LOW) & bit]

    def read(self) -> int:
        if self._status is not None:
            status, self._status = self._status, None
            return status
        if self._latched:
            return self._latched.pop(0)
        value = self.value()
        if self.access == _BOTH:
            high = self._read_high
            self._read_high = not high
        else:
            high = self.access == _HIGH
        return value >> 8 if high else value & 0xFF

    def write(self, value: int) -> bool:
        """A byte of the count; True when the count is complete and counting starts anew."""
        if self.access in (0, _LOW):
            self._load(value)
        elif self.access == _HIGH:
            self._load(value << 8)
        elif self._write_low is None:
            self._write_low = value
            return False
        else:
            low, self._write_low = self._write_low, None
            self._load(value << 8 | low)
        return True

    def _load(self, count: int) -> None:
        self.count = count or 0x10000
        self.loaded_at = self.clock.now
        # Modes 1 and 5 wait for a rising gate.
        self.running = self.mode not in (1, 5)

    def set_gate(self, gate: bool) -> None:
        """The GATE input; a rising edge (re)starts modes 1, 2, 3 and 5."""
        if gate and not self.gate and self.mode in (1, 2, 3, 5):
            self.loaded_at = self.clock.now
            self.running = True
        self.gate = gate


class Pit(Device):
    """The timer chip; ``irq`` is IRQ 0."""

    name = "pit"

    def __init__(self, irq: IrqLine) -> None:
        self._irq = irq
        self._timer = Timer(self._rise)

    def attach(self, machine: Machine) -> None:
        self._clock = machine.clock
        self.reset()
        machine.bus.claim_ports(0x40, 4, self._read, self._write, self.name)
        machine.bus.claim_ports(0x61, 1, self._read_61, self._write_61, self.name)

    def reset(self) -> None:
        now = self._clock.now
        self._counters = [_Counter(self._clock, gate=number != 2, loaded_at=now) for number in range(3)]
        self._speaker = 0
        self._refresh = False
        self._clock.cancel(self._timer)

    def save(self) -> dict[str, Any]:
        counters = [save_fields(counter, _SAVED_OF_COUNTER) for counter in self._counters]
        return {**save_fields(self, _SAVED), "counters": counters, "timer": self._clock.save_timer(self._timer)}

    def load(self, state: Mapping[str, Any]) -> None:
        load_fields(self, _SAVED, state)
        for counter, held in zip(self._counters, state["counters"], strict=True):
            load_fields(counter, _SAVED_OF_COUNTER, held)
        self._clock.load_timer(self._timer, state["timer"])

    def _rise(self) -> None:
        # A pulse is all an edge-triggered input sees of OUT.
        self._irq(True)
        self._irq(False)
        self._arm()

    def _arm(self) -> None:
        deadline = self._counters[0].next_rise()
        if deadline is None:
            self._clock.cancel(self._timer)
        else:
            self._clock.start(self._timer, deadline)

    def _read(self, port: int, size: int) -> int:
        return self._read_byte(port) if size == 1 else read_bytes(self._read_byte, port, size, 0x44)

    def _read_byte(self, port: int) -> int:
        return 0 if port == 0x43 else self._counters[port & 3].read()

    def _write(self, port: int, size: int, value: int) -> None:
        if size == 1:
            self._write_byte(port, value)
        else:
            write_bytes(self._write_byte, port, size, value, 0x44)

    def _write_byte(self, port: int, value: int) -> None:
        if port == 0x43:
            self._control(value)
        elif self._counters[port & 3].write(value) and port == 0x40:
            self._arm()

    def _control(self, word: int) -> None:
        number = word >> 6
        if number == 3:
            for index, counter in enumerate(self._counters):
                if word & 2 << index:
                    if not word & 0x20:
                        counter.latch_count()
                    if not word & 0x10:
                        counter.latch_status()
        elif word & 0x30 == 0:
            self._counters[number].latch_count()
        else:
            self._counters[number].control(word)
            if number == 0:
                self._arm()

    def _read_61(self, _port: int, size: int) -> int:
        self._refresh = not self._refresh
        counter = self._counters[2]
        value = self._speaker | counter.gate | self._refresh << 4 | counter.output() << 5
        return value | (~0xFF & (1 << 8 * size) - 1)

    def _write_61(self, _port: int, _size: int, value: int) -> None:
        self._speaker = value & 2
        self._counters[2].set_gate(bool(value & 1))
