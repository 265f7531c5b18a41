"""Power management of the PIIX4 at 00:01.3: PM1 event and control, the PM timer, GPE and SMI command ports.

After Intel's 82371AB data sheet and QEMU's hw/acpi/piix4.c and core.c.  The guest programs the base of the registers
(PMBASE, 0x40) and enables them (PMREGMISC, 0x80).  The SCI is IRQ 9.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from sevplug.board.i440fx import INTEL
from sevplug.board.irq import IrqLine
from sevplug.board.pci_function import STATUS, PciFunction
from sevplug.board.ports import read_bytes, write_bytes
from sevplug.core.bus import Bus, Device
from sevplug.core.clock import Clock, Timer
from sevplug.core.errors import ConfigError
from sevplug.core.snapshot.fields import load_fields, save_fields

if TYPE_CHECKING:
    from sevplug.core.machine import Machine

TIMER_HZ = 3_579_545
_SECOND = 10**9
_TIMER_MASK = 0xFF_FFFF
# A guest that reads the timer in a loop waits for time to pass, so each read lets some pass.
_READ_NS = 20_000
_PMBASE, _PMREGMISC = 0x40, 0x80
_SIZE = 64
_PM1_STATUS, _PM1_ENABLE, _PM1_CONTROL, _PM_TIMER = 0, 2, 4, 8
TIMER_STATUS, GLOBAL_STATUS, POWER_BUTTON, SLEEP_BUTTON, RTC_STATUS = 1, 1 << 5, 1 << 8, 1 << 9, 1 << 10
_EVENTS = TIMER_STATUS | GLOBAL_STATUS | POWER_BUTTON | SLEEP_BUTTON | RTC_STATUS
_SCI_ENABLE, _SLEEP_ENABLE = 1, 1 << 13
_SLEEP_OFF, _SLEEP_DISK = 0, 2
_SAVED = ("_status", "_enable", "_control", "_overflow_at", "_gpe", "_smi")
GPE_BASE, _GPE_SIZE = 0xAFE0, 4
SMI_COMMAND = 0xB2
_ACPI_ENABLE, _ACPI_DISABLE = 0xF1, 0xF0


class _PmFunction(PciFunction):
    def __init__(self, device: PowerManagement) -> None:
        super().__init__("power management", INTEL, 0x7113, 0x068000, revision=3, interrupt_pin=1)
        for offset, size, value in (
            (STATUS, 2, 0x0280), (_PMBASE, 4, 1), (0x5F, 1, 0x10), (0x63, 1, 0x60), (0x67, 1, 0x08),
        ):  # fmt: skip
            self.preset(offset, size, value)
        self.allow_writes(0x40, 0xC0)
        self._device = device

    def written(self, offset: int, size: int) -> None:
        self._device.place()


class PowerManagement(Device):
    """The registers; ``sci`` is IRQ 9.  ``function`` goes to 00:01.3.  ``machine.private["power"]``.

    ``base``: where they are decoded from power-on, for a guest without firmware that would choose.  ``on_move`` is
    called with the base whenever it changes, None when they are no longer decoded.
    """

    name = "pm"

    def __init__(self, sci: IrqLine, base: int | None = None) -> None:
        self._sci = sci
        self.on_move: Callable[[int | None], None] = lambda _base: None
        self._base: int | None = None
        self._timer = Timer(self._overflow)
        self.function = _PmFunction(self)
        if base is not None:
            self.function.preset(_PMBASE, 4, base | 1)
            self.function.preset(_PMREGMISC, 1, 1)
        self._registers()

    def attach(self, machine: Machine) -> None:
        self._machine = machine
        self._clock: Clock = machine.clock
        self._bus: Bus = machine.bus
        self._bus.claim_ports(GPE_BASE, _GPE_SIZE, self._read_gpe, self._write_gpe, self.name)
        self._bus.claim_ports(SMI_COMMAND, 2, self._read_smi, self._write_smi, self.name)
        machine.private["power"] = self
        self.place()

    def reset(self) -> None:
        self._registers()
        self._clock.cancel(self._timer)
        self._sci(False)

    def _registers(self) -> None:
        self._status = 0
        self._enable = 0
        self._control = 0
        self._overflow_at = 0x80_0000  # in ticks: the next change of the timer's top bit
        self._gpe = bytearray(_GPE_SIZE)
        self._smi = bytearray(2)

    def save(self) -> dict[str, Any]:
        return {**save_fields(self, _SAVED), "base": self._base, "timer": self._clock.save_timer(self._timer)}

    def load(self, state: Mapping[str, Any]) -> None:
        base = state["base"]
        if base is not None and not 0 <= base <= 0x1_0000 - _SIZE:
            raise ValueError(f"registers at port {base:#x}")
        load_fields(self, _SAVED, state)
        self._clock.load_timer(self._timer, state["timer"])
        if base != self._base:
            self._decode(base)

    def power_button(self) -> None:
        """Press it: a guest with ACPI switches itself off."""
        self._status |= POWER_BUTTON
        self._update()

    def place(self) -> None:
        """Decode the registers where PMBASE says, if PMREGMISC enables them."""
        config = self.function.config
        base = int.from_bytes(config[_PMBASE : _PMBASE + 2], "little") & 0xFFC0
        wanted = base if base and config[_PMREGMISC] & 1 else None
        if wanted == self._base:
            return
        self._decode(wanted)

    def _decode(self, wanted: int | None) -> None:
        if self._base is not None:
            self._bus.release_ports(self._base, _SIZE)
            self._base = None
        if wanted is not None:
            # When the guest chose ports that are in use, they stay with their owner.
            with contextlib.suppress(ConfigError):
                self._bus.claim_ports(wanted, _SIZE, self._read, self._write, self.name)
                self._base = wanted
        self.on_move(self._base)

    # -- registers -----------------------------------------------------------------------------------------------------

    def _ticks(self) -> int:
        return self._clock.now * TIMER_HZ // _SECOND

    def _read(self, port: int, size: int) -> int:
        if port & 0x3F == _PM_TIMER and size == 4:
            clock = self._clock
            clock.advance(_READ_NS)
            return clock.now * TIMER_HZ // _SECOND & _TIMER_MASK
        return read_bytes(self._read_byte, port, size, (port | 0x3F) + 1)

    def _read_byte(self, port: int) -> int:
        offset = port & 0x3F
        register, shift = offset & ~1, 8 * (offset & 1)
        if register == _PM1_STATUS:
            self._look_at_timer()
            return self._status >> shift & 0xFF
        if register == _PM1_ENABLE:
            return self._enable >> shift & 0xFF
        if register == _PM1_CONTROL:
            return self._control >> shift & 0xFF
        if _PM_TIMER <= offset < _PM_TIMER + 4:
            return (self._ticks() & _TIMER_MASK) >> 8 * (offset & 3) & 0xFF
        return 0

    def _write(self, port: int, size: int, value: int) -> None:
        offset = port & 0x3F
        if offset == _PM1_CONTROL and size >= 2:
            # Whole, since sleep type and enable come in one write.
            self._write_control(value & 0xFFFF)
        else:
            write_bytes(self._write_byte, port, size, value, (port | 0x3F) + 1)

    def _write_byte(self, port: int, value: int) -> None:
        offset = port & 0x3F
        register, shift = offset & ~1, 8 * (offset & 1)
        if register == _PM1_STATUS:
            self._look_at_timer()
            self._status &= ~(value << shift)
            self._update()
        elif register == _PM1_ENABLE:
            self._enable = (self._enable & ~(0xFF << shift) | value << shift) & _EVENTS
            self._update()
        elif register == _PM1_CONTROL:
            self._write_control(self._control & ~(0xFF << shift) | value << shift)

    def _write_control(self, value: int) -> None:
        self._control = value & ~_SLEEP_ENABLE
        if not value & _SLEEP_ENABLE:
            return
        kind = value >> 10 & 7
        if kind == _SLEEP_OFF:
            self._machine.shutdown_request("the guest switched itself off (ACPI S5)")
        elif kind == _SLEEP_DISK:
            self._machine.shutdown_request("the guest switched itself off after hibernating (ACPI S4)")

    # -- the timer's overflow and the SCI ------------------------------------------------------------------------------

    def _look_at_timer(self) -> None:
        ticks = self._ticks()
        if ticks >= self._overflow_at:
            self._status |= TIMER_STATUS
            self._overflow_at = (ticks // 0x80_0000 + 1) * 0x80_0000

    def _overflow(self) -> None:
        self._look_at_timer()
        self._update()

    def _update(self) -> None:
        self._sci(bool(self._status & self._enable))
        if self._enable & TIMER_STATUS and not self._status & TIMER_STATUS:
            self._clock.start(self._timer, -(-self._overflow_at * _SECOND // TIMER_HZ))
        else:
            self._clock.cancel(self._timer)

    # -- GPE and SMI command -------------------------------------------------------------------------------------------
    # Nothing raises a GPE and there is no SMM, so these only keep what is written.

    def _read_gpe(self, port: int, size: int) -> int:
        return read_bytes(lambda at: self._gpe[at - GPE_BASE], port, size, GPE_BASE + _GPE_SIZE)

    def _write_gpe(self, port: int, size: int, value: int) -> None:
        write_bytes(self._write_gpe_byte, port, size, value, GPE_BASE + _GPE_SIZE)

    def _write_gpe_byte(self, port: int, value: int) -> None:
        index = port - GPE_BASE
        if index >= _GPE_SIZE // 2:
            self._gpe[index] = value

    def _read_smi(self, port: int, size: int) -> int:
        return read_bytes(lambda at: self._smi[at - SMI_COMMAND], port, size, SMI_COMMAND + 2)

    def _write_smi(self, port: int, size: int, value: int) -> None:
        write_bytes(self._write_smi_byte, port, size, value, SMI_COMMAND + 2)

    def _write_smi_byte(self, port: int, value: int) -> None:
        self._smi[port - SMI_COMMAND] = value
        if port == SMI_COMMAND and value == _ACPI_ENABLE:
            self._control |= _SCI_ENABLE
        elif port == SMI_COMMAND and value == _ACPI_DISABLE:
            self._control &= ~_SCI_ENABLE
