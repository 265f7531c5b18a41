"""A machine without a CPU engine: the board's devices on a real bus, memory and clock."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import attrs
import pytest

from sevplug.board.pc import add_pc
from sevplug.core.bus import Bus, Device
from sevplug.core.clock import Clock
from sevplug.core.config import MachineConfig
from sevplug.core.interrupts import InterruptSource, NoInterrupts
from sevplug.core.memory import GuestMemory


@attrs.define
class FakeCpu:
    """Records the level of the INTR pin."""

    line: bool = False
    rises: int = 0

    def set_interrupt_line(self, level: bool) -> None:
        self.rises += level and not self.line
        self.line = level


class BoardMachine:
    """What devices may know of a machine, and short names for driving them."""

    def __init__(self, config: MachineConfig | None = None) -> None:
        self.config = config or MachineConfig(memory=16 << 20)
        self.memory = GuestMemory(self.config.memory)
        self.bus = Bus()
        self.clock = Clock()
        self.cpu = FakeCpu()
        self.interrupt_source: InterruptSource = NoInterrupts()
        self.private: dict[str, object] = {}
        self.devices: list[Device] = []
        self.on_restore: list[Callable[[], None]] = []
        self.shutdowns: list[str] = []
        self.resets: list[str] = []
        self.warnings: list[str] = []

    def add_device(self, device: Device) -> None:
        self.devices.append(device)
        device.attach(self)  # type: ignore[arg-type]

    def shutdown_request(self, detail: str) -> None:
        self.shutdowns.append(detail)

    def reset_request(self, detail: str) -> None:
        self.resets.append(detail)

    def warn(self, text: str) -> None:
        self.warnings.append(text)

    def reset(self) -> None:
        for device in self.devices:
            device.reset()

    def close(self) -> None:
        for device in reversed(self.devices):
            device.close()
        self.memory.close()

    def inb(self, port: int) -> int:
        return self.bus.io_read(port, 1)

    def inl(self, port: int) -> int:
        return self.bus.io_read(port, 4)

    def outb(self, port: int, *values: int) -> None:
        for value in values:
            self.bus.io_write(port, 1, value)

    def outl(self, port: int, value: int) -> None:
        self.bus.io_write(port, 4, value)

    def readl(self, gpa: int) -> int:
        return self.bus.mmio_read(gpa, 4)

    def writel(self, gpa: int, value: int) -> None:
        self.bus.mmio_write(gpa, 4, value)

    def pass_time(self, nanoseconds: int) -> None:
        """Let virtual time pass as the run loop does, running timers at their deadlines."""
        end = self.clock.now + nanoseconds
        while self.clock.next_deadline <= end:
            self.clock.skip_to_next()
            self.clock.run_due()
        self.clock.advance(end - self.clock.now)

    def config_read(self, slot: int, function: int, offset: int, size: int = 4) -> int:
        self.outl(0xCF8, 1 << 31 | slot << 11 | function << 8 | offset & 0xFC)
        return self.bus.io_read(0xCFC + (offset & 3), size)

    def config_write(self, slot: int, function: int, offset: int, value: int, size: int = 4) -> None:
        self.outl(0xCF8, 1 << 31 | slot << 11 | function << 8 | offset & 0xFC)
        self.bus.io_write(0xCFC + (offset & 3), size, value)

    def init_pics(self, master_mask: int = 0, slave_mask: int = 0) -> None:
        """What every BIOS does: vectors 0x20 and 0x28, cascade on 2."""
        self.outb(0x20, 0x11)
        self.outb(0x21, 0x20, 0x04, 0x01, master_mask)
        self.outb(0xA0, 0x11)
        self.outb(0xA1, 0x28, 0x02, 0x01, slave_mask)

    def accept_pic(self) -> None:
        """Enable the local APIC with LINT0 as the 8259's input (virtual wire mode)."""
        self.writel(0xFEE000F0, 0x1FF)
        self.writel(0xFEE00350, 0x700)


@pytest.fixture
def make_board() -> type[BoardMachine]:
    """The class; for tests that need a machine without devices, or a configuration of their own."""
    return BoardMachine


@pytest.fixture
def board() -> Iterator[BoardMachine]:
    """The whole PC with 16 MiB of RAM."""
    machine = BoardMachine()
    add_pc(machine)  # type: ignore[arg-type]
    yield machine
    machine.close()
