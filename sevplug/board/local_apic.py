"""The local APIC of the one CPU at 0xFEE00000 (APM volume 2, chapter 16; behaviour as QEMU's hw/intc/apic.c).

It stands between every interrupt and the CPU: the I/O APIC's messages, its own timer, and the 8259 pair on LINT0.
Its timer counts a bus clock of 1 GHz.  NMI, SMI and INIT messages have no one to go to: the CPU's pin for them is not
on this board.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from sevplug.board.apic_timer import ApicTimer
from sevplug.board.pic import Pic
from sevplug.core.bus import Device
from sevplug.core.errors import GuestFault
from sevplug.core.snapshot.fields import load_fields, save_fields

if TYPE_CHECKING:
    from sevplug.core.machine import Machine

BASE = 0xFEE00000
BASE_BSP, BASE_ENABLE = 1 << 8, 1 << 11
_ID, _VERSION, _TPR, _APR, _PPR, _EOI = 0x02, 0x03, 0x08, 0x09, 0x0A, 0x0B
_LDR, _DFR, _SVR, _ISR, _TMR, _IRR, _ESR = 0x0D, 0x0E, 0x0F, 0x10, 0x18, 0x20, 0x28
_ICR, _ICR_HIGH, _LVT_TIMER, _LVT_LINT0, _LVT_ERROR = 0x30, 0x31, 0x32, 0x35, 0x37
_INITIAL, _CURRENT, _DIVIDE = 0x38, 0x39, 0x3E
_MASKED, _PERIODIC = 1 << 16, 1 << 17
_FIXED, _LOWEST, _EXTINT = 0, 1, 7
_ENABLED = 1 << 8
_LVTS = range(_LVT_TIMER, _LVT_ERROR + 1)
_LVT_WRITABLE = {
    0x32: 0x300FF, 0x33: 0x107FF, 0x34: 0x107FF, 0x35: 0x1A7FF, 0x36: 0x1A7FF, 0x37: 0x100FF,
}  # fmt: skip
_SAVED = (
    "_line", "_base", "_id", "_used", "_irr", "_isr", "_tmr", "_tpr", "_ldr", "_dfr", "_svr", "_errors", "_esr", "_icr",
    "_icr_high", "_lvt",
)  # fmt: skip
_SEND_ILLEGAL, _RECEIVED_ILLEGAL, _REGISTER_ILLEGAL = 0x20, 0x40, 0x80


class LocalApic(Device):
    """The APIC; the machine's interrupt source and ``machine.private["local_apic"]``.

    ``on_eoi`` is called with the vector when a level-triggered interrupt ends.
    """

    name = "local_apic"

    def __init__(self, pic: Pic) -> None:
        self._pic = pic
        pic.on_output = self._pic_changed
        self.on_eoi: Callable[[int], None] = lambda _vector: None
        self._line = False

    def attach(self, machine: Machine) -> None:
        self._machine = machine
        self.timer = ApicTimer(machine.clock, self._timer_fired)
        self._power_on()
        machine.bus.claim_mmio(BASE, 0x1000, self._read, self._write, self.name)
        machine.interrupt_source = self
        machine.private["local_apic"] = self

    def reset(self) -> None:
        self.timer.stop()
        self._power_on()
        self._update()

    def save(self) -> dict[str, Any]:
        return {**save_fields(self, _SAVED), "timer": self.timer.save()}

    def load(self, state: Mapping[str, Any]) -> None:
        load_fields(self, _SAVED, state)
        self.timer.load(state["timer"])

    def _power_on(self) -> None:
        self._base = BASE | BASE_BSP | BASE_ENABLE
        self._id = 0
        self._used = False
        self._initialise()

    def _initialise(self) -> None:
        """The state after RESET, but for APIC base and id."""
        self._irr = self._isr = self._tmr = 0
        self._tpr = 0
        self._ldr = 0
        self._dfr = 0xFFFF_FFFF
        self._svr = 0xFF
        self._errors = self._esr = 0
        self._icr = self._icr_high = 0
        self._lvt = dict.fromkeys(_LVTS, _MASKED)
        self.timer.reset()

    # -- the CPU's side ----------------------------------------------------------------------------------------------

    def acknowledge(self) -> int | None:
        """The vector to deliver: an own one of sufficient priority first, then the 8259's; None: nothing any more."""
        vector: int | None = self._deliverable()
        if vector is not None:
            bit = 1 << vector
            self._irr &= ~bit
            self._isr |= bit
        elif self._pic.output and self._takes_pic():
            vector = self._pic.acknowledge()
        self._update()
        return vector

    @property
    def switched_off(self) -> bool:
        """The guest has enabled the APIC by software since power-on, and has disabled it again."""
        return self._used and not self._svr & _ENABLED

    def read_base(self) -> int:
        """MSR 0x1B, APIC_BASE."""
        return self._base

    def write_base(self, value: int) -> None:
        """Write MSR 0x1B; `GuestFault` (#GP) for reserved bits, x2APIC mode included: CPUID does not offer it.

        The registers stay at their place whatever base is written, as in QEMU.
        """
        if value & ~(0x000F_FFFF_FFFF_F000 | BASE_ENABLE | BASE_BSP):
            raise GuestFault(13, 0)
        was = self._base & BASE_ENABLE
        self._base = value & ~BASE_BSP | BASE_BSP
        if was and not value & BASE_ENABLE:
            self._initialise()
        self._update()

    def deliver(self, vector: int, *, level: bool) -> None:
        """A fixed interrupt message for this CPU; ``level``: its end is told through ``on_eoi``."""
        if vector < 16:
            self._error(_RECEIVED_ILLEGAL)
            return
        bit = 1 << vector
        self._irr |= bit
        self._tmr = self._tmr | bit if level else self._tmr & ~bit
        self._update()

    def matches(self, destination: int, *, logical: bool) -> bool:
        """Whether an 8-bit message ``destination`` names this APIC."""
        if not logical:
            return destination in (self._id, 0xFF)
        own = self._ldr >> 24
        if self._dfr >> 28 == 0xF:
            return bool(destination & own)
        return destination >> 4 in (own >> 4, 0xF) and bool(destination & own & 0x0F)

    def _takes_pic(self) -> bool:
        if not self._base & BASE_ENABLE:
            return True
        lint0 = self._lvt[_LVT_LINT0]
        return not lint0 & _MASKED and lint0 >> 8 & 7 == _EXTINT

    def _processor_priority(self) -> int:
        served = self._isr.bit_length() - 1
        if served >> 4 > self._tpr >> 4:
            return served & 0xF0
        return self._tpr

    def _deliverable(self) -> int | None:
        irr = self._irr
        if not irr or not self._svr & _ENABLED or not self._base & BASE_ENABLE:
            return None
        vector = irr.bit_length() - 1
        return vector if vector >> 4 > self._processor_priority() >> 4 else None

    def _update(self) -> None:
        level = self._deliverable() is not None or (self._pic.output and self._takes_pic())
        if level != self._line:
            self._line = level
            self._machine.cpu.set_interrupt_line(level)

    def _pic_changed(self, level: bool) -> None:
        lint0 = self._lvt[_LVT_LINT0]
        if self._base & BASE_ENABLE and not lint0 & _MASKED and lint0 >> 8 & 7 == _FIXED:
            if level:
                self.deliver(lint0 & 0xFF, level=False)
            return
        self._update()

    def _timer_fired(self) -> None:
        entry = self._lvt[_LVT_TIMER]
        if not entry & _MASKED:
            self.deliver(entry & 0xFF, level=False)

    def _error(self, bit: int) -> None:
        fresh = not self._errors & bit
        self._errors |= bit
        entry = self._lvt[_LVT_ERROR]
        if fresh and not entry & _MASKED and entry & 0xFF >= 16:
            self.deliver(entry & 0xFF, level=False)

    # -- registers ---------------------------------------------------------------------------------------------------

    def _read(self, gpa: int, size: int) -> int:
        offset = gpa & 0xFFF
        if offset & 0xC:
            return 0
        value = self._read_register(offset >> 4)
        return value >> (8 * (offset & 3)) & (1 << 8 * size) - 1

    def _read_register(self, register: int) -> int:
        lvt = self._lvt.get(register)
        if lvt is not None:
            return lvt
        if register == _CURRENT:
            return self.timer.current()
        for first, bits in ((_ISR, self._isr), (_TMR, self._tmr), (_IRR, self._irr)):
            if first <= register < first + 8:
                return bits >> 32 * (register - first) & 0xFFFF_FFFF
        values = {
            _ID: self._id << 24,
            _VERSION: 0x14 | len(_LVTS) - 1 << 16,
            _TPR: self._tpr,
            _APR: 0,
            _PPR: self._processor_priority(),
            _EOI: 0,
            _LDR: self._ldr,
            _DFR: self._dfr,
            _SVR: self._svr,
            _ESR: self._esr,
            _ICR: self._icr,
            _ICR_HIGH: self._icr_high,
            _INITIAL: self.timer.initial,
            _DIVIDE: self.timer.divide,
        }
        if register not in values:
            self._error(_REGISTER_ILLEGAL)
            return 0
        return values[register]

    def _write(self, gpa: int, size: int, value: int) -> None:
        offset = gpa & 0xFFF
        # Only whole registers can be written (APM 2, section 16.3.2).
        if size < 4 or offset & 0xF:
            return
        value &= 0xFFFF_FFFF
        register = offset >> 4
        if register == _EOI:
            self._end_of_interrupt()
        elif register == _TPR:
            self._tpr = value & 0xFF
            self._update()
        elif register == _INITIAL:
            self.timer.start(value)
        elif register == _ICR:
            self._icr = value & 0xCCFFF
            self._send()
        elif register in self._lvt:
            self._lvt[register] = value & _LVT_WRITABLE[register]
            if register == _LVT_TIMER:
                self.timer.set_periodic(bool(value & _PERIODIC))
            self._update()
        else:
            self._write_other(register, value)

    def _write_other(self, register: int, value: int) -> None:
        if register == _ID:
            self._id = value >> 24
        elif register == _LDR:
            self._ldr = value & 0xFF00_0000
        elif register == _DFR:
            self._dfr = value | 0x0FFF_FFFF
        elif register == _SVR:
            self._svr = value & 0x1FF
            self._used |= bool(value & _ENABLED)
            self._update()
        elif register == _ESR:
            self._esr, self._errors = self._errors, 0
        elif register == _ICR_HIGH:
            self._icr_high = value & 0xFF00_0000
        elif register == _DIVIDE:
            self.timer.set_divide(value)
        elif not (register in (_VERSION, _APR, _PPR, _CURRENT) or _ISR <= register < _ESR):
            self._error(_REGISTER_ILLEGAL)

    def _end_of_interrupt(self) -> None:
        vector = self._isr.bit_length() - 1
        if vector < 0:
            return
        bit = 1 << vector
        self._isr &= ~bit
        if self._tmr & bit:
            self.on_eoi(vector)
        self._update()

    def _send(self) -> None:
        """Write to ICR: an interprocessor interrupt, of which only those to this CPU have a target."""
        icr = self._icr
        vector, mode, shorthand = icr & 0xFF, icr >> 8 & 7, icr >> 18 & 3
        if mode not in (_FIXED, _LOWEST):
            return
        if vector < 16:
            self._error(_SEND_ILLEGAL)
            return
        # Shorthands: none, self, all including self, all others.
        here = shorthand in (1, 2) or (shorthand == 0 and self.matches(self._icr_high >> 24, logical=bool(icr & 0x800)))
        if here:
            self.deliver(vector, level=False)
