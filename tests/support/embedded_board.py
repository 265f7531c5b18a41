"""As little board as the embedded guest needs: a serial port, fw_cfg's signature by DMA, and a way to switch off."""

from __future__ import annotations

from sevplug.core.bus import Device
from sevplug.core.hookspecs import hookimpl
from sevplug.core.machine import Machine

SERIAL, FW_CFG_DMA, POWER_MANAGEMENT = 0x3F8, 0x514, 0x600
_TRANSMITTER_EMPTY = 0x60


class EmbeddedBoard(Device):
    """``output`` is what the guest printed."""

    name = "embedded board"

    def __init__(self) -> None:
        self.output = bytearray()

    def attach(self, machine: Machine) -> None:
        self._machine = machine
        machine.bus.claim_ports(SERIAL, 8, lambda _port, _size: _TRANSMITTER_EMPTY, self._print, self.name)
        machine.bus.claim_ports(FW_CFG_DMA, 8, None, self._dma, self.name)
        machine.bus.claim_ports(
            POWER_MANAGEMENT, 16, None, lambda _port, _size, _value: machine.shutdown_request("ACPI S5"), self.name
        )

    def _print(self, port: int, _size: int, value: int) -> None:
        if port == SERIAL:
            self.output.append(value)

    def _dma(self, port: int, _size: int, value: int) -> None:
        if port != FW_CFG_DMA + 4:
            return
        memory = self._machine.memory
        request = int.from_bytes(value.to_bytes(4, "little"), "big")
        memory.write(int.from_bytes(memory.read(request + 8, 8), "big"), b"QEMU")
        memory.write(request, bytes(4))


class EmbeddedBoardPlugin:
    """Brings the board."""

    name = "embedded-board"

    def __init__(self) -> None:
        self.board = EmbeddedBoard()

    @hookimpl
    def add_devices(self, machine: Machine) -> None:
        machine.add_device(self.board)

    @property
    def text(self) -> str:
        """What the guest printed, as text with plain line ends."""
        return self.board.output.decode().replace("\r\n", "\n")
