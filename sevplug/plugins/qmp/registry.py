"""The commands a server knows; built-in ones and those of other plug-ins are entered the same way."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import attrs

from sevplug.core.errors import PluginError
from sevplug.plugins.qmp.arguments import Argument

if TYPE_CHECKING:
    from sevplug.core.machine import Machine

Handler = Callable[["Machine", Mapping[str, Any]], Any]


@attrs.frozen
class Command:
    """A command.

    ``handler(machine, arguments)`` gets the checked arguments by name and returns JSON values (None for ``{}``), or
    raises `QmpError`.  With ``on_machine`` it runs on the machine's thread between two instructions; without, on the
    server's, where it must not touch the machine.
    """

    name: str
    handler: Handler
    arguments: tuple[Argument, ...] = ()
    on_machine: bool = True


class Registry:
    """Commands by name, in the order of adding."""

    def __init__(self) -> None:
        self._commands: dict[str, Command] = {}

    def add(self, command: Command) -> None:
        """Enter ``command``; `PluginError` when there is one of its name."""
        if command.name in self._commands:
            raise PluginError(f"QMP command {command.name!r} is there twice: expected one plug-in to bring it")
        self._commands[command.name] = command

    def get(self, name: str) -> Command | None:
        """The command called ``name``, or None."""
        return self._commands.get(name)

    def __iter__(self) -> Iterator[Command]:
        return iter(self._commands.values())
