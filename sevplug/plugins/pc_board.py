"""The plug-in that brings the board: a PC like QEMU's pc-i440fx, and the APIC base register."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sevplug.board.local_apic import LocalApic
from sevplug.board.pc import add_pc
from sevplug.core.errors import ConfigError
from sevplug.core.hookspecs import hookimpl
from sevplug.core.result import HALTED, SHUTDOWN, End
from sevplug.core.snapshot import SavedState
from sevplug.core.vcpu import VCpu
from sevplug.plugins.firmware_images import check_memory

if TYPE_CHECKING:
    import click

    from sevplug.core.machine import Machine

_APIC_BASE = 0x1B
_LOCAL_APIC = "pc-board"
# Parts of QEMU's PC that this board has not: "off" is the truth, "on" cannot be honoured.
_ABSENT = ("graphics", "hpet", "nvdimm", "smm", "usb", "vmport")


@hookimpl
def add_options(command: click.Command) -> None:
    """``--debugcon`` and ``--disk``."""
    import click  # only for those who come from the command line

    command.params += [
        click.Option(
            ["--debugcon"],
            metavar="file:PATH",
            help="Write what the firmware sends to the debug port 0x402 to a file (or stdio, null).",
        ),
        click.Option(
            ["--disk"],
            multiple=True,
            metavar="FILE[,readonly=on|off]",
            help="A raw image as a virtio disk.  The file is never written, changes stay in memory.  Repeatable.",
        ),
    ]


@hookimpl
def machine_init(machine: Machine) -> None:
    """Take the machine options that name this board; firmware has to fit on it."""
    check_memory(machine.config)
    kind = machine.take_option("type")
    if kind is not None and kind != "pc" and not kind.startswith("pc-i440fx-"):
        raise ConfigError(f"machine type {kind!r}: expected pc or pc-i440fx-VERSION")
    accelerator = machine.take_option("accel")
    if accelerator not in (None, "tcg"):
        raise ConfigError(f"machine option accel={accelerator}: expected tcg")
    for name in _ABSENT:
        value = machine.take_option(name)
        if value not in (None, "off"):
            raise ConfigError(f"machine option {name}={value}: expected off, this board has none")


@hookimpl
def add_devices(machine: Machine) -> None:
    """Build the PC."""
    debugcon = machine.config.options.get("debugcon")
    add_pc(machine, None if debugcon is None else str(debugcon))
    specs = machine.config.options.get("disk") or ()
    if specs:
        _add_disks(machine, specs)
    if machine.config.boot.direct:
        from sevplug.board.firmware_setup import FirmwareSetup

        machine.add_device(FirmwareSetup())


def _add_disks(machine: Machine, specs: object) -> None:
    """Each element is a `DiskSpec`, or text as ``--disk`` takes it."""
    # Only for machines with a disk.
    from sevplug.board.disk import Disk, DiskSpec, parse_disk
    from sevplug.board.virtio.block import SERIAL, BlockDevice

    assert isinstance(specs, Sequence)
    assert not isinstance(specs, str)
    for index, spec in enumerate(specs):
        disk = Disk(spec if isinstance(spec, DiskSpec) else parse_disk(str(spec)))
        machine.add_device(BlockDevice(disk, SERIAL if index == 0 else f"{SERIAL}-{index + 1}"))


@hookimpl
def add_launch_regions(machine: Machine) -> None:
    """No region; but the CPU is there now, and its MSR hooks need the APIC."""
    machine.cpu.private[_LOCAL_APIC] = machine.private["local_apic"]


@hookimpl
def rdmsr(cpu: VCpu, index: int) -> int | None:
    """APIC_BASE."""
    if index != _APIC_BASE:
        return None
    apic = cpu.private.get(_LOCAL_APIC)
    return apic.read_base() if isinstance(apic, LocalApic) else None


@hookimpl
def wrmsr(cpu: VCpu, index: int, value: int) -> bool | None:
    """APIC_BASE; `GuestFault` for reserved bits."""
    if index != _APIC_BASE:
        return None
    apic = cpu.private.get(_LOCAL_APIC)
    if not isinstance(apic, LocalApic):
        return None
    apic.write_base(value)
    return True


@hookimpl
def snapshot_save(machine: Machine) -> SavedState:
    """The devices save themselves; which disks there are has to be known to build them."""
    specs = machine.config.options.get("disk") or ()
    assert isinstance(specs, Sequence)
    texts = [str(spec) for spec in specs]
    return SavedState(options={"disk": texts} if texts else {})


@hookimpl
def guest_exit(cpu: VCpu, end: End) -> End | None:
    """A guest that has put its interrupt controller away before it halts ended on purpose, as Linux does at ``halt``.

    Source: ``stop_this_cpu`` in arch/x86/kernel/process.c of Linux.  Code that gives up just halts.
    """
    apic = cpu.private.get(_LOCAL_APIC)
    if end.result == HALTED and isinstance(apic, LocalApic) and apic.switched_off:
        return End(SHUTDOWN, end.detail)
    return None
