"""``sevplug qemu``: QEMU's own spelling, and QEMU's defaults."""

from __future__ import annotations

from typing import Any

import click

from sevplug.cli.machine_command import MachineCommand, common_options, loaded_plugins
from sevplug.cli.qemu_options import QemuRequest, parse_qemu
from sevplug.cli.session import Session, embedded_guest, load_images, run_session
from sevplug.core.config import MachineConfig

HELP = """Run a guest with QEMU's own options.

\b
  -cpu MODEL  -accel tcg  -m SIZE  -smp 1  -name NAME
  -machine [type=pc,]memory-encryption=ID  (also -M; or confidential-guest-support=ID)
  -object sev-emulated,id=ID,cbitpos=47,reduced-phys-bits=1,tik=FILE,tek=FILE
  -bios FILE  -drive if=pflash,format=raw,unit=0|1,readonly=on|off,file=FILE
  -kernel FILE  -initrd FILE  -append TEXT
  -S  -qmp unix:PATH,server=on,wait=off  (or tcp:127.0.0.1:PORT)
  -serial stdio|file:PATH|null|none  -nographic  -display none  -debugcon file:PATH
  -nodefaults  -no-user-config  -no-reboot  -monitor none  -vga none  -parallel none  -net none  -nic none

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
        params=common_options(),
        options_metavar="[QEMU OPTIONS] [OPTIONS]",
    )


@click.pass_context
def _qemu(ctx: click.Context, /, **values: Any) -> int:
    assert isinstance(ctx.command, QemuCommand)
    plugins = loaded_plugins(ctx, values["words"])
    request: QemuRequest = ctx.meta[_REQUEST]
    return None  # type: ignore
