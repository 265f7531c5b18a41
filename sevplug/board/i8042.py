"""The keyboard controller at 0x60/0x64 with a keyboard nobody types on, and port 0x92 (QEMU's hw/input/pckbd.c, ps2.c).

Present rather than absent: a status port that reads 0xFF looks for ever busy to those who wait for the controller
before they ask it for a reset, while one without a keyboard makes firmware wait a second for an answer.  The auxiliary
port works and has no mouse: what is sent to it comes back as a time-out, as the controller itself reports it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sevplug.board.irq import IrqLine
from sevplug.core.bus import Device
from sevplug.core.snapshot.fields import load_fields, save_fields

if TYPE_CHECKING:
    from sevplug.core.machine import Machine

DATA, COMMAND = 0x60, 0x64
_FULL, _SELF_TESTED, _LAST_WAS_COMMAND, _UNLOCKED, _AUX, _TIMEOUT = 0x01, 0x04, 0x08, 0x10, 0x20, 0x40
_MODE_IRQ1, _MODE_IRQ12, _MODE_NO_KEYBOARD, _MODE_NO_AUX, _MODE_TRANSLATE = 0x01, 0x02, 0x10, 0x20, 0x40
_ACK, _RESEND, _BAT_GOOD = 0xFA, 0xFE, 0xAA
_OUTPUT_PORT = 0xCF  # RESET# and A20 high
_SAVED = (
    "_status", "_mode", "_queue", "_last", "_pending", "_keyboard_pending", "_scan_set", "_output_port", "_port_92",
)  # fmt: skip
_TAKES_ARGUMENT = frozenset([0xED, 0xF0, 0xF3, 0xFB, 0xFC, 0xFD])
_TRANSLATED = {1: 0x43, 2: 0x41, 3: 0x3F}


class KeyboardController(Device):
    """The 8042; ``irq1`` is the keyboard's line, ``irq12`` the auxiliary port's."""

    name = "i8042"

    def __init__(self, irq1: IrqLine, irq12: IrqLine) -> None:
        self._irq1, self._irq12 = irq1, irq12
        self._registers()

    def attach(self, machine: Machine) -> None:
        self._machine = machine
        bus = machine.bus
        bus.claim_ports(DATA, 1, self._read_data, self._write_data, self.name)
        bus.claim_ports(COMMAND, 1, self._read_status, self._write_command, self.name)
        bus.claim_ports(0x92, 1, self._read_92, self._write_92, self.name)

    def reset(self) -> None:
        self._registers()
        self._update()

    def save(self) -> dict[str, Any]:
        return save_fields(self, _SAVED)

    def load(self, state: Mapping[str, Any]) -> None:
        load_fields(self, _SAVED, state)

    def _registers(self) -> None:
        self._status = _LAST_WAS_COMMAND | _UNLOCKED
        self._mode = _MODE_IRQ1 | _MODE_IRQ12
        self._queue: deque[tuple[int, int]] = deque()  # (byte, its status bits)
        self._last = 0
        self._pending = 0  # the controller command that waits for its data byte
        self._keyboard_pending = 0  # the keyboard command that waits for its argument
        self._scan_set = 2
        self._output_port = _OUTPUT_PORT
        self._port_92 = 0

    def _put(self, *data: int, status: int = 0) -> None:
        self._queue.extend((byte, status) for byte in data)
        self._update()

    def _update(self) -> None:
        front = self._queue[0][1] if self._queue else 0
        keyboard = bool(self._queue) and not front & _AUX
        self._irq1(keyboard and bool(self._mode & _MODE_IRQ1) and not self._mode & _MODE_NO_KEYBOARD)
        self._irq12(bool(front & _AUX) and bool(self._mode & _MODE_IRQ12) and not self._mode & _MODE_NO_AUX)

    # -- ports -----------------------------------------------------------------------------------------------------

    def _read_status(self, _port: int, _size: int) -> int:
        if not self._queue:
            return self._status
        return self._status | _FULL | self._queue[0][1]

    def _read_data(self, _port: int, _size: int) -> int:
        if self._queue:
            self._last = self._queue.popleft()[0]
            # The line drops between two bytes, so that each one is an edge.
            self._irq1(False)
            self._irq12(False)
            self._update()
        return self._last

    def _write_command(self, _port: int, _size: int, value: int) -> None:
        value &= 0xFF
        self._status |= _LAST_WAS_COMMAND
        if value in (0x60, 0xD1, 0xD2, 0xD3, 0xD4):
            self._pending = value
        elif value == 0x20:
            self._put(self._mode)
        elif value in (0xA7, 0xA8, 0xAD, 0xAE):
            bit = _MODE_NO_AUX if value < 0xAD else _MODE_NO_KEYBOARD
            self._mode = self._mode | bit if value in (0xA7, 0xAD) else self._mode & ~bit
            self._update()
        elif value == 0xAA:
            self._status |= _SELF_TESTED
            self._put(0x55)
        elif value in (0xA9, 0xAB):
            self._put(0x00)
        elif value == 0xC0:
            self._put(0x80)
        elif value == 0xD0:
            self._put(self._output_port)
        elif value >= 0xF0 and not value & 1:
            self._machine.reset_request("the guest pulsed the reset line of the keyboard controller (port 0x64)")

    def _write_data(self, _port: int, _size: int, value: int) -> None:
        value &= 0xFF
        self._status &= ~_LAST_WAS_COMMAND
        command, self._pending = self._pending, 0
        if command == 0x60:
            self._mode = value
            self._update()
        elif command == 0xD1:
            self._output_port = value
            if not value & 1:
                self._machine.reset_request("the guest pulled the reset line of the keyboard controller (port 0x60)")
        elif command == 0xD2:
            self._put(value)
        elif command == 0xD3:
            self._put(value, status=_AUX)
        elif command == 0xD4:
            self._mode &= ~_MODE_NO_AUX
            self._put(_RESEND, status=_AUX | _TIMEOUT)
        else:
            self._mode &= ~_MODE_NO_KEYBOARD
            self._keyboard(value)

    # -- the keyboard ------------------------------------------------------------------------------------------------

    def _keyboard(self, value: int) -> None:
        """A byte for the keyboard."""
        waiting, self._keyboard_pending = self._keyboard_pending, 0
        if waiting:
            self._keyboard_argument(waiting, value)
        elif value == 0xEE:
            self._put(0xEE)
        elif value in _TAKES_ARGUMENT:
            self._keyboard_pending = value
            self._put(_ACK)
        elif value == 0xFF:
            self._scan_set = 2
            self._put(_ACK, _BAT_GOOD)
        elif value == 0xF2:
            self._put(_ACK, 0xAB, 0x41 if self._mode & _MODE_TRANSLATE else 0x83)
        elif value == 0x00 or 0xF4 <= value <= 0xFA:
            if value in (0xF5, 0xF6):
                self._scan_set = 2
            self._put(_ACK)
        else:
            self._put(_RESEND)

    def _keyboard_argument(self, command: int, value: int) -> None:
        if command != 0xF0:
            self._put(_ACK)
        elif value == 0:
            answer = _TRANSLATED[self._scan_set] if self._mode & _MODE_TRANSLATE else self._scan_set
            self._put(_ACK, answer)
        elif value <= 3:
            self._scan_set = value
            self._put(_ACK)
        else:
            self._put(_RESEND)

    # -- port 0x92 -----------------------------------------------------------------------------------------------------

    def _read_92(self, _port: int, _size: int) -> int:
        return self._port_92

    def _write_92(self, _port: int, _size: int, value: int) -> None:
        rising = value & ~self._port_92 & 1
        self._port_92 = value & 0x03
        if rising:
            self._machine.reset_request("the guest asked for a fast reset (port 0x92)")
