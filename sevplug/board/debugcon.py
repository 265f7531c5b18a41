"""The debug console port of OVMF and SeaBIOS at 0x402 (QEMU's hw/char/debugcon.c): write a byte, read 0xE9."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sevplug.board.chardev.sinks import open_sink
from sevplug.board.output import GuestOutput
from sevplug.core.bus import Device

if TYPE_CHECKING:
    from sevplug.core.machine import Machine

PORT = 0x402
_SIGNATURE = 0xE9


class DebugConsole(Device):
    """The port; ``machine.private["debugcon"]``.  ``where``: a sink as `open_sink` spells it, or None to keep only."""

    name = "debugcon"

    def __init__(self, where: str | None = None) -> None:
        self._where = where
        self._sent = GuestOutput()

    def attach(self, machine: Machine) -> None:
        self._sent.connect(machine.clock, open_sink(self._where or "null", "debugcon"))
        machine.bus.claim_ports(PORT, 1, self._read, self._write, self.name)
        machine.private["debugcon"] = self

    @property
    def output(self) -> bytearray:
        """What the guest wrote so far (the newest 16 MiB at most)."""
        return self._sent.kept

    @property
    def lines(self) -> list[str]:
        """The output as lines of text; bytes that are no UTF-8 are replaced."""
        return self._sent.kept.decode(errors="replace").splitlines()

    @property
    def sent(self) -> GuestOutput:
        """The output on its way: for those who want to hear of each piece."""
        return self._sent

    def reset(self) -> None:
        self._sent.flush()

    def save(self) -> dict[str, Any]:
        return self._sent.save()

    def load(self, state: Mapping[str, Any]) -> None:
        self._sent.load(state)

    def close(self) -> None:
        self._sent.close()

    def _read(self, _port: int, _size: int) -> int:
        return _SIGNATURE

    def _write(self, _port: int, _size: int, value: int) -> None:
        self._sent.send(value & 0xFF)
