"""The hook that this plug-in publishes, so that others can bring commands of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sevplug.core.hookspecs import hookspec

if TYPE_CHECKING:
    from sevplug.plugins.qmp.registry import Registry


@hookspec
def add_qmp_commands(registry: Registry) -> None:
    """All, cold: a plug-in enters QMP commands with ``registry.add(Command(...))``.

    Runs once for a machine with a QMP server, while the machine is made; see `sevplug.plugins.qmp.registry`.  Names of
    commands that QEMU does not have should begin with the plug-in's name.  Mark the implementation with
    ``@hookimpl(optionalhook=True)``, so that the plug-in also fits where this one is left out.
    """
