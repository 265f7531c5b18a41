"""The PC put together: which device is wired to which, as on QEMU's pc-i440fx."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sevplug.board import acpi
from sevplug.board.debugcon import DebugConsole
from sevplug.board.fw_cfg import FwCfg
from sevplug.board.i440fx import HostBridge, IsaBridge
from sevplug.board.i8042 import KeyboardController
from sevplug.board.io_apic import IoApic
from sevplug.board.irq import IrqRouter
from sevplug.board.local_apic import LocalApic
from sevplug.board.pci import PciHost
from sevplug.board.pic import Pic
from sevplug.board.pit import Pit
from sevplug.board.pm import PowerManagement
from sevplug.board.rtc import Rtc
from sevplug.board.serial import Serial

if TYPE_CHECKING:
    from sevplug.core.machine import Machine


def add_pc(machine: Machine, debugcon: str | None = None) -> None:
    """Add every device of the board to ``machine``.

    ``debugcon``: where the debug console's output goes, as `open_sink` spells it, or None.  `ConfigError` as the
    devices raise it.
    """
    pic = Pic()
    local_apic = LocalApic(pic)
    io_apic = IoApic(local_apic, pic)
    router = IrqRouter(pic.set_irq, io_apic.set_pin)
    isa_bridge = IsaBridge(router)
    pci = PciHost(isa_bridge.line)
    power = PowerManagement(router.line(9), acpi.PM_BASE if machine.config.boot.direct else None)
    fw_cfg = FwCfg()
    for device in (
        pic,
        local_apic,
        io_apic,
        router,
        Pit(router.line(0)),
        Rtc(router.line(8)),
        KeyboardController(router.line(1), router.line(12)),
        Serial(router.line(4)),
        DebugConsole(debugcon),
        pci,
        power,
        fw_cfg,  # behind whatever has tables of its place in it
    ):
        machine.add_device(device)
    pci.add_function(0, 0, HostBridge(machine.memory.ram_size))
    pci.add_function(1, 0, isa_bridge)
    pci.add_function(1, 3, power.function)
    acpi.publish(fw_cfg, machine.memory, power)
