"""A machine small enough to look at, a server for it, and a client that sees every byte."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from sevplug.core import events
from sevplug.core.config import BootImages, Image, MachineConfig
from sevplug.core.control import Control
from sevplug.core.launch import Launch
from sevplug.core.machine import Machine
from sevplug.core.memory import GuestMemory
from sevplug.core.plugins import PluginManager
from sevplug.plugins import qmp
from sevplug.testing.machine_thread import MachineThread

MIB = 1 << 20
NEGOTIATE = b'{"execute":"qmp_capabilities"}'
GREETING = (
    b'{"QMP": {"version": {"qemu": {"micro": 0, "minor": 1, "major": 11}, "package": "sevplug 0.1.0"}, '
    b'"capabilities": []}}\r\n'
)


class FakeCpu:
    """Each register holds a number that tells which it is."""

    index = 0

    def get(self, register: str) -> int:
        return int.from_bytes(register.encode(), "little")


class FakeEngine:
    """``pages``: linear page -> guest-physical page."""

    def __init__(self) -> None:
        self.pages: dict[int, int] = {}

    def translate_debug(self, linear: int) -> int | None:
        page = self.pages.get(linear & ~0xFFF)
        return None if page is None else page | linear & 0xFFF


class Interrupt(BaseException):
    """What Ctrl-C is to a machine, without stopping the test run."""


class FakeMachine:
    """What the plug-in uses of a machine, without a CPU; the thread that calls `run` is the machine's."""

    def __init__(self, plugins: PluginManager, option: str) -> None:
        self.config = MachineConfig(options={"qmp": option})
        self.plugins = plugins
        self.control = Control()
        self.launch = Launch()
        self.memory = GuestMemory(MIB)
        self.engine = FakeEngine()
        self.cpu = FakeCpu()
        self.private: dict[str, object] = {}
        self.status = "prelaunch"
        self.ended: str | None = None
        self.warnings: list[str] = []
        self.interrupts = 0
        self.on_inject: Callable[[Any], int] | None = None

    def run(self) -> None:
        while self.ended is None:
            try:
                self.control.serve(0.05)
            except Interrupt:
                self.interrupts += 1
        self.notify(events.RUN_END, result=self.ended, detail="", seconds=0.0)

    def close(self) -> None:
        self.control.close()
        self.plugins.hook.machine_close(machine=self)
        self.memory.close()

    def notify(self, event: str, **fields: Any) -> None:
        self.plugins.hook.notify(machine=self, event=event, fields=fields)

    def warn(self, text: str) -> None:
        self.warnings.append(text)

    def resume(self) -> None:
        if self.status != "running":
            self.status = "running"
            self.notify(events.RUN_RESUME)

    def pause(self) -> None:
        if self.status == "running":
            self.status = "paused"
            self.notify(events.RUN_STOP)

    def system_reset(self) -> None:
        self.notify(events.GUEST_RESET, guest=False, reason="host-qmp-system-reset")

    def quit(self) -> None:
        self.notify(events.GUEST_SHUTDOWN, guest=False, reason="host-qmp-quit")
        self.ended = "quit"

    def inject_secret(self, packet: Any) -> int:
        assert self.on_inject is not None
        return self.on_inject(packet)


def plugin_manager(*others: object) -> PluginManager:
    """The qmp plug-in and ``others``, nothing else."""
    manager = PluginManager()
    manager.add(qmp, "qmp")
    for number, other in enumerate(others):
        manager.add(other, f"other{number}")
    manager.ready()
    return manager


@contextlib.contextmanager
def serving(option: str, *others: object) -> Iterator[FakeMachine]:
    """A fake machine whose own thread waits for requests while the block runs."""
    machine = FakeMachine(plugin_manager(*others), option)
    machine.plugins.hook.machine_init(machine=machine)
    thread = threading.Thread(target=machine.run)
    try:
        machine.notify(events.MACHINE_BUILT)
        thread.start()
        yield machine
    finally:
        if machine.ended is None:
            machine.ended = "timeout"
        if thread.ident is not None:
            thread.join()
        machine.close()


def spinning_guest() -> BootImages:
    """64 KiB of firmware whose first instruction jumps to itself."""
    image = bytearray(b"\xf4" * 0x10000)
    image[0xFFF0:0xFFF2] = b"\xeb\xfe"
    return BootImages(firmware=Image(bytes(image), "spin.bin"))


@contextlib.contextmanager
def real_machine(option: str, *others: object, **config: Any) -> Iterator[Machine]:
    """A real machine, paused, that runs on a thread of its own."""
    settings: dict[str, Any] = {"boot": spinning_guest(), "memory": MIB, "paused": True} | config
    settings["options"] = {"qmp": option, **settings.get("options", {})}
    thread = MachineThread(Machine(MachineConfig(**settings), plugin_manager(*others)))
    try:
        yield thread.machine
    finally:
        thread.end()


class Client:
    """A client that sends bytes as they are; a reply that does not come fails the test after a while."""

    def __init__(self, path: Path | str) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(10)
        self.socket.connect(str(path))
        self._buffer = b""

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def line(self) -> bytes:
        """The next line with its end; empty when the server has hung up."""
        while b"\n" not in self._buffer:
            data = self.socket.recv(65536)
            if not data:
                return self._buffer
            self._buffer += data
        line, newline, self._buffer = self._buffer.partition(b"\n")
        return line + newline

    def lines(self, count: int) -> bytes:
        return b"".join(self.line() for _ in range(count))

    def negotiate(self) -> Client:
        assert self.line() == GREETING
        self.send(NEGOTIATE)
        assert self.line() == b'{"return": {}}\r\n'
        return self

    def execute(self, command: str, **arguments: Any) -> Any:
        """The ``return`` of a command; its error fails the test."""
        reply = self.reply(command, **arguments)
        assert "return" in reply, reply
        return reply["return"]

    def refusal(self, command: str, **arguments: Any) -> str:
        """The text of the error that a command ends in."""
        error = self.reply(command, **arguments)["error"]
        assert error["class"] == "GenericError"
        return str(error["desc"])

    def reply(self, command: str, **arguments: Any) -> dict[str, Any]:
        named = {name.replace("_", "-"): value for name, value in arguments.items()}
        self.send(json.dumps({"execute": command, "arguments": named}).encode())
        while True:
            answer: dict[str, Any] = json.loads(self.line())
            if "event" not in answer:
                return answer

    def close(self) -> None:
        self.socket.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()
