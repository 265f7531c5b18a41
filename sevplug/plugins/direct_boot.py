"""The plug-in that starts a Linux kernel without firmware: what it needs is placed, and launched with the guest."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sevplug.core.hookspecs import hookimpl

if TYPE_CHECKING:
    from sevplug.core.machine import Machine


@hookimpl
def add_devices(machine: Machine) -> None:
    """A place for the loader below 4 GiB, where firmware would be."""
    if machine.config.boot.direct:
        from sevplug.boot.direct import LOADER_BASE, loader  # only for a guest that starts so

        machine.memory.add_rom(LOADER_BASE, loader(), "loader", writable=True)


@hookimpl
def add_launch_regions(machine: Machine) -> None:
    """The kernel and what belongs to it, in page tables with the C-bit where an enabled plug-in has one."""
    if not machine.config.boot.direct:
        return
    from sevplug.boot.direct import direct_regions

    memory = machine.memory
    mask: int = machine.plugins.hook.address_rule(cpu=machine.cpu) or 0
    tables = None
    if "power" in machine.private:  # the board that the tables describe
        from sevplug.board import acpi

        def tables(base: int) -> bytes:
            return acpi.build_tables(base, memory.low_ram_size)

    for region in direct_regions(machine.config.boot, memory.low_ram_size, memory.high_ram_size, mask, tables):
        machine.add_launch_region(region)
