"""What the plug-in keeps for one machine: the server, and the session that has the guest."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sevplug.board.chardev import address
from sevplug.board.chardev.sockets import Listener
from sevplug.core.errors import ConfigError
from sevplug.plugins.gdb.server import GdbServer
from sevplug.plugins.gdb.session import Session
from sevplug.sevapi.context import SevContext
from sevplug.sevapi.policy import PolicyBit

if TYPE_CHECKING:
    from sevplug.core.machine import Machine

# Moments of this plug-in for the hook ``notify``.
GDB_LISTENING = "gdb.listening"  # address
GDB_ATTACHED = "gdb.attached"
GDB_DETACHED = "gdb.detached"


class Service:
    """One machine's GDB service.  Its methods belong to the machine's thread."""

    def __init__(self, machine: Machine, option: str) -> None:
        """Listen where ``option`` (the value of ``--gdb``) says; `ConfigError` when that cannot be."""
        parsed = address.parse("--gdb", option)
        if parsed.wait:
            raise ConfigError(f"--gdb {option}: only -S makes a guest wait for its debugger, expected wait=off")
        self._machine = machine
        self._session: Session | None = None
        self._warned = False
        self._server = GdbServer(machine, Listener("--gdb", parsed.address), self._came, self._left)

    @property
    def address(self) -> str:
        """Where clients connect, as ``--gdb`` takes it, with the port that the system chose."""
        return self._server.address

    def start(self) -> None:
        """Serve from now on."""
        self._server.start()
        self._machine.notify(GDB_LISTENING, address=self.address)

    def stopped(self) -> None:
        """The guest has stopped."""
        if self._session is not None:
            self._session.stopped()

    def ended(self, result: str, detail: str) -> None:
        """The guest has ended; nothing answers on the machine's thread any more."""
        if self._session is not None:
            self._session.ended(result, detail)
        self.close()

    def close(self) -> None:
        """Flush, hang up, and remove the socket's file; harmless when called again."""
        self._session = None
        self._server.close()

    def _came(self, session: Session) -> None:
        self._session = session
        self._machine.notify(GDB_ATTACHED)
        context = self._machine.launch.context
        if not self._warned and isinstance(context, SevContext) and PolicyBit.NODBG in context.policy:
            self._warned = True
            self._machine.warn("gdb: the guest's policy forbids debugging (NODBG), and hardware would refuse it")

    def _left(self, session: Session) -> None:
        session.leave()
        if self._session is session:
            self._session = None
            self._machine.notify(GDB_DETACHED)
