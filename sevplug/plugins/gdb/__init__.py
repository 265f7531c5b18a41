"""A server for GDB's remote protocol, on a UNIX socket or a loopback address.

``--gdb unix:PATH`` or ``--gdb tcp:127.0.0.1:PORT`` switches it on.  The bound address is in
``machine.private["gdb"].address``.  What it shows is the guest's own view: registers of its CPU, memory by its page
tables, private memory deciphered.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sevplug.core import events
from sevplug.core.hookspecs import hookimpl

if TYPE_CHECKING:
    import click

    from sevplug.core.machine import Machine

NAME = "gdb"


@hookimpl
def add_options(command: click.Command) -> None:
    import click

    command.params.append(
        click.Option(
            ["--gdb"],
            metavar="ADDRESS",
            help="Serve GDB at unix:PATH or tcp:127.0.0.1:PORT; with -S the guest waits for its continue.",
        )
    )


@hookimpl
def machine_init(machine: Machine) -> None:
    wanted = machine.config.options.get(NAME)
    if wanted is None:
        return
    from sevplug.plugins.gdb.service import Service

    machine.private[NAME] = Service(machine, str(wanted))
    machine.control.attended = True


@hookimpl
def notify(machine: Machine, event: str, fields: Mapping[str, Any]) -> None:
    service: Any = machine.private.get(NAME)
    if service is None:
        return
    if event == events.MACHINE_BUILT:
        service.start()
    elif event == events.RUN_STOP:
        service.stopped()
    elif event == events.RUN_END:
        service.ended(fields["result"], fields["detail"])


@hookimpl
def snapshot_save() -> None:
    """Nothing of the guest's is here."""


@hookimpl
def machine_close(machine: Machine) -> None:
    service: Any = machine.private.get(NAME)
    if service is not None:
        service.close()
