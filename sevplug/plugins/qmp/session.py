"""One client's conversation: greeting, negotiation, then commands; no sockets here.

Source: QEMU's ``docs/interop/qmp-spec.rst``, ``qapi/qmp-dispatch.c``, ``monitor/qmp.c`` and
``monitor/qmp-cmds-control.c``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

from sevplug.core.errors import SevplugError
from sevplug.plugins.qmp.arguments import ENUM_LIST, Argument, check
from sevplug.plugins.qmp.errors import COMMAND_NOT_FOUND, QmpError
from sevplug.plugins.qmp.json_stream import JsonError
from sevplug.plugins.qmp.qdict import ordered
from sevplug.plugins.qmp.registry import Command, Registry
from sevplug.plugins.qmp.version import version_info
from sevplug.plugins.qmp.writer import encode_line

if TYPE_CHECKING:
    from sevplug.core.machine import Machine

OnMachine = Callable[[Callable[[], Any]], Awaitable[Any]]

# A capability that QEMU knows; this server offers none, since out-of-band commands are not implemented.
_OOB = "oob"
_NEGOTIATE = "qmp_capabilities"


class Session:
    """What has been agreed with one client, and the answer to each of its messages."""

    def __init__(self, machine: Machine, registry: Registry, on_machine: OnMachine) -> None:
        """``on_machine``: calls a function on the machine's thread and awaits its result."""
        self._machine = machine
        self._on_machine = on_machine
        self._registry = Registry()
        self._registry.add(
            Command(
                _NEGOTIATE,
                self._negotiate,
                (Argument("enable", ENUM_LIST, optional=True, choices=(_OOB,)),),
                on_machine=False,
            )
        )
        self._registry.add(Command("query-commands", self._query_commands, on_machine=False))
        for command in registry:
            self._registry.add(command)
        self.negotiated = False
        """Until then the client gets no events, and no command but ``qmp_capabilities``."""

    def greeting(self) -> bytes:
        """The first line a client gets."""
        return encode_line({"QMP": {"version": version_info(), "capabilities": []}})

    async def answer(self, message: Any) -> bytes:
        """The reply to ``message``: any JSON value, or the `JsonError` that the stream held instead."""
        try:
            return _response(message, "return", await self._execute(message))
        except QmpError as error:
            return _response(message, "error", {"class": error.error_class, "desc": str(error)})

    async def _execute(self, message: Any) -> Any:
        if isinstance(message, JsonError):
            raise QmpError(str(message))
        name, sent = _checked_request(message)
        command = self._registry.get(name)
        if not self.negotiated and name != _NEGOTIATE:
            raise QmpError(f"Expecting capabilities negotiation with '{_NEGOTIATE}'", COMMAND_NOT_FOUND)
        if command is None:
            raise QmpError(f"The command {name} has not been found", COMMAND_NOT_FOUND)
        arguments = check(command.arguments, sent)
        if command.on_machine:
            result = await self._on_machine(lambda: run_command(self._machine, command, arguments))
        else:
            result = run_command(self._machine, command, arguments)
        return {} if result is None else result

    def _negotiate(self, _machine: Machine, arguments: Mapping[str, Any]) -> None:
        if self.negotiated:
            raise QmpError("Capabilities negotiation is already complete, command ignored", COMMAND_NOT_FOUND)
        if arguments.get("enable"):
            raise QmpError(f"Capability {', '.join(arguments['enable'])} not available")
        self.negotiated = True

    def _query_commands(self, _machine: Machine, _arguments: Mapping[str, Any]) -> list[dict[str, str]]:
        return [{"name": command.name} for command in self._registry]


def run_command(machine: Machine, command: Command, arguments: Mapping[str, Any]) -> Any:
    """Call a handler on the thread it belongs to; what it raises becomes a `QmpError`.

    A fault in the handler itself is the user's to know too, where a warning can be given.
    """
    try:
        return command.handler(machine, arguments)
    except QmpError:
        raise
    except SevplugError as error:
        raise QmpError(str(error)) from error
    except Exception as error:
        failed = f"QMP command {command.name} failed: "
        if command.on_machine:
            machine.warn(f"{failed}{machine.plugins.blame(error) or type(error).__name__}")
        # The text of a fault may quote anything, so it stays on this side of the socket.
        raise QmpError(failed + type(error).__name__) from error


def _response(message: Any, kind: str, value: Any) -> bytes:
    """A reply with the ``id`` of the ``message`` it answers, whatever type that has."""
    response = {kind: value}
    if isinstance(message, dict) and "id" in message:
        response["id"] = message["id"]
    try:
        return encode_line(response)
    except (TypeError, ValueError, AttributeError) as error:
        raise QmpError("the command did what it should, but its result is not JSON") from error


def _checked_request(message: Any) -> tuple[str, dict[str, Any]]:
    """The command's name and its arguments; members are judged in the order QEMU meets them."""
    if not isinstance(message, dict):
        raise QmpError("QMP input must be a JSON object")
    for name, value in ordered(message):
        match name:
            case "execute":
                if not isinstance(value, str):
                    raise QmpError("QMP input member 'execute' must be a string")
            case "arguments":
                if not isinstance(value, dict):
                    raise QmpError("QMP input member 'arguments' must be an object")
            case "id":
                pass
            case _:
                raise QmpError(f"QMP input member '{name}' is unexpected")
    if "execute" not in message:
        raise QmpError("QMP input lacks member 'execute'")
    return message["execute"], message.get("arguments", {})
