"""What the plug-in keeps for one machine: the socket, the server and the events it makes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sevplug.board.chardev import address
from sevplug.board.chardev.sockets import Listener
from sevplug.core import events
from sevplug.plugins.qmp import commands, debug_commands, human, memory_commands, sev_commands, snapshot_commands
from sevplug.plugins.qmp.event_map import QMP_LISTENING, QMP_WAITING, EventMap
from sevplug.plugins.qmp.registry import Registry
from sevplug.plugins.qmp.server import QmpServer

if TYPE_CHECKING:
    from sevplug.core.machine import Machine


class Service:
    """One machine's QMP service.  Its methods belong to the machine's thread."""

    def __init__(self, machine: Machine, option: str) -> None:
        """Listen where ``option`` (the value of ``--qmp``) says; `ConfigError` when that cannot be."""
        parsed = address.parse("--qmp", option)
        snapshot_commands.key_of(machine)  # before anybody relies on it
        registry = Registry()
        for commands_of in (commands, sev_commands, memory_commands, debug_commands, snapshot_commands, human):
            for command in commands_of.COMMANDS:
                registry.add(command)
        machine.plugins.hook.add_qmp_commands(registry=registry)
        self._machine = machine
        self._wait = parsed.wait
        self._events = EventMap(machine.config.reboot)
        self._server = QmpServer(machine, Listener("--qmp", parsed.address), registry)

    @property
    def address(self) -> str:
        """Where clients connect, as ``--qmp`` takes it, with the port that the system chose."""
        return self._server.address

    def start(self) -> None:
        """Serve from now on; with ``wait=on``, return when the first client has come."""
        self._server.start()
        self._machine.notify(QMP_LISTENING, address=self.address)
        if self._wait:
            self._machine.notify(QMP_WAITING, address=self.address)
            self._server.wait_for_client()

    def tell(self, name: str, fields: Mapping[str, Any]) -> None:
        """Pass a moment of the machine on to the client; the end of the run is the last one."""
        event = self._events.event(name, fields)
        if event is not None:
            self._server.send(event)
        if name == events.RUN_END:
            # Nothing answers on the machine's thread any more.
            self.close()

    def close(self) -> None:
        """Flush, hang up, and remove the socket's file; harmless when called again."""
        self._server.close()
