"""``sevplug qemu``: QEMU's own spelling, and QEMU's defaults."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import attrs
import click

from sevplug.board.disk import DiskSpec
from sevplug.cli.from_snapshot import key_option
from sevplug.cli.machine_command import MachineCommand, common_options, loaded_plugins, session_options
from sevplug.cli.qemu_options import QemuRequest, parse_qemu
from sevplug.cli.session import Session, embedded_guest, load_images, run_session
from sevplug.core.config import BootImages, MachineConfig
from sevplug.core.errors import ConfigError

HELP = """Run a guest with QEMU's own options.

\b
  -cpu MODEL  -accel tcg  -m SIZE  -smp 1  -name NAME
  -machine [type=pc,]memory-encryption=ID  (also -M; or confidential-guest-support=ID)
  -object sev-emulated,id=ID,cbitpos=47,reduced-phys-bits=1,tik=FILE,tek=FILE
  -bios FILE  -drive if=pflash,format=raw,unit=0|1,readonly=on|off,file=FILE
  -drive if=virtio,format=raw,file=FILE[,readonly=on|off][,snapshot=on|off]
  -drive if=none,id=ID,format=raw,file=FILE  -device virtio-blk-pci,drive=ID
  -kernel FILE  -initrd FILE  -append TEXT
  -S  -qmp unix:PATH,server=on[,wait=off]  (or tcp:127.0.0.1:PORT)
  -s  -gdb tcp::PORT|unix:PATH,server=on,wait=off|none  (on loopback addresses only)
  -serial stdio|mon:stdio|file:PATH|null|none|unix:PATH,server=on[,wait=off]  (or tcp:127.0.0.1:PORT)
  -nographic  -display none  -debugcon stdio|file:PATH|null
  -global isa-debugcon.iobase=0x402  (where the debug console always is)
  -nodefaults  -no-user-config  -no-reboot  -monitor none  -vga none  -parallel none  -net none  -nic none

Ctrl-C ends a run with -serial stdio; with mon:stdio or -nographic it goes to the guest, and Ctrl-A x ends the run.
There is no monitor to switch to.

What else QEMU knows is refused by name.  Without memory-encryption the guest is a plain one, as in QEMU.
sevplug's own options are written with two dashes.
"""
_REQUEST = "sevplug.qemu"


class QemuCommand(MachineCommand):
    """Takes QEMU's options out of the arguments before click sees the rest."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        request, own = parse_qemu(args)
        ctx.meta[_REQUEST] = request
        # SEV is on by default in sevplug; in QEMU's spelling a guest is plain unless the line says otherwise.
        self.extend(ctx, *(() if request.confidential else ("sev",)))
        return click.Command.parse_args(self, ctx, own)


def command() -> QemuCommand:
    """A fresh ``qemu`` command, for plug-ins to extend."""
    return QemuCommand(
        "qemu",
        callback=_qemu,
        help=HELP,
        short_help="Run a guest with QEMU's own options.",
        params=[*common_options(), key_option()],
        options_metavar="[QEMU OPTIONS] [OPTIONS]",
    )


@click.pass_context
def _qemu(ctx: click.Context, /, **values: Any) -> int:
    assert isinstance(ctx.command, QemuCommand)
    plugins = loaded_plugins(ctx, values["words"])
    request: QemuRequest = ctx.meta[_REQUEST]
    boot, secrets = _images(request)
    config = MachineConfig(
        boot=boot,
        memory=request.memory,
        objects=request.objects,
        machine_options=request.machine,
        options=_options(ctx.command.plugin_options(values), request, values["snapshot_key"]),
        serial=request.serial,
        paused=request.paused,
        reboot=request.reboot,
    )
    if request.cpu is not None:
        config = attrs.evolve(config, cpu=request.cpu)
    warnings = []
    if request.flash_kept:
        warnings.append(f"{request.flash[1]}: what the guest writes to its variables is not kept")
    warnings += [f"{disk.path}: what the guest writes to this disk is not kept" for disk in request.disks if disk.kept]
    session = Session(config, secrets, True, warnings=tuple(warnings), **session_options(values))
    return run_session(session, plugins)


def _images(request: QemuRequest) -> tuple[BootImages, dict[UUID, bytes]]:
    """The images of the request; the embedded guest takes the place of the firmware that QEMU brings itself."""
    code = ("-bios", request.bios) if request.bios is not None else None
    variables = None
    if request.flash:
        code = ("-drive if=pflash", request.flash[0])
        variables = ("-drive if=pflash", request.flash[1]) if len(request.flash) > 1 else None
    if code is None and request.kernel is None:
        return embedded_guest()
    kernel = None if request.kernel is None else ("-kernel", request.kernel)
    initrd = None if request.initrd is None else ("-initrd", request.initrd)
    return load_images(code, variables, kernel, initrd, request.append), {}


def _options(values: dict[str, Any], request: QemuRequest, key: str | None) -> dict[str, Any]:
    """The plug-ins' option values, with those that have a spelling of QEMU's own.

    `ConfigError` where the plug-in that would honour one is off.
    """
    for name, value in (("qmp", request.qmp), ("gdb", request.gdb), ("debugcon", request.debugcon)):
        if value is None:
            continue
        if name not in values:
            raise ConfigError(f"-{name} {value}: no enabled plug-in takes this option")
        values[name] = value
    if request.disks:
        if "disk" not in values:
            raise ConfigError(f"-drive file={request.disks[0].path}: no enabled plug-in takes this option")
        disks = [DiskSpec(disk.path, disk.read_only, "-drive") for disk in request.disks]
        values["disk"] = (*disks, *values["disk"])
    values["snapshot_key"] = key
    if request.name is not None:
        values["name"] = request.name
    return values
