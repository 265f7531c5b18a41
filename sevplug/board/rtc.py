"""The real-time clock and CMOS memory: an MC146818 at 0x70/0x71, IRQ 8 (behaviour as QEMU's hw/rtc/mc146818rtc.c).

The date at power-on is always the same, and advances with virtual time, so that two runs see the same dates; with the
host's clock it is the host's date.  Register 0x0D always reads 0x80 (the battery is good).
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from sevplug.board import rtc_time
from sevplug.board.irq import IrqLine
from sevplug.board.ports import read_bytes, write_bytes
from sevplug.core.bus import Device
from sevplug.core.clock import Timer
from sevplug.core.memory import GuestMemory
from sevplug.core.snapshot.fields import load_fields, save_fields

if TYPE_CHECKING:
    from sevplug.core.machine import Machine

POWER_ON = int(datetime(2026, 1, 1, tzinfo=UTC).timestamp())
_SECOND = 10**9
_UPDATE_NS = 244_000  # UIP is up this long before each second
A, B, C, D = 0x0A, 0x0B, 0x0C, 0x0D
A_UPDATING = 0x80
B_SET, B_PERIODIC, B_ALARM, B_UPDATE = 0x80, 0x40, 0x20, 0x10
C_IRQ, C_PERIODIC, C_ALARM, C_UPDATE = 0x80, 0x40, 0x20, 0x10
_SAVED = ("_registers", "_index", "_nmi_masked", "_offset", "_checked")
_PS2_CENTURY = 0x37
_TIME = frozenset([*range(10), rtc_time.CENTURY]) - {1, 3, 5}
_ALARMS = frozenset([1, 3, 5])


class Rtc(Device):
    """The clock; ``irq`` is IRQ 8."""

    name = "rtc"

    def __init__(self, irq: IrqLine) -> None:
        self._irq = irq
        self._timer = Timer(self._due)
        self._registers = bytearray(128)
        self._index = 0
        self._nmi_masked = False

    def attach(self, machine: Machine) -> None:
        self._clock = machine.clock
        start = time.time_ns() if machine.config.clock == "host" else POWER_ON * _SECOND
        self._offset = start - machine.clock.now
        self._checked = self._time()
        registers = self._registers
        registers[A], registers[B], registers[D] = 0x26, rtc_time.HOURS_24, 0x80
        registers[0x14] = 0x02  # equipment: a numeric coprocessor
        registers[0x38], registers[0x3D] = 0x30, 0x12  # SeaBIOS's boot order: disk first
        registers[0x5F] = 0  # further CPUs
        _describe_memory(registers, machine.memory)
        rtc_time.store(registers, self._time() // _SECOND, registers[B])
        machine.bus.claim_ports(0x70, 2, self._read, self._write, self.name)

    def reset(self) -> None:
        # The battery keeps time and memory; RESET clears the interrupt enables (MC146818, pin description).
        self._registers[B] &= ~(B_PERIODIC | B_ALARM | B_UPDATE)
        self._registers[C] = 0
        self._clock.cancel(self._timer)
        self._irq(False)

    def save(self) -> dict[str, Any]:
        return {**save_fields(self, _SAVED), "timer": self._clock.save_timer(self._timer)}

    def load(self, state: Mapping[str, Any]) -> None:
        load_fields(self, _SAVED, state)
        self._clock.load_timer(self._timer, state["timer"])

    def _time(self) -> int:
        """Nanoseconds since 1970."""
        return self._clock.now + self._offset

    # -- ports -----------------------------------------------------------------------------------------------------

    def _read(self, port: int, size: int) -> int:
        return self._read_byte(port) if size == 1 else read_bytes(self._read_byte, port, size, 0x72)

    def _read_byte(self, port: int) -> int:
        if port == 0x70:
            return 0xFF
        index, registers = self._index, self._registers
        if index in _TIME:
            self._refresh()
        elif index == A:
            updating = self._time() % _SECOND >= _SECOND - _UPDATE_NS and not registers[B] & B_SET
            return registers[A] | (A_UPDATING if updating else 0)
        elif index == C:
            self._collect()
            value = registers[C]
            registers[C] = 0
            self._irq(False)
            self._arm()
            return value
        return registers[index]

    def _write(self, port: int, size: int, value: int) -> None:
        if size == 1:
            self._write_byte(port, value)
        else:
            write_bytes(self._write_byte, port, size, value, 0x72)

    def _write_byte(self, port: int, value: int) -> None:
        if port == 0x70:
            index = value & 0x7F
            self._index = rtc_time.CENTURY if index == _PS2_CENTURY else index
            self._nmi_masked = bool(value & 0x80)
            return
        index, registers = self._index, self._registers
        if index in _TIME:
            self._refresh()
            registers[index] = value
            self._commit()
        elif index in _ALARMS:
            self._collect()
            registers[index] = value
            self._arm()
        elif index == A:
            self._collect()
            registers[A] = value & 0x7F
            self._arm()
        elif index == B:
            self._write_b(value)
        elif index not in (C, D):
            registers[index] = value

    def _write_b(self, value: int) -> None:
        self._collect()
        registers = self._registers
        self._refresh()
        stopped = registers[B] & B_SET
        if value & B_SET:
            value &= ~B_UPDATE
        registers[B] = value
        if stopped and not value & B_SET:
            self._commit()
        elif not value & B_SET:
            # The data mode may have changed.
            rtc_time.store(registers, self._time() // _SECOND, value)
        self._raise()
        self._arm()

    # -- time ------------------------------------------------------------------------------------------------------

    def _refresh(self) -> None:
        """Bring the time registers up to date, unless the guest holds them with SET."""
        registers = self._registers
        if not registers[B] & B_SET:
            rtc_time.store(registers, self._time() // _SECOND, registers[B])

    def _commit(self) -> None:
        """The time registers become the time, unless SET is on; the fraction of the second runs on."""
        registers = self._registers
        if not registers[B] & B_SET:
            now = self._time()
            wanted = rtc_time.load(registers, registers[B]) * _SECOND + now % _SECOND
            self._offset += wanted - now
            self._checked = wanted
            self._arm()

    # -- interrupts --------------------------------------------------------------------------------------------------

    def _period(self) -> int:
        """Nanoseconds (times 32768) of the periodic interrupt, 0 when it is off."""
        rate = self._registers[A] & 0x0F
        if rate == 0:
            return 0
        return (1 << (rate + 7 if rate <= 2 else rate) - 1) * _SECOND

    def _collect(self) -> None:
        """Set the flags of register C for what happened since the last look."""
        before, now = self._checked, self._time()
        self._checked = now
        registers = self._registers
        period = self._period()
        if period and before * 32768 // period != now * 32768 // period:
            registers[C] |= C_PERIODIC
        if before // _SECOND != now // _SECOND and not registers[B] & B_SET:
            registers[C] |= C_UPDATE
            alarm = rtc_time.next_alarm(registers, before // _SECOND, registers[B])
            if alarm is not None and alarm * _SECOND <= now:
                registers[C] |= C_ALARM
        self._raise()

    def _raise(self) -> None:
        registers = self._registers
        if registers[C] & registers[B] & (C_PERIODIC | C_ALARM | C_UPDATE):
            registers[C] |= C_IRQ
            self._irq(True)

    def _due(self) -> None:
        self._collect()
        self._arm()

    def _arm(self) -> None:
        """Wait for the next event whose interrupt is enabled."""
        registers = self._registers
        now = self._time()
        enabled = registers[B]
        deadlines = []
        period = self._period()
        if enabled & B_PERIODIC and period:
            deadlines.append(-(-(now * 32768 // period + 1) * period // 32768))
        if enabled & B_UPDATE:
            deadlines.append((now // _SECOND + 1) * _SECOND)
        if enabled & B_ALARM and not enabled & B_SET:
            alarm = rtc_time.next_alarm(registers, now // _SECOND, enabled)
            if alarm is not None:
                deadlines.append(alarm * _SECOND)
        if deadlines:
            self._clock.start(self._timer, min(deadlines) - self._offset)
        else:
            self._clock.cancel(self._timer)


def _describe_memory(registers: bytearray, memory: GuestMemory) -> None:
    """The sizes a BIOS looks for (QEMU's hw/i386/x86.c, x86_cmos_init)."""
    low, high = memory.low_ram_size, memory.high_ram_size
    base_kib = min(low // 1024, 640)
    extended_kib = min(max(low // 1024 - 1024, 0), 65535)
    above_16m = min(max(low - (16 << 20), 0) // 65536, 65535)
    for first, size, value in (
        (0x15, 2, base_kib),
        (0x17, 2, extended_kib),
        (0x30, 2, extended_kib),
        (0x34, 2, above_16m),
        (0x5B, 3, high // 65536),
    ):
        registers[first : first + size] = value.to_bytes(size, "little")
