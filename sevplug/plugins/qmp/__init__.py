"""A server for the QEMU machine protocol, on a UNIX socket or a loopback address.

``--qmp unix:PATH`` or ``--qmp tcp:127.0.0.1:PORT`` switches it on.  The bound address is in
``machine.private["qmp"].address``.  Other plug-ins add commands with the hook ``add_qmp_commands``
(`sevplug.plugins.qmp.hookspecs`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sevplug.core import events
from sevplug.core.hookspecs import hookimpl

if TYPE_CHECKING:
    import click
    import pluggy

    from sevplug.core.machine import Machine

NAME = "qmp"


@hookimpl
def add_hookspecs(manager: pluggy.PluginManager) -> None:
    from sevplug.plugins.qmp import hookspecs

    manager.add_hookspecs(hookspecs)


@hookimpl
def add_options(command: click.Command) -> None:
    import click

    command.params.append(
        click.Option(
            ["--qmp"],
            metavar="ADDRESS",
            help="Serve QMP at unix:PATH or tcp:127.0.0.1:PORT; with ,wait=on the guest starts when a client comes.",
        )
    )


@hookimpl
def machine_init(machine: Machine) -> None:
    wanted = machine.config.options.get(NAME)
    if wanted is None:
        return
    from sevplug.plugins.qmp.service import Service

    machine.private[NAME] = Service(machine, str(wanted))
    machine.control.attended = True


@hookimpl
def notify(machine: Machine, event: str, fields: Mapping[str, Any]) -> None:
    service: Any = machine.private.get(NAME)
    if service is None:
        return
    if event == events.MACHINE_BUILT:
        service.start()
    else:
        service.tell(event, fields)


@hookimpl
def snapshot_save() -> None:
    """Nothing of the guest's is here."""


@hookimpl
def machine_close(machine: Machine) -> None:
    service: Any = machine.private.get(NAME)
    if service is not None:
        service.close()
