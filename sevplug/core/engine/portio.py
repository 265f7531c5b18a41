"""IN and OUT: the permission of the one who asks, then the bus.

The engine lets any program do any I/O, so privilege and the task-state segment's bitmap are checked here (APM 2,
section 12.2.4).  Its callbacks come inside the instruction, and cannot take it back.  What can is an I/O breakpoint: it
makes the engine leave the instruction at once, with #DB.  So the mode bits always say that there is one, the debug
registers get it only for an access that faults, and `settle` puts everything back and names the fault that was meant.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import attrs

from sevplug.core.bus import ALL_ONES
from sevplug.core.engine import internals as at
from sevplug.core.engine.linear import LinearMemory
from sevplug.core.engine.vcpu import FLAG_VM, REGISTERS, EngineCpu
from sevplug.core.errors import GuestFault

if TYPE_CHECKING:
    from sevplug.core.machine import Machine

PROTECTION = 13
TR = 7
_TSS32_LIMIT, _BITMAP_BASE = 103, 0x66
# The engine's cache keeps the type as the table had it: available or busy.
_TSS32_TYPES = (9, 11)
# DR7: breakpoint 0 enabled, of kind I/O, one byte wide.
_IO_BREAKPOINT = 1 << 17 | 1
_HFLAGS, _CPL = at.HFLAGS // 4, at.HF_CPL


@attrs.frozen
class _Refused:
    """An access that faults: the fault, and what the instruction and the breakpoint will have overwritten."""

    fault: GuestFault
    registers: bytes
    debug: tuple[int, int, int]


class PortIo:
    """The callbacks of one CPU.  ``tick`` lets an event's time pass; ``fail`` takes an exception of a device."""

    def __init__(
        self,
        machine: Machine,
        cpu: EngineCpu,
        linear: LinearMemory,
        tick: Callable[[], None],
        fail: Callable[[BaseException], None],
    ) -> None:
        self._bus, self._counters = machine.bus, machine.counters
        self._cpu, self._linear = cpu, linear
        self._q, self._d = cpu.state.q, cpu.state.d
        self._tick, self._fail = tick, fail
        self._refused: _Refused | None = None

    def on_in(self, _handle: int, port: int, size: int, _user: int) -> int:
        try:
            if self._d[_HFLAGS] & _CPL:
                self._check(port, size)
            self._counters.io += 1
            self._tick()
            return self._bus.io_read(port, size)
        except GuestFault as fault:
            self._refuse(port, fault)
        except BaseException as error:
            self._fail(error)
        return 0

    def on_out(self, _handle: int, port: int, size: int, value: int, _user: int) -> None:
        try:
            if self._d[_HFLAGS] & _CPL:
                self._check(port, size)
            self._counters.io += 1
            self._tick()
            self._bus.io_write(port, size, value & ALL_ONES[size])
        except GuestFault as fault:
            self._refuse(port, fault)
        except BaseException as error:
            self._fail(error)

    def settle(self) -> GuestFault | None:
        """#DB arrived: the fault it stands for, with registers as before the instruction, or None for a real #DB."""
        refused, self._refused = self._refused, None
        if refused is None:
            return None
        self._q[:REGISTERS] = memoryview(refused.registers).cast("Q")
        self._q[at.DR0 // 8], self._q[at.DR6 // 8], self._q[at.DR7 // 8] = refused.debug
        return refused.fault

    def _check(self, port: int, size: int) -> None:
        """`GuestFault` #GP unless the present privilege level or the bitmap allows the access."""
        flags = self._q[at.EFLAGS // 8]
        if not flags & FLAG_VM and self._cpu.cpl <= flags >> 12 & 3:
            return
        _selector, base, limit, kind = self._cpu.segment(TR)
        if kind >> 8 & 0xF in _TSS32_TYPES and limit >= _TSS32_LIMIT:
            where = self._linear.read_int(base + _BITMAP_BASE, 2) + (port >> 3)
            if where < limit:
                bits = self._linear.read_int(base + where, 2) >> (port & 7)
                if not bits & ((1 << size) - 1):
                    return
        raise GuestFault(PROTECTION, 0)

    def _refuse(self, port: int, fault: GuestFault) -> None:
        d, q = self._d, self._q
        if not d[at.HFLAGS // 4] & at.HF_IOBPT:
            # A write to DR7 took the mode bit away: this once the access is lost without a fault.
            d[at.HFLAGS // 4] |= at.HF_IOBPT
            return
        debug = q[at.DR0 // 8], q[at.DR6 // 8], q[at.DR7 // 8]
        self._refused = _Refused(fault, bytes(q[:REGISTERS]), debug)
        q[at.DR0 // 8], q[at.DR7 // 8] = port, _IO_BREAKPOINT
